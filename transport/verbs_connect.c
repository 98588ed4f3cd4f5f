/* Rings, connections, and how ranks find each other: each makes its side of all connections, tells the others its
 * addresses, connects, and hears whether everybody could. So either all ranks are connected or none is, and each can
 * say which rank could not and why. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/verbs_internal.h"

enum { MAGIC = 0x68765231, PAGE = 4096, WHY_BYTES = 256 };

/* Of a connection that hears nothing: the card repeats after 4.096 us * 2^14 = 67 ms, six times, and gives up within
 * half a second (7 would mean for ever on some cards). Of a receiver without receives: after 0.64 ms, six times. */
enum { TIMEOUT = 14, RETRIES = 6, RECEIVER_TIMER = 12, RECEIVER_RETRIES = 6 };

/* What a rank tells all others; after it, a struct way for each rank. Same layout on every machine. */
struct address {
    uint32_t magic, state; /* status: could this rank make its side? */
    uint32_t shape[4];     /* channels, slots, bytes of a slot; kinds */
    uint8_t channel[TRANSPORT_KINDS];
    uint32_t mtu;
    uint16_t lid;
    uint8_t ethernet, global, gid_type, family, unused[6];
    uint8_t gid[16];
    char why[WHY_BYTES];
};

/* How one rank is reached by one other. */
struct way {
    uint64_t memory;
    uint32_t rkey, qp, sequence, unused;
};

_Static_assert(sizeof(struct address) == 344 && sizeof(struct way) == 24, "the same on every machine");

/* ---- one side ---- */

/* A call that returned NULL or an error. */
static status call_failed(struct verbs_transport *v, const char *call, int e)
{
    if (e == ENOMEM)
        verbs_error(v, "%s on %s: cannot lock memory for the network card: raise the limit (ulimit -l)", call,
                    v->port.name);
    else
        verbs_error(v, "%s on %s failed: %s", call, v->port.name, strerror(e));
    return e == ENOMEM ? ST_NOMEM : ST_INTERNAL;
}

/* Creates the queue pair with as many bytes inline as the device gives. */
static status create_qp(struct verbs_transport *v, struct peer *p)
{
    struct ibv_qp_init_attr attr;
    for (size_t bytes = v->max_inline; !p->qp; bytes = bytes > 64 ? bytes / 2 : 0) {
        attr = (struct ibv_qp_init_attr){.send_cq = v->cq,
                                         .recv_cq = v->cq,
                                         .qp_type = IBV_QPT_RC,
                                         .cap = {.max_send_wr = SENDS,
                                                 .max_recv_wr = RECEIVES,
                                                 .max_send_sge = 1,
                                                 .max_recv_sge = 1,
                                                 .max_inline_data = (uint32_t)bytes}};
        p->qp = v->calls->create_qp(v->pd, &attr);
        if (!p->qp && (bytes == 0 || errno == ENOMEM))
            return call_failed(v, "ibv_create_qp", errno);
        if (p->qp)
            v->max_inline = bytes;
    }
    return ST_OK;
}

static status modify(struct verbs_transport *v, struct peer *p, struct ibv_qp_attr *attr, int mask, const char *state)
{
    int e = v->calls->modify_qp(p->qp, attr, mask | IBV_QP_STATE);
    if (!e)
        return ST_OK;
    verbs_error(v, "rank %d: the connection to it on %s does not become %s: %s", p->rank, v->port.name, state,
                strerror(e > 0 ? e : errno));
    return ST_INTERNAL;
}

/* This rank's side of one connection, up to receives that may come in. */
static status make_side(struct verbs_transport *v, struct peer *p)
{
    p->slots = v->memory + (size_t)p->rank * RING_BYTES;
    p->mr = v->calls->reg_mr(v->pd, p->slots, RING_BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    if (!p->mr)
        return call_failed(v, "ibv_reg_mr", errno);
    status st = create_qp(v, p);
    if (st)
        return st;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = v->port.number,
                               .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};
    st = modify(v, p, &attr, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, "ready");
    p->vacant = (uint32_t)((1ull << RING_SLOTS) - 1);
    p->n_receives = RECEIVES;
    return st ? st : verbs_post_receives(v, p);
}

