/* Sums in messages (kernels/sums.h says how a block of 32 values lies): a warp has a block, a lane a value of it. */
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/stream.h"
#include "kernels/kernels.h"

static_assert(SUM_BLOCK == LANES, "a lane has a value");

namespace {

enum {
    THREADS = 128,
    BLOCKS = THREADS / SUM_BLOCK, /* of a thread block */
    PLACE_THREADS = 1024,
    MOST_F16 = 65504,
};

struct packing {
    struct gpu_sums sums;
    int n, d, blocks; /* tokens; values and blocks of one */
    const uint8_t *width;
    const uint32_t *offset;
};

/* A lane's value of a warp's block. */
struct place {
    int64_t block, at;  /* of all tokens' */
    int token;
    bool exists, value; /* the block does; it has a value for this lane */
};

__device__ __forceinline__ struct place place_of(const struct packing &p)
{
    struct place l = {};
    l.block = (int64_t)blockIdx.x * BLOCKS + threadIdx.x / SUM_BLOCK;
    l.token = (int)(l.block / p.blocks);
    const int i = (int)(l.block % p.blocks) * SUM_BLOCK + (int)(threadIdx.x % SUM_BLOCK);
    l.at = (int64_t)l.token * p.d + i;
    l.exists = l.token < p.n;
    l.value = l.exists && i < p.d;
    return l;
}

/* ---- packing ---- */

__device__ __forceinline__ int exact_width(long long units)
{
    const unsigned long long used = (unsigned long long)(units < 0 ? ~units : units);
    int width = 3;
    for (int bits = 23; bits < 47; bits += 8)
        width += __any_sync(FULL_MASK, used >> bits != 0);
    return __any_sync(FULL_MASK, used >> 47 != 0) ? 8 : width;
}

__global__ void __launch_bounds__(THREADS) find_widths(struct packing p, bool f16, uint8_t *width)
{
    gpu_begin();
    const struct place l = place_of(p);
    const long long units = l.value ? p.sums.units[l.at] : 0;
    const long long most = (long long)MOST_F16 << 30;
    const bool rounds = f16 && __all_sync(FULL_MASK, units <= most && units >= -most);
    const int exact = exact_width(units);
    if (l.exists && threadIdx.x % SUM_BLOCK == 0)
        width[l.block] = (uint8_t)(p.sums.broken[l.token] ? 8 : rounds ? 2 : exact);
}

/* The sum over the threads before this one; *all: of all of them. */
__device__ __forceinline__ uint32_t sum_before(uint32_t n, uint32_t *all)
{
    __shared__ uint32_t sums[PLACE_THREADS / LANES];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    uint32_t sum = n, before = 0;
    for (int i = 1; i < LANES; i *= 2) {
        const uint32_t other = __shfl_sync(FULL_MASK, sum, (lane - i) & (LANES - 1));
        sum += lane >= i ? other : 0;
    }
    if (lane == LANES - 1)
        sums[warp] = sum;
    __syncthreads();
    *all = 0;
    for (int i = 0; i < PLACE_THREADS / LANES; i++) {
        before += i < warp ? sums[i] : 0;
        *all += sums[i];
    }
    return before + sum - n;
}

/* offset[i] = the sum of the widths before block i, offset[n] of all: one thread block, each thread some blocks beside
 * each other. */
__global__ void __launch_bounds__(PLACE_THREADS) place_blocks(const uint8_t *width, int64_t n, uint32_t *offset)
{
    gpu_begin();
    const int64_t each = (n + PLACE_THREADS - 1) / PLACE_THREADS;
    const int64_t begin = threadIdx.x * each, stop = begin + each < n ? begin + each : n;
    uint32_t own = 0, all;
    for (int64_t i = begin; i < stop; i++)
        own += width[i];
    uint32_t at = sum_before(own, &all);
    for (int64_t i = begin; i < stop; i++) {
        offset[i] = at;
        at += width[i];
    }
    if (threadIdx.x == 0)
        offset[n] = all;
}

__device__ __forceinline__ void put_integer(uint8_t *out, int width, int lane, long long v)
{
    if (width == 3)
        ((uint16_t *)out)[lane] = (uint16_t)v;
    else
        ((uint32_t *)out)[lane] = (uint32_t)v;
    if (width == 3)
        out[2 * SUM_BLOCK + lane] = (uint8_t)(v >> 16);
    else if (width == 5)
        out[4 * SUM_BLOCK + lane] = (uint8_t)(v >> 32);
    else if (width == 6)
        ((uint16_t *)(out + 4 * SUM_BLOCK))[lane] = (uint16_t)(v >> 32);
}

__global__ void __launch_bounds__(THREADS) pack(struct packing p, uint8_t *packed)
{
    gpu_begin();
    const struct place l = place_of(p);
    if (!l.exists)
        return;
    const int lane = threadIdx.x % SUM_BLOCK, width = p.width[l.block];
    const long long units = l.value ? p.sums.units[l.at] : 0;
    uint8_t *out = packed + (int64_t)SUM_BLOCK * p.offset[l.block];
    if (width == 8)
        ((double *)out)[lane] = p.sums.broken[l.token] ? __longlong_as_double(0x7ff8000000000000ll)
                                                       : __dmul_rn(__ll2double_rn(units), 0x1p-30);
    else if (width == 2)
        ((uint16_t *)out)[lane] = half_bits_of_f32(__fmul_rn(__ll2float_rn(units), 0x1p-30f));
    else
        put_integer(out, width, lane, units);
}

/* ---- adding what was packed ---- */

__device__ __forceinline__ long long integer_at(const uint8_t *in, int width, int lane)
{
    if (width == 3)
        return (int)(((uint32_t)in[2 * SUM_BLOCK + lane] << 16 | ((const uint16_t *)in)[lane]) << 8) >> 8;
    const uint32_t low = ((const uint32_t *)in)[lane];
    if (width == 4)
        return (int)low;
    const int high = width == 5 ? (int8_t)in[4 * SUM_BLOCK + lane] : ((const int16_t *)(in + 4 * SUM_BLOCK))[lane];
    return (long long)((unsigned long long)(long long)high << 32 | low);
}

/* A message's f64; what is none of our sums breaks. */
__device__ __forceinline__ long long units_of_f64(double v, bool *broken)
{
    const double units = __dmul_rn(v, 0x1p30);
    const bool ours = fabs(units) < 0x1p61;
    const long long whole = ours ? __double2ll_rn(units) : 0;
    *broken |= !ours || __ll2double_rn(whole) != units;
    return whole;
}

__device__ __forceinline__ long long packed_at(const uint8_t *in, int width, int lane, bool *broken)
{
    if (width == 2)
        return gpu_units(f32_of_half_bits(((const uint16_t *)in)[lane]), broken);
    if (width == 8)
        return units_of_f64(((const double *)in)[lane], broken);
    if (width >= 3 && width <= 6)
        return integer_at(in, width, lane);
    *broken = true;
    return 0;
}

__global__ void __launch_bounds__(THREADS) add_packed(struct packing p, const uint8_t *packed)
{
    gpu_begin();
    const struct place l = place_of(p);
    if (!l.value)
        return;
    bool broken = false;
    const uint8_t *in = packed + (int64_t)SUM_BLOCK * p.offset[l.block];
    const long long units = packed_at(in, p.width[l.block], threadIdx.x % SUM_BLOCK, &broken);
    const unsigned long long sum = (unsigned long long)p.sums.units[l.at] + (unsigned long long)units;
    p.sums.units[l.at] = (long long)sum;
    if (broken)
        atomicOr(&p.sums.broken[l.token], 1u);
}

__global__ void __launch_bounds__(THREADS) clear(struct gpu_clearing c)
{
    gpu_begin();
    gpu_clear(c);
}

struct packing packing_of(const struct gpu_sums *s, int64_t n, int64_t d, const uint8_t *width, const uint32_t *offset)
{
    return {*s, (int)n, (int)d, (int)((d + SUM_BLOCK - 1) / SUM_BLOCK), width, offset};
}

unsigned thread_blocks(const struct packing &p)
{
    return (unsigned)(((int64_t)p.n * p.blocks + BLOCKS - 1) / BLOCKS);
}

}

