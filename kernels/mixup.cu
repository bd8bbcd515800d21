// Mixup and CutMix of a batch: pixels mixed, normalised, cast and laid out, and labels mixed, in one
// launch. CUDA C++17 without headers, barriers or shared memory, so that it compiles with NVRTC and,
// through a shim, with a C++ compiler for the CPU.
//
// Arithmetic: float32, every operation rounded once; dali_mixup/backends/reference.py is the reference
// and equals this file in every bit (a NaN is a NaN; which one is not defined).

typedef unsigned char Byte;
typedef unsigned short Half;
typedef unsigned int Word;
typedef long long Int64;
typedef unsigned long long Word64;

enum Dtype { UINT8, UINT16, UINT32, FLOAT16, BFLOAT16, FLOAT32 };  // UINT32: masks alone
enum Layout { CHW, HWC };
enum Frames { STILLS, CLIPS, PLANES };
enum Labels { NO_LABELS, INT32_IDS, INT64_IDS, DENSE_ROWS };

constexpr int BLOCK = 192;  // threads; a multiple of 3 and 4, see PERIOD
constexpr int ANY = 0;

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
  Word plane, width;  // pixels of an image, and of its rows
  Word clip;          // elements of a sample of CLIPS; and those to its next frame and next plane:
  Word in_frame, in_plane, out_frame, out_plane;
  int num_classes, label_form;
  Word channels, tile;           // of transpose: pixels that a block takes
  float keep, off;
  float mean[4], inverse_std[4];
  const float* normalisation;  // of other channels than 1, 3 and 4: all means, then all 1 / std; or null
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

__device__ constexpr bool is_integer(int dtype) { return dtype == UINT8 || dtype == UINT16; }

// 2^23 + integer e of packed ones: the last bits of 2^23 as a float32 count ones. PRMT runs at several
// times the rate of an integer conversion. It takes one immediate, which has to be the selector: 2^23,
// first, then stays in a register.
constexpr Word TWO_TO_23 = 0x4b000000;

template <int DTYPE>
__device__ __forceinline__ float integer_and_two_to_23(const Word* words, int e) {
  if constexpr (DTYPE == UINT8)
    return __uint_as_float(__byte_perm(TWO_TO_23, words[e / 4], 0x3004 | e % 4));
  else
    return __uint_as_float(__byte_perm(TWO_TO_23, words[e / 2], e % 2 ? 0x3276 : 0x3254));
}

