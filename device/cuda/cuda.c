#include "device/cuda/cuda.h"

#include <stdlib.h>

#include "base/log.h"

bool cuda_ok(struct cuda *c, cudaError_t e, const char *call)
{
    if (e == cudaSuccess)
        return !c->lost;
    if (!c->lost)
        log_error("cuda:%d: %s fails: %s (%d): the GPU computes no more; start again, or without it (--device cpu)",
                  c->o.index, call, cudaGetErrorString(e), (int)e);
    c->lost = true;
    cudaGetLastError(); /* the thread's: another device of it has not failed */
    return false;
}

bool cuda_launched(struct cuda *c) { return cuda_ok(c, cudaGetLastError(), "a launch"); }

status cuda_begin(struct cuda *c)
{
    return cuda_ok(c, cudaSetDevice(c->o.index), "cudaSetDevice") ? ST_OK : ST_INTERNAL;
}

static bool ask(struct cuda *c, enum cudaDeviceAttr what, int *out)
{
    return cuda_ok(c, cudaDeviceGetAttribute(out, what, c->o.index), "cudaDeviceGetAttribute");
}

static bool find_gpu(struct cuda *c)
{
    int major = 0, minor = 0;
    const bool ok = ask(c, cudaDevAttrMultiProcessorCount, &c->gpu.n_sms) &&
                    ask(c, cudaDevAttrComputeCapabilityMajor, &major) &&
                    ask(c, cudaDevAttrComputeCapabilityMinor, &minor);
    c->gpu.capability = 10 * major + minor;
    return ok;
}

/* Whether so much may be taken, and is free. */
static status check_room(struct cuda *c, uint64_t bytes)
{
    const double gb = 1e9;
    size_t left = 0, all = 0;
    if (c->o.vram_budget && bytes > c->o.vram_budget) {
        log_error("cuda:%d is to hold %.2f GB, and --vram-budget allows %.2f GB: raise it, or give the GPU fewer "
                  "layers (-ngl) or a shorter context (-c)",
                  c->o.index, (double)bytes / gb, (double)c->o.vram_budget / gb);
        return ST_BUDGET;
    }
    if (!cuda_ok(c, cudaMemGetInfo(&left, &all), "cudaMemGetInfo"))
        return ST_INTERNAL;
    if (bytes <= left)
        return ST_OK;
    log_error("cuda:%d is to hold %.2f GB, and of its %.2f GB are %.2f GB free: give it fewer layers (-ngl, "
              "--vram-budget) or a shorter context (-c)", c->o.index, (double)bytes / gb, (double)all / gb,
              (double)left / gb);
    return ST_NOMEM;
}

static status take_memory(struct cuda *c, uint64_t bytes)
{
    void *base = NULL;
    const cudaError_t e = cudaMalloc(&base, bytes);
    if (e == cudaErrorMemoryAllocation) {
        log_error("cuda:%d does not give the %.2f GB that it is to hold: give it fewer layers (-ngl, --vram-budget) or "
                  "a shorter context (-c)", c->o.index, (double)bytes / 1e9);
        cudaGetLastError();
        return ST_NOMEM;
    }
    if (!cuda_ok(c, e, "cudaMalloc"))
        return ST_INTERNAL;
    c->arena = (struct arena){.base = base, .size = bytes};
    return ST_OK;
}

status cuda_acquire(struct cuda *c, uint64_t bytes)
{
    cudaGetLastError(); /* of what the thread did before */
    status st = cuda_begin(c);
    if (!st && !find_gpu(c))
        st = ST_INTERNAL;
    st = st ? st : check_room(c, bytes);
    st = st ? st : take_memory(c, bytes);
    if (st)
        return st;
    const cudaError_t e = cudaStreamCreateWithFlags(&c->gpu.stream, cudaStreamNonBlocking);
    return cuda_ok(c, e, "cudaStreamCreateWithFlags") ? ST_OK : ST_INTERNAL;
}

void cuda_settle(struct cuda *c)
{
    if (c->arena.base)
        cudaSetDevice(c->o.index);
    if (c->gpu.stream)
        cudaStreamSynchronize(c->gpu.stream);
}

void cuda_release(struct cuda *c)
{
    if (c->gpu.stream)
        cudaStreamDestroy(c->gpu.stream);
    if (c->arena.base)
        cudaFree(c->arena.base);
}
