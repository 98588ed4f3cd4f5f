#include "tests/gpu/speed/speed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 11, TURNS_MIN = 4, TURNS_MAX = 64 };
#define GRAPH_US 3000.0 /* about as long as a graph should take: the cost of starting it then does not show */

int speed_sets(const struct speed *s, uint64_t bytes)
{
    const uint64_t n = (4 * s->cache_bytes + bytes - 1) / bytes;
    return n < 2 ? 2 : n > TURNS_MAX ? TURNS_MAX : (int)n;
}

/* ---- time ---- */

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void launch_turns(struct speed *s, speed_launch *launch, void *of, int turns)
{
    for (int i = 0; i < turns; i++)
        launch(s, of, i);
    CUDA(cudaGetLastError());
}

/* Milliseconds between the events around what `launch` puts into the stream. */
struct stopwatch {
    cudaEvent_t begin, end;
};

static void start(const struct speed *s, const struct stopwatch *w) { CUDA(cudaEventRecord(w->begin, s->gpu.stream)); }

static float stop(const struct speed *s, const struct stopwatch *w)
{
    float ms = 0;
    CUDA(cudaEventRecord(w->end, s->gpu.stream));
    CUDA(cudaEventSynchronize(w->end));
    CUDA(cudaEventElapsedTime(&ms, w->begin, w->end));
    return ms;
}

/* The first one loads code and wakes the GPU up; how long the next takes says how many make a graph. Of smaller shapes
 * it is a few, as no time is meant. */
static int turns_for(struct speed *s, const struct stopwatch *w, speed_launch *launch, void *of)
{
    launch_turns(s, launch, of, 2);
    CUDA(cudaStreamSynchronize(s->gpu.stream));
    if (s->smaller > 1)
        return 2;
    start(s, w);
    launch_turns(s, launch, of, TURNS_MIN);
    const double turns = GRAPH_US / (1e3 * (double)stop(s, w) / TURNS_MIN);
    return turns < TURNS_MIN ? TURNS_MIN : turns > TURNS_MAX ? TURNS_MAX : (int)turns;
}

static cudaGraphExec_t graph_of(struct speed *s, speed_launch *launch, void *of, int turns)
{
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CUDA(cudaStreamBeginCapture(s->gpu.stream, cudaStreamCaptureModeThreadLocal));
    launch_turns(s, launch, of, turns);
    CUDA(cudaStreamEndCapture(s->gpu.stream, &graph));
    CUDA(cudaGraphInstantiate(&ready, graph, 0));
    CUDA(cudaGraphDestroy(graph));
    return ready;
}

double speed_time(struct speed *s, speed_launch *launch, void *of)
{
    struct stopwatch w;
    float ms[RUNS];
    CUDA(cudaEventCreate(&w.begin));
    CUDA(cudaEventCreate(&w.end));
    const int turns = turns_for(s, &w, launch, of);
    cudaGraphExec_t graph = graph_of(s, launch, of, turns);
    const int runs = s->smaller > 1 ? 1 : RUNS;
    if (runs > 1)
        CUDA(cudaGraphLaunch(graph, s->gpu.stream));
    for (int i = 0; i < runs; i++) {
        start(s, &w);
        CUDA(cudaGraphLaunch(graph, s->gpu.stream));
        ms[i] = stop(s, &w);
    }
    CUDA(cudaGraphExecDestroy(graph));
    CUDA(cudaEventDestroy(w.begin));
    CUDA(cudaEventDestroy(w.end));
    qsort(ms, (size_t)runs, sizeof *ms, by_size);
    return 1e3 * (double)ms[runs / 2] / turns;
}

/* ---- the table ---- */

void speed_report(struct speed *s, const struct speed_row *row)
{
    const double gb = row->bytes / row->us * 1e-3, tops = row->operations / row->us * 1e-6;
    const double share = s->read_gb_per_s > 0 ? 100 * gb / s->read_gb_per_s : 0;
    printf("%-9s %-40s %-5s %6lld %10.2f", row->family, row->what, row->type, (long long)row->tokens, row->us);
    if (row->bytes > 0)
        printf(" %8.1f %5.0f %%", gb, share);
    if (row->operations > 0)
        printf(" %8.2f", tops);
    printf("\n");
    fflush(stdout);
    json_array_append_new(s->rows,
                          json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:f, s:f}", "family", row->family, "what",
                                    row->what, "type", row->type, "tokens", (json_int_t)row->tokens, "us", row->us,
                                    "gb_per_s", gb, "percent_of_reading", share, "tera_operations_per_s", tops));
}
