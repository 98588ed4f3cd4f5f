/* How a launch finds the share that a thread block is for. */
#ifndef HEARTH_KERNELS_CUDA_SHARES_CUH
#define HEARTH_KERNELS_CUDA_SHARES_CUH

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/shares.h"

namespace {

/* Share i of the layer's; false: there are not so many. After gpu_begin. */
__device__ __forceinline__ bool share_at(const struct gpu_share *of, const uint32_t *n, int i, struct gpu_share *to)
{
    if ((uint32_t)i >= *n)
        return false;
    *to = of[i];
    return true;
}

/* How many thread blocks of a launch, at most, stride over the tokens of a share. */
inline unsigned share_blocks(int64_t n) { return (unsigned)(n < 16 ? n : 16); }

}

#endif
