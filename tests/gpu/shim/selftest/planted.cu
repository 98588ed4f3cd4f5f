#include "tests/gpu/shim/selftest/planted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime.h>
#include <simt.h>
#include <simt_launch.h>

#define LAUNCH(...) SIMT_LAUNCH(false, __VA_ARGS__)

namespace {

enum { N = 256, WARP = 32 };

/* N whole numbers on the GPU, and back. */
int *array_of(int first)
{
    int host[N], *on_gpu;
    for (int i = 0; i < N; i++)
        host[i] = first + i;
    cudaMalloc((void **)&on_gpu, sizeof host);
    cudaMemcpy(on_gpu, host, sizeof host, cudaMemcpyHostToDevice);
    cudaDeviceSynchronize();
    return on_gpu;
}
template <class F> bool is(const int *on_gpu, const F &expected)
{
    int host[N];
    if (cudaDeviceSynchronize() || cudaMemcpy(host, on_gpu, sizeof host, cudaMemcpyDeviceToHost))
        return false;
    for (int i = 0; i < N; i++)
        if (host[i] != expected(i))
            return false;
    return true;
}

/* ---- threads ---- */

__global__ void reverse(const int *in, int *out, bool mistake)
{
    __shared__ int v[N];
    v[threadIdx.x] = in[threadIdx.x];
    if (!mistake)
        __syncthreads();
    out[threadIdx.x] = v[N - 1 - threadIdx.x];
}
bool missing_barrier(bool mistake)
{
    int *in = array_of(5), *out = array_of(0);
    LAUNCH(reverse, 1, N, 0, NULL, in, out, mistake);
    return is(out, [](int i) { return 5 + N - 1 - i; });
}

__global__ void neighbours(int *p, bool mistake)
{
    __shared__ int v[N];
    const int i = threadIdx.x;
    v[i] = p[i];
    if (!mistake)
        __syncwarp();
    p[i] = v[i ^ 1];
}
bool missing_syncwarp(bool mistake)
{
    int *p = array_of(0);
    LAUNCH(neighbours, 1, N, 0, NULL, p, mistake);
    return is(p, [](int i) { return i ^ 1; });
}

__global__ void two_barriers(bool mistake)
{
    if (mistake && threadIdx.x % 2)
        __syncthreads();
    else
        __syncthreads();
}
bool divergent_barrier(bool mistake)
{
    LAUNCH(two_barriers, 1, N, 0, NULL, mistake);
    return !cudaDeviceSynchronize();
}

__global__ void leaves_early(bool mistake)
{
    if (mistake && threadIdx.x == 100)
        return;
    __syncthreads();
}
bool ended_before_barrier(bool mistake)
{
    LAUNCH(leaves_early, 1, N, 0, NULL, mistake);
    return !cudaDeviceSynchronize();
}

__global__ void waits_for_both(bool mistake)
{
    if (threadIdx.x == 3 && mistake)
        __syncthreads();
    else
        __syncwarp();
    if (threadIdx.x != 3 || !mistake)
        __syncthreads();
}
bool deadlock(bool mistake)
{
    LAUNCH(waits_for_both, 1, WARP, 0, NULL, mistake);
    return !cudaDeviceSynchronize();
}

__global__ void sums(int *p, unsigned mask, int lanes)
{
    int v = p[threadIdx.x];
    if ((int)threadIdx.x % WARP >= lanes)
        return;
    for (int d = 16; d > 0; d /= 2)
        v += __shfl_xor_sync(mask, v, d);
    p[threadIdx.x] = v;
}
bool sum_with(unsigned mask, int lanes)
{
    int *p = array_of(0);
    LAUNCH(sums, 1, N, 0, NULL, p, mask, lanes);
    return is(p, [](int i) { return i / WARP * WARP * WARP + WARP * (WARP - 1) / 2; });
}
bool wrong_mask(bool mistake) { return sum_with(mistake ? 0xffff : 0xffffffff, WARP); }
bool ended_lanes(bool mistake) { return sum_with(0xffffffff, mistake ? 16 : WARP); }

__global__ void two_shuffles(int *p, bool mistake)
{
    int v = p[threadIdx.x];
    if (mistake && threadIdx.x % 2)
        v = __shfl_sync(0xffffffff, v, 0);
    else
        v = __shfl_sync(0xffffffff, v, 0);
    p[threadIdx.x] = v;
}
bool divergent_shuffle(bool mistake)
{
    int *p = array_of(0);
    LAUNCH(two_shuffles, 1, N, 0, NULL, p, mistake);
    return is(p, [](int i) { return i / WARP * WARP; });
}

__global__ void from_beyond(int *p, bool mistake)
{
    if (threadIdx.x % WARP < 16)
        p[threadIdx.x] = __shfl_sync(0xffff, p[threadIdx.x], mistake ? 20 : 3);
}
bool lane_outside_mask(bool mistake)
{
    int *p = array_of(0);
    LAUNCH(from_beyond, 1, N, 0, NULL, p, mistake);
    return is(p, [](int i) { return i % WARP < 16 ? i / WARP * WARP + 3 : i; });
}

/* ---- shared memory ---- */

__global__ void adds(int *p, bool mistake)
{
    __shared__ int sum;
    if (threadIdx.x == 0 && !mistake)
        sum = 0;
    __syncthreads();
    atomicAdd(&sum, 1);
    __syncthreads();
    p[threadIdx.x] = sum;
}
bool uninitialised_shared(bool mistake)
{
    int *p = array_of(0);
    LAUNCH(adds, 1, N, 0, NULL, p, mistake);
    return is(p, [](int) { return N; });
}

template <class T> __global__ void through_dynamic(T *p)
{
    SHARED_BYTES(bytes);
    T *v = (T *)bytes;
    v[threadIdx.x] = p[threadIdx.x];
    __syncthreads();
    p[threadIdx.x] = v[threadIdx.x ^ 1];
}
bool too_little_dynamic(bool mistake)
{
    int *p = array_of(0);
    LAUNCH(through_dynamic<int>, 1, N, (mistake ? N / 2 : N) * sizeof(int), NULL, p);
    return is(p, [](int i) { return i ^ 1; });
}

/* ---- copies into shared memory ---- */

/* Each thread brings a number, and takes another's. */
__global__ void brings(const int *in, int *out, bool waits, bool barrier, bool overwrites)
{
    __shared__ int v[N];
    const int i = threadIdx.x;
    v[i] = -1;
    simt_copy_begin(&v[i], &in[i], sizeof *v);
    if (overwrites)
        v[i] = -1;
    simt_copy_group();
    simt_copy_wait(waits ? 0 : 1);
    if (barrier)
        __syncthreads();
    out[i] = v[i ^ 1];
    simt_copy_wait(0);
}
bool bring(bool waits, bool barrier, bool overwrites)
{
    int *in = array_of(5), *out = array_of(0);
    LAUNCH(brings, 1, N, 0, NULL, in, out, waits, barrier, overwrites);
    return is(out, [](int i) { return 5 + (i ^ 1); });
}
bool copy_not_waited_for(bool mistake) { return bring(!mistake, true, false); }
bool copy_without_barrier(bool mistake) { return bring(true, !mistake, false); }
bool copy_overwritten(bool mistake) { return bring(true, true, mistake); }

__global__ void leaves_a_copy(const int *in, int *out, bool mistake)
{
    __shared__ int v[N];
    simt_copy_begin(&v[threadIdx.x], &in[threadIdx.x], sizeof *v);
    simt_copy_group();
    if (!mistake)
        simt_copy_wait(0);
    out[threadIdx.x] = (int)threadIdx.x;
}
bool copy_never_waited_for(bool mistake)
{
    int *in = array_of(5), *out = array_of(0);
    LAUNCH(leaves_a_copy, 1, N, 0, NULL, in, out, mistake);
    return is(out, [](int i) { return i; });
}

__global__ void brings_twice(const int4 *in, int4 *out, int by)
{
    __shared__ int4 v[2];
    for (int i = 0; i < 2; i++)
        simt_copy_begin(&v[by * i], &in[i], sizeof *v);
    simt_copy_group();
    simt_copy_wait(0);
    out[0] = v[0];
    out[1] = v[by];
}
bool two_copies_to_one_place(bool mistake)
{
    int *in = array_of(5), *out = array_of(5);
    LAUNCH(brings_twice, 1, 1, 0, NULL, (const int4 *)in, (int4 *)out, !mistake);
    return is(out, [](int i) { return 5 + i; });
}

__global__ void brings_from(const int *in, int *out, int at)
{
    __shared__ int2 v;
    simt_copy_begin(&v, in + at, sizeof v);
    simt_copy_group();
    simt_copy_wait(0);
    *out = v.x;
}
bool copy_that_is_not_aligned(bool mistake)
{
    int *in = array_of(0), *out = array_of(0);
    LAUNCH(brings_from, 1, 1, 0, NULL, in, out, mistake);
    return is(out, [](int i) { return i; });
}

/* Two steps ahead of the one that is added up; of three slots one is free. */
__global__ void goes_ahead(const int *in, int *out, int slots, int but)
{
    enum { STEPS = 7, AHEAD = 2, MOST = 3 };
    __shared__ int v[MOST][N];
    const int i = threadIdx.x;
    int sum = 0;
    for (int step = 0; step < AHEAD; step++) {
        simt_copy_begin(&v[step][i], &in[(step * step + i) % N], sizeof **v);
        simt_copy_group();
    }
    for (int step = 0; step < STEPS; step++) {
        const int next = step + AHEAD;
        simt_copy_wait(but);
        __syncthreads();
        if (next < STEPS)
            simt_copy_begin(&v[next % slots][i], &in[(next * next + i) % N], sizeof **v);
        simt_copy_group();
        sum += v[step % slots][N - 1 - i];
    }
    simt_copy_wait(0);
    out[i] = sum;
}
bool go_ahead(int slots, int but)
{
    int *in = array_of(5), *out = array_of(0);
    LAUNCH(goes_ahead, 1, N, 0, NULL, in, out, slots, but);
    return is(out, [](int i) {
        int sum = 0;
        for (int step = 0; step < 7; step++)
            sum += 5 + (step * step + N - 1 - i) % N;
        return sum;
    });
}
bool one_copy_too_few_waited_for(bool mistake) { return go_ahead(3, mistake ? 2 : 1); }
bool copy_where_others_read(bool mistake) { return go_ahead(mistake ? 2 : 3, 1); }

/* ---- the GPU's memory ---- */

__global__ void shift(const int *in, int *out, int by) { out[threadIdx.x] = in[threadIdx.x + by]; }
bool read_beyond(bool mistake)
{
    int *in = array_of(0), *out = array_of(0);
    LAUNCH(shift, 1, N, 0, NULL, in, out, mistake);
    return is(out, [](int i) { return i; });
}

__global__ void set(int *p, int at) { p[at] = 1; }
bool write_beyond_a_little(bool mistake)
{
    int *p;
    cudaMalloc((void **)&p, 100 * sizeof *p);
    LAUNCH(set, 1, 1, 0, NULL, p, mistake ? 100 : 99);
    return !cudaFree(p);
}
bool write_before(bool mistake)
{
    int *p;
    cudaMalloc((void **)&p, 5000);
    LAUNCH(set, 1, 1, 0, NULL, p, -mistake);
    return !cudaFree(p);
}

bool freed(bool mistake)
{
    int *p = array_of(0), *q = array_of(0);
    if (mistake)
        cudaFree(p);
    LAUNCH(shift, 1, N, 0, NULL, p, q, 0);
    return is(q, [](int i) { return i; });
}

bool touched_by_host(bool mistake)
{
    int *p = array_of(7), value;
    if (mistake)
        value = *(volatile int *)p;
    else
        cudaMemcpy(&value, p, sizeof value, cudaMemcpyDeviceToHost);
    return value == 7;
}

bool wrong_direction(bool mistake)
{
    int *p = array_of(7), value = 0;
    return !cudaMemcpy(&value, p, sizeof value, mistake ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost);
}

/* ---- streams ---- */

bool missing_event(bool mistake)
{
    int *in = array_of(5), *middle = array_of(0), *out = array_of(0);
    cudaStream_t a, b;
    cudaEvent_t done;
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
    LAUNCH(shift, 1, N, 0, a, in, middle, 0);
    cudaEventRecord(done, a);
    if (!mistake)
        cudaStreamWaitEvent(b, done, 0);
    LAUNCH(shift, 1, N, 0, b, middle, out, 0);
    cudaStreamSynchronize(b);
    const bool right = is(out, [](int i) { return 5 + i; });
    cudaEventDestroy(done);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
    return right;
}

/* The default stream and one that does not wait for it. */
bool default_stream_not_waited_for(bool mistake)
{
    int *in = array_of(5), *out = array_of(0);
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, mistake ? cudaStreamNonBlocking : cudaStreamDefault);
    cudaMemset(in, 0, N * sizeof *in);
    LAUNCH(shift, 1, N, 0, s, in, out, 0);
    cudaStreamSynchronize(s);
    const bool right = is(out, [](int) { return 0; });
    cudaStreamDestroy(s);
    return right;
}

