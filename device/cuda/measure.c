#include "device/cuda/measure.h"

#include <stdio.h>

#include <cuda_runtime_api.h>

#include "base/clock.h"
#include "kernels/cuda/measure.h"

enum {
    ROUNDS = 5,            /* of which the fastest counts: whatever else runs only adds to them */
    READS = 4,             /* of a round, so that starting the first and waiting for the last hardly show */
    LAUNCHES = 512,        /* of a graph, likewise */
    WAITS = 100,
    CACHES = 16,           /* what is read is so many times what the cache holds */
    COPIED = 64 << 20,     /* bytes, of a round */
    LINE = 4096,
};

struct meter {
    struct gpu gpu;
    void *on_gpu, *pinned;
    size_t bytes, copied;  /* of on_gpu; of pinned, no more than those */
    cudaGraphExec_t launches;
    cudaError_t failed;    /* the first call that did, */
    const char *call;      /* NULL: none has */
};

/* Whether all calls went well, this one too. */
static bool ok(struct meter *m, cudaError_t e, const char *call)
{
    if (e != cudaSuccess) {
        cudaGetLastError(); /* the thread's: what it does next has not failed */
        m->failed = m->call ? m->failed : e;
        m->call = m->call ? m->call : call;
    }
    return !m->call;
}

/* ---- what is timed: each puts something into the stream ---- */

/* All of it is 0, so there is no sum to write. */
static void read_all(struct meter *m)
{
    for (int i = 0; i < READS; i++)
        gpu_read_words(&m->gpu, m->on_gpu, (int64_t)(m->bytes / sizeof(uint32_t)), m->on_gpu);
}

static void copy_up(struct meter *m)
{
    ok(m, cudaMemcpyAsync(m->on_gpu, m->pinned, m->copied, cudaMemcpyHostToDevice, m->gpu.stream), "cudaMemcpyAsync");
}

static void copy_down(struct meter *m)
{
    ok(m, cudaMemcpyAsync(m->pinned, m->on_gpu, m->copied, cudaMemcpyDeviceToHost, m->gpu.stream), "cudaMemcpyAsync");
}

static void launch_graph(struct meter *m)
{
    ok(m, cudaGraphLaunch(m->launches, m->gpu.stream), "cudaGraphLaunch");
}

static void launch_and_fetch(struct meter *m)
{
    gpu_nothing(&m->gpu);
    ok(m, cudaMemcpyAsync(m->pinned, m->on_gpu, sizeof(uint32_t), cudaMemcpyDeviceToHost, m->gpu.stream),
       "cudaMemcpyAsync");
}

/* Seconds until the host knows that it is done; the first round, which finds a GPU asleep, does not count. */
static double time_of(struct meter *m, void (*what)(struct meter *), int rounds)
{
    double least = 1e9;
    for (int i = 0; i <= rounds && !m->call; i++) {
        const double start = clock_s();
        what(m);
        ok(m, cudaGetLastError(), "a launch");
        ok(m, cudaStreamSynchronize(m->gpu.stream), "cudaStreamSynchronize");
        const double took = clock_s() - start;
        least = i > 0 && took < least ? took : least;
    }
    return least > 1e-9 ? least : 1e-9; /* what a clock tells apart */
}

/* ---- what it takes ---- */

static bool ask(struct meter *m, int i, size_t *cache)
{
    int bytes = 0;
    const bool asked = ok(m, cudaDeviceGetAttribute(&m->gpu.n_sms, cudaDevAttrMultiProcessorCount, i),
                          "cudaDeviceGetAttribute") &&
                       ok(m, cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, i), "cudaDeviceGetAttribute");
    *cache = bytes > 1 << 20 ? (size_t)bytes : 1 << 20;
    return asked;
}

static bool take_memory(struct meter *m, size_t cache)
{
    size_t left = 0, all = 0;
    if (!ok(m, cudaMemGetInfo(&left, &all), "cudaMemGetInfo"))
        return false;
    m->bytes = left / 4 < CACHES * cache ? left / 4 / LINE * LINE : CACHES * cache;
    m->copied = m->bytes < COPIED ? m->bytes : COPIED;
    return ok(m, cudaMalloc(&m->on_gpu, m->bytes), "cudaMalloc") &&
           ok(m, cudaMemset(m->on_gpu, 0, m->bytes), "cudaMemset") &&
           ok(m, cudaHostAlloc(&m->pinned, m->copied, cudaHostAllocDefault), "cudaHostAlloc");
}

static bool make_graph(struct meter *m)
{
    cudaGraph_t graph = NULL;
    if (!ok(m, cudaStreamBeginCapture(m->gpu.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture"))
        return false;
    for (int i = 0; i < LAUNCHES; i++)
        gpu_nothing(&m->gpu);
    ok(m, cudaGetLastError(), "a launch");
    ok(m, cudaStreamEndCapture(m->gpu.stream, &graph), "cudaStreamEndCapture");
    if (!m->call)
        ok(m, cudaGraphInstantiate(&m->launches, graph, 0), "cudaGraphInstantiate");
    if (graph)
        cudaGraphDestroy(graph);
    return !m->call;
}

static bool open_meter(struct meter *m, int i)
{
    size_t cache = 0;
    return ok(m, cudaSetDevice(i), "cudaSetDevice") && ask(m, i, &cache) &&
           ok(m, cudaStreamCreateWithFlags(&m->gpu.stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags") &&
           take_memory(m, cache) && ok(m, cudaDeviceSynchronize(), "cudaDeviceSynchronize") && make_graph(m);
}

static void close_meter(struct meter *m)
{
    if (m->launches)
        cudaGraphExecDestroy(m->launches);
    if (m->pinned)
        cudaFreeHost(m->pinned);
    if (m->on_gpu)
        cudaFree(m->on_gpu);
    if (m->gpu.stream)
        cudaStreamDestroy(m->gpu.stream);
    cudaGetLastError();
}

status measure_gpu(int i, struct gpu_speed *out, char why[LOG_LINE_MAX])
{
    struct meter m = {0};
    struct gpu_speed s = {0};
    int before = 0;
    ok(&m, cudaGetDevice(&before), "cudaGetDevice");
    if (!m.call && open_meter(&m, i)) {
        const double read = (double)READS * (double)m.bytes, copied = (double)m.copied;
        s.read_gb_per_s = read / time_of(&m, read_all, ROUNDS) * 1e-9;
        s.up_gb_per_s = copied / time_of(&m, copy_up, ROUNDS) * 1e-9;
        s.down_gb_per_s = copied / time_of(&m, copy_down, ROUNDS) * 1e-9;
        s.launch_us = time_of(&m, launch_graph, ROUNDS) / LAUNCHES * 1e6;
        s.wait_us = time_of(&m, launch_and_fetch, WAITS) * 1e6;
    }
    close_meter(&m);
    cudaSetDevice(before);
    if (m.call) {
        snprintf(why, LOG_LINE_MAX, "cuda:%d cannot be measured: %s fails: %s (%d)", i, m.call,
                 cudaGetErrorString(m.failed), (int)m.failed);
        return ST_UNSUPPORTED;
    }
    *out = s;
    return ST_OK;
}
