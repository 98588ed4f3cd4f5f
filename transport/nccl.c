/* The endpoint: bulk messages through NCCL, all others handed to the control as they are. */
#include "transport/nccl.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/nccl_internal.h"

enum { A_MINUTE_MS = 60000 };

/* What the others say of a rank whose own line they do not see. */
static const char why_failed[] = "NCCL fails there; with --transport mpi or verbs hearth goes without it";

static struct nccl_transport *nccl_of(struct transport *t)
{
    return (struct nccl_transport *)t;
}

/* The end: transfers under way stop here, and the control's sends with them, so that the callers' memory is their own
 * again. */
static status fail(struct nccl_transport *e, status st, const char *why)
{
    for (int i = 0; i < e->n_boxes; i++) {
        nccl_link_abort(&e->boxes[i].out.link);
        nccl_link_abort(&e->boxes[i].in.link);
    }
    if (!e->failed)
        transport_abandon(e->control, why);
    e->failed = true;
    return st;
}

/* What a message is refused for is its own; what else goes wrong is the end. */
static status settle(struct nccl_transport *e, status st)
{
    return st == ST_PEER || st == ST_INTERNAL || st == ST_NOMEM ? fail(e, st, why_failed) : st;
}

static bool on_device(const struct nccl_transport *e, const void *memory)
{
    struct cudaPointerAttributes attributes = {.type = cudaMemoryTypeUnregistered};
    return e->lib.cudaPointerGetAttributes(&attributes, memory) == cudaSuccess &&
           (attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged);
}

/* ---- the table ---- */

static status nccl_connect(struct transport *t)
{
    struct nccl_transport *e = nccl_of(t);
    status st = nccl_join(e);
    e->connected = st == ST_OK;
    t->slot_bytes = e->control->slot_bytes;
    return st ? fail(e, st, why_failed) : ST_OK;
}

static status nccl_register(struct transport *t, void *memory, size_t bytes)
{
    struct nccl_transport *e = nccl_of(t);
    if (e->failed)
        return ST_PEER;
    return on_device(e, memory) ? ST_OK : transport_register(e->control, memory, bytes);
}

static status check_memory(struct nccl_transport *e, const void *memory, const char *what)
{
    if (on_device(e, memory))
        return ST_OK;
    log_error("nccl transport: %s on a bulk channel is not in GPU memory", what);
    return ST_USAGE;
}

static status nccl_lend(struct transport *t, int from, int channel, void *memory, size_t bytes)
{
    struct nccl_transport *e = nccl_of(t);
    if (e->failed)
        return ST_PEER;
    if (e->bulk[channel] < 0)
        return transport_lend(e->control, from, channel, memory, bytes);
    status st = check_memory(e, memory, "lent memory");
    struct inbox *in = &e->boxes[e->bulk[channel] * t->n_ranks + from].in;
    if (st == ST_OK) {
        in->lent = memory;
        in->lent_bytes = bytes;
    }
    return st;
}

static status nccl_post(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    struct nccl_transport *e = nccl_of(t);
    if (e->failed)
        return ST_PEER;
    if (!is_bulk(e, kind))
        return settle(e, transport_post(e->control, to, kind, data, size, s));
    struct outbox *o = &boxes_of(e, kind, to)->out;
    if (o->link.state == LINK_CLOSED) {
        log_error("rank %d: no bulk messages from rank %d, whose peer it is not", to, t->rank);
        return ST_UNSUPPORTED;
    }
    status st = size ? check_memory(e, data, "a message") : ST_OK;
    if (st)
        return st;
    atomic_store_explicit(&s->done, false, memory_order_relaxed);
    s->data = data;
    s->size = size;
    s->from = t->rank;
    s->to = to;
    s->kind = kind;
    s->next = NULL;
    *o->last = s;
    o->last = &s->next;
    return settle(e, outbox_advance(o, e->control, to));
}

static status nccl_sent(struct transport *t, struct send *s, bool *done)
{
    struct nccl_transport *e = nccl_of(t);
    struct arrival a;
    bool found;
    if (e->failed)
        return ST_PEER;
    status st = nccl_progress(e, 0, &a, &found);
    if (st == ST_OK && !is_bulk(e, s->kind))
        st = transport_sent(e->control, s, done);
    else if (st == ST_OK)
        *done = atomic_load_explicit(&s->done, memory_order_relaxed);
    return settle(e, st);
}

static status nccl_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    struct nccl_transport *e = nccl_of(t);
    if (e->failed)
        return ST_PEER;
    status st = nccl_progress(e, kinds, a, found);
    for (int i = 0; i < e->n_boxes && st == ST_OK && !*found; i++)
        st = inbox_look(&e->boxes[i].in, e->control, kinds, i % t->n_ranks, a, found);
    return settle(e, st);
}

