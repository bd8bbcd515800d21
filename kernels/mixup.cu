// Mixup and CutMix of a batch: pixels mixed, normalised, cast and laid out, and labels mixed, in one
// launch. CUDA C++17 without headers, barriers or shared memory, so that it compiles with NVRTC and,
// through a shim, with a C++ compiler for the CPU.
//
// Arithmetic: float32, every operation rounded once, none fused; dali_mixup/backends/reference.py is
// the reference and equals this file in every bit (a NaN is a NaN; which one is not defined).

typedef unsigned char Byte;
typedef unsigned short Half;
typedef unsigned int Word;
typedef long long Int64;

enum Dtype { UINT8, FLOAT16, BFLOAT16, FLOAT32 };
enum Layout { CHW, HWC };
enum Labels { NO_LABELS, INT32_IDS, INT64_IDS, DENSE_ROWS };

constexpr int BLOCK = 192;  // threads; a multiple of 3 and 4, see PERIOD

// How one sample is mixed. A box takes the partner's pixels inside it and is empty where
// y0 >= y1 or x0 >= x1; where there is one, lam weighs the label alone.
struct Sample {
  int partner;
  float lam;
  unsigned short y0, y1, x0, x1;
};

template <int CAPACITY>
struct PlanByValue {
  Sample samples[CAPACITY];
};

struct PlanByPointer {
  const Sample* samples;
};

// `labels` are class ids, or float32 rows of num_classes. Written are float32 rows of num_classes to
// `soft`; or, where `ids` is set, both class ids to its two rows of one each sample, and lam to
// `soft`. A class id out of range makes its sample's target NaN and is reported as int32 row + 1, int32
// num_classes and int64 id.
struct Batch {
  const Byte* images;
  Byte* out;
  const void* labels;
  float* soft;
  Int64* ids;
  uint4* report;
  int height, width;
  int num_classes, label_form;
  float keep, off;
  float mean[4], inverse_std[4];
};

// The host packs the same bytes (dali_mixup/backends/cuda/launch.py) and says here how many it thinks they are.
static_assert(sizeof(Batch) == MIXUP_BATCH_BYTES && sizeof(Sample) == 16, "launch parameters");

// ---- Conversion -----------------------------------------------------------------------------------

#ifndef MIXUP_ON_CPU
__device__ __forceinline__ float half_to_float(Word bits) {
  float value;
  asm("{.reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h;}" : "=f"(value) : "r"(bits));
  return value;
}

__device__ __forceinline__ Word two_halves(float low, float high) {
  Word bits;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
#else
  asm("{.reg .b16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h};}"
      : "=r"(bits) : "f"(low), "f"(high));
#endif
  return bits;
}
#endif

