/* Matrix times vectors over packed groups, in the words of *_vec.h. A lane is a row, so nothing is ever added across
 * lanes: the order of accumulation is that of the reference whatever the tile. `type` and `n` are constants wherever
 * these functions are inlined. */
#ifndef HEARTH_KERNELS_X86_VEC_MATMUL_H
#define HEARTH_KERNELS_X86_VEC_MATMUL_H

#include "kernels/layout.h"

/* Tokens that pass over a run of groups together: their codes and the groups stay in the second-level cache. */
enum { TOKEN_BLOCK = 64 };

/* While one token is computed the hardware prefetches as fast as memory can, if loads come in ascending order. When
 * several tokens share what is read, it sees the weights among many runs of activations and loses them: eight tokens took
 * 1.5 to 2 times as long on a Zen 4 core as they do now that they ask for what lies this far ahead. */
enum { AHEAD = 8192 };

/* Asks for n bytes to be brought into the second level, unless tokens are so few that memory is the bound all the same:
 * then asking takes more than it gives. */
INLINE void prefetch_ahead(bool shared, const uint8_t *p, size_t n)
{
    for (size_t at = 0; shared && at < n; at += 64)
        __builtin_prefetch(p + AHEAD + at, 0, 2);
}

INLINE bool shares_blocks(struct layout l, int n) { return n >= (l.low_bits == 8 ? 4 : 2); }

/* f16 and bf16 take longer to convert than to arrive. */
INLINE bool shares_floats(enum dtype type, int n) { return n >= (type == DT_F32 ? 8 : 1); }

/* The codes of one block: quad q of all 16 rows. */
INLINE void load_codes(struct layout l, const uint8_t *p, vi codes[8])
{
    const vi low4 = vi_set(0x0f0f0f0f), low2 = vi_set(0x03030303);
    if (l.low_bits == 8) {
        for (int q = 0; q < 8; q++)
            codes[q] = vi_load_in_order(p + 64 * q);
    } else if (l.low_bits == 4) {
        for (int i = 0; i < 4; i++) {
            vi v = vi_load_in_order(p + 64 * i);
            codes[i] = vi_and(v, low4);
            codes[i + 4] = vi_and(vi_shr16(v, 4), low4);
        }
    } else {
        for (int h = 0; h < 2; h++) {
            vi v = vi_load_in_order(p + 64 * h);
            codes[h] = vi_and(v, low2);
            codes[2 + h] = vi_and(vi_shr16(v, 2), low2);
            codes[4 + h] = vi_and(vi_shr16(v, 4), low2);
            codes[6 + h] = vi_and(vi_shr16(v, 6), low2);
        }
    }
}

/* Adds the high bits of Q6_K (2 above 4 low ones), Q5 (1 above 4) and Q3_K (1 above 2). */
INLINE void load_high_codes(struct layout l, const uint8_t *p, vi codes[8])
{
    if (l.high_bits == 2) {
        const vi mask = vi_set(0x30303030);
        for (int h = 0; h < 2; h++) {
            vi v = vi_load_in_order(p + 64 * h);
            codes[h] = vi_or_and(codes[h], vi_shl16(v, 4), mask);
            codes[2 + h] = vi_or_and(codes[2 + h], vi_shl16(v, 2), mask);
            codes[4 + h] = vi_or_and(codes[4 + h], v, mask);
            codes[6 + h] = vi_or_and(codes[6 + h], vi_shr16(v, 2), mask);
        }
    } else if (l.high_bits == 1) {
        vi v = vi_load_in_order(p);
        if (l.low_bits == 4) {
            const vi mask = vi_set(0x10101010);
            codes[0] = vi_or_and(codes[0], vi_shl16(v, 4), mask);
            codes[1] = vi_or_and(codes[1], vi_shl16(v, 3), mask);
            codes[2] = vi_or_and(codes[2], vi_shl16(v, 2), mask);
            codes[3] = vi_or_and(codes[3], vi_shl16(v, 1), mask);
            codes[4] = vi_or_and(codes[4], v, mask);
            codes[5] = vi_or_and(codes[5], vi_shr16(v, 1), mask);
            codes[6] = vi_or_and(codes[6], vi_shr16(v, 2), mask);
            codes[7] = vi_or_and(codes[7], vi_shr16(v, 3), mask);
        } else {
            const vi mask = vi_set(0x04040404);
            codes[0] = vi_or_and(codes[0], vi_shl16(v, 2), mask);
            codes[1] = vi_or_and(codes[1], vi_shl16(v, 1), mask);
            codes[2] = vi_or_and(codes[2], v, mask);
            codes[3] = vi_or_and(codes[3], vi_shr16(v, 1), mask);
            codes[4] = vi_or_and(codes[4], vi_shr16(v, 2), mask);
            codes[5] = vi_or_and(codes[5], vi_shr16(v, 3), mask);
            codes[6] = vi_or_and(codes[6], vi_shr16(v, 4), mask);
            codes[7] = vi_or_and(codes[7], vi_shr16(v, 5), mask);
        }
    }
}

