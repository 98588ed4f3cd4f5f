/* Gates and delta nets, in the words of *_vec.h. A lane is a channel, or a column of the state, so nothing is added across
 * lanes. */
#ifndef HEARTH_KERNELS_X86_VEC_DELTA_H
#define HEARTH_KERNELS_X86_VEC_DELTA_H

#include "kernels/x86/vec_ops.h"

/* x / (1 + exp(-g)) */
static inline vf vf_gated(vf x, vf g) { return vf_div(x, vf_add(vf_set(1.0f), vf_exp(vf_neg(g)))); }

static void sigmoid_gate(float *x, const float *g, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t m = part_of(n, i);
        vf_store_part(x + i, vf_gated(vf_load_part(x + i, m), vf_load_part(g + i, m)), m);
    }
}

static void convolve(const float *const *x, const float *w, int64_t w_stride, int n_taps, int64_t n, float *out)
{
    for (int64_t c = 0; c < n; c += LANES) {
        vf acc = vf_zero();
        for (int i = 0; i < n_taps; i++)
            acc = vf_fma(vf_load(x[i] + c), vf_load(w + i * w_stride + c), acc);
        vf_store(out + c, vf_gated(acc, acc));
    }
}

/* So many vectors of columns that no chain of additions waits long, so few that registers hold their sums and the second
 * pass finds them in the first cache. */
enum { DELTA_VECTORS = TILE_TOKENS > 4 ? 4 : 2 };

/* n vectors of columns. */
INLINE void delta_columns(int n, float *s, int64_t size, const float *q, const float *k, const float *v, float decay,
                          float beta, float *out)
{
    const vf forget = vf_set(decay);
    vf acc[DELTA_VECTORS], e[DELTA_VECTORS];
    for (int j = 0; j < n; j++)
        acc[j] = vf_zero();
    for (int64_t i = 0; i < size; i++)
        for (int j = 0; j < n; j++)
            acc[j] = vf_fma(vf_set(k[i]), vf_mul(forget, vf_load(s + i * size + j * LANES)), acc[j]);
    for (int j = 0; j < n; j++) {
        e[j] = vf_mul(vf_set(beta), vf_sub(vf_load(v + j * LANES), acc[j]));
        acc[j] = vf_zero();
    }
    for (int64_t i = 0; i < size; i++) {
        for (int j = 0; j < n; j++) {
            float *at = s + i * size + j * LANES;
            const vf now = vf_fma(vf_set(k[i]), e[j], vf_mul(forget, vf_load(at)));
            vf_store(at, now);
            acc[j] = vf_fma(vf_set(q[i]), now, acc[j]);
        }
    }
    for (int j = 0; j < n; j++)
        vf_store(out + j * LANES, acc[j]);
}

static void delta_step(float *s, int64_t size, const float *q, const float *k, const float *v, float decay, float beta,
                       float *out)
{
    int64_t c = 0;
    for (; c + DELTA_VECTORS * LANES <= size; c += DELTA_VECTORS * LANES)
        delta_columns(DELTA_VECTORS, s + c, size, q, k, v + c, decay, beta, out + c);
    for (; c < size; c += LANES)
        delta_columns(1, s + c, size, q, k, v + c, decay, beta, out + c);
}

#endif
