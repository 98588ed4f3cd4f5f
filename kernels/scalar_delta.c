/* The reference's gates and delta nets. */
#include <math.h>

#include "base/exactmath.h"
#include "kernels/scalar_parts.h"

void scalar_sigmoid_gate(float *x, const float *g, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = x[i] / (1.0f + exp_f32(-g[i]));
}

void scalar_convolve(const float *const *x, const float *w, int64_t w_stride, int n_taps, int64_t n, float *out)
{
    for (int64_t c = 0; c < n; c++) {
        float acc = 0;
        for (int i = 0; i < n_taps; i++)
            acc = fmaf(x[i][c], w[i * w_stride + c], acc);
        out[c] = acc / (1.0f + exp_f32(-acc));
    }
}

void scalar_delta_step(float *s, int64_t size, const float *q, const float *k, const float *v, float decay, float beta,
                       float *out)
{
    for (int64_t c = 0; c < size; c++) {
        float u = 0, sum = 0;
        for (int64_t i = 0; i < size; i++)
            u = fmaf(k[i], decay * s[i * size + c], u);
        const float e = beta * (v[c] - u);
        for (int64_t i = 0; i < size; i++) {
            float *at = &s[i * size + c];
            *at = fmaf(k[i], e, decay * *at);
            sum = fmaf(q[i], *at, sum);
        }
        out[c] = sum;
    }
}
