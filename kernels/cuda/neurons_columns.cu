/* Columns of live neurons times their activations: the sums of mix_columns, in units.
 *
 * A warp takes a segment of one token and two tiles of outputs. It quantises the segment's activations and lists its
 * live neurons by itself, which takes less than to wait for a launch that has done so for all; then half of its lanes
 * go over them for each tile. A thread block adds up its warps' segments, so that an output costs one atomic addition
 * for several of them. Thread blocks of different tokens and the same columns follow each other: those that one of them
 * has read are in the cache for the next. */
#include "kernels/columns.h"
#include "kernels/cuda/book.cuh"
#include "kernels/cuda/file_weights.cuh"
#include "kernels/cuda/neurons.h"
#include "kernels/cuda/shares.cuh"
#include "kernels/cuda/stream.cuh"

namespace {

enum {
    WARPS = 8, /* segments of a thread block */
    THREADS = WARPS * LANES,
    SLOTS = SUM_SEGMENT,
    OUTPUTS = 2 * COLUMN_TILE,         /* of a warp */
    LANE_OUTPUTS = OUTPUTS / LANES,
    TILE_GROUPS = COLUMN_TILE / ROW_GROUP
};
static_assert(OUTPUTS == THREADS, "each thread adds up an output");

struct mixing {
    const uint8_t *codes, *scales;
    const int32_t *column;
    int64_t column_bytes, block_bytes, supers; /* supers: from the scales to them */
    int64_t super_bytes;
    int n_blocks, tiles, rows;
    const struct gpu_range *ranges;
    int n_ranges;
    const float *h;
    struct gpu_book book;
    struct gpu_sums to;
    /* Of a launch for shares: what they are, of which columns, and how many thread blocks stride over the tokens of
     * one. */
    struct gpu_shares shares;
    enum dtype type;
    int token_blocks;
};

/* The live neurons of a segment: which columns, times what. */
template <class X> struct __align__(16) live_list {
    int32_t column[SLOTS];
    X x[SLOTS];
};

/* The sum over the lanes before this one among those that share a group of `width`, each step apart; *all: their whole
 * sum. */
__device__ __forceinline__ int sum_before(int n, int step, int width, int *all)
{
    const int lane = threadIdx.x % LANES;
    int sum = n;
#pragma unroll
    for (int d = step; d < width; d *= 2) {
        const int other = __shfl_sync(FULL_MASK, sum, (lane - d) & (LANES - 1));
        sum += lane % width >= d ? other : 0;
    }
    *all = __shfl_sync(FULL_MASK, sum, lane | (width - 1));
    return sum - n;
}

/* A lane's four slots of a segment: their columns, -1 past its end. Nothing that launches write. */
struct slots {
    bool there;
    int64_t first;
    int32_t column[FOUR];
};

__device__ __forceinline__ struct slots slots_of_lane(const struct mixing &m, const struct gpu_range &r)
{
    const int slot = FOUR * (threadIdx.x % LANES);
    struct slots s = {slot < (r.end - r.begin) * ACT_BLOCK, (int64_t)r.begin * ACT_BLOCK + slot, {-1, -1, -1, -1}};
    if (s.there) {
        const int4 c = *(const int4 *)(m.column + s.first);
        s.column[0] = c.x, s.column[1] = c.y, s.column[2] = c.z, s.column[3] = c.w;
    }
    return s;
}

/* Their activations. */
__device__ __forceinline__ void load_slots(const struct mixing &m, const struct slots &s, int64_t token, float x[FOUR])
{
    if (!s.there)
        return;
    const float4 v = *(const float4 *)(m.h + token * m.n_blocks * ACT_BLOCK + s.first);
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}

/* ---- codes ---- */

template <enum dtype T> struct column_t : layout_t<T> {
    using l = layout_t<T>;
    static constexpr int parts = l::halves ? 2 : 1;               /* of a block, each with scales of its own */
    static constexpr int part_lanes = ACT_BLOCK / parts / 4;      /* lanes that have its slots */
    static constexpr int lows = l::low_bits == 8 ? 2 : 1;         /* words of a lane's 8 low codes */
    static constexpr int low_bytes = l::low_bits * COLUMN_TILE / 8, high_bytes = l::high_bits * COLUMN_TILE / 8;
    static constexpr int scale_words = l::byte_scales ? 1 : 2;    /* that have 4 outputs' scales */
    static constexpr int tile_scales = TILE_GROUPS * l::scale_bytes;
};

/* Asks for the low parts of the warp's two tiles. */
template <class C> __device__ __forceinline__ void prefetch_column(const struct mixing &m, int column)
{
    const int first = (int)blockIdx.y * 2 * C::low_bytes, end = m.tiles * C::low_bytes;
#pragma unroll
    for (int i = 0; i < 2 * C::low_bytes; i += 64)
        if (first + i < end)
            gpu_prefetch(m.codes + column * m.column_bytes + first + i);
}

/* Lists by fours: neurons that share scales; where there are fewer, the last again, times 0. Returns how many fours the
 * part that the lane's slots belong to has; *all: those of all parts; *of_block: what the lane's block became. */
template <class C>
__device__ __forceinline__ int list_codes(const struct mixing &m, const struct slots &slots, int64_t token,
                                          struct live_list<int8_t> *list, int *all, struct quantised *of_block)
{
    float v[FOUR] = {};
    load_slots(m, slots, token, v);
    *of_block = quantised_of(v);
    const uint32_t x = of_block->codes;
    uint32_t live = 0;
#pragma unroll
    for (int j = 0; j < 4; j++)
        live |= (uint32_t)((x >> 8 * j & 255) && slots.column[j] >= 0) << j;
    int in_part, n = __popc(live), at = sum_before(n, 1, C::part_lanes, &in_part);
    const bool last = n && at + n == in_part;
    const int fours = (in_part + 3) / 4, before = sum_before(fours, C::part_lanes, LANES, all);
    int32_t filler = 0;
    at += 4 * before;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (!(live >> j & 1))
            continue;
        filler = slots.column[j];
        list->column[at] = filler;
        list->x[at++] = (int8_t)(x >> 8 * j);
        prefetch_column<C>(m, filler);
    }
    for (; last && at < 4 * (before + fours); at++) {
        list->column[at] = filler;
        list->x[at] = 0;
    }
    __syncwarp(FULL_MASK);
    return fours;
}