void gpu_clear_sums(const struct gpu *g, const struct gpu_sums *s, int64_t n, int64_t d)
{
    struct gpu_clearing c = {};
    c.sums = *s;
    c.n_units = n * d;
    c.n_broken = n;
    if (n > 0)
        LAUNCH(clear, (unsigned)((n * d + THREADS - 1) / THREADS), THREADS, 0, g, c);
}

void gpu_pack_sums(const struct gpu *g, const struct gpu_sums *s, int64_t n, int64_t d, bool f16, uint8_t *width,
                   uint32_t *offset, uint8_t *packed)
{
    const struct packing p = packing_of(s, n, d, width, offset);
    if (n <= 0)
        return;
    LAUNCH(find_widths, thread_blocks(p), THREADS, 0, g, p, f16, width);
    LAUNCH(place_blocks, 1, PLACE_THREADS, 0, g, width, n * p.blocks, offset);
    LAUNCH(pack, thread_blocks(p), THREADS, 0, g, p, packed);
}

void gpu_add_packed(const struct gpu *g, const struct gpu_sums *s, int64_t n, int64_t d, const uint8_t *width,
                    uint32_t *offset, const uint8_t *packed)
{
    const struct packing p = packing_of(s, n, d, width, offset);
    if (n <= 0)
        return;
    LAUNCH(place_blocks, 1, PLACE_THREADS, 0, g, width, n * p.blocks, offset);
    LAUNCH(add_packed, thread_blocks(p), THREADS, 0, g, p, packed);
}