bool pinned_reused(bool mistake)
{
    int *p = array_of(0), *q = array_of(0), *pinned;
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaMallocHost((void **)&pinned, N * sizeof *pinned);
    for (int i = 0; i < N; i++)
        pinned[i] = 3 * i;
    cudaMemcpyAsync(p, pinned, N * sizeof *p, cudaMemcpyHostToDevice, s);
    if (!mistake)
        cudaStreamSynchronize(s);
    for (int i = 0; i < N; i++)
        pinned[i] = 0;
    cudaMemcpyAsync(q, pinned, N * sizeof *q, cudaMemcpyHostToDevice, s);
    cudaStreamSynchronize(s);
    return is(p, [](int i) { return 3 * i; });
}

bool read_too_early(bool mistake)
{
    int *p = array_of(5), *pinned;
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaMallocHost((void **)&pinned, N * sizeof *pinned);
    cudaMemcpyAsync(pinned, p, N * sizeof *p, cudaMemcpyDeviceToHost, s);
    if (!mistake)
        cudaStreamSynchronize(s);
    const bool right = pinned[N - 1] == 5 + N - 1;
    cudaStreamSynchronize(s);
    return right;
}

/* ---- what only the race build finds ---- */

#ifdef __SANITIZE_THREAD__

__global__ void counts(int *p, bool mistake)
{
    if (mistake)
        p[threadIdx.x % WARP]++;
    else
        atomicAdd(&p[threadIdx.x % WARP], 1);
}
bool plain_sum(int blocks, int threads, bool mistake)
{
    int *p = array_of(0);
    LAUNCH(counts, blocks, threads, 0, NULL, p, mistake);
    return is(p, [=](int i) { return i < WARP ? i + blocks * threads / WARP : i; });
}
bool plain_sum_of_blocks(bool mistake) { return plain_sum(8, WARP, mistake); }
bool plain_sum_of_threads(bool mistake) { return plain_sum(1, N, mistake); }

