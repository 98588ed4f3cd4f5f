/* The table of operations that a layer is made of, and the packed weight matrix they read.
 *
 * One table per instruction set: the scalar one is the reference, every other equals it BIT FOR BIT, at any thread
 * count and batch size. So each operation below states its order of accumulation. `fma(a,b,c)` is one rounding; no
 * compiler contraction, no fast-math. What is computed of a NaN is a NaN (of any bits), so that whoever looks at the
 * end of a block sees it; with infinities the results are unspecified. Neither makes anything be read or written out of
 * bounds.
 *
 * No function here allocates, locks or fails; arguments are the caller's responsibility. All are thread-safe as long
 * as outputs do not overlap. */
#ifndef HEARTH_KERNELS_KERNELS_H
#define HEARTH_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/activation.h"
#include "base/dtype.h"
#include "base/status.h"

enum {
    ROW_GROUP = 16,   /* rows of a packed matrix are interleaved in groups of this many */
    ACT_BLOCK = 32,   /* activations are quantised in blocks of this many columns */
    KV_TILE = 16,     /* keys are interleaved in tiles of this many positions */
    KV_PAGE = 64,     /* positions whose keys, or values, of a head lie together */
    SUM_LANES = 16,   /* sums over a vector run in this many lanes */
    NORM_LANES = 128, /* of a norm: enough for a GPU's warps */
    ATTN_SEGMENT = 128,  /* positions that attention sums before they join the others */
    FLOAT_SEGMENT = 128, /* columns of float weights that are summed before they join a product */
    SUM_BLOCK = 32,   /* partial sums are packed in blocks of this many */
};

/* A product that may be cut over ranks is summed in segments of columns, each rounded to a multiple of 2^-30 by adding
 * and subtracting this: the last bit of an f64 near 1.5 * 2^22 is worth 2^-30. (A segment of 2^21 or more, which would
 * leave that binade, is such a multiple already: it was an f32.) f64 holds every multiple of 2^-30 below 2^23, so while
 * sums stay below 2^22 no addition rounds, and neither their order nor where the columns are cut matters, as long as it
 * is between segments. The grid costs at most 2^-31 per segment. */
#define SEGMENT_GRID 0x1.8p22

/* ---- weights ----------------------------------------------------------------------------------------------------
 * A matrix [rows, cols] repacked in groups of ROW_GROUP rows; the last group is padded with zero rows. Group g lies at
 * data + g * group_bytes and is read straight through. Layout inside a group: see kernels/layout.h. */
struct packed {
    enum dtype type;
    int64_t rows, cols;
    int64_t groups;      /* ceil(rows / ROW_GROUP) */
    size_t group_bytes;
    int64_t segment;     /* columns of a segment of matmul_partial; of quantised types a multiple of ACT_BLOCK */
    uint8_t *data;       /* groups * group_bytes, aligned to 64; owned by whoever made it (an arena) */
};

/* Fills in everything but `data`; segment is SUM_SEGMENT (base/dtype.h). `cols` is a multiple of dtype_block(type). */
void packed_shape(struct packed *m, enum dtype type, int64_t rows, int64_t cols);
/* Bytes that `data` needs. */
size_t packed_bytes(const struct packed *m);
/* Repacks groups [group_begin, group_end). `src` is the first row's first block in the file's layout, `src_stride` the
 * bytes from row to row (larger than the row's own bytes when the columns are a slice). Row i comes from src +
 * ids[i] * src_stride (ids NULL: from src + i * src_stride). Reads nothing but the blocks of existing rows. */
void packed_fill(struct packed *m, int64_t group_begin, int64_t group_end, const uint8_t *src, size_t src_stride,
                 const int32_t *ids);

/* Dequantises `n` elements (a multiple of the block) of a row in the file's layout into out [n] f32, exactly as
 * ggml defines the type, products and sums in f32 without contraction. */
void dequantize_row(enum dtype type, const uint8_t *src, int64_t n, float *out /* [n] f32 */);

/* ---- activations ------------------------------------------------------------------------------------------------
 * What a matrix is multiplied with: `n_tokens` rows of `cols`. Quantised weights read codes and blocks, float weights
 * (F32, F16, BF16) read f32. */