/* d and dmin of a super-block, for the 16 rows. */
struct supers {
    vf d, m;
};

INLINE void load_supers(struct layout l, const struct place *p, struct supers *s)
{
    const uint16_t *supers = (const uint16_t *)p->supers;
    s->d = vf_of_f16(supers);
    if (l.minima)
        s->m = vf_of_f16(supers + ROW_GROUP);
}

/* The scale and the minimum of half h of a K type's block at p, for the 16 rows. */
INLINE void load_k_scales(struct layout l, const struct place *p, int h, vi *scale, vf *min)
{
    const uint8_t *scales = p->scales + h * ROW_GROUP;
    *min = vf_zero();
    if (!l.halves) {
        *scale = vi_of_u8(scales);
        *min = vf_of_vi(vi_of_u8(scales + ROW_GROUP));
    } else if (l.minima) {
        const vi both = vi_of_u8(scales);
        *scale = vi_and(both, vi_set(15));
        *min = vf_of_vi(vi_shr16(both, 4));
    } else {
        *scale = vi_of_i8(scales);
    }
}

/* What an integer sum starts with: minus offset times the sum of the activation codes. */
INLINE vi offset_sum(struct layout l, int32_t minus_sum)
{
    if (!l.offset)
        return vi_zero();
    return l.low_bits == 8 ? vi_dot8_start(minus_sum) : vi_shl32(vi_set(minus_sum), l.offset_shift);
}

INLINE vi start_sum(struct layout l, int h, const struct act_block *s)
{
    return offset_sum(l, !l.halves ? s->minus_sum : h == 0 ? s->minus_sum_low : s->minus_sum - s->minus_sum_low);
}

INLINE vi dot_quad(struct layout l, vi acc, vi codes, const int8_t *x)
{
    return l.low_bits == 8 ? vi_dot8(acc, codes, quad_load(x)) : vi_dot(acc, codes, quad_load(x));
}

/* sum[t] = the integer sums of half h of a block, or of all 32 columns, for tokens t < n. */
INLINE void dot_block(struct layout l, int n, int h, const vi codes[8], const int8_t *x, int64_t x_stride,
                      const struct act_block *s, int64_t s_stride, vi *sum)
{
    for (int t = 0; t < n; t++)
        sum[t] = start_sum(l, h, s + t * s_stride);
    for (int q = l.halves ? 4 * h : 0; q < (l.halves ? 4 * h + 4 : 8); q++)
        for (int t = 0; t < n; t++)
            sum[t] = dot_quad(l, sum[t], codes[q], x + t * x_stride + 4 * q);
}

INLINE void load_block(struct layout l, int n, const struct place *p, vi codes[8])
{
    prefetch_ahead(shares_blocks(l, n), p->scales, layout_scale_bytes(l) + layout_code_bytes(l));
    load_codes(l, p->codes, codes);
    load_high_codes(l, p->codes + 64 * l.low_bits, codes);
}