/* Each thread reads what another writes in the next turn. */
__global__ void turns(int *p, bool mistake)
{
    __shared__ int v[N];
    for (int turn = 0; turn < 2; turn++) {
        v[threadIdx.x] = p[threadIdx.x];
        __syncthreads();
        p[threadIdx.x] = v[threadIdx.x ^ WARP];
        if (!mistake)
            __syncthreads();
    }
}
bool missing_second_barrier(bool mistake)
{
    int *p = array_of(0);
    LAUNCH(turns, 1, N, 0, NULL, p, mistake);
    return is(p, [](int i) { return i; });
}

/* The last block adds up what all have written. */
__global__ void last_adds(int *part, unsigned *done, int *sum, bool mistake)
{
    __shared__ bool last;
    part[blockIdx.x * WARP + threadIdx.x] = 1;
    if (!mistake)
        __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        last = atomicAdd(done, 1u) == gridDim.x - 1;
    __syncthreads();
    __threadfence();
    if (last && threadIdx.x == 0)
        for (unsigned i = 0; i < gridDim.x * WARP; i++)
            *sum += part[i];
}
bool missing_fence(bool mistake)
{
    int *part = array_of(0), *sum = array_of(0), *done = array_of(0);
    LAUNCH(last_adds, N / WARP, WARP, 0, NULL, part, (unsigned *)done, sum, mistake);
    return is(sum, [](int i) { return i ? i : N; });
}