struct act_block {         /* of 32 columns of one token */
    float scale;           /* value = scale * code */
    float scaled_sum;      /* scale * (float)(sum of the 32 codes), rounded once */
    int32_t minus_sum;     /* minus the sum of the 32 codes */
    int32_t minus_sum_low; /* minus the sum of the first 16 codes */
};

struct acts {
    int64_t cols;             /* a multiple of ACT_BLOCK when the quantised half is used */
    float *f32;               /* [n_tokens, cols] */
    int8_t *codes;            /* [n_tokens, cols], in [-127, 127] */
    struct act_block *blocks; /* [n_tokens, cols / 32] */
};

/* Whether weights of this type read the quantised half of acts. */
bool dtype_is_quantised(enum dtype type);

struct neuron_rows;
struct neuron_columns;
struct lane_acts;

struct kernels {
    const char *name; /* "scalar", "avx2", "avx512" */

    /* Fills codes and blocks of tokens [token_begin, token_end) from f32, as ggml's Q8_0 does but with f32 scales. Per
     * block of 32: amax = largest |f32|, scale = amax / 127, inverse = 127 / amax (0 if amax < 1e-30),
     * code = round-to-nearest-even(f32 * inverse). A block that holds a NaN or an infinity: scale and scaled_sum are
     * NaN, its code is 127, the others' 0. */
    void (*quantize)(struct acts *a, int64_t token_begin, int64_t token_end);

    /* Completes blocks whose codes and scale are set (a received message): the three sums. */
    void (*sum_blocks)(struct acts *a, int64_t token_begin, int64_t token_end);

    /* y[t * y_stride + r] = sum over columns of w[r, c] * a[t, c], for the rows of groups [group_begin, group_end)
     * (rows past m->rows are not written) and tokens [0, n_tokens).
     * Quantised: the blocks of 32 columns in ascending order, per block as kernels/layout.h spells out.
     * Float: segments of FLOAT_SEGMENT columns, within one in ascending order acc = fma(w, a, acc), acc from +0; they
     * are added in ascending order, from +0. */
    void (*matmul)(const struct packed *m, int64_t group_begin, int64_t group_end, const struct acts *a,
                   int64_t n_tokens, float *y /* [n_tokens, y_stride] f32 */, int64_t y_stride);

    /* The same product for columns that may be a part of all: y[t * y_stride + r] is the f64 sum of its segments, each
     * summed in f32 as in matmul (from +0), then converted to f64 and rounded: (s + SEGMENT_GRID) - SEGMENT_GRID. Parts
     * of a product, cut anywhere between segments, add up to the same bits in any order. */
    void (*matmul_partial)(const struct packed *m, int64_t group_begin, int64_t group_end, const struct acts *a,
                           int64_t n_tokens, double *y /* [n_tokens, y_stride] f64 */, int64_t y_stride);

    /* ---- partial sums in messages (kernels/sums.h says how a block lies) ---- */

    /* width[i] = bytes for each value of block i of x: the least that keep all of them, 8 at most; 2 where f16 is asked
     * for and reaches. */
    void (*sum_widths)(const double *x /* [n] */, int64_t n, bool f16, uint8_t *width /* [ceil(n / SUM_BLOCK)] */);

    /* Packs x in the widths of sum_widths. out: SUM_BLOCK times their sum in bytes, on a multiple of 32. */
    void (*pack_sums)(const double *x /* [n] */, int64_t n, const uint8_t *width, uint8_t *out);

    /* sum += what was packed: one f64 addition for each value. Widths are 2, 3, 4, 5, 6 or 8. */
    void (*add_packed)(const uint8_t *packed, const uint8_t *width, int64_t n, double *sum /* [n] */);

    /* ---- single neurons (kernels/rows.h, kernels/columns.h) ---- */

    /* Puts the quantised half of tokens [token_begin, token_end) into lanes, and lends `out` their f32. */
    void (*spread)(const struct acts *a, int64_t token_begin, int64_t token_end, struct lane_acts *out);

    /* y[i] = row[i] of m times token[i] of x, i < n, the same bits that matmul gives for them. Pairs of a row follow
     * each other, so that a row is read once. */
    void (*dot_rows)(const struct neuron_rows *m, const struct lane_acts *x, const int32_t *row, const int32_t *token,
                     int64_t n, float *y /* [n] */);

