// Finds a specialisation by its name and runs it.
#include "cuda_on_cpu.h"

struct Entry {
  const char* name;
  void (*run)(Index3 grid, const void* batch, const void* plan);
};

Index3 threadIdx, blockIdx, gridDim;
long long loads_of_width[17], stores_of_width[17];

#define PART(name) extern const Entry name[];
PARTS
#undef PART

extern "C" int run_kernel(const char* name, unsigned x, unsigned y, unsigned z, const void* batch,
                          const void* plan) {
#define PART(part)                                                \
  for (const Entry* entry = part; entry->name; ++entry)           \
    if (!std::strcmp(entry->name, name)) {                        \
      entry->run({x, y, z}, batch, plan);                         \
      return 0;                                                   \
    }
  PARTS
#undef PART
  return 1;
}

extern "C" long long accesses(int stores, int width) {
  return stores ? stores_of_width[width] : loads_of_width[width];
}