/* Where a lane's 8 outputs lie: of its tile those from 4 * quad on, and 64 further (column_layout.h, part_place). */
struct outputs {
    bool there;
    int tile, at, quad; /* at: which word of a part of 4 bits */
};

__device__ __forceinline__ struct outputs outputs_of_lane(const struct mixing &m)
{
    const int lane = threadIdx.x % LANES, at = lane % 16, tile = (int)blockIdx.y * 2 + lane / 16;
    return {tile < m.tiles, tile, at, 4 * (at % 4) + at / 4};
}

/* A lane's words of four neurons. */
template <class C> struct four_words {
    uint32_t low[C::lows][4], high[4];
};

template <class C>
__device__ __forceinline__ void load_four(const struct mixing &m, const struct live_list<int8_t> *list, int i,
                                          const struct outputs &o, struct four_words<C> *to)
{
    const int4 c = *(const int4 *)&list->column[4 * i];
    const int column[4] = {c.x, c.y, c.z, c.w};
    const int low = o.tile * C::low_bytes + 4 * (o.at % (4 * (C::low_bits < 4 ? C::low_bits : 4)));
    const int high = m.tiles * C::low_bytes + o.tile * C::high_bytes +
                     4 * (o.at % (4 * (C::high_bits ? C::high_bits : 1)));
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const uint8_t *codes = m.codes + column[j] * m.column_bytes;
#pragma unroll
        for (int w = 0; w < C::lows; w++)
            to->low[w][j] = o.there ? __ldg((const uint32_t *)(codes + low + 64 * w)) : 0;
        if constexpr (C::high_bits > 0)
            to->high[j] = o.there ? __ldg((const uint32_t *)(codes + high)) : 0;
    }
}