    /* y[t * y_stride + r - row_begin] = an estimate of row r times token t from the top parts alone (m->planes), each
     * code taken as the middle of those that share its top bits. Lane i sums the blocks i, i + 16, ... in f32 (fma, as
     * a block's contribution of a type without super-blocks in kernels/layout.h, with D = d * scale and M = -(dmin *
     * min) of K types, the two halves of a block one after the other); lanes are added pairwise as in softmax. */
    void (*estimate_rows)(const struct neuron_rows *m, int64_t row_begin, int64_t row_end, const struct lane_acts *x,
                          int64_t n_tokens, float *y, int64_t y_stride);

    /* y[t * y_stride + r] = the f64 sum of segments that matmul_partial gives, r in [row_begin, row_end) (multiples of
     * COLUMN_TILE, or m->rows), over the held neurons; only those whose activation is not zero (as the weights read it:
     * its code, or its f32) are read. Blocks of one SUM_SEGMENT of the file form a segment. Transposed: over the
     * segment's live neurons in ascending order acc = fma(w, h, acc), acc from +0, w as dequantize_row has it. */
    void (*mix_columns)(const struct neuron_columns *m, int64_t row_begin, int64_t row_end,
                        const struct acts *h /* [n_tokens, n_blocks * 32] */, int64_t n_tokens, double *y,
                        int64_t y_stride);

    /* out = x * w * rsqrt, for one vector (Zhang and Sennrich, RMSNorm, 2019). Sum of squares in NORM_LANES lanes (lane
     * i % 128, ascending, fma), lanes added pairwise (i and i+64, then +32, ... +1); mean = sum / n;
     * s = 1 / sqrtf(mean + eps); out = (x * s) * w. out may be x. */
    void (*rms_norm)(const float *x /* [n] */, const float *w /* [n] */, int64_t n, float eps, float *out /* [n] */);

    /* out = (x - mean) * s * w + b, for one vector (Ba et al., Layer Normalization, 2016). mean: the sum of x in lanes
     * as above, / n; then the sum of (x - mean)^2 in lanes (fma); s = 1 / sqrtf(sum / n + eps); out = fma((x - mean) *
     * s, w, b), b NULL: no bias, ((x - mean) * s) * w. out may be x. */
    void (*layer_norm)(const float *x /* [n] */, const float *w /* [n] */, const float *b /* [n] or NULL */, int64_t n,
                       float eps, float *out /* [n] */);

    /* Rotary position embedding (Su et al., RoFormer, 2021) of n_heads heads of head_dim, in place, the first 2 * half
     * values of each head. Pair i is (2i, 2i+1), or (i, i+half) if neox. (a, b) -> (fma(a, cos, -(b * sin)),
     * fma(a, sin, b * cos)), inner products rounded. */
    void (*rope)(float *x /* [n_heads, head_dim] */, const float *cos_sin /* [half cos, half sin] */, int64_t n_heads,
                 int64_t head_dim, int64_t half, bool neox);

    /* out[i] = the value of a neuron (base/activation.h); gate NULL: a layer without one. silu(g) = g / (1 + exp(-g))
     * with the exp of base/exactmath.h; relu(g) = 0 > g ? 0 : g; gelu(g) = (0.5 g) * (1 + tanh((GELU_SCALE g) *
     * fma(GELU_CUBE g, g, 1))) with its tanh; then times up (relu2: (r * r) * up). swiglu_clamped: g = 7 < g ? 7 : g,
     * up within -7 and 7 likewise; (g / (1 + exp(-(1.702 g)))) * (up + 1). out may be gate or up. */
    void (*activate)(enum activation a, const float *gate, const float *up, int64_t n, float *out /* [n] */);

    /* x_i = cap * tanh(x_i * (1 / cap)), 1 / cap rounded once, with the tanh of base/exactmath.h. */
    void (*softcap)(float *x /* [n] */, int64_t n, float cap);

    /* x += y. */
    void (*add)(float *x /* [n] */, const float *y /* [n] */, int64_t n);

    /* f32 to f16, round to nearest even. */
    void (*to_f16)(const float *x /* [n] */, int64_t n, uint16_t *out /* [n] */);

    /* In place on x[0..n): max; e_i = exp(x_i - max) (base/exactmath.h); sum of e in SUM_LANES lanes (i % 16,
     * ascending), added pairwise (i and i+8, then +4, +2, +1);
     * x_i = e_i * (1 / sum). n >= 1. */
    void (*softmax)(float *x /* [n] */, int64_t n);

