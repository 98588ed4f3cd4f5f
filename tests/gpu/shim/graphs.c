/* Graphs: entries that a stream was given while it was captured. A launch queues them again, in the order of the calls,
 * be they of one stream or of several that wait for each other: that a wait between streams is missing does not show
 * here. */
#include <stdlib.h>

#include "tests/gpu/shim/shim.h"

struct CUgraphExec_st {
    struct queue entries;
};

bool capture_is_open(const struct CUgraph_st *g)
{
    for (const struct CUstream_st *s = streams; s; s = s->next)
        if (s->capture == g)
            return true;
    return false;
}

bool any_capture(void)
{
    for (const struct CUstream_st *s = streams; s; s = s->next)
        if (s->capture)
            return true;
    return false;
}

static cudaError_t capture_begin(cudaStream_t stream)
{
    struct CUstream_st *s = known(stream);
    if (!stream || s->capture)
        return cudaErrorStreamCaptureUnsupported;
    s->capture = calloc(1, sizeof *s->capture);
    s->origin = s->capture != NULL;
    return s->capture ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t capture_end(cudaStream_t stream, cudaGraph_t *out)
{
    struct CUstream_st *s = known(stream);
    if (!s->origin)
        return cudaErrorInvalidValue;
    struct CUgraph_st *graph = s->capture;
    for (struct CUstream_st *o = streams; o; o = o->next)
        if (o->capture == graph)
            o->capture = NULL;
    s->origin = false;
    *out = graph;
    return cudaSuccess;
}

static cudaError_t capture_status(cudaStream_t s, enum cudaStreamCaptureStatus *status)
{
    *status = is_capturing(s) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    (void)mode;
    CALL(capture_begin(s));
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) { CALL(capture_end(s, g)); }
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status)
{
    CALL(capture_status(s, status));
}

/* ---- what was captured ---- */

static cudaError_t instantiate(cudaGraphExec_t *out, cudaGraph_t g)
{
    struct CUgraphExec_st *exec = calloc(1, sizeof *exec);
    if (!exec)
        return cudaErrorMemoryAllocation;
    for (const struct entry *e = g->entries.first; e; e = e->next)
        queue_append(&exec->entries, e);
    *out = exec;
    return cudaSuccess;
}

static cudaError_t launch(cudaGraphExec_t exec, cudaStream_t s)
{
    if (is_capturing(s))
        return cudaErrorStreamCaptureUnsupported;
    for (const struct entry *e = exec->entries.first; e; e = e->next)
        queue_entry(s, e);
    return cudaSuccess;
}

/* Entries that have been queued are copies. */
static cudaError_t destroy(struct queue *entries, void *owner)
{
    queue_clear(entries);
    free(owner);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags)
{
    (void)flags;
    CALL(instantiate(e, g));
}
cudaError_t cudaGraphUpload(cudaGraphExec_t e, cudaStream_t s)
{
    (void)e;
    (void)s;
    CALL(cudaSuccess);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) { CALL(launch(e, s)); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) { GIVE_BACK(destroy(&e->entries, e)); }
cudaError_t cudaGraphDestroy(cudaGraph_t g) { GIVE_BACK(destroy(&g->entries, g)); }
