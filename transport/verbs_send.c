/* What a rank posts: pieces of messages into vacant slots of its peers, words without a message, and receives. A write
 * takes along the credits of one channel; only where nothing flows back do they need a message of their own. */
#include <string.h>

#include "transport/verbs_internal.h"

static status post(struct verbs_transport *v, struct peer *p, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad;
    int e = ibv_post_send(p->qp, wr, &bad);
    return e ? verbs_lost(v, p, strerror(e > 0 ? e : -e)) : ST_OK;
}

status verbs_post_receives(struct verbs_transport *v, struct peer *p)
{
    struct ibv_recv_wr wr[RECEIVES], *bad;
    const int n = p->n_receives;
    if (!n)
        return ST_OK;
    for (int i = 0; i < n; i++)
        wr[i] = (struct ibv_recv_wr){.wr_id = work_id(WORK_RECEIVE, p->rank, 0),
                                     .next = i + 1 < n ? &wr[i + 1] : NULL};
    p->n_receives = 0;
    int e = ibv_post_recv(p->qp, wr, &bad);
    return e ? verbs_lost(v, p, strerror(e > 0 ? e : -e)) : ST_OK;
}

/* Adds to `w` the credits of the channel that has most of them; they are the peer's from now on. */
static void take_credits(struct peer *p, struct word *w)
{
    int best = 0;
    for (int c = 0; p->freed && c < TRANSPORT_CHANNELS; c++) {
        const unsigned freed = p->freed >> c * TRANSPORT_SLOTS & 15;
        if (__builtin_popcount(freed) > best) {
            best = __builtin_popcount(freed);
            w->channel = c;
            w->freed = freed;
        }
    }
    p->freed &= ~(w->freed << w->channel * TRANSPORT_SLOTS);
}

/* The local key of the memory that a piece lies in; false: none. */
static bool find_region(const struct verbs_transport *v, const void *data, size_t n, uint32_t *lkey)
{
    for (int i = 0; i < v->n_regions; i++) {
        const struct region *r = &v->regions[i];
        const size_t at = (size_t)((const uint8_t *)data - r->start);
        if ((const uint8_t *)data >= r->start && at <= r->bytes && n <= r->bytes - at) {
            *lkey = r->mr->lkey;
            return true;
        }
    }
    return false;
}

/* Finds where the card can read the next piece of `s`: inside the request itself (inline), in place, or in a copy.
 * False: all copies are under way. */
static bool place_piece(struct verbs_transport *v, struct send *s, size_t n, struct ibv_sge *sge, unsigned *flags,
                        int *bounce)
{
    const void *data = (const uint8_t *)s->data + s->at;
    *bounce = -1;
    *sge = (struct ibv_sge){.addr = (uintptr_t)data, .length = (uint32_t)n};
    if (n <= v->max_inline) {
        *flags |= n ? IBV_SEND_INLINE : 0;
        return true;
    }
    if (find_region(v, data, n, &sge->lkey))
        return true;
    if (!v->bounces_free)
        return false;
    *bounce = __builtin_ctz(v->bounces_free);
    void *copy = v->bounces + *bounce * TRANSPORT_SLOT;
    memcpy(copy, data, n);
    sge->addr = (uintptr_t)copy;
    sge->lkey = v->bounces_mr->lkey;
    v->bounces_free &= ~(1u << *bounce);
    return true;
}

/* Posts the next piece of the first send of a lane into `slot` of its channel. */
static status write_piece(struct verbs_transport *v, struct peer *p, int channel, int slot, bool *posted)
{
    struct lane *l = &p->lanes[channel];
    struct send *s = l->out;
    const int index = channel * TRANSPORT_SLOTS + slot;
    const size_t n = piece_bytes(s);
    const bool last = piece_is_last(s);
    unsigned flags = IBV_SEND_SIGNALED;
    struct ibv_sge sge;
    int bounce;
    *posted = place_piece(v, s, n, &sge, &flags, &bounce);
    if (!*posted)
        return ST_OK;
    struct word w = {.kind = s->kind, .slot = slot, .more = !last, .sequence = p->sequence_out++};
    take_credits(p, &w);
    struct ibv_send_wr wr = {.wr_id = work_id(WORK_WRITE, p->rank, index),
                             .sg_list = &sge,
                             .num_sge = n ? 1 : 0,
                             .opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
                             .send_flags = flags,
                             .imm_data = word_encode(&w),
                             .wr.rdma = {.remote_addr = p->remote + (uint64_t)index * TRANSPORT_SLOT, .rkey = p->rkey}};
    const bool in_place = bounce < 0 && !(flags & IBV_SEND_INLINE) && n;
    p->vacant &= ~(1u << index);
    p->writing |= 1u << index;
    p->bounces[index] = (int8_t)bounce;
    p->writes[index] = in_place ? s : NULL;
    s->in_flight += in_place;
    s->at += n;
    if (last) {
        l->out = s->next;
        if (!l->out)
            l->last = &l->out;
        v->n_queued--;
        if (!s->in_flight)
            atomic_store_explicit(&s->done, true, memory_order_relaxed);
    }
    return post(v, p, &wr);
}