    /* ---- attention (Vaswani et al., 2017) over one KV head, whose keys and values lie in pages, f16 ----
     * Position p is in pages[p / KV_PAGE]; only pages of the positions asked for are looked at. Within a page position
     * i has its values at [i][head_dim], and value d of its key at [i / KV_TILE][d][i % KV_TILE]. */

    /* The scores of n_q query vectors against positions [pos_begin, pos_end):
     * s[q * s_stride + (p - pos_begin)] = scale * (sum over d ascending of fma(q[q][d], k[p][d], acc)), acc from +0.
     * pos_begin is a multiple of KV_TILE; up to KV_TILE - 1 values past pos_end may be written (s_stride has room for
     * them). */
    void (*attn_scores)(const float *q, int64_t q_stride, int64_t n_q, const uint16_t *const *keys, int64_t head_dim,
                        int64_t pos_begin, int64_t pos_end, float scale, float *s, int64_t s_stride);

    /* What attention weighs positions with, but for the division by their sum: x[i] is the score of position first + i;
     * in place e_i = exp(x_i - max). Returns 1 / l. l: in SUM_LANES lanes (position % 16), in segments of ATTN_SEGMENT
     * absolute positions, each from +0, which are added in ascending order, from +0; then lanes pairwise. n >= 1.
     * sink: a score of no position, the last that max looks at, whose exp(sink - max) is added to l at the end;
     * -INFINITY: there is none, and then nothing changes (l is 1 at least). */
    float (*attn_weights)(float *x /* [n] */, int64_t n, int64_t first, float sink);

    /* out[q][d] = inverse[q] * the sum of its segments of ATTN_SEGMENT absolute positions, added in ascending order
     * from +0; a segment: over p ascending acc = fma(w[q][p], v[p][d], acc), acc from +0; for each query its own
     * positions [begin[q], end[q]) only; w[q][p] lies at w[q * w_stride + p - w_origin]. */
    void (*attn_mix)(const float *w, int64_t w_stride, int64_t w_origin, int64_t n_q, const int64_t *begin,
                     const int64_t *end, const float *inverse /* [n_q] */, const uint16_t *const *values,
                     int64_t head_dim, float *out, int64_t out_stride);

    /* x_i = x_i / (1 + exp(-g_i)), with the exp of base/exactmath.h. */
    void (*sigmoid_gate)(float *x /* [n] */, const float *g /* [n] */, int64_t n);

    /* ---- gated delta nets (Yang et al., 2024; model/model.h); n and `size` are multiples of 16 ---- */

    /* out[c] = silu, as in `activate`, of the sum over i ascending of acc = fma(x[i][c], w[i * w_stride + c], acc), acc
     * from +0: a convolution over n_taps tokens, a lane being a channel. */
    void (*convolve)(const float *const *x /* [n_taps] of [n] */, const float *w, int64_t w_stride, int n_taps,
                     int64_t n, float *out /* [n] */);

    /* A token of a head, whose state is s [size of key, size of value]. For each column c by itself, rows i ascending:
     * d_i = decay * s[i][c]; u = the sum of acc = fma(k[i], d_i, acc), acc from +0; e = beta * (v[c] - u);
     * s[i][c] = fma(k[i], e, d_i); out[c] = the sum of acc = fma(q[i], s[i][c], acc), acc from +0. out may be v. */
    void (*delta_step)(float *s, int64_t size, const float *q, const float *k, const float *v, float decay, float beta,
                       float *out /* [size] */);

    /* The sum of n 32-bit words, n a multiple of 64, modulo 2^32: reads memory as fast as this instruction set can, for
     * measuring it. */
    uint32_t (*read_words)(const uint32_t *p /* [n] */, int64_t n);
};

/* The table for this machine: `name` is "scalar", "avx2", "avx512" or NULL for the fastest that CPUID, XGETBV and the
 * operating system really allow. ST_USAGE (logged, naming what there is) if `name` is not available here. The table is
 * constant and never freed. */
status kernels_select(const char *name, const struct kernels **out);

/* The tables that this machine can run, scalar first; NULL past the last. For tests and benchmarks. */
const struct kernels *kernels_available(int i);

#endif