static status nccl_release(struct transport *t, struct arrival *a)
{
    struct nccl_transport *e = nccl_of(t);
    if (e->failed)
        return ST_PEER;
    if (!is_bulk(e, a->kind))
        return settle(e, transport_release(e->control, a));
    inbox_release(a->handle[0], a);
    return ST_OK;
}

/* The control sleeps until a message comes; a GPU wakes nobody. */
static void nccl_idle(struct transport *t)
{
    struct nccl_transport *e = nccl_of(t);
    bool busy = !e->control->ops->idle;
    for (int i = 0; i < e->n_boxes && !busy; i++)
        busy = link_is_busy(&e->boxes[i].out.link) || link_is_busy(&e->boxes[i].in.link);
    if (busy)
        nanosleep(&(struct timespec){.tv_nsec = TRANSPORT_NAP_NS}, NULL);
    else
        transport_idle(e->control);
}

static void nccl_abandon(struct transport *t, const char *why)
{
    struct nccl_transport *e = nccl_of(t);
    fail(e, ST_PEER, why);
}

static void nccl_free(struct nccl_transport *e)
{
    if (e->memory)
        e->lib.cudaFree(e->memory);
    nccl_library_close(&e->lib);
    free(e->boxes);
    free(e);
}

static void nccl_close(struct transport *t)
{
    struct nccl_transport *e = nccl_of(t);
    struct transport *control = e->control;
    if (e->connected && !e->failed) {
        if (nccl_part(e) != ST_OK) /* the others would wait for this one for ever */
            nccl_abandon(t, why_failed);
    }
    transport_close(control); /* notices may be under way in it until then */
    nccl_free(e);
}

static const struct transport_ops nccl_ops = {
    .name = "nccl",
    .connect = nccl_connect,
    .register_memory = nccl_register,
    .lend = nccl_lend,
    .post = nccl_post,
    .sent = nccl_sent,
    .poll = nccl_poll,
    .release = nccl_release,
    .idle = nccl_idle,
    .abandon = nccl_abandon,
    .close = nccl_close,
};

static status lay_out(struct nccl_transport *e, const struct transport_config *c, uint64_t peers)
{
    memcpy(e->channel, c->channel, sizeof e->channel);
    for (int i = 0; i < TRANSPORT_CHANNELS; i++)
        e->bulk[i] = -1;
    for (int k = 0; k < TRANSPORT_KINDS; k++) {
        int channel = c->channel[k];
        if (is_bulk(e, k) && e->bulk[channel] < 0) {
            e->greeting[e->n_bulk] = k;
            e->bulk[channel] = e->n_bulk++;
        }
    }
    e->n_boxes = e->n_bulk * e->base.n_ranks;
    size_t bytes = (size_t)(e->n_boxes ? e->n_boxes : 1) * sizeof *e->boxes;
    e->boxes = aligned_alloc(TRANSPORT_ALIGN, bytes);
    if (!e->boxes) {
        log_error("nccl transport: no memory for %d ranks", e->base.n_ranks);
        return ST_NOMEM;
    }
    memset(e->boxes, 0, bytes);
    for (int i = 0; i < e->n_boxes; i++) {
        e->boxes[i].out.last = &e->boxes[i].out.first;
        e->boxes[i].out.telling.told = e->boxes[i].in.telling.told = true;
        e->boxes[i].is_peer = peers >> i % e->base.n_ranks & 1;
    }
    return ST_OK;
}

status transport_nccl_check(const struct nccl_options *o)
{
    struct nccl_library lib;
    status st = nccl_library_open(&lib, o->nccl, o->cuda, o->device);
    if (st == ST_OK)
        nccl_library_close(&lib);
    return st;
}

status transport_nccl_open(const struct transport_config *c, const struct nccl_options *o, struct transport *control,
                           struct transport **out)
{
    struct nccl_transport *e = calloc(1, sizeof *e);
    if (!e) {
        log_error("nccl transport: no memory");
        return ST_NOMEM;
    }
    e->base = (struct transport){.ops = &nccl_ops, .rank = control->rank, .n_ranks = control->n_ranks,
                                .counts = control->counts};
    e->control = control;
    e->device = o->device;
    e->join_ms = o->join_ms ? o->join_ms : A_MINUTE_MS;
    e->kinds = o->kinds;
    status st = lay_out(e, c, o->peers);
    if (st == ST_OK)
        st = nccl_library_open(&e->lib, o->nccl, o->cuda, o->device);
    if (st) {
        nccl_free(e);
        return st;
    }
    *out = &e->base;
    return ST_OK;
}

bool transport_nccl_reaches(const struct transport *t, int rank)
{
    const struct nccl_transport *e = (const struct nccl_transport *)t;
    return t->ops == &nccl_ops && e->n_boxes && e->boxes[rank].out.link.state != LINK_CLOSED;
}
