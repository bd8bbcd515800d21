// One part of the kernel's specialisations, compiled for the CPU. KERNELS is a file of lines
// KERNEL(mix<...>), PART the name of the part's table.
#include "cuda_on_cpu.h"
#include "mixup.cu"

template <class Plan>
static void run(void (*kernel)(Batch, Plan), Index3 grid, const void* batch,
                const void* plan) {
  launch(kernel, grid, BLOCK, *static_cast<const Batch*>(batch),
         *static_cast<const Plan*>(plan));
}

struct Entry {
  const char* name;
  void (*run)(Index3 grid, const void* batch, const void* plan);
};

extern const Entry PART[] = {
#define KERNEL(...)                                                     \
  {#__VA_ARGS__, [](Index3 grid, const void* batch, const void* plan) { \
     run(&__VA_ARGS__, grid, batch, plan);                              \
   }},
#include KERNELS
    {nullptr, nullptr}};
