/* Asking the owners of something that several ranks hold a part of, and waiting for their answers. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/internal.h"

_Static_assert(PLAN_MAX_RANKS <= 64, "ranks are the bits of a word");

bool owner_of(const struct worker *w, enum wire_part part, int layer, int rank)
{
    const struct hparams *hp = &w->o.model->hp;
    int64_t begin = 0, end = 0;
    switch (part) {
    case PART_ATTENTION: plan_heads(w->o.plan, layer, rank, hp->n_kv_heads, &begin, &end); break;
    case PART_FFN: end = plan_n_neurons(w->o.plan, layer, rank); break;
    default: plan_rows(w->o.plan, rank, hp->n_vocab, &begin, &end);
    }
    return begin < end;
}

/* Writes x as kernels read it: int8 blocks are four times smaller than floats and change no bit. */
static size_t encode_x(struct worker *w, const struct task *t)
{
    const struct stage *s = &w->stage;
    const size_t values = (size_t)t->n * (size_t)s->in.cols;
    struct wire_request q = {.id = t->step, .part = t->part, .layer = (uint32_t)t->layer, .n_tokens = t->n,
                             .position = t->part == PART_ATTENTION ? t->position : 0};
    q.form = readers_of(w, x_of(t->part), t->layer).f32 ? FORM_F32 : FORM_Q8;
    size_t size = wire_request_encode(&q, &w->limits, s->request.buffer, s->request.capacity);
    if (q.form == FORM_F32) {
        memcpy(q.f32, s->in.f32, values * sizeof(float));
    } else {
        memcpy(q.codes, s->in.codes, values);
        for (size_t i = 0; i < values / ACT_BLOCK; i++)
            q.scale[i] = s->in.blocks[i].scale;
    }
    if (q.residual)
        memcpy(q.residual, s->x, values * sizeof(float));
    return size;
}

status owners_ask(struct worker *w, const struct task *t)
{
    size_t size = 0;
    for (int r = 0; r < w->n_ranks; r++) {
        if (r == w->rank || !owner_of(w, t->part, t->layer, r))
            continue;
        if (!size)
            size = encode_x(w, t);
        status st = multicast_send(w, &w->stage.request, r, WIRE_REQUEST, size);
        if (st)
            return st;
    }
    return ST_OK;
}

/* The other owners, a bit each. */
static uint64_t others_of(const struct worker *w, const struct task *t)
{
    uint64_t others = 0;
    for (int r = 0; r < w->n_ranks; r++)
        if (r != w->rank && owner_of(w, t->part, t->layer, r))
            others |= UINT64_C(1) << r;
    return others;
}

/* Keeps what came before its block. Whether it is of that block is found out when it is taken. */
static bool keep(struct ahead *k, const struct arrival *a)
{
    if (a->kind != WIRE_PARTIAL || k->n == k->most)
        return false;
    k->held[(k->first + k->n++) % TRANSPORT_SLOTS] = *a;
    return true;
}

/* Whether an answer is one of those that are missing. Where all ranks have the residual stream, one that needs nothing
 * of this rank may be some blocks ahead: *missing does not change then, and the message is kept. */
static status sort_out(struct worker *w, const struct arrival *a, const struct task *t, int kind, uint64_t *missing,
                       bool *wanted)
{
    const uint64_t bit = UINT64_C(1) << a->from;
    *wanted = (*missing & bit) && a->kind == kind;
    if (*wanted) {
        *missing &= ~bit;
        return ST_OK;
    }
    if (keep(&w->stage.ahead[a->from], a))
        return ST_OK;
    log_error("%s for layer %d from rank %d, which was not asked for it or has answered", wire_name(a->kind), t->layer,
              a->from);
    return ST_FORMAT;
}

/* Takes an answer. What that computes is no waiting. */
static status take_timed(struct worker *w, struct arrival *a, const struct task *t, take_answer *take, uint64_t *own_ns)
{
    const uint64_t begin = clock_ns();
    status st = take(w, a, t);
    *own_ns += clock_ns() - begin;
    return st;
}

/* Takes what came before it was waited for: of each rank the oldest, for they come in order. */
static status take_ahead(struct worker *w, const struct task *t, uint64_t *missing, take_answer *take, uint64_t *own_ns)
{
    status st = ST_OK;
    for (int r = 0; r < w->n_ranks && !st; r++) {
        struct ahead *k = &w->stage.ahead[r];
        if (!k->n || !(*missing >> r & 1))
            continue;
        struct arrival a = k->held[k->first];
        k->first = (k->first + 1) % TRANSPORT_SLOTS;
        k->n--;
        *missing &= ~(UINT64_C(1) << r);
        st = take_timed(w, &a, t, take, own_ns);
    }
    return st;
}

/* The answers to look at: of any kind, for a wrong one in front would hold up the right one. But logits that nobody had
 * to ask for may be there before the last part is. */
static uint32_t answers(const struct worker *w, int kind)
{
    const uint32_t unasked = w->o.plan->residual_all && kind == WIRE_PARTIAL ? 1u << WIRE_LOGITS : 0;
    return (1u << WIRE_PARTIAL | 1u << WIRE_ACTIVE | 1u << WIRE_LOGITS) & ~unasked;
}

void exchange_begin(struct worker *w)
{
    w->asked_ns = clock_ns();
    w->slowest_ns = 0;
}

void count_answer(struct worker *w, const struct wire_counts *counts, uint64_t busy_ns)
{
    wire_counts_add(&w->stage.counts, counts);
    w->slowest_ns = busy_ns > w->slowest_ns ? busy_ns : w->slowest_ns;
}

/* The exchange is over, of which the own part was done at own_ns: from then on this rank waited for the slowest owner
 * as long as that computed longer than itself, and otherwise for messages. */
static void account(struct worker *w, uint64_t own_ns)
{
    const uint64_t left = clock_ns() - own_ns, own = own_ns - w->asked_ns;
    const uint64_t longer = w->slowest_ns > own ? w->slowest_ns - own : 0, wait = longer < left ? longer : left;
    w->usage.wait_ns += wait;
    w->usage.wire_ns += left - wait;
}

status owners_await(struct worker *w, const struct task *t, int kind, take_answer *take)
{
    uint64_t missing = others_of(w, t);
    if (!missing)
        return ST_OK;
    uint64_t own_ns = clock_ns();
    status st = kind == WIRE_PARTIAL ? take_ahead(w, t, &missing, take, &own_ns) : ST_OK;
    while (!st && missing) {
        struct arrival a;
        bool found, wanted;
        st = serve_or_find(w, answers(w, kind), &a, &found);
        if (!st && found) {
            st = sort_out(w, &a, t, kind, &missing, &wanted);
            st = st || !wanted ? st : take_timed(w, &a, t, take, &own_ns);
        } else if (!st) {
            be_idle(w->o.transport, &w->polls);
        }
    }
    if (!st)
        st = multicast_wait(w, &w->stage.request); /* who has answered has x: among honest ranks no wait */
    account(w, own_ns);
    return st;
}