status verbs_push(struct verbs_transport *v, struct peer *p)
{
    for (int c = 0; c < TRANSPORT_CHANNELS; c++) {
        const uint32_t mask = 15u << c * TRANSPORT_SLOTS;
        for (uint32_t usable; p->lanes[c].out && (usable = p->vacant & ~p->writing & mask) != 0;) {
            bool posted;
            status st = write_piece(v, p, c, __builtin_ctz(usable) - c * TRANSPORT_SLOTS, &posted);
            if (st || !posted)
                return st;
        }
    }
    return ST_OK;
}

status verbs_push_all(struct verbs_transport *v)
{
    status st = ST_OK;
    for (int r = 0; r < v->base.n_ranks && v->n_queued && !st; r++)
        if (v->peers[r].qp)
            st = verbs_push(v, &v->peers[r]);
    return st;
}

status verbs_control(struct verbs_transport *v, struct peer *p, enum control what, size_t notice_bytes)
{
    const bool credits = what == CONTROL_CREDITS;
    struct word w = {.kind = (int)what, .control = true, .sequence = p->sequence_out++};
    struct ibv_sge sge = {.addr = (uintptr_t)(v->bounces + BOUNCES * TRANSPORT_SLOT),
                          .length = (uint32_t)notice_bytes,
                          .lkey = v->bounces_mr->lkey};
    if (credits)
        take_credits(p, &w);
    p->n_credits += credits;
    p->n_last += !credits;
    struct ibv_send_wr wr = {.wr_id = work_id(credits ? WORK_CREDITS : WORK_LAST, p->rank, 0),
                             .sg_list = &sge,
                             .num_sge = notice_bytes ? 1 : 0,
                             .opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
                             .send_flags = IBV_SEND_SIGNALED,
                             .imm_data = word_encode(&w),
                             .wr.rdma = {.remote_addr = p->remote + (uint64_t)RING_SLOTS * TRANSPORT_SLOT,
                                         .rkey = p->rkey}};
    return post(v, p, &wr);
}

/* A write of nothing, which no receive is used up for: the peer's card acknowledges it, whatever the peer does. */
status verbs_post_beat(struct verbs_transport *v, struct peer *p)
{
    struct ibv_send_wr wr = {.wr_id = work_id(WORK_BEAT, p->rank, 0),
                             .opcode = IBV_WR_RDMA_WRITE,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.rdma = {.remote_addr = p->remote, .rkey = p->rkey}};
    p->n_beats++;
    return post(v, p, &wr);
}

/* Whether a peer may come to wait for credits of a channel: it knows of no vacant slot, or half of them are news. */
static bool waits_for_credits(const struct peer *p, int channel)
{
    const unsigned freed = p->freed >> channel * TRANSPORT_SLOTS & 15;
    const unsigned filled = p->filled >> channel * TRANSPORT_SLOTS & 15;
    return freed && ((freed | filled) == 15 || __builtin_popcount(freed) >= TRANSPORT_SLOTS / 2);
}

status verbs_pay_credits(struct verbs_transport *v)
{
    status st = ST_OK;
    for (int r = 0; r < v->base.n_ranks && !st; r++) {
        struct peer *p = &v->peers[r];
        for (int c = 0; p->freed && c < TRANSPORT_CHANNELS && !st; c++)
            if (peer_is_there(p) && p->n_credits < TRANSPORT_CHANNELS && waits_for_credits(p, c))
                st = verbs_control(v, p, CONTROL_CREDITS, 0);
    }
    return st;
}
