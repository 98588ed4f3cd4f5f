/* The ring in shared memory through which readers of weights give what they found to those that add it up in order. */
#ifndef HEARTH_KERNELS_CUDA_PRODUCTS_RING_CUH
#define HEARTH_KERNELS_CUDA_PRODUCTS_RING_CUH

#include "kernels/cuda/products.cuh"

namespace {

/* ENTRIES blocks of 16 rows times N tokens, or of K types so many half super-blocks. PITCH: from token to token, so
 * that those who write beside each other meet different banks. */
template <enum dtype T, int N, int ENTRIES, int PITCH> struct ring {
    static constexpr bool k = layout_t<T>::k;
    static constexpr int tokens = N | 1, minima = layout_t<T>::minima ? ENTRIES : 1, k_minima = k ? minima : 1;
    float value[ENTRIES][tokens][PITCH];  /* exact sums, or a half's a, */
    float k_min[k_minima][tokens][PITCH]; /* and its minima's sum */
    float2 x[k ? 1 : ENTRIES][N];         /* no K: scale and scaled sum of x */
    float scale[ENTRIES][ROW_GROUP];      /* d */
    float min[minima][ROW_GROUP];         /* m, or -dmin */
};

/* Scale and minimum of row r: f16 d, dmin of a K type's super-block, or d, m of a block of another. */
template <enum dtype T, typename RING>
DEVICE void put_scales(const struct gpu_book &book, RING &to, int entry, int r, const uint32_t *scales)
{
    using l = layout_t<T>;
    const float min = l::minima ? f32_of_half_bits((uint16_t)scales[l::minima]) : 0;
    to.scale[entry][r] = l::k ? gpu_super_scale<l>(book, scales[0]) : gpu_block_scale<l>(scales[0]);
    if constexpr (l::minima)
        to.min[entry][r] = l::k ? -min : min;
}

/* acc of row r and of tokens t, t + APART, ... with the first n entries. */
template <enum dtype T, int M, int APART, typename RING>
DEVICE void add_entries(const RING &from, int n, int t, int r, float acc[M])
{
    constexpr bool k = layout_t<T>::k, minima = layout_t<T>::minima;
#pragma unroll 4
    for (int i = 0; i < n; i++) {
        const float scale = from.scale[i][r], min = minima ? from.min[i][r] : 0;
#pragma unroll
        for (int m = 0; m < M; m++) {
            const int token = t + m * APART;
            const float value = from.value[i][token][r];
            if constexpr (k)
                acc[m] = add_scaled<T>(acc[m], value, scale, min, minima ? from.k_min[i][token][r] : 0);
            else
                acc[m] = add_scaled<T>(acc[m], value, __fmul_rn(scale, from.x[i][token].x), min, from.x[i][token].y);
        }
    }
}

}

#endif