/* acc[t] += the block at p times a block of tokens t < n: codes x, scales and sums s. */
INLINE void add_block(struct layout l, int n, const struct place *p, const int8_t *x, int64_t x_stride,
                      const struct act_block *s, int64_t s_stride, vf *acc)
{
    const uint16_t *scales = (const uint16_t *)p->scales;
    vi codes[8], sum[TILE_TOKENS];
    load_block(l, n, p, codes);
    dot_block(l, n, 0, codes, x, x_stride, s, s_stride, sum);
    const vf d = vf_of_f16(scales), m = l.minima ? vf_of_f16(scales + ROW_GROUP) : vf_zero();
    for (int t = 0; t < n; t++) {
        const struct act_block *st = s + t * s_stride;
        acc[t] = vf_fma(vf_of_vi(sum[t]), vf_mul(d, vf_set(st->scale)), acc[t]);
        if (l.minima)
            acc[t] = vf_fma(m, vf_set(st->scaled_sum), acc[t]);
    }
}

/* The scaled sum of half h of a block of activations, or of all of it. */
INLINE float scaled_sum(struct layout l, int h, const struct act_block *s)
{
    if (!l.halves)
        return s->scaled_sum;
    return s->scale * (float)(h == 0 ? -s->minus_sum_low : s->minus_sum_low - s->minus_sum);
}

/* Q2_K: a code times its scale fits a byte (3 * 15), so one product serves all of a tile's tokens. */
INLINE bool scales_codes(struct layout l, int n) { return l.halves && l.low_bits + l.high_bits == 2 && n >= 4; }

/* whole[t] = the integer sums of a K type's block, times its scales. */
INLINE void dot_scaled_codes(struct layout l, int n, const struct place *p, const int8_t *x, int64_t x_stride,
                             vi codes[8], vi *whole)
{
    for (int t = 0; t < n; t++)
        whole[t] = vi_zero();
    for (int h = 0; h < 2; h++) {
        vi scale;
        vf min;
        load_k_scales(l, p, h, &scale, &min);
        scale = vi_add(scale, vi_shl32(scale, 16));
        for (int q = 4 * h; q < 4 * h + 4; q++) {
            const vi scaled = vi_mul16(codes[q], scale); /* no byte carries into the next */
            for (int t = 0; t < n; t++)
                whole[t] = dot_quad(l, whole[t], scaled, x + t * x_stride + 4 * q);
        }
    }
}

INLINE void scale_dots(struct layout l, int n, const struct place *p, const int8_t *x, int64_t x_stride,
                       const struct act_block *s, int64_t s_stride, vi codes[8], vi *whole)
{
    for (int h = 0; h < (l.halves ? 2 : 1); h++) {
        vi sum[TILE_TOKENS], scale;
        vf min;
        dot_block(l, n, h, codes, x, x_stride, s, s_stride, sum);
        load_k_scales(l, p, h, &scale, &min);
        for (int t = 0; t < n; t++) {
            const vi scaled = vi_mul(scale, sum[t]);
            whole[t] = h == 0 ? scaled : vi_add(whole[t], scaled);
        }
    }
}

/* a[t] += a K type's block, before the super-block's scale. */
INLINE void add_k_block(struct layout l, int n, const struct place *p, const int8_t *x, int64_t x_stride,
                        const struct act_block *s, int64_t s_stride, vf *a)
{
    vi codes[8], whole[TILE_TOKENS];
    load_block(l, n, p, codes);
    if (scales_codes(l, n))
        dot_scaled_codes(l, n, p, x, x_stride, codes, whole);
    else
        scale_dots(l, n, p, x, x_stride, s, s_stride, codes, whole);
    for (int t = 0; t < n; t++)
        a[t] = vf_fma(vf_of_vi(whole[t]), vf_set(s[t * s_stride].scale), a[t]);
}