/* Four neurons' words of four outputs become four outputs' words of four neurons. */
__device__ __forceinline__ void turn(const uint32_t v[4], uint32_t to[4])
{
    const uint32_t a = __byte_perm(v[0], v[1], 0x5140), b = __byte_perm(v[2], v[3], 0x5140);
    const uint32_t c = __byte_perm(v[0], v[1], 0x7362), d = __byte_perm(v[2], v[3], 0x7362);
    to[0] = __byte_perm(a, b, 0x5410);
    to[1] = __byte_perm(a, b, 0x7632);
    to[2] = __byte_perm(c, d, 0x5410);
    to[3] = __byte_perm(c, d, 0x7632);
}

/* Where a lane's codes of so many bits begin in the bytes of its words; those of the further outputs are 4 bits up. */
__device__ __forceinline__ int shift_of(int bits, int at) { return bits * (at / 4 / bits); }

/* sum += four neurons' codes times x; of 8 bits, the codes less their offset; what is looked up. */
template <class C>
__device__ __forceinline__ void add_four(const struct gpu_book &book, const struct four_words<C> &w, uint32_t x, int at,
                                         int sum[LANE_OUTPUTS])
{
    uint32_t low[C::lows][4], high[4], code[LANE_OUTPUTS];
#pragma unroll
    for (int i = 0; i < C::lows; i++)
        turn(w.low[i], low[i]);
    if constexpr (C::high_bits > 0)
        turn(w.high, high);
#pragma unroll
    for (int i = 0; i < LANE_OUTPUTS; i++) {
        const int j = i % 4, up = i / 4 * 4;
        if constexpr (C::low_bits == 8)
            code[i] = low[i / 4][j] ^ 0x80808080;
        else
            code[i] = low[0][j] >> (shift_of(C::low_bits, at) + up) & 0x01010101u * ((1 << C::low_bits) - 1);
        if constexpr (C::high_bits > 0)
            code[i] |= (high[j] >> (shift_of(C::high_bits, at) + up) & 0x01010101u * ((1 << C::high_bits) - 1))
                       << C::low_bits;
    }
    gpu_look_up_block<C>(book, code);
#pragma unroll
    for (int i = 0; i < LANE_OUTPUTS; i++)
        sum[i] = __dp4a((int)code[i], (int)x, sum[i]);
}

/* The scales of a block, of a lane's outputs: f16 d and m, or the bytes of a K type; also a segment's supers. */
template <int WORDS, int BOTH> struct lane_scales {
    uint32_t word[BOTH][2][WORDS];
};

/* `record` bytes of scales of a group, in each `second` bytes to what comes behind the first. */
template <int WORDS, int BOTH>
__device__ __forceinline__ void load_scales(const uint8_t *tile, int record, int second, const struct outputs &o,
                                            struct lane_scales<WORDS, BOTH> *to)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint8_t *p = tile + (4 * half + o.quad / 4) * record + 4 * WORDS * (o.quad % 4);
#pragma unroll
        for (int i = 0; i < BOTH; i++) {
            if constexpr (WORDS == 2) {
                const uint2 v = o.there ? __ldg((const uint2 *)(p + i * second)) : make_uint2(0, 0);
                to->word[i][half][0] = v.x;
                to->word[i][half][1] = v.y;
            } else {
                to->word[i][half][0] = o.there ? __ldg((const uint32_t *)(p + i * second)) : 0;
            }
        }
    }
}