static status make_common(struct verbs_transport *v)
{
    const int n = v->base.n_ranks;
    const size_t bytes = (size_t)n * RING_BYTES + BOUNCES * TRANSPORT_SLOT + PAGE;
    v->memory = aligned_alloc(PAGE, bytes);
    if (!v->memory) {
        verbs_error(v, "verbs transport: no memory for the slots of %d ranks", n);
        return ST_NOMEM;
    }
    memset(v->memory, 0, bytes);
    v->base.slot_bytes = bytes;
    v->bounces = v->memory + (size_t)n * RING_BYTES;
    v->bounces_free = (1u << BOUNCES) - 1;
    v->max_inline = MAX_INLINE;
    if (!(v->pd = v->calls->alloc_pd(v->port.context)))
        return call_failed(v, "ibv_alloc_pd", errno);
    if (!(v->bounces_mr = v->calls->reg_mr(v->pd, v->bounces, BOUNCES * TRANSPORT_SLOT + PAGE, 0)))
        return call_failed(v, "ibv_reg_mr", errno);
    if (!(v->channel = v->calls->create_comp_channel(v->port.context)))
        return call_failed(v, "ibv_create_comp_channel", errno);
    if (!(v->cq = v->calls->create_cq(v->port.context, n * (SENDS + RECEIVES), v->channel)))
        return call_failed(v, "ibv_create_cq", errno);
    return ST_OK;
}

static status make_sides(struct verbs_transport *v)
{
    status st = make_common(v);
    for (int r = 0; r < v->base.n_ranks && !st; r++)
        if (r != v->base.rank)
            st = make_side(v, &v->peers[r]);
    return st;
}

/* ---- meeting ---- */

static void describe(const struct verbs_transport *v, status made, struct address *a, struct way *ways)
{
    *a = (struct address){.magic = MAGIC,
                          .state = (uint32_t)made,
                          .shape = {TRANSPORT_CHANNELS, TRANSPORT_SLOTS, TRANSPORT_SLOT, TRANSPORT_KINDS},
                          .mtu = (uint32_t)v->port.mtu,
                          .lid = v->port.lid,
                          .ethernet = v->port.ethernet,
                          .global = v->port.global,
                          .gid_type = (uint8_t)v->port.gid_type,
                          .family = (uint8_t)v->port.family};
    memcpy(a->channel, v->config.channel, sizeof a->channel);
    memcpy(a->gid, v->port.gid.raw, sizeof a->gid);
    snprintf(a->why, sizeof a->why, "%.*s", WHY_BYTES - 1, v->why);
    for (int r = 0; r < v->base.n_ranks; r++) {
        const struct peer *p = &v->peers[r];
        ways[r] = (struct way){0};
        if (!made && p->qp)
            ways[r] = (struct way){.memory = (uintptr_t)p->slots, .rkey = p->mr->rkey, .qp = p->qp->qp_num,
                                   .sequence = (uint32_t)(v->base.rank * 64 + r + 1)};
    }
}

/* Whether this rank and another can speak to each other. */
static status check_peer(struct verbs_transport *v, int rank, const struct address *own, const struct address *a)
{
    if (a->magic != MAGIC || memcmp(a->shape, own->shape, sizeof a->shape) ||
        memcmp(a->channel, own->channel, sizeof a->channel)) {
        verbs_error(v, "rank %d: another version of hearth", rank);
        return ST_MISMATCH;
    }
    if (a->ethernet != own->ethernet || a->global != own->global) {
        verbs_error(v, "rank %d: its RDMA device speaks %s, rank %d's %s", rank, a->ethernet ? "RoCE" : "InfiniBand",
                    v->base.rank, own->ethernet ? "RoCE" : "InfiniBand");
        return ST_MISMATCH;
    }
    if (a->ethernet && (a->gid_type != own->gid_type || a->family != own->family)) {
        verbs_error(v, "rank %d: its GID is of another kind than that of rank %d (%s): choose alike (--rdma-gid)", rank,
                    v->base.rank, v->port.about);
        return ST_MISMATCH;
    }
    return ST_OK;
}

static enum ibv_mtu mtu_code(int bytes)
{
    enum ibv_mtu m = IBV_MTU_256;
    while (m < IBV_MTU_4096 && 256 << m <= bytes)
        m++;
    return m;
}