/* least[t] += its minima. */
INLINE void add_minima(struct layout l, int n, const struct place *p, const struct act_block *s, int64_t s_stride,
                       vf *least)
{
    for (int h = 0; h < (l.halves ? 2 : 1) && l.minima; h++) {
        vi scale;
        vf min;
        load_k_scales(l, p, h, &scale, &min);
        for (int t = 0; t < n; t++)
            least[t] = vf_fma(min, vf_set(scaled_sum(l, h, s + t * s_stride)), least[t]);
    }
}

#define UNITS_OF_GRID 0x1p30f /* in 1: what the last bit near SEGMENT_GRID is worth; scaling by it is exact */

/* Where a product goes: y in f32, or partial in f64, one of them NULL. */
struct product {
    float *y;
    double *partial;
    int64_t stride;
};

INLINE void store_rows(const struct packed *m, int64_t g, int64_t t0, int n, const vf *acc, const vd *sum,
                       struct product out)
{
    int64_t rows = m->rows - g * ROW_GROUP;
    for (int t = 0; t < n; t++) {
        const int64_t at = (t0 + t) * out.stride + g * ROW_GROUP;
        if (out.partial && rows >= ROW_GROUP) {
            vd_store(out.partial + at, vd_scale(sum[t], 1 / UNITS_OF_GRID));
        } else if (out.partial) {
            double all[ROW_GROUP];
            vd_store(all, vd_scale(sum[t], 1 / UNITS_OF_GRID));
            memcpy(out.partial + at, all, (size_t)rows * sizeof *all);
        } else if (rows >= ROW_GROUP) {
            vf_store(out.y + at, acc[t]);
        } else {
            vf_store_part(out.y + at, acc[t], rows);
        }
    }
}

/* Ends a segment: its sums go onto the grid, the next starts from +0. */
INLINE void close_segment(int n, vf *acc, vd *sum)
{
    for (int t = 0; t < n; t++) {
        sum[t] = vd_add_units(sum[t], acc[t], UNITS_OF_GRID);
        acc[t] = vf_zero();
    }
}

INLINE void clear_sums(int n, vf *acc, vd *sum)
{
    for (int t = 0; t < n; t++) {
        acc[t] = vf_zero();
        sum[t] = vd_zero();
    }
}

/* acc[t] += blocks [b, end) of a group. */
INLINE void add_blocks(struct layout l, int n, uint8_t *group, int64_t b, int64_t end, const int8_t *x,
                       int64_t x_stride, const struct act_block *s, int64_t s_stride, vf *acc)
{
    for (; b < end; b++) {
        const struct place p = layout_place(l, group, b);
        add_block(l, n, &p, x + b * ACT_BLOCK, x_stride, s + b, s_stride, acc);
    }
}

/* The same of a K type. The minima of a whole tile follow its blocks: registers do not hold both sums. */
INLINE void add_halves(struct layout l, int n, uint8_t *group, int64_t b, int64_t end, const int8_t *x,
                       int64_t x_stride, const struct act_block *s, int64_t s_stride, vf *acc)
{
    const bool apart = n == TILE_TOKENS;
    for (int64_t stop; b < end; b = stop) {
        struct place p = layout_place(l, group, b);
        vf a[TILE_TOKENS], least[TILE_TOKENS];
        struct supers supers;
        prefetch_ahead(shares_blocks(l, n), p.supers, layout_super_bytes(l));
        load_supers(l, &p, &supers);
        for (int t = 0; t < n; t++)
            a[t] = least[t] = vf_zero();
        stop = unit_end(b, HALF_BLOCKS, end);
        for (int64_t i = b; i < stop; i++) {
            p = layout_place(l, group, i);
            add_k_block(l, n, &p, x + i * ACT_BLOCK, x_stride, s + i, s_stride, a);
            if (!apart)
                add_minima(l, n, &p, s + i, s_stride, least);
        }
        for (int t = 0; t < n; t++)
            acc[t] = vf_fma(supers.d, a[t], acc[t]);
        for (int64_t i = b; i < stop && apart && l.minima; i++) {
            p = layout_place(l, group, i);
            add_minima(l, n, &p, s + i, s_stride, least);
        }
        for (int t = 0; t < n && l.minima; t++)
            acc[t] = vf_fnma(supers.m, least[t], acc[t]);
    }
}

