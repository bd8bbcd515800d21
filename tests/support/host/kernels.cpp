// One part of the kernel's specialisations, compiled for the CPU. KERNELS is a file of lines
// KERNEL(mix<...>), PART the name of the part's table.
#include "cuda_on_cpu.h"
#include "mixup.cu"

template <class Plan>
static void run(void (*kernel)(Batch, Plan), unsigned grid_x, unsigned grid_y, const void* batch,
                const void* plan) {
  launch(kernel, grid_x, grid_y, BLOCK, *static_cast<const Batch*>(batch),
         *static_cast<const Plan*>(plan));
}

struct Entry {
  const char* name;
  void (*run)(unsigned grid_x, unsigned grid_y, const void* batch, const void* plan);
};

extern const Entry PART[] = {
#define KERNEL(...)                                                                     \
  {#__VA_ARGS__, [](unsigned x, unsigned y, const void* batch, const void* plan) {      \
     run(&__VA_ARGS__, x, y, batch, plan);                                              \
   }},
#include KERNELS
    {nullptr, nullptr}};
