#include "device/cuda/staging.h"

#include <string.h>

#include "base/log.h"
#include "device/cuda/cuda.h"

enum { STAGED_BYTES = 4 << 20 }; /* of a half */

static bool make_event(struct cuda *c, struct staged *s)
{
    return cuda_ok(c, cudaEventCreateWithFlags(&s->done, cudaEventDisableTiming), "cudaEventCreateWithFlags");
}

status staging_open(struct cuda *c)
{
    struct staging *s = &c->staging;
    void *pinned = NULL;
    const cudaError_t e = cudaHostAlloc(&pinned, 4 * (size_t)STAGED_BYTES + c->notes_bytes, cudaHostAllocDefault);
    if (e == cudaErrorMemoryAllocation) {
        log_error("cuda:%d: the system gives no %d MB of memory that the GPU can read (ulimit -l)", c->o.index,
                  4 * STAGED_BYTES / 1000000);
        cudaGetLastError();
        return ST_NOMEM;
    }
    if (!cuda_ok(c, e, "cudaHostAlloc"))
        return ST_INTERNAL;
    s->pinned = pinned;
    for (int i = 0; i < 2; i++) {
        s->in[i].at = s->pinned + (size_t)i * STAGED_BYTES;
        s->out[i].at = s->pinned + (size_t)(2 + i) * STAGED_BYTES;
        if (!make_event(c, &s->in[i]) || !make_event(c, &s->out[i]))
            return ST_INTERNAL;
    }
    s->notes = (struct notes *)(void *)(s->pinned + 4 * (size_t)STAGED_BYTES);
    memset(s->notes, 0, c->notes_bytes);
    s->notes->fault = NO_FAULT;
    return ST_OK;
}

void staging_pin(struct cuda *c, void *memory, size_t bytes)
{
    const cudaError_t e = cudaHostRegister(memory, bytes, cudaHostRegisterDefault);
    if (e) {
        log_warn("cuda:%d: %zu KiB of messages cannot be pinned: %s%s: they are copied", c->o.index, bytes / 1024,
                 cudaGetErrorString(e), e == cudaErrorMemoryAllocation ? " (ulimit -l)" : "");
        cudaGetLastError();
        return;
    }
    c->staging.messages = memory;
    c->staging.messages_bytes = bytes;
}

/* Whether so many bytes lie in a message that is pinned. */
static bool is_pinned(const struct staging *s, const void *memory, size_t bytes)
{
    const uintptr_t at = (uintptr_t)memory - (uintptr_t)s->messages;
    return s->messages && at < s->messages_bytes && bytes <= s->messages_bytes - at;
}

void staging_close(struct cuda *c)
{
    struct staging *s = &c->staging;
    if (s->messages)
        cudaHostUnregister(s->messages);
    for (int i = 0; i < 2; i++) {
        if (s->in[i].done)
            cudaEventDestroy(s->in[i].done);
        if (s->out[i].done)
            cudaEventDestroy(s->out[i].done);
    }
    if (s->pinned)
        cudaFreeHost(s->pinned);
}

/* How much of so many bytes fits into a half; what lies in it begins at multiples of 64. */
static size_t fits(const struct staged *s, size_t bytes)
{
    const size_t left = STAGED_BYTES - s->used;
    return bytes < left ? bytes : left;
}

static void take(struct staged *s, size_t bytes) { s->used += (bytes + 63) / 64 * 64; }

/* The other half, once its copies are done. */
static struct staged *turn(struct cuda *c, struct staged halves[2], int *at)
{
    cuda_ok(c, cudaEventRecord(halves[*at].done, c->gpu.stream), "cudaEventRecord");
    *at = 1 - *at;
    cuda_ok(c, cudaEventSynchronize(halves[*at].done), "cudaEventSynchronize");
    return &halves[*at];
}

void upload(struct cuda *c, void *to, const void *from, size_t bytes)
{
    struct staging *s = &c->staging;
    const uint8_t *at = from;
    uint8_t *target = to;
    queue_flush(c); /* may read what lies there now */
    while (bytes && !c->lost) {
        struct staged *h = &s->in[s->in_turn];
        if (h->used == STAGED_BYTES) {
            h = turn(c, s->in, &s->in_turn);
            h->used = 0;
        }
        const size_t n = fits(h, bytes);
        memcpy(h->at + h->used, at, n);
        cuda_ok(c, cudaMemcpyAsync(target, h->at + h->used, n, cudaMemcpyHostToDevice, c->gpu.stream),
                "cudaMemcpyAsync");
        take(h, n);
        at += n;
        target += n;
        bytes -= n;
    }
}

bool upload_states(struct cuda *c, void *to, const void *from, size_t bytes)
{
    if (!is_pinned(&c->staging, from, bytes)) {
        upload(c, to, from, bytes);
        return false;
    }
    queue_flush(c);
    cuda_ok(c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, c->gpu.stream), "cudaMemcpyAsync");
    return true;
}

/* What has come goes where it shall be. */
static void settle(const struct cuda *c, struct staged *h)
{
    for (int i = 0; i < h->n && !c->lost; i++)
        memcpy(h->piece[i].to, h->piece[i].from, h->piece[i].bytes);
    h->n = 0;
    h->used = 0;
}

void download(struct cuda *c, void *to, const void *from, size_t bytes)
{
    struct staging *s = &c->staging;
    const uint8_t *at = from;
    uint8_t *target = to;
    queue_flush(c);
    if (is_pinned(s, to, bytes)) {
        cuda_ok(c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, c->gpu.stream), "cudaMemcpyAsync");
        return;
    }
    while (bytes && !c->lost) {
        struct staged *h = &s->out[s->out_turn];
        if (h->used == STAGED_BYTES || h->n == STAGED_PIECES) {
            h = turn(c, s->out, &s->out_turn);
            settle(c, h);
        }
        const size_t n = fits(h, bytes);
        h->piece[h->n++] = (struct staged_piece){target, h->at + h->used, n};
        cuda_ok(c, cudaMemcpyAsync(h->at + h->used, at, n, cudaMemcpyDeviceToHost, c->gpu.stream), "cudaMemcpyAsync");
        take(h, n);
        at += n;
        target += n;
        bytes -= n;
    }
}

static void look_at_notes(struct cuda *c)
{
    const unsigned long long fault = c->staging.notes->fault;
    if (fault != NO_FAULT) {
        c->failed = faults_report(&c->faults, c->o.model, fault);
        cuda_ok(c, cudaMemsetAsync(&c->notes->fault, 0xff, sizeof c->notes->fault, c->gpu.stream), "cudaMemsetAsync");
    }
    faults_forget(&c->faults);
}

void await(struct cuda *c)
{
    struct staging *s = &c->staging;
    queue_flush(c);
    if (!c->lost)
        cuda_ok(c, cudaMemcpyAsync(s->notes, c->notes, c->notes_bytes, cudaMemcpyDeviceToHost, c->gpu.stream),
                "cudaMemcpyAsync");
    cuda_ok(c, cudaStreamSynchronize(c->gpu.stream), "cudaStreamSynchronize");
    settle(c, &s->out[0]);
    settle(c, &s->out[1]);
    if (!c->lost)
        look_at_notes(c);
}
