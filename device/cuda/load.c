#include "device/cuda/load.h"

#include <stdlib.h>

#include "base/log.h"

enum { LOAD_BYTES = 16 << 20 };

static void fail(struct loader *l, status st) { l->loading.failed = l->loading.failed ? l->loading.failed : st; }

static bool works(struct loader *l, cudaError_t e, const char *call)
{
    const bool ok = cuda_ok(l->c, e, call);
    if (!ok)
        fail(l, ST_INTERNAL);
    return ok;
}

/* ---- pieces ---- */

/* Where in the buffer whose turn it is so many bytes go, once it is free. */
static uint8_t *take_buffer(struct loader *l, size_t bytes)
{
    struct load_buffer *b = &l->buffers[l->turn];
    if (!l->used)
        works(l, cudaEventSynchronize(b->copied), "cudaEventSynchronize");
    l->used += bytes;
    return b->at + l->used - bytes;
}

static void *begin(struct loading *loading, void *to, size_t bytes)
{
    struct loader *l = (struct loader *)loading;
    struct load_piece *p = &l->begun[l->n_begun];
    if (loading->failed)
        return NULL;
    *p = (struct load_piece){.to = to, .bytes = bytes, .large = bytes > LOAD_BYTES - l->used};
    p->from = p->large ? malloc(bytes) : take_buffer(l, bytes);
    if (!p->from) {
        log_error("out of memory for the columns of a layer, while they are loaded");
        fail(l, ST_NOMEM);
        return NULL;
    }
    l->n_begun++;
    return p->from;
}

static void copy_piece(struct loader *l, const struct load_piece *p)
{
    if (p->bytes && !l->loading.failed)
        works(l, cudaMemcpyAsync(p->to, p->from, p->bytes, cudaMemcpyHostToDevice, l->c->gpu.stream),
              "cudaMemcpyAsync");
}

/* What was begun in the buffer whose turn it is. */
static void end_buffer(struct loader *l)
{
    for (int i = 0; i < l->n_begun; i++)
        if (!l->begun[i].large)
            copy_piece(l, &l->begun[i]);
    if (l->used && !l->loading.failed)
        works(l, cudaEventRecord(l->buffers[l->turn].copied, l->c->gpu.stream), "cudaEventRecord");
    l->turn = l->used ? 1 - l->turn : l->turn;
    l->used = 0;
}

static void end(struct loading *loading)
{
    struct loader *l = (struct loader *)loading;
    struct load_piece large[2];
    int n = 0;
    end_buffer(l);
    for (int i = 0; i < l->n_begun; i++)
        if (l->begun[i].large)
            large[n++] = l->begun[i];
    l->n_begun = 0;
    for (int i = 0; i < n; i++) {
        load_array(loading, large[i].to, large[i].from, large[i].bytes); /* by buffers */
        free(large[i].from);
    }
}

static const struct taking taking = {begin, end, LOAD_BYTES};

/* ---- the whole ---- */

status cuda_loader_open(struct loader *l, struct cuda *c, const struct device_loading *loading)
{
    *l = (struct loader){.loading = {.o = &c->o, .l = loading, .taking = &taking}, .c = c};
    for (int i = 0; i < 2 && !l->loading.failed; i++) {
        void *at = NULL;
        const cudaError_t e = cudaHostAlloc(&at, LOAD_BYTES, cudaHostAllocDefault);
        if (e == cudaErrorMemoryAllocation) {
            log_error("cuda:%d: the system gives no %d MB of memory that the GPU can read (ulimit -l)", c->o.index,
                      2 * LOAD_BYTES / 1000000);
            cudaGetLastError();
            fail(l, ST_NOMEM);
        } else if (works(l, e, "cudaHostAlloc")) {
            works(l, cudaEventCreateWithFlags(&l->buffers[i].copied, cudaEventDisableTiming),
                  "cudaEventCreateWithFlags");
        }
        l->buffers[i].at = at;
    }
    return l->loading.failed;
}

status cuda_loader_close(struct loader *l)
{
    const cudaError_t e = cudaStreamSynchronize(l->c->gpu.stream);
    if (!l->loading.failed)
        works(l, e, "cudaStreamSynchronize");
    for (int i = 0; i < 2; i++) {
        if (l->buffers[i].copied)
            cudaEventDestroy(l->buffers[i].copied);
        if (l->buffers[i].at)
            cudaFreeHost(l->buffers[i].at);
    }
    return l->loading.failed;
}