/* One group times tokens [t0, t0 + n). */
INLINE void quantised_tile(enum dtype type, int n, const struct packed *m, int64_t g, const struct acts *a, int64_t t0,
                           struct product out)
{
    const int64_t nb = m->cols / ACT_BLOCK, segment = m->segment / ACT_BLOCK;
    const int8_t *x = a->codes + t0 * m->cols;
    const struct act_block *s = a->blocks + t0 * nb;
    uint8_t *group = m->data + (size_t)g * m->group_bytes;
    vf acc[TILE_TOKENS];
    vd sum[TILE_TOKENS];
    clear_sums(n, acc, sum);
    for (int64_t b = 0; b < nb;) {
        int64_t end = out.partial && b + segment < nb ? b + segment : nb;
        if (layout_of(type).k)
            add_halves(layout_of(type), n, group, b, end, x, m->cols, s, nb, acc);
        else
            add_blocks(layout_of(type), n, group, b, end, x, m->cols, s, nb, acc);
        b = end;
        if (out.partial)
            close_segment(n, acc, sum);
    }
    store_rows(m, g, t0, n, acc, sum, out);
}

INLINE vf load_float(enum dtype type, const uint8_t *p)
{
    return type == DT_F32   ? vf_load((const float *)p)
           : type == DT_F16 ? vf_of_f16((const uint16_t *)p)
                            : vf_of_bf16((const uint16_t *)p);
}

/* Ends a segment of a whole product. */
INLINE void close_floats(int n, vf *acc, vf *total)
{
    for (int t = 0; t < n; t++) {
        total[t] = vf_add(total[t], acc[t]);
        acc[t] = vf_zero();
    }
}

INLINE void float_tile(enum dtype type, int n, const struct packed *m, int64_t g, const struct acts *a, int64_t t0,
                       struct product out)
{
    const uint8_t *group = m->data + (size_t)g * m->group_bytes;
    const float *x = a->f32 + t0 * m->cols;
    const int64_t step = ROW_GROUP * (type == DT_F32 ? 4 : 2);
    vf acc[TILE_TOKENS], total[TILE_TOKENS];
    vd sum[TILE_TOKENS];
    clear_sums(n, acc, sum);
    for (int t = 0; t < n; t++)
        total[t] = vf_zero();
    for (int64_t c = 0; c < m->cols;) {
        const int64_t segment = out.partial ? m->segment : FLOAT_SEGMENT;
        const int64_t end = c + segment < m->cols ? c + segment : m->cols;
        for (; c < end; c++) {
            vf w = load_float(type, group + c * step);
            if (c * step % 64 == 0)
                prefetch_ahead(shares_floats(type, n), group + c * step, 64);
            for (int t = 0; t < n; t++)
                acc[t] = vf_fma(w, vf_set(x[t * m->cols + c]), acc[t]);
        }
        if (out.partial)
            close_segment(n, acc, sum);
        else
            close_floats(n, acc, total);
    }
    store_rows(m, g, t0, n, total, sum, out);
}

INLINE void tile(enum dtype type, int n, const struct packed *m, int64_t g, const struct acts *a, int64_t t0,
                 struct product out)
{
    if (type == DT_F32 || type == DT_F16 || type == DT_BF16)
        float_tile(type, n, m, g, a, t0, out);
    else
        quantised_tile(type, n, m, g, a, t0, out);
}

