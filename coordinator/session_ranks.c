/* What a session says to all ranks: how has your time gone? And: stop. */
#include "base/log.h"
#include "coordinator/session_parts.h"
#include "transport/deliver.h"

static status wait_sent(struct session *s, struct send *send)
{
    bool done = false;
    for (;;) {
        status st = transport_sent(s->o.transport, send, &done);
        if (st || done)
            return st;
        if ((st = session_pump(s)))
            return st;
    }
}

static status wait_for(struct session *s, enum wire_kind kind, struct arrival *a)
{
    bool found = false;
    for (;;) {
        status st = transport_poll(s->o.transport, 1u << kind, a, &found);
        if (st || found)
            return st;
        if ((st = session_pump(s)))
            return st;
    }
}

/* Waits for one rank's USAGE and adds it, without this rank's answers of the times before: it counted before it
 * answered, and they were as long. */
static status take_usage(struct session *s, uint64_t *answered, struct wire_usage *sum, struct wire_usage *ranks)
{
    struct wire_usage u;
    struct arrival a;
    status st = wait_for(s, WIRE_USAGE, &a);
    if (st)
        return st;
    if (*answered >> a.from & 1) {
        log_error("rank %d: a second USAGE", a.from);
        return ST_FORMAT;
    }
    *answered |= UINT64_C(1) << a.from;
    log_sender(a.from);
    st = wire_usage_decode(a.data, a.size, &u);
    log_sender(-1);
    if (st)
        return st;
    sum->messages += u.messages;
    sum->bytes += u.bytes - (a.from ? s->n_queries * a.size : 0);
    sum->run_ns += u.run_ns;
    sum->wire_ns += u.wire_ns;
    sum->wait_ns += u.wait_ns;
    if (ranks)
        ranks[a.from] = u;
    return transport_release(s->o.transport, &a);
}

static status ask_usage(struct session *s, struct wire_usage *sum, struct wire_usage *ranks)
{
    struct transport *t = s->o.transport;
    uint64_t answered = 0; /* ranks, a bit each */
    status st = session_drain(s);
    for (int r = 0; r < t->n_ranks && !st; r++)
        st = transport_post(t, r, WIRE_QUERY, NULL, 0, &s->queries[r]);
    for (int r = 0; r < t->n_ranks && !st; r++)
        st = take_usage(s, &answered, sum, ranks);
    for (int r = 0; r < t->n_ranks && !st; r++)
        st = wait_sent(s, &s->queries[r]);
    return st;
}

status session_usage(struct session *s, struct wire_usage *out, struct wire_usage *ranks)
{
    struct wire_usage sum = {0};
    status st = session_check(s);
    if (st)
        return st;
    st = ask_usage(s, &sum, ranks);
    s->broken = st;
    if (st)
        return st;
    /* This time's queries and, of the times before, answers too. */
    const uint64_t others = (uint64_t)s->o.transport->n_ranks - 1;
    sum.messages -= (2 * s->n_queries + 1) * others;
    s->n_queries++;
    *out = sum;
    return ST_OK;
}

status session_stop(struct session *s)
{
    static const char why[] = "gave up";
    _Alignas(TRANSPORT_ALIGN) uint8_t reason[WIRE_FAILED_MAX];
    struct log_catcher said; /* why it broke was; another rank may say so too */
    if (!s)
        return ST_OK;
    if (!s->broken)
        s->broken = session_drain(s);
    if (!s->broken)
        return deliver_all(s->o.transport, WIRE_STOP, NULL, 0);
    /* A stage may still wait for rank 0's answer, deaf to STOP but not to FAILED. */
    log_catch(&said);
    deliver_last(s->o.transport, WIRE_FAILED, reason, wire_failed_encode(why, reason, sizeof reason), why);
    log_catch(NULL);
    return ST_PEER;
}
