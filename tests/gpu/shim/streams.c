/* Streams: queues whose entries run at points where the host waits, as late as can be or earlier, by chance; and
 * events. An entry that was queued is all that the GPU knows: what it reads in pinned memory is read when it runs. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/gpu/shim/shim.h"

struct CUevent_st {
    uint64_t recorded, done;     /* the last record that was queued, that has run */
    struct CUgraph_st *captured; /* where the last one is */
    double time;
    int users;                   /* entries and whoever made it */
    bool timed;
};

static struct CUstream_st default_stream = {.blocking = true};
struct CUstream_st *streams = &default_stream;
static uint64_t n_queued;

struct CUstream_st *known(cudaStream_t s)
{
    if (!s)
        return &default_stream;
    for (struct CUstream_st *k = streams; k; k = k->next)
        if (k == s)
            return k;
    die("a stream that was destroyed, or never was one");
}

/* ---- queues ---- */

static void event_release(struct CUevent_st *e)
{
    if (e && --e->users == 0)
        free(e);
}

void queue_append(struct queue *q, const struct entry *e)
{
    struct entry *new = malloc(sizeof *new + e->launch.bytes);
    if (!new)
        die("no memory for an entry of a stream");
    *new = *e;
    new->next = NULL;
    if (e->launch.bytes)
        new->launch.arguments = memcpy(new + 1, e->launch.arguments, e->launch.bytes);
    if (new->event)
        new->event->users++;
    if (!q->end)
        q->end = &q->first;
    *q->end = new;
    q->end = &new->next;
}

static void take(struct queue *q)
{
    struct entry *e = q->first;
    q->first = e->next;
    if (!q->first)
        q->end = NULL;
    event_release(e->event);
    if (e->own_source)
        free((void *)(uintptr_t)e->from);
    free(e);
}

void queue_clear(struct queue *q)
{
    while (q->first)
        take(q);
}

cudaError_t queue_entry(cudaStream_t stream, const struct entry *e)
{
    struct CUstream_st *s = known(stream);
    if (s->capture) {
        queue_append(&s->capture->entries, e);
        return cudaSuccess;
    }
    struct entry numbered = *e;
    numbered.number = ++n_queued;
    queue_append(&s->queue, &numbered);
    if (draw(8) == 0)
        drain_some();
    return cudaSuccess;
}

/* ---- running ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void run_entry(struct entry *e)
{
    arena_open();
    faults_watch();
    switch (e->kind) {
    case LAUNCH: run_kernel(&e->launch); break;
    case COPY: memmove(e->to, e->from, e->bytes); break;
    case FILL: memset(e->to, e->value, e->bytes); break;
    case RECORD:
        e->event->done = e->record;
        e->event->time = now();
        break;
    case WAIT: break;
    }
}

static bool can_run(const struct CUstream_st *s)
{
    const struct entry *e = s->queue.first;
    if (!e || (e->kind == WAIT && e->event->done < e->record))
        return false;
    for (const struct CUstream_st *o = streams; o; o = o->next)
        if (o != s && o->blocking && s->blocking && (o == &default_stream || s == &default_stream) && o->queue.first &&
            o->queue.first->number < e->number)
            return false;
    return true;
}

static void run_first(struct CUstream_st *s)
{
    run_entry(s->queue.first);
    take(&s->queue);
}

/* Runs an entry of a stream that is drawn; false: nothing can run. */
static bool run_any(void)
{
    uint32_t n = 0;
    for (struct CUstream_st *s = streams; s; s = s->next)
        n += can_run(s);
    if (n == 0)
        return false;
    uint32_t i = draw(n);
    for (struct CUstream_st *s = streams; s; s = s->next)
        if (can_run(s) && i-- == 0) {
            run_first(s);
            break;
        }
    return true;
}

void drain_some(void)
{
    for (uint32_t n = draw(8); n > 0 && run_any(); n--)
        continue;
}

/* Others run where they must, or now and then: not at all in half of the calls. */
void drain_stream(cudaStream_t stream)
{
    struct CUstream_st *s = known(stream);
    const uint32_t others = draw(2) ? 0 : 1 + draw(3);
    while (s->queue.first)
        if (can_run(s) && draw(4) >= others)
            run_first(s);
        else if (!run_any())
            die("a stream waits for what nobody does");
}

void drain_event(cudaEvent_t e)
{
    while (e->done < e->recorded)
        if (!run_any())
            die("an event waits for what nobody does");
}

void drain_all(void)
{
    while (run_any())
        continue;
}

bool is_capturing(cudaStream_t s) { return known(s)->capture != NULL; }