__device__ __forceinline__ Word bfloat16_bits(float value) {
  const Word bits = __float_as_uint(value);
  if (value != value) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

__device__ __forceinline__ Word two_bfloat16s(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  Word bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  return bfloat16_bits(low) | bfloat16_bits(high) << 16;
#endif
}

constexpr Word TWO_TO_23 = 0x4b000000;  // as float32; its last bits count ones

// Element e of packed elements, exactly. A byte becomes the last bits of 2^23 and 2^23 is taken off:
// PRMT and FADD run at several times the rate of an integer conversion. PRMT takes one immediate,
// which has to be the selector: 2^23, first, then stays in a register.
template <int DTYPE>
__device__ __forceinline__ float unpack(const Word* words, int e) {
  if constexpr (DTYPE == UINT8)
    return __fsub_rn(__uint_as_float(__byte_perm(TWO_TO_23, words[e / 4], 0x3004 | e % 4)),
                     __uint_as_float(TWO_TO_23));
  else if constexpr (DTYPE == FLOAT16)
    return half_to_float(words[e / 2] >> 16 * (e % 2) & 0xffff);
  else if constexpr (DTYPE == BFLOAT16)
    return __uint_as_float(e % 2 ? words[e / 2] & 0xffff0000 : words[e / 2] << 16);
  else
    return __uint_as_float(words[e]);
}

// The word of the elements from e on, each rounded once, to nearest even; past n they are 0. Adding
// 2^23 to what is in [0, 255] leaves it, rounded to an integer, in the last byte.
template <int DTYPE>
__device__ __forceinline__ Word pack(const float* values, int e, int n) {
  if constexpr (DTYPE == FLOAT32) return __float_as_uint(values[e]);
  const float next = e + 1 < n ? values[e + 1] : 0.0f;
  if constexpr (DTYPE == FLOAT16) return two_halves(values[e], next);
  if constexpr (DTYPE == BFLOAT16) return two_bfloat16s(values[e], next);
  Word bytes = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (e + k < n)
      bytes |= (__float_as_uint(__fadd_rn(values[e + k], __uint_as_float(TWO_TO_23))) & 0xff) << 8 * k;
  return bytes;
}

// ---- Memory ---------------------------------------------------------------------------------------

__device__ constexpr int size_of(int dtype) { return dtype == UINT8 ? 1 : dtype == FLOAT32 ? 4 : 2; }

__device__ constexpr int words_in(int bytes) { return (bytes + 3) / 4; }

// The widest access, 16 bytes at most, that a run of this many bytes is a multiple of.
__device__ constexpr int access_of(int bytes) {
  return bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : bytes % 2 == 0 ? 2 : 1;
}

template <int BYTES, int ACCESS>
__device__ __forceinline__ void load(const Byte* from, Word* words) {
  if constexpr (ACCESS < 4) {
#pragma unroll
    for (int k = 0; k < words_in(BYTES); ++k) words[k] = 0;
  }
#pragma unroll
  for (int k = 0; k < BYTES / ACCESS; ++k) {
    if constexpr (ACCESS == 16) {
      const uint4 four = __ldg(reinterpret_cast<const uint4*>(from) + k);
      words[4 * k] = four.x;
      words[4 * k + 1] = four.y;
      words[4 * k + 2] = four.z;
      words[4 * k + 3] = four.w;
    } else if constexpr (ACCESS == 8) {
      const uint2 two = __ldg(reinterpret_cast<const uint2*>(from) + k);
      words[2 * k] = two.x;
      words[2 * k + 1] = two.y;
    } else if constexpr (ACCESS == 4) {
      words[k] = __ldg(reinterpret_cast<const Word*>(from) + k);
    } else if constexpr (ACCESS == 2) {
      words[k / 2] |= Word(__ldg(reinterpret_cast<const Half*>(from) + k)) << 16 * (k % 2);
    } else {
      words[k / 4] |= Word(__ldg(from + k)) << 8 * (k % 4);
    }
  }
}

// What is stored leaves the L2 cache first, which is wanted for inputs: every image is read twice.
template <int BYTES, int ACCESS>
__device__ __forceinline__ void store(Byte* to, const Word* words) {
#pragma unroll
  for (int k = 0; k < BYTES / ACCESS; ++k) {
    if constexpr (ACCESS == 16) {
      uint4 four;
      four.x = words[4 * k];
      four.y = words[4 * k + 1];
      four.z = words[4 * k + 2];
      four.w = words[4 * k + 3];
      __stcs(reinterpret_cast<uint4*>(to) + k, four);
    } else if constexpr (ACCESS == 8) {
      uint2 two;
      two.x = words[2 * k];
      two.y = words[2 * k + 1];
      __stcs(reinterpret_cast<uint2*>(to) + k, two);
    } else if constexpr (ACCESS == 4) {
      __stcs(reinterpret_cast<Word*>(to) + k, words[k]);
    } else if constexpr (ACCESS == 2) {
      __stcs(reinterpret_cast<Half*>(to) + k, Half(words[k / 2] >> 16 * (k % 2)));
    } else {
      __stcs(to + k, Byte(words[k / 4] >> 8 * (k % 4)));
    }
  }
}

// How PIXELS pixels with all their CHANNELS lie in an image: one run where channels are interleaved,
// one a channel where they are planes. A single pixel may lie anywhere; more of them start at a
// multiple of PIXELS, in planes and memory aligned to it (dali_mixup/launch.py sees to that).
template <int DTYPE, int LAYOUT, int CHANNELS, int PIXELS>
struct Chunk {
  static constexpr int RUNS = LAYOUT == HWC ? 1 : CHANNELS;
  static constexpr int LENGTH = PIXELS * CHANNELS / RUNS;
  static constexpr int BYTES = LENGTH * size_of(DTYPE);
  static constexpr int WORDS = words_in(BYTES);
  static constexpr int ACCESS = PIXELS == 1 ? size_of(DTYPE) : access_of(BYTES);

  __device__ static __forceinline__ Int64 offset(int run, int start, int plane) {
    return (LAYOUT == HWC ? Int64(start) * CHANNELS : Int64(run) * plane + start) * size_of(DTYPE);
  }

  __device__ static __forceinline__ int run(int channel) { return LAYOUT == HWC ? 0 : channel; }

  __device__ static __forceinline__ int element(int pixel, int channel) {
    return LAYOUT == HWC ? pixel * CHANNELS + channel : pixel;
  }

  __device__ static __forceinline__ float value(const Word (&words)[RUNS][WORDS], int pixel,
                                                int channel) {
    return unpack<DTYPE>(words[run(channel)], element(pixel, channel));
  }
};

// ---- Labels ---------------------------------------------------------------------------------------

__device__ __forceinline__ Int64 class_id(const Batch& batch, int i) {
  return batch.label_form == INT32_IDS ? static_cast<const int*>(batch.labels)[i]
                                       : static_cast<const Int64*>(batch.labels)[i];
}

__device__ __forceinline__ float mix_values(float own, float partner, float lam, float rest) {
  return __fadd_rn(__fmul_rn(lam, own), __fmul_rn(rest, partner));
}

// The target of sample i, by one block.
__device__ __forceinline__ void write_target(const Batch& batch, const Sample& sample, int i) {
  const float lam = sample.lam, rest = __fsub_rn(1.0f, lam);
  float* row = batch.soft + Int64(i) * batch.num_classes;

  if (batch.label_form == DENSE_ROWS) {
    const float* rows = static_cast<const float*>(batch.labels);
    const float* own = rows + Int64(i) * batch.num_classes;
    const float* partner = rows + Int64(sample.partner) * batch.num_classes;
    for (int k = threadIdx.x; k < batch.num_classes; k += BLOCK) {
      const float a = __fadd_rn(__fmul_rn(batch.keep, own[k]), batch.off);
      const float b = __fadd_rn(__fmul_rn(batch.keep, partner[k]), batch.off);
      row[k] = lam == 1.0f ? a : lam == 0.0f ? b : mix_values(a, b, lam, rest);
    }
    return;
  }

  const Int64 own = class_id(batch, i), partner = class_id(batch, sample.partner);
  const bool own_good = own >= 0 && own < batch.num_classes;
  const bool good = own_good && partner >= 0 && partner < batch.num_classes;
  const float nan = __uint_as_float(0x7fc00000);
  if (!own_good && threadIdx.x == 0) {
    uint4 found;  // stored at once, so that its parts belong together
    found.x = i + 1;
    found.y = batch.num_classes;
    found.z = Word(own);
    found.w = Word(own >> 32);
    __stcs(batch.report, found);
  }
  if (batch.ids) {
    if (threadIdx.x == 0) {
      batch.ids[i] = good ? own : 0;
      batch.ids[gridDim.x + i] = good ? partner : 0;
      batch.soft[i] = good ? lam : nan;
    }
    return;
  }
  const float on = __fadd_rn(batch.keep, batch.off);
  const int own_class = int(own), partner_class = int(partner);
  for (int k = threadIdx.x; k < batch.num_classes; k += BLOCK) {
    const float a = k == own_class ? on : batch.off, b = k == partner_class ? on : batch.off;
    row[k] = good ? mix_values(a, b, lam, rest) : nan;
  }
}

// ---- Images ---------------------------------------------------------------------------------------

// Bit p: pixel start + p is the partner's.
template <int PIXELS, int PERIOD>
__device__ __forceinline__ Word inside(const Sample& sample, int start, int width) {
  const int x0 = sample.x0 * PERIOD, x1 = sample.x1 * PERIOD;
  int y = start / width, x = start - y * width;
  Word bits = 0;
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) {
    if (y >= sample.y0 && y < sample.y1 && x >= x0 && x < x1) bits |= 1u << p;
    if (++x == width) {
      x = 0;
      ++y;
    }
  }
  return bits;
}