bool host_array(bool mistake)
{
    int *in = array_of(0), *out = array_of(0), host[N] = {};
    LAUNCH(shift, 1, N, 0, NULL, mistake ? host : in, out, 0);
    return !cudaDeviceSynchronize();
}

bool read_a_little_beyond(bool mistake)
{
    int *in, *out = array_of(0);
    cudaMalloc((void **)&in, (N - 1) * sizeof *in);
    cudaMemset(in, 0, (N - 1) * sizeof *in);
    LAUNCH(shift, 1, N - 1, 0, NULL, in, out, mistake);
    return !cudaDeviceSynchronize();
}

__global__ void wide(const char *p, int2 *out, bool mistake) { *out = *(const int2 *)(p + 4 * mistake); }
bool misaligned(bool mistake)
{
    int *in = array_of(0), *out = array_of(0);
    LAUNCH(wide, 1, 1, 0, NULL, (const char *)in, (int2 *)out, mistake);
    return !cudaDeviceSynchronize();
}

#endif

/* ---- what works ---- */

#ifdef __SANITIZE_THREAD__
uint64_t moved_bytes, needed_bytes;
void note(const char *, uint64_t moved, uint64_t needed)
{
    moved_bytes = moved;
    needed_bytes = needed;
}
__global__ void strides(const int *in, int *out, int by, int turns)
{
    int sum = 0;
    for (int turn = 0; turn < turns; turn++)
        sum += in[(int)threadIdx.x * by + turn * WARP];
    out[threadIdx.x] = sum;
}
bool moves(int by, int turns, uint64_t moved, uint64_t needed)
{
    int *in = array_of(0), *out = array_of(0);
    simt_traffic(note);
    LAUNCH(strides, 1, WARP, 0, NULL, in, out, by, turns);
    cudaDeviceSynchronize();
    simt_traffic(NULL);
    return moved_bytes == moved && needed_bytes == needed;
}
#endif