/* ---- streams as the interface has them ---- */

static cudaError_t stream_create(cudaStream_t *out, unsigned flags)
{
    struct CUstream_st *s = calloc(1, sizeof *s);
    if (!s)
        return cudaErrorMemoryAllocation;
    s->blocking = !(flags & cudaStreamNonBlocking);
    s->next = streams;
    streams = *out = s;
    return cudaSuccess;
}

/* A capture that nobody ended goes with the stream that began it. */
static void drop_capture(struct CUstream_st *s)
{
    struct CUgraph_st *g = s->capture;
    if (!g || !s->origin)
        return;
    for (struct CUstream_st *o = streams; o; o = o->next)
        if (o->capture == g)
            o->capture = NULL;
    queue_clear(&g->entries);
    free(g);
}

static cudaError_t stream_destroy(cudaStream_t stream)
{
    struct CUstream_st *s = known(stream);
    if (s == &default_stream)
        return cudaErrorInvalidResourceHandle;
    drop_capture(s);
    drain_stream(s);
    struct CUstream_st **at = &streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s);
    return cudaSuccess;
}

static cudaError_t stream_wait(cudaStream_t s)
{
    if (is_capturing(s))
        return cudaErrorStreamCaptureUnsupported;
    drain_stream(s);
    return cudaSuccess;
}

static cudaError_t stream_query(cudaStream_t s)
{
    if (is_capturing(s))
        return cudaErrorStreamCaptureUnsupported;
    drain_some();
    return known(s)->queue.first ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *s) { CALL(stream_create(s, 0)); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) { CALL(stream_create(s, flags)); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority)
{
    (void)priority;
    CALL(stream_create(s, flags));
}
cudaError_t cudaStreamDestroy(cudaStream_t s) { GIVE_BACK(stream_destroy(s)); }
cudaError_t cudaStreamSynchronize(cudaStream_t s) { CALL(stream_wait(s)); }
cudaError_t cudaStreamQuery(cudaStream_t s) { CALL(stream_query(s)); }

/* ---- events ---- */

static cudaError_t event_create(cudaEvent_t *out, unsigned flags)
{
    struct CUevent_st *e = calloc(1, sizeof *e);
    if (!e)
        return cudaErrorMemoryAllocation;
    e->users = 1;
    e->timed = !(flags & cudaEventDisableTiming);
    *out = e;
    return cudaSuccess;
}

static cudaError_t event_destroy(cudaEvent_t e)
{
    event_release(e);
    return cudaSuccess;
}

/* In a capture the order of entries is that of the calls, so that an event only says who takes part. */
static cudaError_t event_record(cudaEvent_t e, cudaStream_t stream)
{
    struct CUstream_st *s = known(stream);
    e->captured = s->capture;
    if (s->capture)
        return cudaSuccess;
    return queue_entry(s, &(struct entry){.kind = RECORD, .event = e, .record = ++e->recorded});
}

static cudaError_t stream_wait_event(cudaStream_t stream, cudaEvent_t e)
{
    struct CUstream_st *s = known(stream);
    if (e->captured) {
        if (!capture_is_open(e->captured))
            return cudaErrorInvalidValue;
        s->capture = e->captured;
        return cudaSuccess;
    }
    if (s->capture)
        return cudaErrorStreamCaptureUnsupported;
    return queue_entry(s, &(struct entry){.kind = WAIT, .event = e, .record = e->recorded});
}

static cudaError_t event_wait(cudaEvent_t e)
{
    if (e->captured)
        return cudaErrorStreamCaptureUnsupported;
    drain_event(e);
    return cudaSuccess;
}

static cudaError_t event_query(cudaEvent_t e)
{
    if (e->captured)
        return cudaErrorStreamCaptureUnsupported;
    drain_some();
    return e->done < e->recorded ? cudaErrorNotReady : cudaSuccess;
}

static cudaError_t event_time(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    if (!from->timed || !to->timed || !from->recorded || !to->recorded)
        return cudaErrorInvalidResourceHandle;
    if (from->done < from->recorded || to->done < to->recorded)
        return cudaErrorNotReady;
    *ms = (float)(1e3 * (to->time - from->time));
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags)
{
    (void)flags;
    CALL(stream_wait_event(s, e));
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { CALL(event_create(e, 0)); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { CALL(event_create(e, flags)); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { GIVE_BACK(event_destroy(e)); }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { CALL(event_record(e, s)); }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { CALL(event_wait(e)); }
cudaError_t cudaEventQuery(cudaEvent_t e) { CALL(event_query(e)); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) { CALL(event_time(ms, from, to)); }
