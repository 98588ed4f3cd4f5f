#include "node/links.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/hear.h"
#include "transport/deliver.h"
#include "transport/nccl.h"
#include "wire/channels.h"

_Static_assert((int)PLAN_MAX_RANKS <= 64, "a rank is a bit of nccl_options.peers");

/* ---- who and what ---- */

static bool on_gpu(const struct plan *p, int rank) { return !plan_holder_is_cpu(p, plan_home(p, rank)); }

/* The ranks of the stages before and after a rank's, where it and they are on GPUs; of all ranks: rank -1. */
static uint64_t partners_of(const struct plan *p, int rank)
{
    uint64_t partners = 0;
    for (int a = plan_first_stage(p), b; (b = plan_next_stage(p, a)) >= 0; a = b) {
        if (!on_gpu(p, a) || !on_gpu(p, b))
            continue;
        partners |= rank < 0 || rank == b ? UINT64_C(1) << a : 0;
        partners |= rank < 0 || rank == a ? UINT64_C(1) << b : 0;
    }
    return partners;
}

static struct nccl_options describe(const struct member *m)
{
    const struct plan *p = m->plan;
    const struct gpu_info *gpu = gpus_of(&m->gpus, p, plan_home(p, m->transport->rank));
    return (struct nccl_options){.kinds = 1u << WIRE_STATES, .peers = partners_of(p, m->transport->rank),
                                 .device = gpu ? (int)(gpu - m->gpus.at) : -1};
}

/* Whether this rank could: it need not have a GPU. */
static struct wire_link look(const struct member *m)
{
    const struct nccl_options o = describe(m);
    struct wire_link own = {0};
    struct log_catcher errors;
    if (!o.peers)
        return own;
    memcpy(own.id, m->gpus.at[o.device].id, sizeof own.id);
    log_catch(&errors);
    if (m->o->network.kind != NETWORK_AUTO)
        snprintf(own.why_not, sizeof own.why_not, "--transport %s", network_kind_name(m->o->network.kind));
    else if (transport_nccl_check(&o))
        snprintf(own.why_not, sizeof own.why_not, "%.255s", errors.first_error);
    log_catch(NULL);
    return own;
}

/* ---- the ranks agree ---- */

/* The next LINK; *from: whose it is. */
static status hear_link(struct transport *t, struct wire_link *l, int *from)
{
    struct arrival a;
    status st = hear(t, 1u << WIRE_LINK, WIRE_LINK_MAX, &a);
    if (st)
        return st;
    *from = a.from;
    log_sender(a.from);
    st = wire_link_decode(a.data, a.size, l);
    log_sender(-1);
    const status released = transport_release(t, &a);
    return st ? st : released;
}

/* Of all ranks: why they go without, or "". */
static void judge(const struct plan *p, const struct wire_link *all, char why_not[256])
{
    const uint64_t partners = partners_of(p, -1);
    why_not[0] = '\0';
    for (int r = 0; r < p->n_ranks && !why_not[0]; r++) {
        if (all[r].why_not[0])
            snprintf(why_not, 256, "rank %d: %.230s", r, all[r].why_not);
        for (int other = 0; other < r && !why_not[0]; other++)
            if ((partners >> r & 1) && (partners >> other & 1) && !memcmp(all[r].id, all[other].id, sizeof all[r].id))
                snprintf(why_not, 256, "rank %d and rank %d have the same GPU", other, r);
    }
}

/* Rank 0 hears all, and answers them all alike. */
static status decide(struct transport *t, const struct plan *p, const struct wire_link *own, struct wire_link *verdict)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_LINK_MAX];
    struct wire_link all[PLAN_MAX_RANKS] = {*own}, l;
    bool heard[PLAN_MAX_RANKS] = {true};
    for (int n = 1, from = 0; n < t->n_ranks; n++) {
        status st = hear_link(t, &l, &from);
        if (!st && heard[from]) {
            log_error("rank %d: LINK a second time", from);
            st = ST_FORMAT;
        }
        if (st)
            return st;
        heard[from] = true;
        all[from] = l;
    }
    *verdict = (struct wire_link){0};
    judge(p, all, verdict->why_not);
    return deliver_all(t, WIRE_LINK, message, wire_link_encode(verdict, message, sizeof message));
}

static status agree(struct transport *t, const struct plan *p, const struct wire_link *own, struct wire_link *verdict)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_LINK_MAX];
    int from = 0;
    if (t->rank == 0)
        return decide(t, p, own, verdict);
    status st = deliver(t, 0, WIRE_LINK, message, wire_link_encode(own, message, sizeof message));
    st = st ? st : hear_link(t, verdict, &from);
    if (st || from == 0)
        return st;
    log_error("LINK from rank %d, expected it from rank 0 alone", from);
    return ST_FORMAT;
}

/* ---- and do so ---- */

static status join(struct member *m)
{
    const struct nccl_options o = describe(m);
    struct transport_config config = {0};
    struct transport *t;
    if (!o.peers)
        return ST_OK;
    wire_channels(config.channel, TRANSPORT_KINDS);
    status st = transport_nccl_open(&config, &o, m->transport, &t);
    if (st) {
        transport_abandon(m->transport, "NCCL, which was there, is not any more"); /* its peers wait for it */
        return st;
    }
    m->transport = m->worker_options.transport = t;
    return transport_connect(t);
}

status links_open(struct member *m)
{
    struct wire_link verdict;
    if (m->transport->n_ranks == 1 || !partners_of(m->plan, -1))
        return ST_OK;
    const struct wire_link own = look(m);
    status st = agree(m->transport, m->plan, &own, &verdict);
    if (st)
        return st;
    m->linked = !verdict.why_not[0];
    if (m->transport->rank == 0 && !m->o->quiet)
        log_info("hidden states between GPUs go through %s%s", m->linked ? "NCCL" : "pinned memory of the hosts: ",
                 verdict.why_not);
    return m->linked ? join(m) : ST_OK;
}
