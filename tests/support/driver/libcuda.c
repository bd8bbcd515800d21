// A libcuda.so.1 for machines without a GPU: what CuPy needs of the driver to load a module and to
// launch a function. The functions that do something call Python (stand_in.py).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef int Result;

static struct {
  Result (*load)(void** module, const void* image);
  Result (*function)(void** function, void* module, const char* name);
  Result (*launch)(void* function, const unsigned* sizes, void* stream, void** parameters);
  Result (*unload)(void* module);
} python;

void stand_in(void* load, void* function, void* launch, void* unload) {
  python.load = load;
  python.function = function;
  python.launch = launch;
  python.unload = unload;
}

Result cuInit(unsigned flags) { return 0; }
Result cuDriverGetVersion(int* version) { return *version = 12090, 0; }
Result cuDeviceGetCount(int* count) { return *count = 2, 0; }
Result cuDeviceGet(int* device, int number) { return *device = number, 0; }
Result cuCtxGetCurrent(void** context) { return *context = (void*)0x1000, 0; }
Result cuCtxSetCurrent(void* context) { return 0; }
Result cuModuleLoadData(void** module, const void* image) { return python.load(module, image); }
Result cuModuleUnload(void* module) { return python.unload(module); }

Result cuModuleGetFunction(void** function, void* module, const char* name) {
  return python.function(function, module, name);
}

Result cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                      unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                      void* stream, void** parameters, void** extra) {
  const unsigned sizes[] = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes};
  return python.launch(function, sizes, stream, parameters);
}

Result cuGetErrorName(Result error, const char** name) {
  *name = error == 1     ? "CUDA_ERROR_INVALID_VALUE"
          : error == 2   ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == 209 ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
          : error == 222 ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
          : error == 400 ? "CUDA_ERROR_INVALID_HANDLE"
          : error == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS"
          : error == 716 ? "CUDA_ERROR_MISALIGNED_ADDRESS"
          : error == 719 ? "CUDA_ERROR_LAUNCH_FAILED"
                         : "CUDA_ERROR_UNKNOWN";
  return 0;
}

Result cuGetErrorString(Result error, const char** text) { return *text = "planted", 0; }

// NVRTC and the CUDA runtime ask for tables that no documentation describes: there are none here.
Result cuGetExportTable(const void** table, const void* id) { return *table = NULL, 500; }

static Result missing(void) { return 500; }

Result cuGetProcAddress_v2(const char* name, void** function, int version, unsigned long long flags,
                           int* status) {
  char second[128];
  snprintf(second, sizeof second, "%s_v2", name);
  void* self = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_NOW);
  *function = self ? dlsym(self, second) : NULL;
  if (!*function && self) *function = dlsym(self, name);
  if (!*function) *function = (void*)missing;
  if (status) *status = 0;
  return 0;
}

Result cuGetProcAddress(const char* name, void** function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