// Element e of packed elements, exactly.
template <int DTYPE>
__device__ __forceinline__ float unpack(const Word* words, int e) {
  if constexpr (is_integer(DTYPE))
    return __fsub_rn(integer_and_two_to_23<DTYPE>(words, e), __uint_as_float(TWO_TO_23));
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

// ---- Two values at a time -------------------------------------------------------------------------

// Each is rounded as alone. From compute capability 10.0 on, one instruction makes both.
struct Two {
  float a, b;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define ON_TWO(name, instruction, intrinsic)                                                   \
  __device__ __forceinline__ Two name(Two x, Two y) {                                          \
    Two z;                                                                                     \
    asm("{.reg .b64 x, y; mov.b64 x, {%2, %3}; mov.b64 y, {%4, %5}; " instruction " x, x, y; " \
        "mov.b64 {%0, %1}, x;}"                                                                \
        : "=f"(z.a), "=f"(z.b) : "f"(x.a), "f"(x.b), "f"(y.a), "f"(y.b));                      \
    return z;                                                                                  \
  }
#else
#define ON_TWO(name, instruction, intrinsic)          \
  __device__ __forceinline__ Two name(Two x, Two y) { \
    return {intrinsic(x.a, y.a), intrinsic(x.b, y.b)}; \
  }
#endif
ON_TWO(add, "add.rn.f32x2", __fadd_rn)
ON_TWO(subtract, "sub.rn.f32x2", __fsub_rn)
ON_TWO(multiply, "mul.rn.f32x2", __fmul_rn)

__device__ __forceinline__ Two multiply_add(Two x, Two y, Two z) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  Two sum;
  asm("{.reg .b64 x, y, z; mov.b64 x, {%2, %3}; mov.b64 y, {%4, %5}; mov.b64 z, {%6, %7}; "
      "fma.rn.f32x2 x, x, y, z; mov.b64 {%0, %1}, x;}"
      : "=f"(sum.a), "=f"(sum.b) : "f"(x.a), "f"(x.b), "f"(y.a), "f"(y.b), "f"(z.a), "f"(z.b));
  return sum;
#else
  return {__fmaf_rn(x.a, y.a, z.a), __fmaf_rn(x.b, y.b, z.b)};
#endif
}

__device__ __forceinline__ Two twice(float value) { return {value, value}; }

// lam or 1 - lam, and what takes 2^23 times as much off again.
struct Weight {
  Two value, offset;

  __device__ __forceinline__ explicit Weight(float weight)
      : value(twice(weight)), offset(twice(__fmul_rn(weight, -__uint_as_float(TWO_TO_23)))) {}
};

// weight * element e and weight * element f, each rounded once. For an integer v that is
// fma(2^23 + v, weight, -2^23 * weight): both products are exact inside it.
template <int DTYPE>
__device__ __forceinline__ Two weighted(const Word* words, int e, int f, const Weight& weight) {
  if constexpr (is_integer(DTYPE))
    return multiply_add({integer_and_two_to_23<DTYPE>(words, e), integer_and_two_to_23<DTYPE>(words, f)},
                        weight.value, weight.offset);
  else
    return multiply(weight.value, {unpack<DTYPE>(words, e), unpack<DTYPE>(words, f)});
}

// The sum of two such products. ptxas 12.9 fuses mul.rn.f32x2 and add.rn.f32x2 (13.5 does not), with
// --fmad=false too. It does not fuse mul.rn.f32x2 and add.rn.f32.
template <int DTYPE>
__device__ __forceinline__ Two sum_of_weighted(Two x, Two y) {
  if constexpr (is_integer(DTYPE))
    return add(x, y);
  else
    return {__fadd_rn(x.a, y.a), __fadd_rn(x.b, y.b)};
}

// ---- Memory ---------------------------------------------------------------------------------------

__device__ constexpr int size_of(int dtype) {
  return dtype == UINT8 ? 1 : dtype == FLOAT32 || dtype == UINT32 ? 4 : 2;
}

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
  static constexpr int WORDS = words_in(BYTES), ALL_WORDS = RUNS * WORDS;
  static constexpr int NEXT = PIXELS > 1;
  static constexpr int ACCESS = PIXELS == 1 ? size_of(DTYPE) : access_of(BYTES);

  // The element at which the first run begins.
  __device__ static __forceinline__ Word offset(Word start) {
    return LAYOUT == HWC ? start * CHANNELS : start;
  }

  __device__ static __forceinline__ int run(int channel) { return LAYOUT == HWC ? 0 : channel; }

  __device__ static __forceinline__ int element(int pixel, int channel) {
    return LAYOUT == HWC ? pixel * CHANNELS + channel : pixel;
  }

  Word words[RUNS][WORDS];

  // `sample` and `start` count elements; so does `plane`, from one run to the next.
  __device__ __forceinline__ void load_from(const Byte* images, Word64 sample, Word start, Word plane) {
    const Byte* from = images + (sample + start) * size_of(DTYPE);
#pragma unroll
    for (int run = 0; run < RUNS; ++run, from += Word64(plane) * size_of(DTYPE))
      load<BYTES, ACCESS>(from, words[run]);
  }

  // Take the pixels whose bits are set.
  __device__ __forceinline__ void take(const Chunk& other, Word pixels) {
    constexpr int SIZE = size_of(DTYPE);
#pragma unroll
    for (int w = 0; w < WORDS; ++w) {
      Word mask = 0;
#pragma unroll
      for (int e = w * 4 / SIZE; e < (w + 1) * 4 / SIZE; ++e)
        if (pixels >> (LAYOUT == HWC ? e / CHANNELS : e) & 1)
          mask |= ~0u >> (32 - 8 * SIZE) << 8 * SIZE * (e % (4 / SIZE));
#pragma unroll
      for (int run = 0; run < RUNS; ++run)
        words[run][w] = (words[run][w] & ~mask) | (other.words[run][w] & mask);
    }
  }

  // The pixels whose bits are set are the partner's, the others the sample's own.
  __device__ __forceinline__ void load_selected(const Byte* images, Word64 own, Word64 partner,
                                                Word pixels, Word start, Word plane) {
    constexpr Word ALL = (1u << PIXELS) - 1;
    load_from(images, pixels == ALL ? partner : own, start, plane);
    if (pixels != 0 && pixels != ALL) {
      Chunk other;
      other.load_from(images, partner, start, plane);
      take(other, pixels);
    }
  }

  // A channel of two pixels, this one and the next one if there is one.
  __device__ __forceinline__ Two values(int pixel, int channel) const {
    const Word* from = words[run(channel)];
    return {unpack<DTYPE>(from, element(pixel, channel)),
            unpack<DTYPE>(from, element(pixel + NEXT, channel))};
  }

  __device__ __forceinline__ Two weighted(int pixel, int channel, const Weight& weight) const {
    return ::weighted<DTYPE>(words[run(channel)], element(pixel, channel),
                             element(pixel + NEXT, channel), weight);
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

// ---- Normalisation --------------------------------------------------------------------------------

struct Scale {
  float mean, inverse_std;

  __device__ __forceinline__ float of(float value) const {
    return __fmul_rn(__fsub_rn(value, mean), inverse_std);
  }
};

// Of a channel, where there are other numbers of them than 1, 3 and 4.
__device__ __forceinline__ Scale scale_of(const Batch& batch, Word channel) {
  const float* all = batch.normalisation;
  if (!all) return {batch.mean[0], batch.inverse_std[0]};
  return {__ldg(all + channel), __ldg(all + batch.channels + channel)};
}

// ---- Images ---------------------------------------------------------------------------------------

// The lowest bits, as many as this, at most PIXELS of them.
template <int PIXELS>
__device__ __forceinline__ Word ones(int count) {
  return (1u << (count < 0 ? 0 : count < PIXELS ? count : PIXELS)) - 1;
}

__device__ __forceinline__ bool is_boxed(const Sample& sample) {
  return sample.y0 < sample.y1 && sample.x0 < sample.x1;
}

// Whether pixels are taken as they are, and not weighted.
__device__ __forceinline__ bool is_selected(const Sample& sample) {
  return is_boxed(sample) || sample.lam == 1.0f || sample.lam == 0.0f;
}

// Of a sample that is selected: whether a pixel is the partner's.
__device__ __forceinline__ bool takes_pixel(const Sample& sample, Word y, Word x) {
  if (!is_boxed(sample)) return sample.lam == 0.0f;
  return y >= sample.y0 && y < sample.y1 && x >= sample.x0 && x < sample.x1;
}

// Of a sample that is selected, bit p: pixel start + p is the partner's. Rows of `width` elements have
// `period` elements a pixel.
template <int PIXELS>
__device__ __forceinline__ Word taken(const Sample& sample, Word start, Word width, Word period) {
  if (!is_boxed(sample)) return sample.lam == 1.0f ? 0 : ones<PIXELS>(PIXELS);
  Word y = start / width, x = start - y * width;
  Word bits = 0;
  for (Word p = 0; p < PIXELS; p += width - x, x = 0, ++y)
    if (y >= sample.y0 && y < sample.y1)
      bits |= (ones<PIXELS>(sample.x1 * period - x) & ~ones<PIXELS>(sample.x0 * period - x)) << p;
  return bits & ones<PIXELS>(PIXELS);
}

// Blocks that a multiprocessor has to have room for. 8 limit a thread to 40 registers, where what it
// holds fits into them without spilling; 1 is no limit. Operations on two values need more.
template <int DTYPE, int WORDS, int VALUES, int UNROLL>
__device__ constexpr int blocks_of() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  constexpr bool FITS = DTYPE == UINT8 && UNROLL == 1;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  constexpr bool FITS = false;
#else
  constexpr bool FITS = true;
#endif
  return FITS && WORDS <= 12 && VALUES <= 24 ? 8 : 1;
}

// Grid: x a sample, so that an image and its partner are in flight together and the second read of
// each finds it in the L2 cache; y a tile of UNROLL * BLOCK * PIXELS pixels, and after them one for
// the target where there are labels. Neighbouring threads take neighbouring chunks.
//
// HWC to HWC needs no transposition: it is launched as one plane of width * PERIOD elements, whose
// channel is their index modulo PERIOD (elsewhere 1). BLOCK is a multiple of PERIOD, so that all
// chunks of a thread begin with the same channel. ANY stands for other numbers of channels.
//
// The frames of CLIPS are mixed alike, one for each z of the grid. PLANES are those of any number of
// channels in CHW, FCHW or CFHW, one for each z, with a mean and std of its own.
//
// A sample has less than 2^31 elements; `out` overlaps nothing; only `images` and `labels` are read.
template <int IN, int IN_LAYOUT, int OUT, int OUT_LAYOUT, int CHANNELS, int PERIOD, int PIXELS,
          int UNROLL, int FRAMES, class Plan>
__global__ void __launch_bounds__(
    BLOCK, (blocks_of<IN, Chunk<IN, IN_LAYOUT, CHANNELS, PIXELS>::ALL_WORDS,
                      PIXELS * CHANNELS * PERIOD, UNROLL>()))
    mix(const __grid_constant__ Batch batch, const __grid_constant__ Plan plan) {
  using From = Chunk<IN, IN_LAYOUT, CHANNELS, PIXELS>;
  using To = Chunk<OUT, OUT_LAYOUT, CHANNELS, PIXELS>;
  static_assert(PERIOD == ANY || BLOCK % PERIOD == 0, "channels of a thread");
  static_assert(PERIOD == 1 || CHANNELS == 1, "channels of a thread");

  const Word i = blockIdx.x;
  const Sample sample = plan.samples[i];
  const Word period = PERIOD == ANY ? batch.channels : PERIOD;
  const Word width = batch.width * period, plane = batch.plane * period;
  const Word first = (blockIdx.y * UNROLL * BLOCK + threadIdx.x) * PIXELS;
  if (first >= plane) {
    const bool last = blockIdx.y == gridDim.y - 1 && blockIdx.z == 0;
    if (batch.label_form != NO_LABELS && last) write_target(batch, sample, i);
    return;
  }
  const Word elements = FRAMES == STILLS ? plane * CHANNELS : batch.clip;
  const Word64 own_image = Word64(i) * elements;
  const Word64 partner_image = Word64(Word(sample.partner)) * elements;
  const Word frame = FRAMES == PLANES ? blockIdx.z / batch.channels : blockIdx.z;
  const Word channel_of_plane = FRAMES == PLANES ? blockIdx.z - frame * batch.channels : 0;
  const Word in_plane = FRAMES == STILLS ? plane : batch.in_plane;
  const Word out_plane = FRAMES == STILLS ? plane : batch.out_plane;
  const Word in_frame =
      FRAMES == STILLS ? 0 : frame * batch.in_frame + channel_of_plane * in_plane;
  const Word out_frame =
      FRAMES == STILLS ? 0 : frame * batch.out_frame + channel_of_plane * out_plane;

  const bool selects = is_selected(sample);
  const Weight lam(sample.lam), rest(__fsub_rn(1.0f, sample.lam));

  constexpr int VALUES = PERIOD == ANY ? PIXELS : PERIOD > 1 ? PERIOD : CHANNELS;
  Scale scales[VALUES];
  if constexpr (FRAMES == PLANES) scales[0] = scale_of(batch, channel_of_plane);
  if constexpr (FRAMES != PLANES && PERIOD != ANY) {
#pragma unroll
    for (int c = 0; c < VALUES; ++c) {
      const Word channel = PERIOD > 1 ? (first + c) % PERIOD : c;
      scales[c] = {batch.mean[channel], batch.inverse_std[channel]};
    }
  }

#pragma unroll
  for (int u = 0; u < UNROLL; ++u) {
    const Word start = first + u * BLOCK * PIXELS;
    if (start >= plane) return;
    const Word from = in_frame + From::offset(start);
    From own;
    Two mixed[(PIXELS + 1) / 2][CHANNELS];
    if (selects) {
      const Word partners = taken<PIXELS>(sample, start, width, period);
      own.load_selected(batch.images, own_image, partner_image, partners, from, in_plane);
#pragma unroll
      for (int p = 0; p < PIXELS; p += 2)
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
          mixed[p / 2][c] = own.values(p, c);
    } else {
      From partner;
      own.load_from(batch.images, own_image, from, in_plane);
      partner.load_from(batch.images, partner_image, from, in_plane);
#pragma unroll
      for (int p = 0; p < PIXELS; p += 2)
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
          mixed[p / 2][c] = sum_of_weighted<IN>(own.weighted(p, c, lam), partner.weighted(p, c, rest));
    }
    if constexpr (PERIOD == ANY) {
      Word channel = start % period;
#pragma unroll
      for (int p = 0; p < PIXELS; ++p) {
        scales[p] = scale_of(batch, channel);
        if (++channel == period) channel = 0;
      }
    }
    float values[To::RUNS][To::LENGTH];
#pragma unroll
    for (int p = 0; p < PIXELS; p += 2) {
#pragma unroll
      for (int c = 0; c < CHANNELS; ++c) {
        constexpr int CYCLE = PERIOD == ANY ? PIXELS : PERIOD;
        const int v = PERIOD == 1 ? c : p % CYCLE, next = PERIOD == 1 ? c : (p + 1) % CYCLE;
        const Two normal = multiply(subtract(mixed[p / 2][c], {scales[v].mean, scales[next].mean}),
                                    {scales[v].inverse_std, scales[next].inverse_std});
        values[To::run(c)][To::element(p, c)] = normal.a;
        if (p + 1 < PIXELS) values[To::run(c)][To::element(p + 1, c)] = normal.b;
      }
    }
    Byte* to = batch.out + (own_image + (out_frame + To::offset(start))) * size_of(OUT);
#pragma unroll
    for (int run = 0; run < To::RUNS; ++run, to += Word64(out_plane) * size_of(OUT)) {
      Word words[To::WORDS];
#pragma unroll
      for (int w = 0; w < To::WORDS; ++w)
        words[w] = pack<OUT>(values[run], w * 4 / size_of(OUT), To::LENGTH);
      store<To::BYTES, To::ACCESS>(to, words);
    }
  }
}

// ---- Any number of channels -----------------------------------------------------------------------

template <int DTYPE>
__device__ __forceinline__ Word element_at(const Byte* from) {
  Word word;
  load<size_of(DTYPE), size_of(DTYPE)>(from, &word);
  return word;
}

// One frame of a sample and of its partner.
template <int IN>
struct Frame {
  const Byte *own, *partner;
  const bool selects;
  const Weight lam, rest;

  __device__ __forceinline__ Frame(const Batch& batch, const Sample& sample, Word i)
      : own(address(batch, i)), partner(address(batch, sample.partner)),
        selects(is_selected(sample)), lam(sample.lam), rest(__fsub_rn(1.0f, sample.lam)) {}

  __device__ static __forceinline__ const Byte* address(const Batch& batch, Word i) {
    return batch.images + (Word64(i) * batch.clip + blockIdx.z * batch.in_frame) * size_of(IN);
  }

  // Mix `count` channels of some pixels: the first one's element of each pixel, and elements to the
  // next channel. Of a sample that is selected, the pixels whose bits are set are the partner's.
  template <int CHANNELS, int PIXELS>
  __device__ __forceinline__ void mix(const Word (&first)[PIXELS], Word next, Word count,
                                      Word partners, float (&mixed)[CHANNELS][PIXELS]) const {
    constexpr int SIZE = size_of(IN);
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) {
      const Byte* a = own + Word64(first[p]) * SIZE;
      const Byte* b = partner + Word64(first[p]) * SIZE;
      if (selects) {
        const Byte* from = partners >> p & 1 ? b : a;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c, from += Word64(next) * SIZE) {
          if (c >= count) break;
          const Word word = element_at<IN>(from);
          mixed[c][p] = unpack<IN>(&word, 0);
        }
      } else {
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c, a += Word64(next) * SIZE, b += Word64(next) * SIZE) {
          if (c >= count) break;
          const Word word = element_at<IN>(a), other = element_at<IN>(b);
          mixed[c][p] =
              sum_of_weighted<IN>(weighted<IN>(&word, 0, 0, lam), weighted<IN>(&other, 0, 0, rest)).a;
        }
      }
    }
  }
};