/* Output i's f16, or byte, of scale s. */
template <int BOTH> __device__ __forceinline__ float f16_of(const struct lane_scales<2, BOTH> &l, int s, int i)
{
    return f32_of_half_bits((uint16_t)(l.word[s][i / 4][i % 4 / 2] >> 16 * (i % 2)));
}
template <int BOTH> __device__ __forceinline__ int byte_of(const struct lane_scales<1, BOTH> &l, int s, int i)
{
    return (int)(l.word[s][i / 4][0] >> 8 * (i % 4) & 255);
}

template <class C> struct block_scales_t {
    using type = lane_scales<C::scale_words, C::row_scales>;
};

/* Minus the sum of a part's codes of x, and its scaled sum. */
template <class C> __device__ __forceinline__ int minus_sum_of(const struct act_block &s, int part)
{
    return C::parts == 1 ? s.minus_sum : part == 0 ? s.minus_sum_low : s.minus_sum - s.minus_sum_low;
}
template <class C> __device__ __forceinline__ float scaled_sum_of(const struct act_block &s, int part)
{
    return C::parts == 1 ? s.scaled_sum : __fmul_rn(s.scale, (float)-minus_sum_of<C>(s, part));
}

/* A segment's sums: of a K type `least` has those of its minima. */
struct segment_sums {
    float sum[LANE_OUTPUTS], least[LANE_OUTPUTS];
};

/* d of output i, of a type without super-blocks. */
template <class C>
__device__ __forceinline__ float block_scale_of(const typename block_scales_t<C>::type &scales, int i)
{
    if constexpr (C::byte_scales)
        return gpu_block_scale<C>((uint32_t)byte_of(scales, 0, i));
    else
        return f16_of(scales, 0, i);
}

/* sums += the integer sums of a part, scaled; of a K type they join `scaled`. */
template <class C>
__device__ __forceinline__ void add_part(const typename block_scales_t<C>::type &scales, const struct act_block &x,
                                         int part, const int sum[LANE_OUTPUTS], int scaled[LANE_OUTPUTS],
                                         struct segment_sums *to)
{
#pragma unroll
    for (int i = 0; i < LANE_OUTPUTS; i++) {
        if constexpr (!C::k) {
            to->sum[i] = __fmaf_rn((float)sum[i], __fmul_rn(block_scale_of<C>(scales, i), x.scale), to->sum[i]);
            if constexpr (C::minima)
                to->sum[i] = __fmaf_rn(f16_of(scales, 1, i), x.scaled_sum, to->sum[i]);
        } else {
            const int byte = byte_of(scales, part, i);
            scaled[i] += sum[i] * (!C::minima ? (int)(int8_t)byte : C::halves ? byte & 15 : byte);
            if constexpr (C::minima)
                to->least[i] = __fmaf_rn((float)(C::halves ? byte >> 4 : byte_of(scales, 1, i)),
                                         scaled_sum_of<C>(x, part), to->least[i]);
        }
    }
}

template <class C>
__device__ __forceinline__ void end_k_segment(const struct mixing &m, const struct gpu_range &r,
                                              const struct outputs &o, struct segment_sums *s)
{
    struct lane_scales<2, C::minima ? 2 : 1> supers;
    load_scales(m.scales + m.supers + r.super * m.super_bytes + o.tile * TILE_GROUPS * C::super_bytes, C::super_bytes,
                2 * ROW_GROUP, o, &supers);
#pragma unroll
    for (int i = 0; i < LANE_OUTPUTS; i++) {
        const float d = f16_of(supers, 0, i);
        s->sum[i] = __fmaf_rn(C::looked_up ? __fmul_rn(m.book.unit, d) : d, s->sum[i], 0.0f);
        if constexpr (C::minima)
            s->sum[i] = __fmaf_rn(-f16_of(supers, 1, i), s->least[i], s->sum[i]);
    }
}

/* Block b of the segment, whose first lane knows its sums. All lanes come. */
__device__ __forceinline__ struct act_block x_block(const struct quantised &of_lane, int b)
{
    const int first = b * BLOCK_THREADS;
    const float scale = __shfl_sync(FULL_MASK, of_lane.scale, first);
    const int all = __shfl_sync(FULL_MASK, of_lane.sum.all, first);
    return {scale, __fmul_rn(scale, __int2float_rn(all)), -all, -__shfl_sync(FULL_MASK, of_lane.sum.low, first)};
}

