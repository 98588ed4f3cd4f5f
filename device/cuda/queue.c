#include "device/cuda/queue.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/cuda/cuda.h"

status queue_open(struct cuda *c)
{
    enum { BESIDE_LAYERS = 16 };
    struct queue *q = &c->queue;
    q->most = 6 * c->hp->n_layers + BESIDE_LAYERS;
    q->ops = calloc((size_t)q->most, sizeof *q->ops);
    if (q->ops)
        return ST_OK;
    log_error("out of memory for a device");
    return ST_NOMEM;
}

static void forget(struct graph *g)
{
    if (g->exec)
        cudaGraphExecDestroy(g->exec);
    free(g->ops);
    *g = (struct graph){0};
}

void queue_close(struct cuda *c)
{
    for (int i = 0; i < GRAPHS; i++)
        forget(&c->queue.graphs[i]);
    free(c->queue.ops);
}

void queue_add(struct cuda *c, const struct operation *o)
{
    struct queue *q = &c->queue;
    if (o->n > QUEUED_TOKENS || q->n == q->most)
        queue_flush(c);
    if (o->n > QUEUED_TOKENS)
        o->launch(o->object, o);
    else
        q->ops[q->n++] = *o;
}

struct operation *queue_last(struct cuda *c) { return c->queue.n ? &c->queue.ops[c->queue.n - 1] : NULL; }

/* ---- graphs ---- */

/* FNV-1a, by words. */
static uint64_t hash_of(const struct queue *q)
{
    const uint64_t *word = (const uint64_t *)(const void *)q->ops;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < (size_t)q->n * sizeof *q->ops / sizeof *word; i++)
        hash = (hash ^ word[i]) * 0x100000001b3u;
    return hash;
}

static struct graph *find(struct queue *q, uint64_t hash)
{
    for (int i = 0; i < GRAPHS; i++) {
        struct graph *g = &q->graphs[i];
        if (g->exec && g->hash == hash && g->n == q->n && memcmp(g->ops, q->ops, (size_t)q->n * sizeof *q->ops) == 0)
            return g;
    }
    return NULL;
}

/* Whether this list has been launched before: a graph of it will be launched again. */
static bool comes_again(struct queue *q, uint64_t hash)
{
    for (int i = 0; i < REMEMBERED; i++)
        if (q->seen[i] == hash)
            return true;
    q->seen[q->flushes % REMEMBERED] = hash;
    return false;
}

/* The one that has not been used for longest, or none yet. NULL: all are in use, and would push each other out. */
static struct graph *oldest(struct queue *q)
{
    struct graph *g = &q->graphs[0];
    for (int i = 1; i < GRAPHS; i++)
        g = q->graphs[i].used < g->used ? &q->graphs[i] : g;
    return g->exec && g->used + 4 * GRAPHS > q->flushes ? NULL : g;
}

static void launch_all(struct cuda *c)
{
    for (int i = 0; i < c->queue.n; i++)
        c->queue.ops[i].launch(c->queue.ops[i].object, &c->queue.ops[i]);
}

/* What is launched meanwhile becomes a graph instead. NULL: it cannot be had. */
static cudaGraphExec_t record(struct cuda *c)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    if (cudaStreamBeginCapture(c->gpu.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess) {
        launch_all(c);
        if (cudaStreamEndCapture(c->gpu.stream, &graph) || cudaGraphInstantiate(&exec, graph, 0))
            exec = NULL;
    }
    if (graph)
        cudaGraphDestroy(graph);
    if (!exec) {
        cudaGetLastError(); /* if the GPU fails, it does so again without */
        c->queue.refused = true;
    }
    return exec;
}

static struct graph *make(struct cuda *c, uint64_t hash)
{
    struct queue *q = &c->queue;
    const size_t bytes = (size_t)q->n * sizeof *q->ops;
    struct graph *g = oldest(q);
    struct operation *ops = g ? malloc(bytes) : NULL;
    cudaGraphExec_t exec = ops ? record(c) : NULL;
    if (!exec) {
        free(ops);
        return NULL;
    }
    forget(g);
    *g = (struct graph){.ops = memcpy(ops, q->ops, bytes), .n = q->n, .hash = hash, .exec = exec};
    return g;
}

/* One kernel: what has an input and sums is a part, and several. */
static bool is_small(const struct queue *q) { return q->n == 1 && !(q->ops->in && q->ops->sums); }

/* The list as a graph; NULL: it shall be launched one by one. */
static struct graph *graph_of(struct cuda *c)
{
    struct queue *q = &c->queue;
    if (is_small(q) || q->refused)
        return NULL;
    const uint64_t hash = hash_of(q);
    struct graph *g = find(q, hash);
    return g || !comes_again(q, hash) ? g : make(c, hash);
}

void queue_flush(struct cuda *c)
{
    struct queue *q = &c->queue;
    if (!q->n)
        return;
    q->flushes++;
    struct graph *g = c->lost ? NULL : graph_of(c);
    if (g) {
        g->used = q->flushes;
        cuda_ok(c, cudaGraphLaunch(g->exec, c->gpu.stream), "cudaGraphLaunch");
    } else if (!c->lost) {
        launch_all(c);
        cuda_launched(c);
    }
    q->n = 0;
}