// Elements of the output that follow each other.
template <int OUT, int COUNT>
__device__ __forceinline__ void store_values(Byte* to, const float (&values)[COUNT]) {
  constexpr int BYTES = COUNT * size_of(OUT);
  Word words[words_in(BYTES)];
#pragma unroll
  for (int w = 0; w < words_in(BYTES); ++w) words[w] = pack<OUT>(values, w * 4 / size_of(OUT), COUNT);
  store<BYTES, BYTES>(to, words);
}

// Images and labels, as above, of any number of channels, from HWC to planes or from planes to HWC. A
// thread makes COUNT elements of the output at a time: 8 bytes of them, or one.
//
// To planes, 8 threads take neighbouring runs of COUNT pixels and the same GROUP channels, and the next
// 8 threads the next channels, which are neighbours where they are read. To HWC, a thread has COUNT
// channels of its own, and the threads beside it the channels beside them. A block takes batch.tile
// pixels. What is read in parts of sectors is read on while the L1 cache holds them.
template <int IN, int OUT, int OUT_LAYOUT, int COUNT, class Plan>
__global__ void __launch_bounds__(BLOCK)
    transpose(const __grid_constant__ Batch batch, const __grid_constant__ Plan plan) {
  constexpr int RUNS = 8, GROUP = 4;
  const Word i = blockIdx.x;
  const Sample sample = plan.samples[i];
  const Word first = blockIdx.y * batch.tile, channels = batch.channels;
  if (first >= batch.plane) {
    if (batch.label_form != NO_LABELS && blockIdx.z == 0) write_target(batch, sample, i);
    return;
  }
  const Frame<IN> frame(batch, sample, i);
  Byte* out = batch.out + (Word64(i) * batch.clip + blockIdx.z * batch.out_frame) * size_of(OUT);

  if constexpr (OUT_LAYOUT == CHW) {
    const Word groups = (channels + GROUP - 1) / GROUP;
    for (Word item = threadIdx.x; item < batch.tile / COUNT * groups; item += BLOCK) {
      const Word row = item / RUNS, rows = row / groups, c = (row - rows * groups) * GROUP;
      const Word start = first + (rows * RUNS + item % RUNS) * COUNT;
      if (start >= batch.plane) continue;
      Word elements[COUNT];
#pragma unroll
      for (int p = 0; p < COUNT; ++p) elements[p] = (start + p) * channels + c;
      const Word partners = frame.selects ? taken<COUNT>(sample, start, batch.width, 1) : 0;
      float values[GROUP][COUNT];
      frame.mix(elements, 1, channels - c, partners, values);
#pragma unroll
      for (int k = 0; k < GROUP; ++k) {
        if (c + k >= channels) break;
        const Scale scale = scale_of(batch, c + k);
#pragma unroll
        for (int p = 0; p < COUNT; ++p) values[k][p] = scale.of(values[k][p]);
        store_values<OUT>(out + (Word64(c + k) * batch.out_plane + start) * size_of(OUT), values[k]);
      }
    }
  } else {
    const Word runs = channels / COUNT, across = runs < BLOCK ? runs : BLOCK;
    const Word down = BLOCK / across, row = threadIdx.x / across;
    const Word end = first + batch.tile < batch.plane ? first + batch.tile : batch.plane;
    if (row >= down) return;
    for (Word run = threadIdx.x % across; run < runs; run += across) {
      const Word c = run * COUNT;
      Scale scales[COUNT];
#pragma unroll
      for (int k = 0; k < COUNT; ++k) scales[k] = scale_of(batch, c + k);
      Word y = (first + row) / batch.width, x = first + row - y * batch.width;
      for (Word pixel = first + row; pixel < end; pixel += down) {
        const Word element[1] = {c * batch.in_plane + pixel};
        const bool partners = frame.selects && takes_pixel(sample, y, x);
        float values[COUNT][1], normal[COUNT];
        frame.mix(element, batch.in_plane, COUNT, partners, values);
#pragma unroll
        for (int k = 0; k < COUNT; ++k) normal[k] = scales[k].of(values[k][0]);
        store_values<OUT>(out + (Word64(pixel) * channels + c) * size_of(OUT), normal);
        for (x += down; x >= batch.width; x -= batch.width) ++y;
      }
    }
  }
}

// ---- Masks ----------------------------------------------------------------------------------------

// Each element is the sample's own or its partner's, as it is. DTYPE tells its size; those of 8 bytes
// are PERIOD = 2 of 4.
template <int DTYPE, int PERIOD, int PIXELS, class Plan>
__global__ void __launch_bounds__(BLOCK)
    select(const __grid_constant__ Batch batch, const __grid_constant__ Plan plan) {
  using Run = Chunk<DTYPE, CHW, 1, PIXELS>;
  const Word i = blockIdx.x;
  const Sample sample = plan.samples[i];
  const Word plane = batch.plane * PERIOD, start = (blockIdx.y * BLOCK + threadIdx.x) * PIXELS;
  if (start >= plane) return;
  const Word64 own = Word64(i) * plane, partner = Word64(Word(sample.partner)) * plane;
  Run run;
  run.load_selected(batch.images, own, partner,
                    taken<PIXELS>(sample, start, batch.width * PERIOD, PERIOD), start, plane);
  store<Run::BYTES, Run::ACCESS>(batch.out + (own + start) * size_of(DTYPE), run.words[0]);
}
