/* mix_columns in the words of avx*_vec.h.
 *
 * A segment is planned first: which neurons are live, by fours, for each token. Then each tile of outputs goes through
 * the plans of all tokens with its sums in registers, while the next segment's codes and scales of the same tile are
 * fetched. So memory is read once for all tokens, by neurons in runs of a strip, and never by accident. */
#ifndef HEARTH_KERNELS_X86_VEC_COLUMNS_H
#define HEARTH_KERNELS_X86_VEC_COLUMNS_H

#include "kernels/column_layout.h"
#include "kernels/x86/vec_matmul.h"

enum {
    MIX_TOKENS = 16,    /* tokens that pass over the columns together */
    STRIP_BYTES = 1024, /* of a neuron in a strip: what a segment needs then fits the second-level cache, twice */
};

/* Four live neurons' first low parts; where there are fewer, the first again, times 0. */
struct column_quad {
    const uint8_t *codes[4];
    int8_t x[4];
};

/* What shares scales: a block, or half of it. */
struct column_part {
    const uint8_t *scales; /* of the first tile */
    float scale, scaled_sum;
    int32_t minus_sum;
    int half, n_quads;
    bool ends_block;
};

/* A live neuron of float or transposed weights. */
struct live_column {
    const uint8_t *codes;
    float x;
};

/* One token's share of a segment. */
struct column_plan {
    int n_parts, n_live; /* n_live: quads, or neurons */
    struct column_part part[2 * SEGMENT_BLOCKS];
    union {
        struct column_quad quad[SUM_SEGMENT / 4];
        struct live_column live[SUM_SEGMENT];
    };
};

/* A segment, and what is to be fetched of it ahead. */
struct column_segment {
    struct column_range range;
    const uint8_t *scales, *supers; /* of the first tile */
    int n_ahead;
    const uint8_t *ahead[SUM_SEGMENT];
    struct column_plan plan[MIX_TOKENS];
};

/* How columns are read. */
struct column_kind {
    enum dtype type;
    bool transposed;
};

INLINE bool kind_reads_codes(struct column_kind k) { return !k.transposed && dtype_is_quantised(k.type); }
/* Bytes from a tile to the next, of codes their low parts. */
INLINE int64_t tile_bytes(struct column_kind k)
{
    if (!dtype_is_quantised(k.type))
        return part_bytes(float_bits(k.type));
    return k.transposed ? (int64_t)dtype_row_bytes(k.type, 2 * COLUMN_TILE) / 2 : part_bytes(layout_of(k.type).low_bits);
}

INLINE int plan_quads(const struct neuron_columns *m, int64_t b, uint32_t live, const int8_t *x, struct column_quad *q)
{
    int n = 0;
    for (; live; live &= live - 1) {
        const int c = __builtin_ctz(live);
        const int32_t column = m->column[b * ACT_BLOCK + c];
        if (column < 0)
            continue;
        q[n / 4].codes[n % 4] = column_codes(m, column);
        q[n / 4].x[n % 4] = x[c];
        n++;
    }
    for (; n % 4; n++) {
        q[n / 4].codes[n % 4] = q[n / 4].codes[0];
        q[n / 4].x[n % 4] = 0;
    }
    return n / 4;
}

/* Block b of a token: codes x, scale and sums s. Returns which neurons are live. */
INLINE uint32_t plan_codes(struct column_kind k, const struct neuron_columns *m, const struct column_range *r, int64_t b,
                           const int8_t *x, const struct act_block *s, struct column_plan *p)
{
    const bool halves = layout_of(k.type).halves;
    const uint32_t live = nonzero_bytes(x);
    for (int h = 0; h < (halves ? 2 : 1); h++) {
        struct column_part *part = &p->part[p->n_parts];
        const uint32_t mask = !halves ? 0xffffffff : h == 0 ? 0xffff : 0xffff0000;
        if (!(live & mask))
            continue;
        part->n_quads = plan_quads(m, b, live & mask, x, p->quad + p->n_live);
        part->scales = column_scales(m, r, b, 0);
        part->half = h;
        part->minus_sum = !halves ? s->minus_sum : h == 0 ? s->minus_sum_low : s->minus_sum - s->minus_sum_low;
        part->scale = s->scale;
        part->scaled_sum = !halves ? s->scaled_sum : s->scale * (float)-part->minus_sum;
        part->ends_block = !halves || h == 1 || !(live >> 16);
        p->n_live += part->n_quads;
        p->n_parts++;
    }
    return live;
}

