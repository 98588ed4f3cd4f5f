#include "worker/owners.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "wire/channels.h"

_Static_assert(PLAN_MAX_RANKS <= 64, "ranks are the bits of a word");

/* PARTIALs of one rank that came before their block began, or LOGITS of the next tokens, the oldest first. They lie
 * where they arrived; the transport lets nobody hold more, nor more than one that is longer than a slot. */
struct ahead {
    struct arrival held[TRANSPORT_SLOTS];
    unsigned first, n, most;         /* most 0: that rank sends none unasked */
};

struct owners {
    struct rank *r;
    struct multicast request;        /* x to the owners */
    struct ahead *ahead;             /* [n_ranks] */
    uint64_t asked_ns, slowest_ns;   /* the exchange under way: its begin, and the longest that an owner computed */
};

status owners_new(struct rank *r, struct owners **out)
{
    struct owners *o = calloc(1, sizeof *o);
    if (o) {
        o->r = r;
        o->ahead = calloc((size_t)r->n_ranks, sizeof *o->ahead);
    }
    if (!o || !o->ahead || multicast_new(&o->request, r->n_ranks)) {
        log_error("out of memory for what a rank is answered");
        owners_free(o);
        return ST_NOMEM;
    }
    *out = o;
    return ST_OK;
}

void owners_free(struct owners *o)
{
    if (!o)
        return;
    multicast_free(&o->request);
    free(o->ahead);
    free(o);
}

status owners_lay(struct owners *o)
{
    struct rank *r = o->r;
    const bool all = r->o->plan->residual_all; /* parts of blocks are sent unasked */
    bool asks = false;
    status st = ST_OK;
    for (int i = 0; i < r->n_ranks && !st; i++) {
        const size_t answer = largest_answer(r, r->rank, i), logits = largest_logits(r, r->rank, i);
        st = room_lay(r->exchange, &r->arena, i, CHANNEL_ANSWERS, answer > logits ? answer : logits);
        asks |= (answer && !all) || logits;
        o->ahead[i].most = (answer || logits) && all ? TRANSPORT_SLOTS : 0;
    }
    if (asks)
        multicast_lay(&r->arena, &o->request, wire_request_max(&r->limits));
    return st;
}

/* Writes x as its readers want it. */
static size_t encode_x(struct owners *o, const struct task *t)
{
    struct rank *r = o->r;
    const struct work *w = &t->work;
    struct wire_request q = {.id = t->step->id, .part = w->part, .layer = (uint32_t)w->layer, .n_tokens = w->n};
    if (w->part == DEVICE_ATTENTION) {
        q.runs = t->step->runs;
        q.n_runs = t->step->n_runs;
        q.changes = t->step->changes;
        q.n_changes = t->step->n_changes;
    }
    q.form = device_reads_floats(devices_options(r->devices), w->part, w->layer) ? FORM_F32 : FORM_Q8;
    const size_t size = wire_request_encode(&q, &r->limits, o->request.buffer, o->request.capacity);
    const struct input_bytes to = {.codes = q.codes, .scale = q.scale, .f32 = q.f32, .residual = q.residual,
                                   .expert = q.expert, .weight = q.weight};
    r->home->ops->export_input(r->home, w, r->home->in[USE_OWN], &to);
    return size;
}

status owners_ask(struct owners *o, const struct task *t)
{
    struct rank *r = o->r;
    size_t size = 0;
    for (int i = 0; i < r->n_ranks; i++) {
        if (i == r->rank || !owns(r, t->work.part, t->work.layer, i))
            continue;
        status st = ST_OK;
        if (!size) {
            size = encode_x(o, t);
            st = devices_found(r->devices);
        }
        st = st ? st : multicast_send(r->exchange, &o->request, i, WIRE_REQUEST, size);
        if (st)
            return st;
    }
    return ST_OK;
}

/* The other owners, a bit each. */
static uint64_t others_of(const struct rank *r, const struct task *t)
{
    uint64_t others = 0;
    for (int i = 0; i < r->n_ranks; i++)
        if (i != r->rank && owns(r, t->work.part, t->work.layer, i))
            others |= UINT64_C(1) << i;
    return others;
}

/* Keeps what came before it was waited for. Whether it is of that block, or of those tokens, is found out when it is
 * taken. */
static bool keep(struct ahead *k, const struct arrival *a, int kind)
{
    if (a->kind != kind || k->n == k->most)
        return false;
    k->held[(k->first + k->n++) % TRANSPORT_SLOTS] = *a;
    return true;
}

