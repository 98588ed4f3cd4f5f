#include "node/offers.h"

#include "base/log.h"
#include "node/hear.h"
#include "placement/plan.h"
#include "transport/deliver.h"

/* The next rank's that is heard: *from. */
static status hear_one(struct transport *t, int *from, struct wire_gpus *out)
{
    struct arrival a;
    status st = hear(t, 1u << WIRE_GPUS, WIRE_GPUS_MAX, &a);
    if (st)
        return st;
    log_sender(a.from);
    st = wire_gpus_decode(a.data, a.size, out);
    log_sender(-1);
    *from = a.from;
    status released = transport_release(t, &a);
    return st ? st : released;
}

static status hear_all(struct transport *t, struct wire_gpus *offers)
{
    bool heard[PLAN_MAX_RANKS] = {[0] = true};
    for (int i = 1; i < t->n_ranks; i++) {
        struct wire_gpus one;
        int from;
        status st = hear_one(t, &from, &one);
        if (!st && heard[from]) {
            log_error("rank %d: GPUS a second time", from);
            st = ST_FORMAT;
        }
        if (st)
            return st;
        heard[from] = true;
        offers[from] = one;
    }
    return ST_OK;
}

/* Each rank's to all others, in the order of the ranks: messages of one rank keep theirs. */
static status tell_all(struct transport *t, const struct wire_gpus *offers)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_GPUS_MAX];
    status st = ST_OK;
    for (int r = 0; r < t->n_ranks && !st; r++)
        st = deliver_all(t, WIRE_GPUS, message, wire_gpus_encode(&offers[r], message, sizeof message));
    return st;
}

static status tell_rank_0(struct transport *t, const struct wire_gpus *own)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_GPUS_MAX];
    return deliver(t, 0, WIRE_GPUS, message, wire_gpus_encode(own, message, sizeof message));
}

static status hear_rank_0(struct transport *t, struct wire_gpus *offers)
{
    for (int r = 0; r < t->n_ranks; r++) {
        int from;
        status st = hear_one(t, &from, &offers[r]);
        if (!st && from != 0) {
            log_error("GPUS from rank %d, expected them from rank 0", from);
            st = ST_FORMAT;
        }
        if (st)
            return st;
    }
    return ST_OK;
}

status offers_exchange(struct transport *t, struct wire_gpus *offers)
{
    status st = t->rank == 0 ? hear_all(t, offers) : tell_rank_0(t, &offers[t->rank]);
    if (st)
        return st;
    return t->rank == 0 ? tell_all(t, offers) : hear_rank_0(t, offers);
}