INLINE uint32_t plan_floats(const struct neuron_columns *m, int64_t b, const float *x, struct column_plan *p)
{
    const uint32_t live = nonzero_floats(x) | nonzero_floats(x + 16) << 16;
    for (uint32_t rest = live; rest; rest &= rest - 1) {
        const int c = __builtin_ctz(rest);
        const int32_t column = m->column[b * ACT_BLOCK + c];
        if (column >= 0)
            p->live[p->n_live++] = (struct live_column){column_codes(m, column), x[c]};
    }
    return live;
}

/* Plans the segment after `last` for tokens [t0, t0 + n). */
INLINE void plan_segment(struct column_kind k, const struct neuron_columns *m, const struct column_range *last,
                         const struct acts *a, int64_t t0, int n, struct column_segment *seg)
{
    struct column_range *r = &seg->range;
    *r = *last;
    seg->n_ahead = 0;
    for (int t = 0; t < n; t++)
        seg->plan[t].n_parts = seg->plan[t].n_live = 0;
    if (!next_range(m, r))
        return;
    seg->scales = column_scales(m, r, r->begin, 0);
    seg->supers = column_supers(m, r, 0);
    for (int64_t b = r->begin; b < r->end; b++) {
        uint32_t live = 0;
        for (int t = 0; t < n; t++) {
            const int64_t i = (t0 + t) * m->n_blocks + b;
            live |= kind_reads_codes(k) ? plan_codes(k, m, r, b, a->codes + i * ACT_BLOCK, &a->blocks[i], &seg->plan[t])
                                        : plan_floats(m, b, a->f32 + i * ACT_BLOCK, &seg->plan[t]);
        }
        for (; live; live &= live - 1) {
            const int32_t column = m->column[b * ACT_BLOCK + __builtin_ctz(live)];
            if (column >= 0)
                seg->ahead[seg->n_ahead++] = column_codes(m, column);
        }
    }
}

/* Fetches a tile of what the segment needs into the second level. */
INLINE void fetch_tile(struct column_kind k, const struct neuron_columns *m, const struct column_segment *seg,
                       int64_t tile)
{
    const struct layout l = layout_of(k.type);
    const int64_t bytes = tile_bytes(k), blocks = seg->range.end - seg->range.begin;
    for (int i = 0; i < seg->n_ahead; i++) {
        for (int64_t line = 0; line < bytes; line += CACHE_LINE)
            __builtin_prefetch(seg->ahead[i] + tile * bytes + line, 0, 2);
        if (kind_reads_codes(k) && l.high_bits)
            __builtin_prefetch(seg->ahead[i] + high_at(l, column_tiles(m), tile), 0, 2);
    }
    if (!kind_reads_codes(k) || !seg->n_ahead)
        return;
    for (int64_t line = 0; line < blocks * tile_scale_bytes(l); line += CACHE_LINE)
        __builtin_prefetch(seg->scales + tile * blocks * tile_scale_bytes(l) + line, 0, 2);
    for (int64_t line = 0; line < tile_super_bytes(l); line += CACHE_LINE)
        __builtin_prefetch(seg->supers + tile * tile_super_bytes(l) + line, 0, 2);
}

/* Where a tile is: how far from a neuron's codes, from the first tile's scales; its supers. */
struct tile_place {
    int64_t low, high, scales;
    const uint8_t *supers;
};

/* ---- codes ---- */

/* Four neurons' parts of a tile, `at` bytes into their codes, side by side. */
INLINE void load_parts(int bits, const struct column_quad *q, int64_t at, vi of[4])
{
    vi v[4];
    for (int j = 0; j < 4; j++)
        v[j] = bits == 1 ? vi_load_fourfold(q->codes[j] + at)
               : bits == 2 ? vi_load_twice(q->codes[j] + at) : vi_load(q->codes[j] + at);
    vi_zip(v, of);
    for (int k = 0; k < 4; k++)
        of[k] = bits == 1 ? vi_shr_fourfold(of[k]) : bits == 2 ? vi_shr_twice(of[k]) : of[k];
}

