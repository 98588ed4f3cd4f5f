#include "tests/gpu/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What is right behind the bytes that a test asked for. The shim sees every step beyond an allocation by itself, reads
 * too, so that there is none of it there. */
#ifdef HEARTH_SIMT
enum { CANARY = 0 };
#else
enum { CANARY = 1024 };
#endif
enum { FILL = 0xa5, MOST_ALLOCATIONS = 4096 };

static struct gpu gpu;
static struct {
    void *at;
    size_t bytes;
} allocations[MOST_ALLOCATIONS];

static void check(cudaError_t e, const char *call)
{
    if (e)
        fail_msg("%s: %s (%d)", call, cudaGetErrorString(e), (int)e);
}
#define CHECK(call) check(call, #call)

struct gpu *gpu_for_test(void)
{
    int n = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);
    if (gpu.stream)
        return &gpu;
    if (e || n == 0) {
        printf("SKIP: there is no GPU (%s)\n", e ? cudaGetErrorString(e) : "none is visible");
        return NULL;
    }
    int major, minor;
    if (cudaSetDevice(0) || cudaDeviceGetAttribute(&gpu.n_sms, cudaDevAttrMultiProcessorCount, 0) ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0) ||
        cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking)) {
        fprintf(stderr, "the GPU cannot be used: %s\n", cudaGetErrorString(cudaGetLastError()));
        abort();
    }
    gpu.capability = 10 * major + minor;
    return &gpu;
}

static size_t *bytes_of(const void *at)
{
    for (size_t i = 0; i < MOST_ALLOCATIONS; i++)
        if (allocations[i].at == at)
            return &allocations[i].bytes;
    fail_msg("%p is none that gpu_copy_of gave", at);
    return NULL;
}

void *gpu_copy_of(const void *host, size_t bytes)
{
    void *at = NULL;
    CHECK(cudaMalloc(&at, bytes + CANARY ? bytes + CANARY : 1));
    CHECK(cudaMemset(at, FILL, bytes + CANARY));
    if (host && bytes)
        CHECK(cudaMemcpy(at, host, bytes, cudaMemcpyHostToDevice));
    CHECK(cudaDeviceSynchronize()); /* the fill may be under way, and the test's stream does not wait for it */
    size_t i = 0;
    while (i < MOST_ALLOCATIONS && allocations[i].at)
        i++;
    assert_true(i < MOST_ALLOCATIONS);
    allocations[i].at = at;
    allocations[i].bytes = bytes;
    return at;
}

void gpu_release(void *on_gpu)
{
    if (!on_gpu)
        return;
    size_t *bytes = bytes_of(on_gpu);
    uint8_t canary[CANARY + 1];
    gpu_sync(&gpu);
    if (CANARY)
        CHECK(cudaMemcpy(canary, (uint8_t *)on_gpu + *bytes, CANARY, cudaMemcpyDeviceToHost));
    canary[CANARY] = 0;
    const size_t intact = strspn((char *)canary, (char[]){(char)FILL, 0});
    if (intact != CANARY)
        fail_msg("byte %zu behind an array of %zu bytes was written to", intact, *bytes);
    CHECK(cudaFree(on_gpu));
    allocations[(size_t)((char *)bytes - (char *)&allocations[0].bytes) / sizeof *allocations].at = NULL;
}

void gpu_sync(struct gpu *g)
{
    CHECK(cudaGetLastError()); /* of launches */
    CHECK(cudaStreamSynchronize(g->stream));
}

void gpu_read(void *host, const void *on_gpu, size_t bytes)
{
    gpu_sync(&gpu);
    if (bytes)
        CHECK(cudaMemcpy(host, on_gpu, bytes, cudaMemcpyDeviceToHost));
}

void gpu_write(void *on_gpu, const void *host, size_t bytes)
{
    gpu_sync(&gpu);
    if (bytes)
        CHECK(cudaMemcpy(on_gpu, host, bytes, cudaMemcpyHostToDevice));
    CHECK(cudaDeviceSynchronize());
}

struct gpu_clearing gpu_to_clear(void)
{
    struct gpu_clearing c = {.n_units = 301, .n_broken = 3, .n_h = 1300};
    c.sums.units = gpu_copy_of(NULL, (size_t)c.n_units * sizeof *c.sums.units);
    c.sums.broken = gpu_copy_of(NULL, (size_t)c.n_broken * sizeof *c.sums.broken);
    c.h = gpu_copy_of(NULL, (size_t)c.n_h * sizeof *c.h);
    return c;
}

static void expect_zeros(const char *what, void *on_gpu, size_t bytes)
{
    uint8_t *got = malloc(bytes);
    gpu_read(got, on_gpu, bytes);
    for (size_t i = 0; i < bytes; i++)
        if (got[i])
            fail_msg("%s, byte %zu: not cleared", what, i);
    free(got);
    gpu_release(on_gpu);
}

void gpu_expect_cleared(struct gpu_clearing *c)
{
    expect_zeros("units", c->sums.units, (size_t)c->n_units * sizeof *c->sums.units);
    expect_zeros("broken", c->sums.broken, (size_t)c->n_broken * sizeof *c->sums.broken);
    expect_zeros("h", c->h, (size_t)c->n_h * sizeof *c->h);
}