/* What a lane reads of a segment before it knows which neurons are live. */
template <class C> struct segment_start {
    struct slots slots;
    typename block_scales_t<C>::type scales[SEGMENT_BLOCKS];
};

template <class C>
__device__ __forceinline__ void begin_segment(const struct mixing &m, const struct gpu_range &r,
                                              struct segment_start<C> *to)
{
    const struct outputs o = outputs_of_lane(m);
    const int n_blocks = r.end - r.begin;
    const uint8_t *at = m.scales + r.begin * m.block_bytes + o.tile * n_blocks * C::tile_scales;
    to->slots = slots_of_lane(m, r);
#pragma unroll
    for (int b = 0; b < SEGMENT_BLOCKS; b++)
        if (b < n_blocks)
            load_scales(at + b * C::tile_scales, C::scale_bytes, C::byte_scales ? ROW_GROUP : 2 * ROW_GROUP, o,
                        &to->scales[b]);
}

/* Codes of blocks without a live neuron would add zeros: they are not read. */
template <class C>
__device__ __forceinline__ void mix_segment(const struct mixing &m, const struct gpu_range &r, int64_t token,
                                            const struct segment_start<C> &begun, struct live_list<int8_t> *list,
                                            struct segment_sums *s)
{
    const struct outputs o = outputs_of_lane(m);
    int all, next = 0;
    struct quantised of_block;
    const int fours = list_codes<C>(m, begun.slots, token, list, &all, &of_block);
    struct four_words<C> ahead;
    if (!all)
        return;
    load_four(m, list, next++, o, &ahead);
    bool live[SEGMENT_BLOCKS];
    struct act_block of_x[SEGMENT_BLOCKS];
#pragma unroll
    for (int b = 0; b < SEGMENT_BLOCKS; b++) {
        const unsigned any = __ballot_sync(FULL_MASK, fours > 0);
        live[b] = any >> 8 * b & 255;
        of_x[b] = x_block(of_block, b);
    }
#pragma unroll
    for (int b = 0; b < SEGMENT_BLOCKS; b++) {
        if (!live[b])
            continue;
        const struct act_block x = of_x[b];
        int scaled[LANE_OUTPUTS] = {};
#pragma unroll
        for (int part = 0; part < C::parts; part++) {
            const int start = C::low_bits == 8 ? 0 : C::offset * minus_sum_of<C>(x, part);
            int sum[LANE_OUTPUTS];
#pragma unroll
            for (int i = 0; i < LANE_OUTPUTS; i++)
                sum[i] = start;
            for (int n = __shfl_sync(FULL_MASK, fours, 8 * b + part * C::part_lanes); n > 0; n--, next++) {
                const struct four_words<C> now = ahead;
                if (next < all)
                    load_four(m, list, next, o, &ahead);
                add_four<C>(m.book, now, *(const uint32_t *)&list->x[4 * (next - 1)], o.at, sum);
            }
            add_part<C>(begun.scales[b], x, part, sum, scaled, s);
        }
#pragma unroll
        for (int i = 0; i < LANE_OUTPUTS && C::k; i++)
            s->sum[i] = __fmaf_rn((float)scaled[i], x.scale, s->sum[i]);
    }
    if constexpr (C::k)
        end_k_segment<C>(m, r, o, s);
}

/* ---- sums of a thread block ---- */