/* ---- launches that overlap ---- */

enum early { NEVER_WAITS, READS_EARLY, WRITES_EARLY, RIGHT };

__global__ void twice(const int *constant, int *p, enum early how)
{
    const int i = threadIdx.x, early = how == READS_EARLY ? p[i] : constant[i];
    if (how == WRITES_EARLY)
        p[i] = early;
    if (how != NEVER_WAITS)
        simt_begin();
    p[i] = how == WRITES_EARLY ? 2 * early : p[i] + early;
}
bool overlaps(enum early how)
{
    int *constant = array_of(3), *p = array_of(3);
    for (int turn = 0; turn < 2; turn++)
        SIMT_LAUNCH(true, twice, 1, N, 0, NULL, constant, p, how);
    return is(p, [](int i) { return 3 * (3 + i); });
}
bool never_waits(bool mistake) { return overlaps(mistake ? NEVER_WAITS : RIGHT); }
#ifdef __SANITIZE_THREAD__
bool reads_early(bool mistake) { return overlaps(mistake ? READS_EARLY : RIGHT); }
bool writes_early(bool mistake) { return overlaps(mistake ? WRITES_EARLY : RIGHT); }
#endif

__global__ void multiply(const signed char *a, const signed char *b, int *c, bool a_signed)
{
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    unsigned ra[4], rb[2];
    int rc[4];
    for (int i = 0; i < 4; i++) {
        ra[i] = *(const unsigned *)(a + 32 * (g + 8 * (i % 2)) + 16 * (i / 2) + 4 * t);
        rc[i] = c[8 * (g + 8 * (i / 2)) + 2 * t + i % 2];
    }
    for (int i = 0; i < 2; i++)
        rb[i] = *(const unsigned *)(b + 32 * g + 16 * i + 4 * t);
    simt_mma_m16n8k32(rc, ra, rb, a_signed);
    for (int i = 0; i < 4; i++)
        c[8 * (g + 8 * (i / 2)) + 2 * t + i % 2] = rc[i];
}