/* Adds the high bits of codes of a tile. */
INLINE void zip_high_codes(struct layout l, const struct column_quad *q, const struct tile_place *at,
                           vi codes[TILE_GROUPS])
{
    vi high[4];
    load_parts(l.high_bits, q, at->high, high);
    const vi high_mask = vi_set(l.low_bits == 2 ? 0x04040404 : l.high_bits == 2 ? 0x30303030 : 0x10101010);
    for (int k = 0; k < 4; k++) {
        codes[k] = vi_or_and(codes[k], l.low_bits == 4 ? vi_shl16(high[k], 4) : vi_shl16(high[k], 2), high_mask);
        codes[k + 4] = vi_or_and(codes[k + 4], l.low_bits == 4 ? high[k] : vi_shr16(high[k], 2), high_mask);
    }
}

/* The codes of a tile's 8 groups of 16 outputs, of four neurons each. */
INLINE void zip_codes(struct layout l, const struct column_quad *q, const struct tile_place *at, vi codes[TILE_GROUPS])
{
    load_parts(l.low_bits, q, at->low, codes);
    if (l.low_bits == 8) {
        load_parts(8, q, at->low + 64, codes + 4);
        return;
    }
    const vi mask = vi_set(l.low_bits == 4 ? 0x0f0f0f0f : 0x03030303);
    for (int k = 0; k < 4; k++) {
        codes[k + 4] = vi_and(vi_shr16(codes[k], 4), mask);
        codes[k] = vi_and(codes[k], mask);
    }
    if (l.high_bits)
        zip_high_codes(l, q, at, codes);
    look_up(l, TILE_GROUPS, codes);
}

/* A part's integer sums. */
INLINE const struct column_quad *sum_part(struct layout l, const struct column_part *part, const struct column_quad *q,
                                          const struct tile_place *tile, vi sum[TILE_GROUPS])
{
    vi codes[TILE_GROUPS];
    for (int g = 0; g < TILE_GROUPS; g++)
        sum[g] = offset_sum(l, part->minus_sum);
    for (int n = 0; n < part->n_quads; n++, q++) {
        zip_codes(l, q, tile, codes);
        for (int g = 0; g < TILE_GROUPS; g++)
            sum[g] = dot_quad(l, sum[g], codes[g], q->x);
    }
    return q;
}

/* acc += a block's integer sums, scaled. */
INLINE void add_sums_of_block(struct layout l, const struct column_part *p, const struct tile_place *tile,
                              const vi sum[TILE_GROUPS], vf acc[TILE_GROUPS])
{
    const uint8_t *at = p->scales + tile->scales;
    for (int g = 0; g < TILE_GROUPS; g++, at += layout_scale_bytes(l)) {
        const vf d = load_d(l, at);
        acc[g] = vf_fma(vf_of_vi(sum[g]), vf_mul(d, vf_set(p->scale)), acc[g]);
        if (l.minima)
            acc[g] = vf_fma(vf_of_f16((const uint16_t *)at + ROW_GROUP), vf_set(p->scaled_sum), acc[g]);
    }
}

/* The same of a part of a K type: `scaled` gathers a block's integers, `a` and `least` the blocks of the segment. */
INLINE void add_k_sums(struct layout l, const struct column_part *p, const struct tile_place *tile,
                       const vi sum[TILE_GROUPS], vi scaled[TILE_GROUPS], vf a[TILE_GROUPS], vf least[TILE_GROUPS])
{
    struct place at = {.scales = (uint8_t *)p->scales + tile->scales};
    for (int g = 0; g < TILE_GROUPS; g++, at.scales += layout_scale_bytes(l)) {
        vi scale;
        vf min;
        load_k_scales(l, &at, p->half, &scale, &min);
        scaled[g] = vi_add(scaled[g], vi_mul(scale, sum[g]));
        if (l.minima)
            least[g] = vf_fma(min, vf_set(p->scaled_sum), least[g]);
        if (p->ends_block) {
            a[g] = vf_fma(vf_of_vi(scaled[g]), vf_set(p->scale), a[g]);
            scaled[g] = vi_zero();
        }
    }
}