// Grid: x a sample, so that an image and its partner are in flight together and the second read of
// each finds it in the L2 cache; y a tile of UNROLL * BLOCK * PIXELS pixels, before them one for the
// target where there are labels. Neighbouring threads take neighbouring chunks.
//
// HWC to HWC needs no transposition: it is launched as one plane of width * PERIOD elements, whose
// channel is their index modulo PERIOD (elsewhere 1). BLOCK is a multiple of PERIOD, so that all
// chunks of a thread begin with the same channel.
//
// height * width * channels < 2^31; `out` overlaps nothing; only `images` and `labels` are read.
template <int IN, int IN_LAYOUT, int OUT, int OUT_LAYOUT, int CHANNELS, int PERIOD, int PIXELS,
          int UNROLL, class Plan>
__global__ void __launch_bounds__(BLOCK)
    mix(const __grid_constant__ Batch batch, const __grid_constant__ Plan plan) {
  using From = Chunk<IN, IN_LAYOUT, CHANNELS, PIXELS>;
  using To = Chunk<OUT, OUT_LAYOUT, CHANNELS, PIXELS>;
  static_assert(BLOCK % PERIOD == 0 && (PERIOD == 1 || CHANNELS == 1), "channels of a thread");

  const int i = blockIdx.x;
  const Sample sample = plan.samples[i];
  int tile = blockIdx.y;
  if (batch.label_form != NO_LABELS && tile-- == 0) {
    write_target(batch, sample, i);
    return;
  }
  const int width = batch.width * PERIOD, plane = batch.height * width;
  const int first = (tile * UNROLL * BLOCK + threadIdx.x) * PIXELS;
  if (first >= plane) return;

  const Int64 image = Int64(plane) * CHANNELS;
  const Byte* own_image = batch.images + i * image * size_of(IN);
  const Byte* partner_image = batch.images + sample.partner * image * size_of(IN);
  Byte* out_image = batch.out + i * image * size_of(OUT);

  const bool boxed = sample.y0 < sample.y1 && sample.x0 < sample.x1;
  const bool selects = boxed || sample.lam == 1.0f || sample.lam == 0.0f;
  constexpr Word ALL = Word((1ull << PIXELS) - 1);

  Word own[UNROLL][From::RUNS][From::WORDS] = {}, partner[UNROLL][From::RUNS][From::WORDS] = {};
  Word partners[UNROLL];
#pragma unroll
  for (int u = 0; u < UNROLL; ++u) {
    const int start = first + u * BLOCK * PIXELS;
    partners[u] = sample.lam == 1.0f ? 0 : ALL;
    if (start >= plane) continue;
    if (boxed) partners[u] = inside<PIXELS, PERIOD>(sample, start, width);
    const bool wants_own = !selects || partners[u] != ALL;
    const bool wants_partner = !selects || partners[u] != 0;
#pragma unroll
    for (int run = 0; run < From::RUNS; ++run) {
      const Int64 at = From::offset(run, start, plane);
      if (wants_own) load<From::BYTES, From::ACCESS>(own_image + at, own[u][run]);
      if (wants_partner) load<From::BYTES, From::ACCESS>(partner_image + at, partner[u][run]);
    }
  }

  constexpr int VALUES = PERIOD > 1 ? PERIOD : CHANNELS;
  float mean[VALUES], inverse_std[VALUES];
#pragma unroll
  for (int c = 0; c < VALUES; ++c) {
    const int channel = PERIOD > 1 ? (first + c) % PERIOD : c;
    mean[c] = batch.mean[channel];
    inverse_std[c] = batch.inverse_std[channel];
  }

  const float lam = sample.lam, rest = __fsub_rn(1.0f, lam);
#pragma unroll
  for (int u = 0; u < UNROLL; ++u) {
    const int start = first + u * BLOCK * PIXELS;
    if (start >= plane) break;
    float mixed[PIXELS][CHANNELS];
    if (selects) {
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
          mixed[p][c] = partners[u] >> p & 1 ? From::value(partner[u], p, c)
                                             : From::value(own[u], p, c);
    } else {
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
          mixed[p][c] = mix_values(From::value(own[u], p, c), From::value(partner[u], p, c), lam,
                                   rest);
    }
    float values[To::RUNS][To::LENGTH];
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) {
#pragma unroll
      for (int c = 0; c < CHANNELS; ++c) {
        const int v = PERIOD > 1 ? p % PERIOD : c;
        values[To::run(c)][To::element(p, c)] =
            __fmul_rn(__fsub_rn(mixed[p][c], mean[v]), inverse_std[v]);
      }
    }
#pragma unroll
    for (int run = 0; run < To::RUNS; ++run) {
      Word words[To::WORDS];
#pragma unroll
      for (int w = 0; w < To::WORDS; ++w)
        words[w] = pack<OUT>(values[run], w * 4 / size_of(OUT), To::LENGTH);
      store<To::BYTES, To::ACCESS>(out_image + To::offset(run, start, plane), words);
    }
  }
}