__global__ void exchange(int *p)
{
    const int lane = threadIdx.x % WARP, i = threadIdx.x;
    int ok = __shfl_up_sync(0xffffffff, lane, 3) == (lane < 3 ? lane : lane - 3);
    ok &= __shfl_down_sync(0xffffffff, (double)lane, 3, 8) == (lane % 8 > 4 ? lane : lane + 3);
    ok &= __shfl_sync(0xffffffff, (long long)lane, 9, 8) == lane / 8 * 8 + 1;
    ok &= __ballot_sync(0xffffffff, lane & 1) == 0xaaaaaaaa;
    ok &= __any_sync(0xffffffff, lane == 7) && !__all_sync(0xffffffff, lane == 7) && !__any_sync(0xffffffff, 0);
    ok &= __syncthreads_count(i < 70) == 70;
    if (lane < 16)
        ok &= __shfl_xor_sync(0xffff, lane, 1) == (lane ^ 1); /* while the others go on to the next */
    ok &= __shfl_xor_sync(0xffffffff, lane, 31) == 31 - lane;
    p[i] = ok;
}

}

bool traffic_is_counted(void)
{
#ifdef __SANITIZE_THREAD__
    return moves(1, 1, 128 + 128, 128 + 128) && moves(1, 2, 256 + 128, 256 + 128) &&
           moves(8, 1, 1024 + 128, 128 + 128) && moves(0, 2, 64 + 128, 8 + 128);
#else
    return true;
#endif
}

bool mma_is_right(bool a_signed)
{
    signed char a[16][32], b[8][32], *ga, *gb;
    int c[16][8], got[16][8], *gc;
    for (auto &row : a)
        for (auto &v : row)
            v = (signed char)rand();
    for (auto &row : b)
        for (auto &v : row)
            v = (signed char)rand();
    for (auto &row : c)
        for (auto &v : row)
            v = rand() / 4;
    cudaMalloc((void **)&ga, sizeof a);
    cudaMalloc((void **)&gb, sizeof b);
    cudaMalloc((void **)&gc, sizeof c);
    cudaMemcpy(ga, a, sizeof a, cudaMemcpyHostToDevice);
    cudaMemcpy(gb, b, sizeof b, cudaMemcpyHostToDevice);
    cudaMemcpy(gc, c, sizeof c, cudaMemcpyHostToDevice);
    LAUNCH(multiply, 1, WARP, 0, NULL, ga, gb, gc, a_signed);
    cudaMemcpy(got, gc, sizeof c, cudaMemcpyDeviceToHost);
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 8; n++)
            for (int k = 0; k < 32; k++)
                c[m][n] += (a_signed ? a[m][k] : (unsigned char)a[m][k]) * b[n][k];
    return memcmp(c, got, sizeof c) == 0;
}

