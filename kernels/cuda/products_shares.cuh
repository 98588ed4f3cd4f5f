/* How a thread block of a launch for shares (shares.h) takes the work of one of them. */
#ifndef HEARTH_KERNELS_CUDA_PRODUCTS_SHARES_CUH
#define HEARTH_KERNELS_CUDA_PRODUCTS_SHARES_CUH

#include "kernels/cuda/products.cuh"
#include "kernels/cuda/shares.cuh"

namespace {

/* A matrix of the share's, if it has the launch's type. */
DEVICE void take_part(struct product_work &w, struct product_part &p, const struct packed &m, float *y, int64_t stride,
                      const float *bias)
{
    p = {m.data, (int64_t)m.group_bytes, w.groups, w.groups, (int)m.rows, y, stride, bias};
    if (m.type == w.type)
        w.groups = p.end += (int)m.groups;
}

DEVICE void take_x(struct product_work &w, const struct acts &x, int64_t first)
{
    w.f32 = x.f32 + first;
    w.codes = x.codes + first;
    w.acts = x.blocks + first / ACT_BLOCK;
}

/* The launch's work becomes that of share blockIdx.z. False: it has no such group and tokens. */
template <bool PARTIAL> DEVICE bool take_share(struct product_work &w, int group, int token)
{
    struct gpu_share s;
    if (!share_at(w.shares.of, w.shares.n, (int)blockIdx.z, &s))
        return false;
    const struct gpu_set &set = w.shares.sets[s.set];
    w.n = (int)s.n;
    w.groups = 0;
    if constexpr (PARTIAL) {
        take_part(w, w.part[0], set.down, NULL, 0, NULL);
        w.part[1].end = w.groups; /* there is no other */
        w.cols = set.slots;
        w.blocks = set.slots / ACT_BLOCK;
        w.f32 += s.slots;
        w.codes += s.slots;
        w.acts += s.slots / ACT_BLOCK;
        w.token = s.whole ? NULL : w.shares.token + s.first;
    } else {
        take_part(w, w.part[0], set.gate, w.shares.gate + s.neurons, set.n, set.bias);
        take_part(w, w.part[1], set.up, w.shares.up + s.neurons, set.n, set.up_bias);
        if (!s.whole)
            take_x(w, w.shares.gathered, (int64_t)s.first * w.cols);
    }
    return group < w.groups && token < w.n;
}

}

#endif
