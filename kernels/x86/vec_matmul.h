/* Matrix times vectors over packed groups, in the words of *_vec.h. A lane is a row, so nothing is ever added across
 * lanes: the order of accumulation is that of the reference whatever the tile. `type` and `n` are constants wherever
 * these functions are inlined. */
#ifndef HEARTH_KERNELS_X86_VEC_MATMUL_H
#define HEARTH_KERNELS_X86_VEC_MATMUL_H

#include "kernels/x86/vec_blocks.h"

/* Tokens that pass over a run of groups together: their codes and the groups stay in the second-level cache. */
enum { TOKEN_BLOCK = 64 };

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

/* One group times tokens [t0, t0 + n), which ask for what lies ahead or do not. */
INLINE void sum_tile(enum dtype type, int n, bool ask, const struct packed *m, int64_t g, const struct acts *a,
                     int64_t t0, struct product out)
{
    const int64_t nb = m->cols / ACT_BLOCK, segment = m->segment / ACT_BLOCK;
    const struct tokens x = {n, ask, a->codes + t0 * m->cols, a->blocks + t0 * nb, m->cols, nb};
    uint8_t *group = m->data + (size_t)g * m->group_bytes;
    vf acc[TILE_TOKENS];
    vd sum[TILE_TOKENS];
    clear_sums(n, acc, sum);
    for (int64_t b = 0; b < nb;) {
        int64_t end = out.partial && b + segment < nb ? b + segment : nb;
        if (layout_of(type).k)
            add_halves(layout_of(type), group, b, end, x, acc);
        else
            add_blocks(layout_of(type), group, b, end, x, acc);
        b = end;
        if (out.partial)
            close_segment(n, acc, sum);
    }
    store_rows(m, g, t0, n, acc, sum, out);
}

/* The first of a group's tiles is the one that waits for memory. A token alone has a loop of its own if it asks: the
 * fewer its instructions, the more of what it reads is under way at once. */
INLINE void quantised_tile(enum dtype type, int n, bool first, const struct packed *m, int64_t g, const struct acts *a,
                           int64_t t0, struct product out)
{
    const bool ask = first && asks_ahead(layout_of(type), n);
    if (n == 1 && ask)
        sum_tile(type, 1, true, m, g, a, t0, out);
    else
        sum_tile(type, n, n > 1 && ask, m, g, a, t0, out);
}

/* f16 and bf16 take longer to convert than to arrive. */
INLINE bool asks_for_floats(enum dtype type, int n, bool first) { return n >= (type == DT_F32 ? 8 : 1) && first; }

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

INLINE void float_tile(enum dtype type, int n, bool first, const struct packed *m, int64_t g, const struct acts *a,
                       int64_t t0, struct product out)
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
            if (asks_for_floats(type, n, first) && c * step % 64 == 0)
                prefetch_ahead(group + c * step, 64);
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

/* `first`: no tile has read this group. */
INLINE void tile(enum dtype type, int n, bool first, const struct packed *m, int64_t g, const struct acts *a,
                 int64_t t0, struct product out)
{
    if (type == DT_F32 || type == DT_F16 || type == DT_BF16)
        float_tile(type, n, first, m, g, a, t0, out);
    else
        quantised_tile(type, n, first, m, g, a, t0, out);
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
                tile(type, TILE_TOKENS, t == t0, m, g, a, t, out);
            for (; TILE_TOKENS > 4 && t + 4 <= t_end; t += 4)
                tile(type, TILE_TOKENS > 4 ? 4 : 1, t == t0, m, g, a, t, out);
            for (; TILE_TOKENS > 2 && t + 2 <= t_end; t += 2)
                tile(type, TILE_TOKENS > 2 ? 2 : 1, t == t0, m, g, a, t, out);
            for (; t < t_end; t++)
                tile(type, 1, t == t0, m, g, a, t, out);
        }
    }
}

/* Two functions of its own for each type keep compile times and register allocation sane; types of one layout share
 * them. */
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
MULTIPLY(IQ4_NL)
MULTIPLY(IQ4_XS)
MULTIPLY(MXFP4)
MULTIPLY(IQ3_S)
MULTIPLY(IQ3_XXS)
MULTIPLY(IQ2_XXS)
MULTIPLY(IQ2_S)
MULTIPLY(IQ1_S)
MULTIPLY(IQ1_M)
MULTIPLY(TQ2_0)
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
        [DT_Q6_K] = {multiply_Q6_K, partial_Q6_K}, [DT_IQ4_NL] = {multiply_IQ4_NL, partial_IQ4_NL},
        [DT_IQ4_XS] = {multiply_IQ4_XS, partial_IQ4_XS}, [DT_MXFP4] = {multiply_MXFP4, partial_MXFP4},
        [DT_IQ3_S] = {multiply_IQ3_S, partial_IQ3_S}, [DT_IQ3_XXS] = {multiply_IQ3_XXS, partial_IQ3_XXS},
        [DT_IQ2_XXS] = {multiply_IQ2_XXS, partial_IQ2_XXS}, [DT_IQ2_S] = {multiply_IQ2_S, partial_IQ2_S},
        [DT_IQ2_XS] = {multiply_IQ2_S, partial_IQ2_S}, [DT_IQ1_S] = {multiply_IQ1_S, partial_IQ1_S},
        [DT_IQ1_M] = {multiply_IQ1_M, partial_IQ1_M}, [DT_TQ2_0] = {multiply_TQ2_0, partial_TQ2_0},
        [DT_TQ1_0] = {multiply_TQ2_0, partial_TQ2_0},
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