INLINE void mix_codes(struct layout l, const struct column_plan *p, const struct tile_place *tile, vf acc[TILE_GROUPS])
{
    const struct column_quad *q = p->quad;
    for (int i = 0; i < p->n_parts; i++) {
        vi sum[TILE_GROUPS];
        q = sum_part(l, &p->part[i], q, tile, sum);
        add_sums_of_block(l, &p->part[i], tile, sum, acc);
    }
}

/* A segment is half a super-block. */
INLINE void mix_k_codes(struct layout l, const struct column_plan *p, const struct tile_place *tile,
                        vf acc[TILE_GROUPS])
{
    const struct column_quad *q = p->quad;
    struct place at = {.supers = (uint8_t *)tile->supers};
    vi scaled[TILE_GROUPS];
    vf least[TILE_GROUPS];
    for (int g = 0; g < TILE_GROUPS; g++) {
        scaled[g] = vi_zero();
        least[g] = vf_zero();
    }
    for (int i = 0; i < p->n_parts; i++) {
        vi sum[TILE_GROUPS];
        q = sum_part(l, &p->part[i], q, tile, sum);
        add_k_sums(l, &p->part[i], tile, sum, scaled, acc, least);
    }
    for (int g = 0; g < TILE_GROUPS; g++, at.supers += layout_super_bytes(l)) {
        struct supers supers;
        load_supers(l, &at, &supers);
        acc[g] = vf_fma(supers.d, acc[g], vf_zero());
        if (l.minima)
            acc[g] = vf_fnma(supers.m, least[g], acc[g]);
    }
}

/* ---- weights ---- */

/* 32 outputs of a transposed column, a block of the file at p. */
INLINE void load_q4_block(const uint8_t *p, vf w[2])
{
    const q4_scale d = q4_scale_of(vf_set_f16(p));
    const vi codes = vi_of_u8(p + 2);
    w[0] = vf_of_q4(d, codes);
    w[1] = vf_of_q4(d, vi_shr16(codes, 4));
}

INLINE void load_q8_block(const uint8_t *p, vf w[2])
{
    const vf d = vf_set_f16(p);
    w[0] = vf_mul(d, vf_of_vi(vi_of_i8(p + 2)));
    w[1] = vf_mul(d, vf_of_vi(vi_of_i8(p + 18)));
}

/* n weights (the rest zeros) of a tile of types that transposed files hardly have. */
static __attribute__((noinline)) void decode_weights(enum dtype type, const uint8_t *codes, int64_t tile, int64_t n,
                                                     float w[COLUMN_TILE])
{
    for (int64_t r = 0; r < COLUMN_TILE; r += ACT_BLOCK) {
        if (r < n)
            block_dequantize(type, codes, (tile * COLUMN_TILE + r) / ACT_BLOCK, w + r);
        else
            memset(w + r, 0, ACT_BLOCK * sizeof *w);
    }
}

/* The weights of a tile, n of which there are. */
INLINE void load_weights(enum dtype type, const uint8_t *codes, int64_t tile, int64_t n, vf w[TILE_GROUPS])
{
    if (!dtype_is_quantised(type)) {
        const int bits = float_bits(type);
        for (int g = 0; g < TILE_GROUPS; g++)
            w[g] = load_float(type, codes + tile * part_bytes(bits) + g * ROW_GROUP * bits / 8);
    } else if (type == DT_Q4_0 || type == DT_Q8_0) {
        const int64_t bytes = type == DT_Q4_0 ? 18 : 34;
        for (int i = 0; i < COLUMN_TILE / ACT_BLOCK; i++) {
            const uint8_t *block = codes + (tile * (COLUMN_TILE / ACT_BLOCK) + i) * bytes;
            if (i * ACT_BLOCK >= n)
                w[2 * i] = w[2 * i + 1] = vf_zero();
            else if (type == DT_Q4_0)
                load_q4_block(block, w + 2 * i);
            else
                load_q8_block(block, w + 2 * i);
        }
    } else {
        float all[COLUMN_TILE];
        decode_weights(type, codes, tile, n, all);
        for (int g = 0; g < TILE_GROUPS; g++)
            w[g] = vf_load(all + g * ROW_GROUP);
    }
}

