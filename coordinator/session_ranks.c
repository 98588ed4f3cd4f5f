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

status session_ask_usage(struct session *s)
{
    struct transport *t = s->o.transport;
    status st = session_check(s);
    bool sent = !s->awaited;
    for (int r = 0; r < t->n_ranks && !st && sent; r++) { /* the last query lies where the next will */
        if (s->n_queries)
            st = transport_sent(t, &s->queries[r], &sent);
    }
    if (st || !sent)
        return st;
    for (int r = 0; r < t->n_ranks && !st; r++) {
        s->awaited |= UINT64_C(1) << r;
        st = transport_post(t, r, WIRE_QUERY, NULL, 0, &s->queries[r]);
    }
    s->broken = st;
    return st;
}

uint32_t session_told_usage(const struct session *s, struct wire_usage *ranks)
{
    if (s->awaited || !s->n_queries)
        return 0;
    for (int r = 0; r < s->o.transport->n_ranks; r++)
        ranks[r] = s->said[r].usage;
    return (uint32_t)s->o.transport->n_ranks;
}

/* All that ranks sent, without what asking takes: the queries so far, and the answers to those before the last; a rank
 * counted before it answered, and they were as long. */
static struct wire_usage sum_up(const struct session *s, struct wire_usage *ranks)
{
    struct wire_usage sum = {0};
    const uint64_t others = (uint64_t)s->o.transport->n_ranks - 1, before = s->n_queries - 1;
    for (int r = 0; r < s->o.transport->n_ranks; r++) {
        const struct wire_usage *u = &s->said[r].usage;
        sum.messages += u->messages;
        sum.bytes += u->bytes - (r ? before * s->said[r].bytes : 0);
        sum.run_ns += u->run_ns;
        sum.wire_ns += u->wire_ns;
        sum.wait_ns += u->wait_ns;
        if (ranks)
            ranks[r] = *u;
    }
    sum.messages -= (2 * before + 1) * others;
    return sum;
}

/* All that is under way has come first; what was asked before that too. */
static status ask_and_wait(struct session *s)
{
    status st = session_drain(s);
    const uint64_t before = s->n_queries;
    for (int r = 0; r < s->o.transport->n_ranks && !st && before; r++)
        st = wait_sent(s, &s->queries[r]);
    st = st ? st : session_ask_usage(s);
    return st ? st : session_drain(s);
}

status session_usage(struct session *s, struct wire_usage *out, struct wire_usage *ranks)
{
    status st = session_check(s);
    if (st)
        return st;
    st = ask_and_wait(s);
    s->broken = st;
    if (!st)
        *out = sum_up(s, ranks);
    return st;
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
