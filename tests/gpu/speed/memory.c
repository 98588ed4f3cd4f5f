/* Lengths, and what measuring takes of the GPU's memory. */
#include "tests/gpu/speed/speed.h"

#include <stdio.h>
#include <stdlib.h>

void speed_check(cudaError_t e, const char *call)
{
    if (e == cudaSuccess)
        return;
    fflush(stdout);
    fprintf(stderr, "cuda_speed: %s: %s\n", call, cudaGetErrorString(e));
    exit(1);
}

void *speed_copy(const void *host, size_t bytes)
{
    void *p = NULL;
    CUDA(cudaMalloc(&p, bytes ? bytes : 1));
    if (host)
        CUDA(cudaMemcpy(p, host, bytes, cudaMemcpyHostToDevice));
    else
        CUDA(cudaMemset(p, 0, bytes));
    CUDA(cudaDeviceSynchronize());
    return p;
}

void *speed_repeat(const void *host, size_t have, size_t bytes)
{
    uint8_t *p = NULL;
    CUDA(cudaMalloc((void **)&p, bytes));
    have = have < bytes ? have : bytes;
    CUDA(cudaMemcpy(p, host, have, cudaMemcpyHostToDevice));
    while (have < bytes) {
        const size_t n = have < bytes - have ? have : bytes - have;
        CUDA(cudaMemcpy(p + have, p, n, cudaMemcpyDeviceToDevice));
        have += n;
    }
    CUDA(cudaDeviceSynchronize());
    return p;
}

void speed_free(void *on_gpu) { CUDA(cudaFree(on_gpu)); }

struct acts speed_acts_copy(const struct acts *host, int64_t n)
{
    const size_t values = (size_t)(n * host->cols), blocks = values / ACT_BLOCK;
    return (struct acts){.cols = host->cols,
                         .f32 = speed_copy(host->f32, values * sizeof *host->f32),
                         .codes = speed_copy(host->codes, values),
                         .blocks = speed_copy(host->blocks, blocks * sizeof *host->blocks)};
}

struct acts speed_acts(struct speed *s, int64_t n, int64_t cols)
{
    struct acts host = make_acts(&s->rng, n, cols, FILL_RANDOM);
    const struct acts a = speed_acts_copy(&host, n);
    free_acts(&host);
    return a;
}

void speed_free_acts(struct acts *a)
{
    speed_free(a->f32);
    speed_free(a->codes);
    speed_free(a->blocks);
}

int64_t speed_length(const struct speed *s, int64_t n) { return (n / s->smaller + 255) / 256 * 256; }

int64_t speed_tokens(const struct speed *s, int64_t n)
{
    const int64_t few = 32;
    return n <= few ? n : n / s->smaller < few ? few : n / s->smaller;
}