/* Sum i of each lane is that of output place(i) of the thread block's; each warp has a segment. */
template <class PLACE>
__device__ __forceinline__ void add_segments(const struct mixing &m, int64_t token, const float sum[LANE_OUTPUTS],
                                             PLACE place)
{
    __shared__ long long units[WARPS][OUTPUTS];
    const int warp = threadIdx.x / LANES, output = (int)blockIdx.y * OUTPUTS + (int)threadIdx.x;
    bool broken = false;
    unsigned long long of_all = 0; /* what broken tokens have may wrap */
#pragma unroll
    for (int i = 0; i < LANE_OUTPUTS; i++)
        units[warp][place(i)] = gpu_units(sum[i], &broken);
    if (broken)
        atomicOr(&m.to.broken[token], 1u);
    __syncthreads();
#pragma unroll
    for (int w = 0; w < WARPS; w++)
        of_all += (unsigned long long)units[w][threadIdx.x];
    if (of_all && output < m.rows)
        atomicAdd((unsigned long long *)&m.to.units[token * m.rows + output], of_all);
}

/* A share's tokens that a thread block has, and whose sums theirs are; NULL: of those themselves. */
struct taken {
    int n, begin, step;
    const uint32_t *token;
};

__host__ __device__ __forceinline__ void take_columns(struct mixing &m, const struct neuron_columns &c)
{
    m.codes = c.codes;
    m.scales = c.scales;
    m.column = c.column;
    m.column_bytes = (int64_t)c.column_bytes;
    m.block_bytes = (int64_t)c.block_bytes;
    m.supers = c.n_blocks * m.block_bytes;
    m.super_bytes = (int64_t)c.super_bytes;
    m.n_blocks = (int)c.n_blocks;
    m.rows = (int)c.rows;
    m.tiles = (m.rows + COLUMN_TILE - 1) / COLUMN_TILE;
}

/* The launch's columns become those of a share, its ranges and activations too. False: there is nothing to do. */
__device__ __forceinline__ bool take_share(struct mixing &m, struct taken *to)
{
    struct gpu_share s;
    if (!share_at(m.shares.of, m.shares.n, (int)blockIdx.x / m.token_blocks, &s))
        return false;
    const struct gpu_set &set = m.shares.sets[s.set];
    if (set.columns.type != m.type || (int)blockIdx.z * WARPS >= set.n_ranges)
        return false;
    take_columns(m, set.columns);
    m.ranges = set.ranges;
    m.n_ranges = set.n_ranges;
    m.h += s.slots;
    *to = {(int)s.n, (int)blockIdx.x % m.token_blocks, m.token_blocks, s.whole ? NULL : m.shares.token + s.first};
    return true;
}

/* The segment of this warp; false if there is none. */
__device__ __forceinline__ bool segment_of_warp(const struct mixing &m, struct gpu_range *r)
{
    const int i = (int)blockIdx.z * WARPS + (int)threadIdx.x / LANES;
    if (i < m.n_ranges)
        *r = m.ranges[i];
    return i < m.n_ranges;
}

/* Thread blocks: token, two tiles, WARPS segments; of SHARES: tokens of a share in strides. */
template <enum dtype T, bool SHARES> __global__ void __launch_bounds__(THREADS, 2) mix_codes(struct mixing m)
{
    using C = column_t<T>;
    __shared__ struct live_list<int8_t> lists[WARPS];
    struct segment_start<C> begun;
    struct gpu_range r = {};
    struct taken taken = {1, 0, 1, NULL};
    if constexpr (SHARES) {
        gpu_begin();
        if (!take_share(m, &taken))
            return;
    }
    const bool is_segment = segment_of_warp(m, &r);
    if (is_segment)
        begin_segment<C>(m, r, &begun);
    if constexpr (!SHARES)
        gpu_begin();
    const int first = 128 * (threadIdx.x % LANES / 16) + 4 * (4 * (threadIdx.x % 4) + threadIdx.x % 16 / 4);
    for (int t = SHARES ? taken.begin : (int)blockIdx.x; t < (SHARES ? taken.n : (int)blockIdx.x + 1);
         t += taken.step) {
        struct segment_sums s = {};
        if (is_segment)
            mix_segment<C>(m, r, t, begun, &lists[threadIdx.x / LANES], &s);
        add_segments(m, taken.token ? taken.token[t] : t, s.sum,
                     [=](int i) { return first + i % 4 + i / 4 * (COLUMN_TILE / 2); });
        if constexpr (SHARES)
            __syncthreads(); /* lists and sums have been read */
    }
}

