/* The FFN block of a stage: x += ffn(norm(x)). Its neurons lie on many ranks: x goes to their owners, this rank
 * computes its own part meanwhile, and the partial sums are merged. */
#include "base/log.h"
#include "worker/internal.h"

static status take_partial(struct worker *w, struct arrival *a, int layer, uint64_t step, uint32_t n)
{
    struct wire_partial p;
    uint8_t *buffer = w->stage.partials[a->from];
    if (!buffer || a->size > wire_partial_max(&w->limits)) {
        log_error("rank %d: partial sum of %zu bytes from rank %d, which the plan does not foresee", w->rank, a->size,
                  a->from);
        return ST_FORMAT;
    }
    status st = transport_receive(w->o.transport, a, buffer);
    if (!st)
        st = wire_partial_decode(buffer, a->size, &w->limits, &p);
    if (!st && (p.id != step || p.layer != (uint32_t)layer || p.n_tokens != n)) {
        log_error("rank %d: partial sum from rank %d is of step %llu, layer %u, %u tokens; expected %llu, %d, %u",
                  w->rank, a->from, (unsigned long long)p.id, p.layer, p.n_tokens, (unsigned long long)step, layer, n);
        st = ST_FORMAT;
    }
    return st;
}

status ffn_block(struct worker *w, int layer, uint64_t step, uint32_t n)
{
    struct stage *s = &w->stage;
    int expected;
    norm_tokens(w, s->layers[layer - s->first].ffn_norm, n, owners_want_q8(w, layer));
    status st = owners_ask(w, layer, step, n, &expected);
    if (st)
        return st;
    if (owner_of(w, layer, w->rank))
        shard_compute(w, layer, &s->in, n, s->own);
    st = owners_await(w, layer, step, n, expected, WIRE_PARTIAL, take_partial);
    if (!st)
        merge_partials(w, layer, n);
    return st;
}