INLINE void mix_weights(enum dtype type, const struct column_plan *p, int64_t tile, int64_t n, vf acc[TILE_GROUPS])
{
    for (int i = 0; i < p->n_live; i++) {
        vf w[TILE_GROUPS];
        load_weights(type, p->live[i].codes, tile, n, w);
        for (int g = 0; g < TILE_GROUPS; g++)
            acc[g] = vf_fma(w[g], vf_set(p->live[i].x), acc[g]);
    }
}

/* ---- tiles ---- */

/* y += the segment's sums on the grid, n of them. */
INLINE void end_segment(double *y, int64_t n, const vf acc[TILE_GROUPS])
{
    double part[COLUMN_TILE], *to = n < COLUMN_TILE ? part : y;
    if (n < COLUMN_TILE)
        memcpy(part, y, (size_t)n * sizeof *y);
    for (int g = 0; g < TILE_GROUPS; g++)
        vd_store(to + g * ROW_GROUP, vd_add_on_grid(vd_load(to + g * ROW_GROUP), acc[g], SEGMENT_GRID));
    if (n < COLUMN_TILE)
        memcpy(y, part, (size_t)n * sizeof *y);
}

/* A tile, of n outputs, of a segment, for tokens [0, n_tokens). */
INLINE void mix_segment(struct column_kind k, const struct neuron_columns *m, const struct column_segment *seg,
                        int64_t tile, int64_t n, int n_tokens, double *y, int64_t y_stride)
{
    const struct column_range *r = &seg->range;
    struct tile_place place = {0};
    if (kind_reads_codes(k)) {
        const struct layout l = layout_of(k.type);
        place.low = tile * part_bytes(l.low_bits);
        place.high = high_at(l, column_tiles(m), tile);
        place.scales = tile * (r->end - r->begin) * tile_scale_bytes(l);
        place.supers = seg->supers + tile * tile_super_bytes(l);
    }
    for (int t = 0; t < n_tokens; t++) {
        const struct column_plan *p = &seg->plan[t];
        vf acc[TILE_GROUPS];
        if (!p->n_live)
            continue;
        for (int g = 0; g < TILE_GROUPS; g++)
            acc[g] = vf_zero();
        if (kind_reads_codes(k) && layout_of(k.type).k)
            mix_k_codes(layout_of(k.type), p, &place, acc);
        else if (kind_reads_codes(k))
            mix_codes(layout_of(k.type), p, &place, acc);
        else
            mix_weights(k.type, p, tile, n, acc);
        end_segment(y + t * y_stride, n, acc);
    }
}

/* Rows [begin, end), a strip, of tokens [t0, t0 + n). */
INLINE void mix_strip(struct column_kind k, const struct neuron_columns *m, int64_t begin, int64_t end,
                      const struct acts *a, int64_t t0, int n, double *y, int64_t y_stride)
{
    const struct column_range first = {.super = -1};
    struct column_segment segment[2], *now = &segment[0], *next = &segment[1];
    for (int t = 0; t < n; t++)
        memset(y + (t0 + t) * y_stride + begin, 0, (size_t)(end - begin) * sizeof *y);
    plan_segment(k, m, &first, a, t0, n, now);
    for (bool more = true; more;) {
        more = now->range.end < m->n_blocks;
        plan_segment(k, m, &now->range, a, t0, n, next);
        for (int64_t row = begin; row < end; row += COLUMN_TILE) {
            fetch_tile(k, m, next, row / COLUMN_TILE);
            mix_segment(k, m, now, row / COLUMN_TILE, row + COLUMN_TILE < end ? COLUMN_TILE : end - row, n,
                        y + t0 * y_stride + row, y_stride);
        }
        struct column_segment *done = now;
        now = next;
        next = done;
    }
}

INLINE void mix(struct column_kind k, const struct neuron_columns *m, int64_t row_begin, int64_t row_end,
                const struct acts *a, int64_t n_tokens, double *y, int64_t y_stride)
{
    const int64_t strip = STRIP_BYTES / tile_bytes(k) * COLUMN_TILE;
    for (int64_t t = 0; t < n_tokens; t += MIX_TOKENS)
        for (int64_t row = row_begin; row < row_end; row += strip)
            mix_strip(k, m, row, row + strip < row_end ? row + strip : row_end, a, t,
                      t + MIX_TOKENS < n_tokens ? MIX_TOKENS : (int)(n_tokens - t), y, y_stride);
}