/* ---- weights: columns of floats, or rows of the file as they are ---- */

/* Lists in ascending order. Returns how many. */
__device__ __forceinline__ int list_floats(const struct mixing &m, const struct slots &slots, int64_t token,
                                           struct live_list<float> *list)
{
    float x[FOUR] = {};
    unsigned live = 0;
    load_slots(m, slots, token, x);
#pragma unroll
    for (int j = 0; j < 4; j++)
        live |= (unsigned)(x[j] != 0 && slots.column[j] >= 0) << j;
    int all, at = sum_before(__popc(live), 1, LANES, &all);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (!(live >> j & 1))
            continue;
        list->column[at] = slots.column[j];
        list->x[at++] = x[j];
    }
    __syncwarp(FULL_MASK);
    return all;
}

/* Which outputs a lane has, and what it reads of a neuron for them: of floats 8 side by side, in words of 16 bytes; of
 * the file's rows those that are 32 apart, each by itself. at_once neurons are read together. */
template <enum dtype T, bool FLOAT> struct weights_t {
    static constexpr int at_once = layout_t<T>::k || layout_t<T>::looked_up ? 1 : 4, first = 1, step = LANES;
    float w[LANE_OUTPUTS];

    __device__ __forceinline__ void load(const struct mixing &m, const uint8_t *codes, int output)
    {
#pragma unroll
        for (int i = 0; i < LANE_OUTPUTS; i++)
            w[i] = file_weight<T>(codes, output + i * step < m.rows ? output + i * step : 0);
    }
    __device__ __forceinline__ float at(int i) const { return w[i]; }
};
template <enum dtype T> struct weights_t<T, true> {
    static constexpr int at_once = 4, first = LANE_OUTPUTS, step = 1;
    static constexpr int size = T == DT_F32 ? 4 : 2;
    uint32_t word[LANE_OUTPUTS * size / 4];

    __device__ __forceinline__ void load(const struct mixing &m, const uint8_t *codes, int output)
    {
        const uint4 *from = (const uint4 *)(codes + (int64_t)(output < m.tiles * COLUMN_TILE ? output : 0) * size);
#pragma unroll
        for (int i = 0; i < LANE_OUTPUTS * size / 16; i++) {
            const uint4 v = __ldg(from + i);
            word[4 * i] = v.x;
            word[4 * i + 1] = v.y;
            word[4 * i + 2] = v.z;
            word[4 * i + 3] = v.w;
        }
    }
    __device__ __forceinline__ float at(int i) const
    {
        if constexpr (T == DT_F32) {
            return __uint_as_float(word[i]);
        } else {
            const uint16_t half = (uint16_t)(word[i / 2] >> 16 * (i % 2));
            return T == DT_F16 ? f32_of_half_bits(half) : f32_of_bf16_bits(half);
        }
    }
};

/* The sums of a token and a segment: to[LANE_OUTPUTS]. The neurons come in ascending order. What is read of none that
 * there is, the last ones, counts for nothing: whether there is one must not be asked between a read and the next. */
template <enum dtype T>
__device__ __forceinline__ void mix_listed(const struct mixing &m, const struct live_list<float> *list, int n,
                                           int first, float sum[LANE_OUTPUTS])
{
    using weights = weights_t<T, is_float(T)>;
    for (int i = 0; i < n; i += weights::at_once) {
        weights w[weights::at_once];
#pragma unroll
        for (int j = 0; j < weights::at_once; j++)
            w[j].load(m, m.codes + list->column[i + j < n ? i + j : i] * m.column_bytes,
                      (int)blockIdx.y * OUTPUTS + first);
#pragma unroll
        for (int j = 0; j < weights::at_once; j++)
            if (i + j < n)
#pragma unroll
                for (int k = 0; k < LANE_OUTPUTS; k++)
                    sum[k] = __fmaf_rn(w[j].at(k), list->x[i + j], sum[k]);
    }
}

