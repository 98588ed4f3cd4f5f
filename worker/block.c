/* A block of a stage: x += part(norm(x)), the part being attention or the FFN. Its heads or neurons lie on many ranks.
 *
 * Where the residual stream has one home, x goes to the owners, this rank computes its own share meanwhile, and the
 * partial sums come back. Where all ranks have it, each computes its share of its own x and sends the sum to all
 * others. Both ways parts are added to the own one as they come: they are on a common grid (kernels.h, SEGMENT_GRID), so
 * their sum is exact, and neither their order nor where the plan cuts heads and neurons changes a bit. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/internal.h"

status check_answer(int from, const char *what, const struct task *found, const struct task *t)
{
    static const char *const names[WIRE_PARTS] = {"attention", "FFN", "output"};
    if (found->step == t->step && found->part == t->part && found->layer == t->layer && found->n == t->n)
        return ST_OK;
    log_error("%s from rank %d is of step %llu, %s of layer %d, %u tokens; expected %llu, %s of %d, %u", what, from,
              (unsigned long long)found->step, names[found->part], found->layer, found->n,
              (unsigned long long)t->step, names[t->part], t->layer, t->n);
    return ST_FORMAT;
}

/* Adds an owner's part to stage.own. */
static status take_partial(struct worker *w, struct arrival *a, const struct task *t)
{
    struct wire_partial p;
    log_sender(a->from);
    status st = wire_partial_decode(a->data, a->size, &w->limits, w->stage.widths, &p);
    log_sender(-1);
    if (st)
        return st;
    const struct task found = {.part = p.part, .layer = (int)p.layer, .step = p.id, .n = p.n_tokens};
    st = check_answer(a->from, "partial sum", &found, t);
    if (st)
        return st;
    count_answer(w, &p.counts, p.busy_ns);
    sums_add(w, &p, w->stage.own);
    return transport_release(w->o.transport, a);
}

static void compute_own(struct worker *w, const struct task *t, double *sum)
{
    struct stage *s = &w->stage;
    if (!owner_of(w, t->part, t->layer, w->rank)) {
        memset(sum, 0, (size_t)(t->n * w->o.model->hp.d_model) * sizeof *sum);
    } else if (t->part == PART_ATTENTION) {
        attention_compute(w, t->layer, &s->in, t->position, t->n, sum);
    } else {
        shard_compute(w, t->layer, &s->in, take_residual(w, t->layer, s->x, t->n), t->n, sum);
        if (w->o.observe)
            w->o.observe(w->o.observe_arg, t->layer, t->n, s->in.f32, w->activated.f32);
    }
}

/* Counts what this rank has done of the step. */
static struct wire_counts count_own(struct worker *w)
{
    const struct wire_counts counts = take_counts(w);
    wire_counts_add(&w->stage.counts, &counts);
    return counts;
}

/* The owners' parts, asked for. */
static status gather(struct worker *w, const struct task *t, bool active)
{
    status st = owners_ask(w, t);
    if (st)
        return st;
    compute_own(w, t, w->stage.own);
    count_own(w);
    st = owners_await(w, t, active ? WIRE_ACTIVE : WIRE_PARTIAL, active ? take_active : take_partial);
    count_own(w); /* what active.c has computed */
    return st;
}

/* This rank's part to all others that take part, and theirs from them. Two messages take turns, so that this rank may be
 * a block ahead of who has not taken the one before. */
static status share(struct worker *w, const struct task *t)
{
    struct stage *s = &w->stage;
    struct multicast *m = &s->shared[s->shared_turn];
    struct wire_partial p = {.id = t->step, .part = t->part, .layer = (uint32_t)t->layer, .n_tokens = t->n};
    status st = ST_OK;
    compute_own(w, t, s->own);
    p.counts = count_own(w);
    if (!m->buffer || !owner_of(w, t->part, t->layer, w->rank)) /* nobody to send it to, or nothing to send */
        return owners_await(w, t, WIRE_PARTIAL, take_partial);
    s->shared_turn = (s->shared_turn + 1) % STAGE_BUFFERS;
    if ((st = multicast_wait(w, m)) != ST_OK)
        return st;
    wire_partial_place(&p, &w->limits, m->buffer);
    sums_pack(w, s->own, &p);
    if (w->o.sums_f16) { /* all must add the same */
        memset(s->own, 0, (size_t)t->n * w->limits.d_model * sizeof *s->own);
        sums_add(w, &p, s->own);
    }
    p.busy_ns = clock_ns() - w->asked_ns;
    const size_t size = wire_partial_encode(&p, &w->limits, m->buffer, m->capacity);
    for (int r = 0; r < w->n_ranks && !st; r++)
        if (r != w->rank && plan_takes_part(w->o.plan, r))
            st = multicast_send(w, m, r, WIRE_PARTIAL, size);
    return st ? st : owners_await(w, t, WIRE_PARTIAL, take_partial);
}

struct adding {
    const struct worker *w;
    const float *bias;   /* [d] or NULL */
    float *value;        /* [n, d] what is added */
    bool waits;
    _Atomic bool broken; /* the sum is not all numbers */
};

static void add_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    struct adding *a = arg;
    const struct stage *s = &a->w->stage;
    const int64_t d = a->w->limits.d_model;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const double *own = s->own + t * d;
        float *value = a->value + t * d;
        for (int64_t i = 0; i < d; i++)
            value[i] = (float)own[i];
        if (a->bias)
            a->w->o.kernels->add(value, a->bias, d);
        if (!a->waits)
            a->w->o.kernels->add(s->x + t * d, value, d);
        if (!all_numbers(a->waits ? value : s->x + t * d, d))
            a->broken = true;
    }
}

/* x += own + bias for the task's tokens; or y = own + bias, if it must wait: the FFN reads the same x. */
static status add_own(struct worker *w, const float *bias, const struct task *t, bool waits)
{
    static const char *const parts[] = {[PART_ATTENTION] = "attention", [PART_FFN] = "the FFN"};
    struct stage *s = &w->stage;
    struct adding a = {.w = w, .bias = bias, .waits = waits,
                       .value = waits ? s->y : s->in.f32}; /* what the block has read is read */
    pool_for(w->pool, t->n, 4, add_tokens, &a);
    return a.broken ? not_numbers(w, t, parts[t->part], waits ? s->y : s->x, w->limits.d_model) : ST_OK;
}

status block_run(struct worker *w, const struct task *t)
{
    const struct stage_layer *l = &w->stage.layers[t->layer - w->stage.first];
    const bool attention = t->part == PART_ATTENTION, waits = attention && w->o.model->hp.parallel;
    const bool active = !attention && plan_down_at_stage(w->o.plan, t->layer);
    exchange_begin(w);
    keep_moving(w, t->n);
    status st = norm_tokens(w, attention ? l->attn_norm : l->ffn_norm, w->stage.x, t);
    if (!st)
        st = w->o.plan->residual_all ? share(w, t) : gather(w, t, active);
    return st ? st : add_own(w, attention ? l->o_bias : l->down_bias, t, waits);
}