bool graphs_are_launched_again(void)
{
    int *p = array_of(0), *q = array_of(0), *pinned;
    cudaStream_t s;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaMallocHost((void **)&pinned, N * sizeof *pinned);
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    cudaMemcpyAsync(p, pinned, N * sizeof *p, cudaMemcpyHostToDevice, s);
    LAUNCH(reverse, 1, N, 0, s, p, q, false);
    if (cudaStreamSynchronize(s) != cudaErrorStreamCaptureUnsupported || cudaStreamEndCapture(s, &graph) ||
        cudaGraphInstantiate(&exec, graph, 0) || cudaGraphDestroy(graph))
        return false;
    bool right = true;
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < N; i++)
            pinned[i] = turn * i;
        right &= !cudaGraphLaunch(exec, s) && !cudaStreamSynchronize(s);
        right &= is(q, [=](int i) { return turn * (N - 1 - i); });
    }
    return right && !cudaGraphExecDestroy(exec) && !cudaStreamDestroy(s);
}

bool warps_exchange_values(void)
{
    int *p = array_of(0);
    LAUNCH(exchange, 1, N, 0, NULL, p);
    return is(p, [](int) { return 1; });
}

const struct planted planted[] = {
    {"a missing barrier", NULL, missing_barrier, false},
    {"a missing __syncwarp", NULL, missing_syncwarp, false},
    {"a barrier in each branch", "waits at the one at", divergent_barrier, false},
    {"a thread that ends before a barrier", "end", ended_before_barrier, false},
    {"a barrier and a warp that wait for each other", "__sync", deadlock, false},
    {"a mask without the own lane", "not in its own mask", wrong_mask, false},
    {"a mask with ended lanes", "which has ended", ended_lanes, false},
    {"a shuffle in each branch", "who waits in __shfl_sync", divergent_shuffle, false},
    {"a shuffle from a lane outside of the mask", "which is not in the mask", lane_outside_mask, false},
    {"shared memory that nobody has set", NULL, uninitialised_shared, false},
    {"too little dynamic shared memory", NULL, too_little_dynamic, false},
    {"a copy into shared memory that is not waited for", NULL, copy_not_waited_for, false},
    {"a copy that nobody ever waits for", "has not waited for", copy_never_waited_for, false},
    {"a copy that others read without a barrier", NULL, copy_without_barrier, false},
    {"a copy that is overwritten under way", "were written while a copy", copy_overwritten, false},
    {"two copies to one place", "is under way", two_copies_to_one_place, false},
    {"a copy that is not aligned", "is not aligned", copy_that_is_not_aligned, false},
    {"one copy too few waited for", NULL, one_copy_too_few_waited_for, false},
    {"a copy to where others still read", NULL, copy_where_others_read, false},
    {"a launch that does not wait for the one before", "the launch before", never_waits, false},
    {"a read beyond an allocation", "behind the end of an allocation", read_beyond, false},
    {"a write a little beyond", NULL, write_beyond_a_little, false},
    {"a write before an allocation", NULL, write_before, false},
    {"a read of freed memory", "that were freed", freed, false},
    {"the host in the GPU's memory", NULL, touched_by_host, false},
    {"a copy in the wrong direction", "direction", wrong_direction, false},
    {"a missing event between streams", NULL, missing_event, true},
    {"a stream that does not wait for the default one", NULL, default_stream_not_waited_for, true},
    {"pinned memory that is reused too early", NULL, pinned_reused, true},
    {"a copy that is read too early", NULL, read_too_early, true},
#ifdef __SANITIZE_THREAD__
    {"blocks that add up without atomic operations", "no order", plain_sum_of_blocks, false},
    {"threads that add up without atomic operations", "no order", plain_sum_of_threads, false},
    {"a missing barrier before the next turn", "no order", missing_second_barrier, false},
    {"a missing fence before a block says that it is done", "no order", missing_fence, false},
    {"a kernel that reads the host's memory", "neither the GPU's nor the thread's", host_array, false},
    {"a read a little beyond an allocation", "behind the end", read_a_little_beyond, false},
    {"a read of what the launch before may yet write", "which launches write", reads_early, false},
    {"a write before the launch before is done", "the launch before is done", writes_early, false},
    {"a wide read that is not aligned", "not aligned", misaligned, false},
#endif
};
const int n_planted = sizeof planted / sizeof *planted;
