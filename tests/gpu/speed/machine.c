/* What bounds everything else: the GPU's memory, starting kernels, the way to it and back. */
#include "tests/gpu/speed/speed.h"

#include <stdlib.h>
#include <time.h>

#include "kernels/cuda/measure.h"

/* ---- memory ---- */

struct stretch {
    uint8_t *from, *to;
    size_t bytes;
    uint32_t *sink;
};

static void launch_read(const struct speed *s, void *of, int turn)
{
    const struct stretch *x = of;
    gpu_read_words(&s->gpu, turn % 2 ? x->to : x->from, (int64_t)(x->bytes / 4), x->sink);
}

static void launch_copy(const struct speed *s, void *of, int turn)
{
    const struct stretch *x = of;
    CUDA(cudaMemcpyAsync(turn % 2 ? x->from : x->to, turn % 2 ? x->to : x->from, x->bytes, cudaMemcpyDeviceToDevice,
                         s->gpu.stream));
}

void speed_memory(struct speed *s)
{
    size_t free_bytes = 0, total = 0;
    CUDA(cudaMemGetInfo(&free_bytes, &total));
    struct stretch x = {.bytes = (size_t)(1 << 30) / (size_t)s->smaller};
    if (x.bytes > free_bytes / 4)
        x.bytes = free_bytes / 4 / 4096 * 4096;
    x.from = speed_copy(NULL, x.bytes);
    x.to = speed_copy(NULL, x.bytes);
    x.sink = speed_copy(NULL, sizeof *x.sink);
    struct speed_row row = {"memory", "read, a GiB after another", "", 0, speed_time(s, launch_read, &x),
                            (double)x.bytes, 0};
    s->read_gb_per_s = row.bytes / row.us * 1e-3;
    speed_report(s, &row);
    row.what = "copied, bytes read and written";
    row.bytes *= 2;
    row.us = speed_time(s, launch_copy, &x);
    speed_report(s, &row);
    speed_free(x.from);
    speed_free(x.to);
    speed_free(x.sink);
}

/* ---- launches ---- */

static void launch_nothing(const struct speed *s, void *of, int turn)
{
    (void)of;
    (void)turn;
    gpu_nothing(&s->gpu);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* A graph of so many empty kernels: how long the host takes to make it, to start it, and until it is done. */
static void time_graph(struct speed *s)
{
    enum { KERNELS = 300, TURNS = 50 };
    struct speed_row row = {.family = "launches", .what = "graph of 300 empty kernels, made", .type = ""};
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    double begin = now_us(), started = 0, done = 0;
    CUDA(cudaStreamBeginCapture(s->gpu.stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < KERNELS; i++)
        gpu_nothing(&s->gpu);
    CUDA(cudaStreamEndCapture(s->gpu.stream, &graph));
    CUDA(cudaGraphInstantiate(&exec, graph, 0));
    row.us = now_us() - begin;
    speed_report(s, &row);
    for (int i = 0; i <= TURNS; i++) {
        begin = now_us();
        CUDA(cudaGraphLaunch(exec, s->gpu.stream));
        started += i ? now_us() - begin : 0; /* the first takes longer */
        CUDA(cudaStreamSynchronize(s->gpu.stream));
        done += i ? now_us() - begin : 0;
    }
    row.what = "the same, the host's time to start it";
    row.us = started / TURNS;
    speed_report(s, &row);
    row.what = "the same, and waited for";
    row.us = done / TURNS;
    speed_report(s, &row);
    CUDA(cudaGraphExecDestroy(exec));
    CUDA(cudaGraphDestroy(graph));
}

void speed_launches(struct speed *s)
{
    enum { LAUNCHES = 1000, WAITS = 200 };
    struct speed_row row = {.family = "launches", .what = "empty kernel, in a graph", .type = ""};
    row.us = speed_time(s, launch_nothing, NULL);
    speed_report(s, &row);

    double begin = now_us();
    for (int i = 0; i < LAUNCHES; i++)
        gpu_nothing(&s->gpu);
    row.what = "empty kernel, the host's time to start it";
    row.us = (now_us() - begin) / LAUNCHES;
    speed_report(s, &row);
    CUDA(cudaStreamSynchronize(s->gpu.stream));
    row.what = "empty kernel, in a stream";
    row.us = (now_us() - begin) / LAUNCHES;
    speed_report(s, &row);

    begin = now_us();
    for (int i = 0; i < WAITS; i++) {
        gpu_nothing(&s->gpu);
        CUDA(cudaStreamSynchronize(s->gpu.stream));
    }
    row.what = "empty kernel, and waited for";
    row.us = (now_us() - begin) / WAITS;
    speed_report(s, &row);
    time_graph(s);
}

/* ---- the bus ---- */

struct way {
    void *pinned, *on_gpu;
    size_t bytes;
    enum cudaMemcpyKind kind;
};

static void launch_transfer(const struct speed *s, void *of, int turn)
{
    const struct way *w = of;
    const bool in = w->kind == cudaMemcpyHostToDevice;
    (void)turn;
    CUDA(cudaMemcpyAsync(in ? w->on_gpu : w->pinned, in ? w->pinned : w->on_gpu, w->bytes, w->kind, s->gpu.stream));
}

/* Of transfers that the host waits for, each by itself, the fastest. */
static double wait_us(struct speed *s, struct way *w)
{
    enum { REPEATS = 101 };
    double least = 1e30;
    for (int i = 0; i < REPEATS; i++) {
        const double begin = now_us();
        launch_transfer(s, w, i);
        CUDA(cudaStreamSynchronize(s->gpu.stream));
        const double us = now_us() - begin;
        least = us < least ? us : least;
    }
    return least;
}

void speed_bus(struct speed *s)
{
    static const char *const names[2][2] = {{"to the GPU, pinned, 64 MiB", "from the GPU, pinned, 64 MiB"},
                                            {"to the GPU, 16 KiB, and waited for",
                                             "from the GPU, 16 KiB, and waited for"}};
    struct way w = {.bytes = 64 << 20};
    CUDA(cudaHostAlloc(&w.pinned, w.bytes, 0));
    w.on_gpu = speed_copy(NULL, w.bytes);
    for (int small = 0; small < 2; small++) {
        w.bytes = small ? 16 << 10 : 64 << 20;
        for (int out = 0; out < 2; out++) {
            w.kind = out ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice;
            struct speed_row row = {"bus", names[small][out], "", 0, 0, (double)w.bytes, 0};
            row.us = small ? wait_us(s, &w) : speed_time(s, launch_transfer, &w);
            speed_report(s, &row);
        }
    }
    CUDA(cudaFreeHost(w.pinned));
    speed_free(w.on_gpu);
}