/* All groups of a call times all tokens, for one type. */
INLINE void multiply(enum dtype type, const struct packed *m, int64_t group_begin, int64_t group_end,
                     const struct acts *a, int64_t n_tokens, struct product out)
{
    for (int64_t t0 = 0; t0 < n_tokens; t0 += TOKEN_BLOCK) {
        int64_t t_end = t0 + TOKEN_BLOCK < n_tokens ? t0 + TOKEN_BLOCK : n_tokens;
        for (int64_t g = group_begin; g < group_end; g++) {
            int64_t t = t0;
            for (; t + TILE_TOKENS <= t_end; t += TILE_TOKENS)
                tile(type, TILE_TOKENS, m, g, a, t, out);
            for (; TILE_TOKENS > 4 && t + 4 <= t_end; t += 4)
                tile(type, TILE_TOKENS > 4 ? 4 : 1, m, g, a, t, out);
            for (; TILE_TOKENS > 2 && t + 2 <= t_end; t += 2)
                tile(type, TILE_TOKENS > 2 ? 2 : 1, m, g, a, t, out);
            for (; t < t_end; t++)
                tile(type, 1, m, g, a, t, out);
        }
    }
}

/* Two functions of its own for each type keep compile times and register allocation sane. */
typedef void multiply_fn(const struct packed *, int64_t, int64_t, const struct acts *, int64_t, struct product);
#define MULTIPLY(type)                                                                                                 \
    static __attribute__((noinline)) void multiply_##type(const struct packed *m, int64_t g0, int64_t g1,              \
                                                          const struct acts *a, int64_t n, struct product out)         \
    {                                                                                                                  \
        multiply(DT_##type, m, g0, g1, a, n, (struct product){out.y, NULL, out.stride});                               \
    }                                                                                                                  \
    static __attribute__((noinline)) void partial_##type(const struct packed *m, int64_t g0, int64_t g1,               \
                                                         const struct acts *a, int64_t n, struct product out)          \
    {                                                                                                                  \
        if (out.partial)                                                                                               \
            multiply(DT_##type, m, g0, g1, a, n, (struct product){NULL, out.partial, out.stride});                     \
    }
MULTIPLY(F32)
MULTIPLY(F16)
MULTIPLY(BF16)
MULTIPLY(Q4_0)
MULTIPLY(Q4_1)
MULTIPLY(Q5_0)
MULTIPLY(Q5_1)
MULTIPLY(Q8_0)
MULTIPLY(Q2_K)
MULTIPLY(Q3_K)
MULTIPLY(Q4_K)
MULTIPLY(Q5_K)
MULTIPLY(Q6_K)
#undef MULTIPLY

struct multiply_pair {
    multiply_fn *whole, *partial;
};

static struct multiply_pair multiply_of(enum dtype type)
{
    static const struct multiply_pair by_type[] = {
        [DT_F32] = {multiply_F32, partial_F32},    [DT_F16] = {multiply_F16, partial_F16},
        [DT_BF16] = {multiply_BF16, partial_BF16}, [DT_Q4_0] = {multiply_Q4_0, partial_Q4_0},
        [DT_Q4_1] = {multiply_Q4_1, partial_Q4_1}, [DT_Q5_0] = {multiply_Q5_0, partial_Q5_0},
        [DT_Q5_1] = {multiply_Q5_1, partial_Q5_1}, [DT_Q8_0] = {multiply_Q8_0, partial_Q8_0},
        [DT_Q2_K] = {multiply_Q2_K, partial_Q2_K}, [DT_Q3_K] = {multiply_Q3_K, partial_Q3_K},
        [DT_Q4_K] = {multiply_Q4_K, partial_Q4_K}, [DT_Q5_K] = {multiply_Q5_K, partial_Q5_K},
        [DT_Q6_K] = {multiply_Q6_K, partial_Q6_K},
    };
    return by_type[type];
}

static void matmul(const struct packed *m, int64_t group_begin, int64_t group_end, const struct acts *a,
                   int64_t n_tokens, float *y, int64_t y_stride)
{
    multiply_of(m->type).whole(m, group_begin, group_end, a, n_tokens, (struct product){y, NULL, y_stride});
}

static void matmul_partial(const struct packed *m, int64_t group_begin, int64_t group_end, const struct acts *a,
                           int64_t n_tokens, double *y, int64_t y_stride)
{
    multiply_of(m->type).partial(m, group_begin, group_end, a, n_tokens, (struct product){NULL, y, y_stride});
}

#endif