static status connect_side(struct verbs_transport *v, struct peer *p, const struct address *a, const struct way *way,
                           uint32_t own_sequence)
{
    const int mtu = (int)a->mtu < v->port.mtu ? (int)a->mtu : v->port.mtu;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = mtu_code(mtu),
                               .dest_qp_num = way->qp,
                               .rq_psn = way->sequence,
                               .max_dest_rd_atomic = 1,
                               .min_rnr_timer = RECEIVER_TIMER,
                               .ah_attr = {.is_global = v->port.global,
                                           .dlid = a->lid,
                                           .sl = (uint8_t)v->options.service_level,
                                           .port_num = v->port.number,
                                           .grh = {.sgid_index = (uint8_t)v->port.gid_index, .hop_limit = 64}}};
    memcpy(attr.ah_attr.grh.dgid.raw, a->gid, sizeof a->gid);
    p->remote = way->memory;
    p->rkey = way->rkey;
    status st = modify(v, p, &attr, IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER, "ready to receive");
    if (st)
        return st;
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
                                .sq_psn = own_sequence,
                                .timeout = TIMEOUT,
                                .retry_cnt = RETRIES,
                                .rnr_retry = RECEIVER_RETRIES,
                                .max_rd_atomic = 1};
    return modify(v, p, &attr, IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                  IBV_QP_MAX_QP_RD_ATOMIC, "ready to send");
}

/* The first rank that could not go on, as this rank's own error if it is not the first to know. */
static status check_states(struct verbs_transport *v, const uint8_t *all, size_t stride, status own)
{
    for (int r = 0; r < v->base.n_ranks && !own; r++) {
        const struct address *a = (const void *)(all + (size_t)r * stride);
        if (a->magic == MAGIC && !a->state)
            continue;
        verbs_error(v, "rank %d: %.*s", r, WHY_BYTES, a->magic == MAGIC ? a->why : "another version of hearth");
        return ST_PEER;
    }
    return own;
}

static status connect_sides(struct verbs_transport *v, const uint8_t *all, size_t stride)
{
    const struct address *own = (const void *)(all + (size_t)v->base.rank * stride);
    const struct way *own_ways = (const void *)(own + 1);
    status st = ST_OK;
    for (int r = 0; r < v->base.n_ranks && !st; r++) {
        const struct address *a = (const void *)(all + (size_t)r * stride);
        const struct way *ways = (const void *)(a + 1);
        if (r == v->base.rank)
            continue;
        st = check_peer(v, r, own, a);
        if (!st)
            st = connect_side(v, &v->peers[r], a, &ways[v->base.rank], own_ways[r].sequence);
    }
    return st;
}

static size_t address_bytes(int n_ranks) { return sizeof(struct address) + (size_t)n_ranks * sizeof(struct way); }

uint8_t *verbs_new_addresses(int n_ranks) { return calloc((size_t)n_ranks + 1, address_bytes(n_ranks)); }

status verbs_connect(struct verbs_transport *v)
{
    const size_t stride = address_bytes(v->base.n_ranks);
    uint8_t *own = v->addresses, *all = own + stride;
    status st = make_sides(v), met;
    for (int round = 0; round < 2; round++) {
        describe(v, st, (struct address *)own, (struct way *)(own + sizeof(struct address)));
        met = v->gather.gather(v->gather.arg, own, stride, all);
        st = st ? st : met;
        st = met ? st : check_states(v, all, stride, st);
        if (st && met)
            break;
        if (round == 0 && !st)
            st = connect_sides(v, all, stride);
    }
    v->connected = !st;
    v->beat_s = v->calls->clock_s();
    return st;
}

void verbs_break(struct verbs_transport *v)
{
    for (int r = 0; r < v->base.n_ranks; r++) {
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
        if (v->peers[r].qp)
            v->calls->modify_qp(v->peers[r].qp, &attr, IBV_QP_STATE);
    }
}

void verbs_disconnect(struct verbs_transport *v)
{
    for (int r = 0; v->peers && r < v->base.n_ranks; r++) {
        struct peer *p = &v->peers[r];
        if (p->qp)
            v->calls->destroy_qp(p->qp);
        if (p->mr)
            v->calls->dereg_mr(p->mr);
        p->qp = NULL;
        p->mr = NULL;
    }
    for (int i = 0; i < v->n_regions; i++)
        v->calls->dereg_mr(v->regions[i].mr);
    v->n_regions = 0;
    if (v->n_events)
        v->calls->ack_cq_events(v->cq, v->n_events);
    if (v->cq)
        v->calls->destroy_cq(v->cq);
    if (v->channel)
        v->calls->destroy_comp_channel(v->channel);
    if (v->bounces_mr)
        v->calls->dereg_mr(v->bounces_mr);
    if (v->pd)
        v->calls->dealloc_pd(v->pd);
    free(v->memory);
}
