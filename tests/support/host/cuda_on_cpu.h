// What kernels/mixup.cu uses of CUDA, for a C++ compiler: blocks and threads become loops. Good for
// kernels without barriers, shared memory or warp intrinsics. Every access is checked for the
// alignment that a GPU would fault on, and counted by its width.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define MIXUP_ON_CPU
#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct Index3 {
  unsigned x, y, z;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
extern Index3 threadIdx, blockIdx, gridDim;  // one for all parts, as their functions are

extern long long loads_of_width[17], stores_of_width[17];

template <class T>
static void require_alignment(const T* at) {
  if (reinterpret_cast<uintptr_t>(at) % sizeof(T) == 0) return;
  std::fprintf(stderr, "misaligned access of %zu bytes at %p\n", sizeof(T), (const void*)at);
  std::abort();
}

template <class T>
static T __ldg(const T* from) {
  require_alignment(from);
  ++loads_of_width[sizeof(T)];
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
static void __stcs(T* to, T value) {
  require_alignment(to);
  ++stores_of_width[sizeof(T)];
  std::memcpy(to, &value, sizeof value);
}

static float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  unsigned result = 0;
  for (int k = 0; k < 4; ++k)
    result |= unsigned(bytes >> 8 * (selector >> 4 * k & 7) & 0xff) << 8 * k;
  return result;
}

static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }

static float half_to_float(unsigned bits) {
  const uint16_t half_bits = uint16_t(bits);
  _Float16 half;
  std::memcpy(&half, &half_bits, sizeof half);
  return float(half);
}

static unsigned half_bits(float value) {
  const _Float16 half = _Float16(value);
  uint16_t bits;
  std::memcpy(&bits, &half, sizeof bits);
  return bits;
}

static unsigned two_halves(float low, float high) { return half_bits(low) | half_bits(high) << 16; }

template <class Kernel, class Batch, class Plan>
static void launch(Kernel kernel, Index3 grid, unsigned block, const Batch& batch, const Plan& plan) {
  gridDim = grid;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x)
        for (unsigned t = 0; t < block; ++t) {
          blockIdx = {x, y, z};
          threadIdx = {t, 0, 0};
          kernel(batch, plan);
        }
}