typedef void mix_fn(const struct neuron_columns *, int64_t, int64_t, const struct acts *, int64_t, double *, int64_t);
#define MIX(name, type, transposed)                                                                                         \
    static __attribute__((noinline)) void mix_##name(const struct neuron_columns *m, int64_t row_begin,                \
                                                     int64_t row_end, const struct acts *a, int64_t n_tokens,          \
                                                     double *y, int64_t y_stride)                                      \
    {                                                                                                                  \
        mix((struct column_kind){type, transposed}, m, row_begin, row_end, a, n_tokens, y, y_stride);                                             \
    }
MIX(F32, DT_F32, false)
MIX(F16, DT_F16, false)
MIX(BF16, DT_BF16, false)
MIX(Q4_0, DT_Q4_0, false)
MIX(Q4_1, DT_Q4_1, false)
MIX(Q5_0, DT_Q5_0, false)
MIX(Q5_1, DT_Q5_1, false)
MIX(Q8_0, DT_Q8_0, false)
MIX(Q2_K, DT_Q2_K, false)
MIX(Q3_K, DT_Q3_K, false)
MIX(Q4_K, DT_Q4_K, false)
MIX(Q5_K, DT_Q5_K, false)
MIX(Q6_K, DT_Q6_K, false)
MIX(IQ4_NL, DT_IQ4_NL, false)
MIX(IQ4_XS, DT_IQ4_XS, false)
MIX(MXFP4, DT_MXFP4, false)
MIX(IQ3_S, DT_IQ3_S, false)
MIX(IQ3_XXS, DT_IQ3_XXS, false)
MIX(IQ2_XXS, DT_IQ2_XXS, false)
MIX(IQ2_S, DT_IQ2_S, false)
MIX(IQ1_S, DT_IQ1_S, false)
MIX(IQ1_M, DT_IQ1_M, false)
MIX(TQ2_0, DT_TQ2_0, false)
MIX(Q4_0_transposed, DT_Q4_0, true)
MIX(Q8_0_transposed, DT_Q8_0, true)
MIX(transposed, m->type, true)
#undef MIX

static mix_fn *mix_of(const struct neuron_columns *m)
{
    static mix_fn *const by_type[] = {
        [DT_F32] = mix_F32,   [DT_F16] = mix_F16,   [DT_BF16] = mix_BF16, [DT_Q4_0] = mix_Q4_0, [DT_Q4_1] = mix_Q4_1,
        [DT_Q5_0] = mix_Q5_0, [DT_Q5_1] = mix_Q5_1, [DT_Q8_0] = mix_Q8_0, [DT_Q2_K] = mix_Q2_K, [DT_Q3_K] = mix_Q3_K,
        [DT_Q4_K] = mix_Q4_K, [DT_Q5_K] = mix_Q5_K, [DT_Q6_K] = mix_Q6_K, [DT_IQ4_NL] = mix_IQ4_NL,
        [DT_IQ4_XS] = mix_IQ4_XS, [DT_MXFP4] = mix_MXFP4,
        [DT_IQ3_S] = mix_IQ3_S, [DT_IQ3_XXS] = mix_IQ3_XXS, [DT_IQ2_XXS] = mix_IQ2_XXS, [DT_IQ2_S] = mix_IQ2_S,
        [DT_IQ2_XS] = mix_IQ2_S, [DT_IQ1_S] = mix_IQ1_S, [DT_IQ1_M] = mix_IQ1_M, [DT_TQ2_0] = mix_TQ2_0,
        [DT_TQ1_0] = mix_TQ2_0,
    };
    if (columns_read_codes(m) || !dtype_is_quantised(m->type))
        return by_type[m->type];
    return m->type == DT_Q4_0 ? mix_Q4_0_transposed : m->type == DT_Q8_0 ? mix_Q8_0_transposed : mix_transposed;
}

static void mix_columns(const struct neuron_columns *m, int64_t row_begin, int64_t row_end, const struct acts *h,
                        int64_t n_tokens, double *y, int64_t y_stride)
{
    mix_of(m)(m, row_begin, row_end, h, n_tokens, y, y_stride);
}

#endif
