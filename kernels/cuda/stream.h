/* The residual stream x, what parts read of it, and their sums: vectors of d values, a token each. */
#ifndef HEARTH_KERNELS_CUDA_STREAM_H
#define HEARTH_KERNELS_CUDA_STREAM_H

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/router.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x[t] = row tokens[t] of the embedding, as dequantize_row has it, times scale; positions not NULL: plus row
 * position[t] of them, one f32 addition. Rows lie as in the file. */
struct gpu_embedding {
    enum dtype type, positions_type;
    const uint8_t *rows, *positions;
    int64_t d;
    float scale;
};
void gpu_embed(const struct gpu *g, const struct gpu_embedding *e, const int32_t *tokens, const uint32_t *position,
               int64_t n, float *x, struct gpu_fault fault);
/* Notes values of x [n, d] that are no numbers. */
void gpu_check(const struct gpu *g, const float *x, int64_t n, int64_t d, struct gpu_fault fault);

enum { GPU_NORM_MOST = 16384 }; /* values of a vector that norms take */

/* out = RMS norm (rms) or layer norm of x's tokens (tokens NULL: the first n); then quantised where asked (d is then a
 * multiple of 32). What comes out as no number is noted. w NULL: x itself. out may be x. */
struct gpu_norm {
    bool rms, quantise;
    float eps;
    int64_t d;
    const float *w, *b;  /* [d]; b may be NULL */
};
void gpu_norm(const struct gpu *g, const struct gpu_norm *norm, const float *x, const uint32_t *tokens, int64_t n,
              const struct acts *out, struct gpu_fault fault);

/* kernels.h: quantize, sum_blocks, of tokens [0, n). */
void gpu_quantize(const struct gpu *g, const struct acts *a, int64_t n);
void gpu_sum_blocks(const struct gpu *g, const struct acts *a, int64_t n);

/* Biases of experts' down projections, of which a token has those of its experts, each times its weight: they are added
 * to its sum one after the other, each product and each addition rounded. Only where there is no other bias, and
 * neither a norm of the sum nor one in the same launch. */
struct gpu_expert_bias {
    const float *bias;   /* [n_experts, d] or NULL */
    struct gpu_routes routes;
    int used, n_weights;
};

/* x += ((float)sum + bias) * scale, as device/cpu/stream.c adds: the sum rounded to f32 (bias NULL: as it is; else the
 * f32 addition), the product, then one f32 addition to x. norm not NULL: the RMS norm of sum + bias with these weights
 * in place of the product; d is GPU_NORM_MOST at most. waits: y = that instead of x += . y not NULL and not waits: then
 * x += y too. What is no number is noted: of x before y is added, of y where it waits; a broken token is as if its
 * first value were none. The bits of (float)(f64): units * 2^-30 rounded once, to nearest even. */
struct gpu_addition {
    const float *bias;   /* [d] or NULL */
    struct gpu_expert_bias experts;
    float scale, eps;    /* eps: of the norm */
    const float *norm;   /* [d] or NULL */
    float *y;            /* [n, d] or NULL */
    bool waits;
};
void gpu_add(const struct gpu *g, const struct gpu_sums *sums, const struct gpu_addition *a, int64_t n, int64_t d,
             float *x, struct gpu_fault fault);
/* gpu_add (which neither waits nor norms) and gpu_norm of the same n tokens, in one launch. */
void gpu_add_norm(const struct gpu *g, const struct gpu_sums *sums, const struct gpu_addition *a,
                  struct gpu_fault added, const struct gpu_norm *norm, int64_t n, float *x, const struct acts *out,
                  struct gpu_fault fault);

/* logits [n]: times scale, then capped (kernels.h: softcap) where cap is above 0. */
void gpu_finish_logits(const struct gpu *g, float *logits, int64_t n, float scale, float cap);

/* scale[i] = blocks[i].scale, and back. */
void gpu_take_scales(const struct gpu *g, const struct act_block *blocks, int64_t n, float *scale);
void gpu_give_scales(const struct gpu *g, const float *scale, int64_t n, struct act_block *blocks);

/* ---- sums in messages (kernels/sums.h says how a block lies) ---- */

void gpu_clear_sums(const struct gpu *g, const struct gpu_sums *s, int64_t n, int64_t d);
/* width [n, ceil(d / 32)], packed: the bytes that sum_widths and pack_sums give for the same numbers, token after
 * token; of a broken token, width 8 and NaN. offset [n * ceil(d / 32) + 1]: scratch, whose last is then the bytes in
 * all / 32. */
void gpu_pack_sums(const struct gpu *g, const struct gpu_sums *s, int64_t n, int64_t d, bool f16, uint8_t *width,
                   uint32_t *offset, uint8_t *packed);
/* s += packed ones. What is no multiple of 2^-30 below 2^31 makes its token broken. */
void gpu_add_packed(const struct gpu *g, const struct gpu_sums *s, int64_t n, int64_t d, const uint8_t *width,
                    uint32_t *offset, const uint8_t *packed);

#ifdef __cplusplus
}
#endif

#endif
