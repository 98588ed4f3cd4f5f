/* How the ranks meet on all links, and how they part. */
#include "base/clock.h"
#include "base/log.h"
#include "transport/nccl_internal.h"

/* ---- meeting ---- */

static status prepare_device(struct nccl_transport *e)
{
    const size_t per_box = (size_t)TRANSPORT_SLOTS * TRANSPORT_SLOT;
    size_t n = 0;
    void *memory = NULL;
    for (int i = 0; i < e->n_boxes; i++)
        n += e->boxes[i].is_peer;
    status st = cuda_check(&e->lib, e->lib.cudaSetDevice(e->device), "cudaSetDevice", e->base.rank);
    if (st == ST_OK)
        st = cuda_check(&e->lib, e->lib.cudaMalloc(&memory, n * per_box), "cudaMalloc", e->base.rank);
    if (st)
        return st;
    e->memory = memory;
    for (int i = e->n_boxes; i-- > 0;)
        e->boxes[i].in.slots = e->boxes[i].is_peer ? e->memory + --n * per_box : NULL;
    return ST_OK;
}

static status greet(struct nccl_transport *e, int bulk, int peer)
{
    struct boxes *b = &e->boxes[bulk * e->base.n_ranks + peer];
    if (!b->is_peer || peer == e->base.rank) {
        b->in.greeted = true;
        if (!b->is_peer)
            return ST_OK;
        status st = nccl_link_open(&b->in.link, &e->lib, peer, peer, false, NULL);
        return st ? st : nccl_link_open(&b->out.link, &e->lib, peer, peer, true, NULL);
    }
    ncclResult_t result = e->lib.ncclGetUniqueId(&b->out.telling.notice.id);
    if (result != ncclSuccess) {
        log_error("ncclGetUniqueId on rank %d failed: %s", e->base.rank, e->lib.ncclGetErrorString(result));
        return ST_INTERNAL;
    }
    return nccl_tell(&b->out.telling, e->control, peer, e->greeting[bulk], NOTICE_HELLO, 0, 0);
}

static bool has_joined(const struct boxes *b)
{
    return b->in.greeted && b->out.telling.told && b->in.link.state != LINK_JOINING &&
           b->out.link.state != LINK_JOINING;
}

/* Which of the boxes is the first whose peer has not joined; n_boxes: none. */
static int find_late(const struct nccl_transport *e)
{
    int i = 0;
    while (i < e->n_boxes && has_joined(&e->boxes[i]))
        i++;
    return i;
}

/* NCCL alone would wait for ever: for a peer that is there but does not come, or that it does not reach. */
static status check_time(const struct nccl_transport *e, uint64_t since_ns, int late)
{
    const int peer = late % e->base.n_ranks;
    if (clock_ns() - since_ns < e->join_ms * UINT64_C(1000000))
        return ST_OK;
    log_error("rank %d: its GPU and that of rank %d are not joined after %.1f s, %s; with --transport mpi or verbs "
              "hearth goes without NCCL", peer, e->base.rank, e->join_ms / 1e3,
              e->boxes[late].in.greeted ? "NCCL does not reach it" : "it does not come");
    return ST_PEER;
}

status nccl_join(struct nccl_transport *e)
{
    const uint64_t since_ns = clock_ns();
    struct arrival a;
    bool found;
    status st = e->n_boxes ? prepare_device(e) : ST_OK;
    for (int i = 0; i < e->n_boxes && st == ST_OK; i++)
        st = greet(e, i / e->base.n_ranks, i % e->base.n_ranks);
    for (int late; st == ST_OK && (late = find_late(e)) < e->n_boxes;) {
        st = nccl_progress(e, 0, &a, &found);
        st = st ? st : check_time(e, since_ns, late);
    }
    return st;
}

/* ---- parting ---- */

/* Throws away every message that is there; one that is refused is gone as well. */
static status discard(struct nccl_transport *e)
{
    struct arrival a;
    bool found;
    status st = nccl_progress(e, ~0u, &a, &found);
    if (st == ST_OK && found)
        st = transport_release(e->control, &a);
    for (int i = 0; i < e->n_boxes && (st == ST_OK || st == ST_FORMAT); i++) {
        struct inbox *in = &e->boxes[i].in;
        do {
            st = inbox_look(in, e->control, ~0u, i % e->base.n_ranks, &a, &found);
            if (found)
                inbox_release(in, &a);
        } while (found);
    }
    return st == ST_FORMAT ? ST_OK : st;
}

/* Says goodbye where nothing is left to send; *over when all is said, sent and heard. */
static status say_goodbye(struct nccl_transport *e, bool *over)
{
    status st = ST_OK;
    *over = true;
    for (int i = 0; i < e->n_boxes && st == ST_OK; i++) {
        struct boxes *b = &e->boxes[i];
        int peer = i % e->base.n_ranks;
        bool idle = !b->out.first && b->out.telling.told;
        if (!b->is_peer || peer == e->base.rank)
            b->in.parted = b->out.parted = idle;
        if (idle && !b->out.parted) {
            b->out.parted = true;
            st = nccl_tell(&b->out.telling, e->control, peer, e->greeting[i / e->base.n_ranks], NOTICE_GOODBYE, 0, 0);
        }
        *over &= b->out.parted && b->out.telling.told && b->in.parted && b->in.telling.told;
    }
    return st;
}

static status leave(struct nccl_link *l, bool *over)
{
    status st = l->state == LINK_IDLE ? nccl_link_leave(l) : ST_OK;
    *over &= l->state == LINK_CLOSED;
    return st;
}

status nccl_part(struct nccl_transport *e)
{
    bool over = false;
    status st = ST_OK;
    for (int i = 0; i < e->n_boxes; i++)
        e->boxes[i].in.held = 0; /* what the caller still holds is void */
    while (st == ST_OK && !over) {
        st = discard(e);
        if (st == ST_OK)
            st = say_goodbye(e, &over);
    }
    for (over = false; st == ST_OK && !over;) {
        over = true;
        for (int i = 0; i < e->n_boxes && st == ST_OK; i++) {
            st = leave(&e->boxes[i].out.link, &over);
            if (st == ST_OK)
                st = leave(&e->boxes[i].in.link, &over);
        }
        if (st == ST_OK)
            st = discard(e);
    }
    return st;
}