/* What is waited for. */
struct waiting {
    const struct task *t;
    int kind;
    take_answer *take;
    void *arg;
    uint64_t missing; /* owners, a bit each */
};

static status refuse_answer(const struct arrival *a, const struct waiting *w)
{
    log_error("%s for layer %d from rank %d, which was not asked for it or has answered", wire_name(a->kind),
              w->t->work.layer, a->from);
    return ST_FORMAT;
}

/* Whether an answer is one of those that are missing. Where all ranks have the residual stream, one that needs nothing
 * of this rank may be some blocks ahead: missing does not change then, and the message is kept. */
static status sort_out(struct owners *o, const struct arrival *a, struct waiting *w, bool *wanted)
{
    const uint64_t bit = UINT64_C(1) << a->from;
    *wanted = (w->missing & bit) && a->kind == w->kind;
    if (*wanted) {
        w->missing &= ~bit;
        return ST_OK;
    }
    if (keep(&o->ahead[a->from], a, w->kind))
        return ST_OK;
    return refuse_answer(a, w);
}

/* Takes an answer. What that computes is no waiting. */
static status take_timed(const struct waiting *w, struct arrival *a, uint64_t *own_ns)
{
    const uint64_t begin = clock_ns();
    status st = w->take(w->arg, a, w->t);
    *own_ns += clock_ns() - begin;
    return st;
}

/* Takes what came before it was waited for: of each rank the oldest, for they come in order. */
static status take_ahead(struct owners *o, struct waiting *w, uint64_t *own_ns)
{
    status st = ST_OK;
    for (int i = 0; i < o->r->n_ranks && !st; i++) {
        struct ahead *k = &o->ahead[i];
        if (!k->n || !(w->missing >> i & 1))
            continue;
        struct arrival a = k->held[k->first];
        if (a.kind != w->kind)
            return refuse_answer(&a, w);
        k->first = (k->first + 1) % TRANSPORT_SLOTS;
        k->n--;
        w->missing &= ~(UINT64_C(1) << i);
        st = take_timed(w, &a, own_ns);
    }
    return st;
}

/* The answers to look at: of any kind, for a wrong one in front would hold up the right one. But logits that nobody had
 * to ask for may be there before the last part is. */
static uint32_t answers(const struct rank *r, int kind)
{
    const uint32_t unasked = r->o->plan->residual_all && kind == WIRE_PARTIAL ? 1u << WIRE_LOGITS : 0;
    return (1u << WIRE_PARTIAL | 1u << WIRE_ACTIVE | 1u << WIRE_LOGITS) & ~unasked;
}

void owners_begin(struct owners *o)
{
    o->asked_ns = clock_ns();
    o->slowest_ns = 0;
}

uint64_t owners_begun(const struct owners *o) { return o->asked_ns; }

void owners_count(struct owners *o, const struct wire_counts *counts, uint64_t busy_ns)
{
    wire_counts_add(&o->r->counts, counts);
    o->slowest_ns = busy_ns > o->slowest_ns ? busy_ns : o->slowest_ns;
}

/* The exchange is over, of which the own part was done at own_ns: from then on this rank waited for the slowest owner
 * as long as that computed longer than itself, and otherwise for messages. */
static void account(struct owners *o, uint64_t own_ns)
{
    const uint64_t now_ns = clock_ns(), left = now_ns - own_ns, own = own_ns - o->asked_ns;
    const uint64_t longer = o->slowest_ns > own ? o->slowest_ns - own : 0, wait = longer < left ? longer : left;
    o->r->usage.wait_ns += wait;
    o->r->usage.wire_ns += left - wait;
    devices_idle_until(o->r->devices, now_ns);
}

status owners_await(struct owners *o, const struct task *t, int kind, take_answer *take, void *arg)
{
    struct exchange *e = o->r->exchange;
    struct waiting w = {.t = t, .kind = kind, .take = take, .arg = arg, .missing = others_of(o->r, t)};
    if (!w.missing)
        return ST_OK;
    uint64_t own_ns = clock_ns();
    status st = take_ahead(o, &w, &own_ns);
    while (!st && w.missing) {
        struct arrival a;
        bool found, wanted;
        st = serve_or_find(e, answers(o->r, kind), &a, &found);
        if (!st && found) {
            st = sort_out(o, &a, &w, &wanted);
            st = st || !wanted ? st : take_timed(&w, &a, &own_ns);
        } else if (!st) {
            exchange_idle(e);
        }
    }
    if (!st)
        st = multicast_wait(e, &o->request); /* who has answered has x: among honest ranks no wait */
    account(o, own_ns);
    return st;
}