template <enum dtype T, bool SHARES>
__global__ void __launch_bounds__(THREADS, is_float(T) ? 2 : 1) mix_weights(struct mixing m)
{
    using weights = weights_t<T, is_float(T)>;
    __shared__ struct live_list<float> lists[WARPS];
    const int lane = threadIdx.x % LANES, first = lane * weights::first;
    struct live_list<float> *list = &lists[threadIdx.x / LANES];
    struct gpu_range r = {};
    struct taken taken = {1, 0, 1, NULL};
    if constexpr (SHARES) {
        gpu_begin();
        if (!take_share(m, &taken))
            return;
    }
    const bool is_segment = segment_of_warp(m, &r);
    const struct slots slots = slots_of_lane(m, r);
    if constexpr (!SHARES)
        gpu_begin();
    for (int t = SHARES ? taken.begin : (int)blockIdx.x; t < (SHARES ? taken.n : (int)blockIdx.x + 1);
         t += taken.step) {
        float sum[LANE_OUTPUTS] = {};
        mix_listed<T>(m, list, is_segment ? list_floats(m, slots, t, list) : 0, first, sum);
        add_segments(m, taken.token ? taken.token[t] : t, sum, [=](int i) { return first + i * weights::step; });
        if constexpr (SHARES)
            __syncthreads(); /* lists and sums have been read */
    }
}

template <bool SHARES> void launch(const struct gpu *g, enum dtype type, const struct mixing &m, const dim3 &grid)
{
    with_float_type(type, [&](auto t) { LAUNCH((mix_weights<decltype(t)::value, SHARES>), grid, THREADS, 0, g, m); });
    with_type(type, [&](auto t) { LAUNCH((mix_codes<decltype(t)::value, SHARES>), grid, THREADS, 0, g, m); });
}

void launch_transposed(const struct gpu *g, enum dtype type, const struct mixing &m, const dim3 &grid)
{
    with_weight_type(type, [&](auto t) { LAUNCH((mix_weights<decltype(t)::value, false>), grid, THREADS, 0, g, m); });
}

}

void gpu_mix_columns(const struct gpu *g, const struct neuron_columns *c, const struct gpu_range *ranges, int n_ranges,
                     const struct acts *h, int64_t n, const struct gpu_sums *to)
{
    struct mixing m = {};
    take_columns(m, *c);
    m.ranges = ranges;
    m.n_ranges = n_ranges;
    m.h = h->f32;
    m.book = gpu_book_of(c->type);
    m.to = *to;
    const dim3 grid((unsigned)n, (unsigned)(m.tiles + 1) / 2, (unsigned)(n_ranges + WARPS - 1) / WARPS);
    if (!n || !n_ranges || !m.rows)
        return;
    if (c->transposed)
        launch_transposed(g, c->type, m, grid);
    else
        launch<false>(g, c->type, m, grid);
}

void gpu_mix_shares(const struct gpu *g, const struct gpu_shares *s, enum dtype type, const struct acts *h, int64_t n,
                    const struct gpu_sums *to)
{
    struct mixing m = {};
    m.h = h->f32;
    m.book = gpu_book_of(type);
    m.to = *to;
    m.shares = *s;
    m.type = type;
    m.token_blocks = (int)share_blocks(n);
    const int tiles = (s->outputs + COLUMN_TILE - 1) / COLUMN_TILE;
    const dim3 grid((unsigned)(s->most * m.token_blocks), (unsigned)(tiles + 1) / 2,
                    (unsigned)(s->ranges + WARPS - 1) / WARPS);
    if (n && s->most && s->ranges)
        launch<true>(g, type, m, grid);
}
