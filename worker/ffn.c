/* The FFN block of a stage: x += ffn(norm(x)). Its neurons lie on many ranks: x goes to their owners, this rank
 * computes its own part meanwhile, and the partial sums are merged. */
#include <string.h>

#include "base/log.h"
#include "worker/internal.h"

/* An answer must be of this step. */
static status check_answer(const struct worker *w, int from, const char *what, uint64_t id, uint32_t got_layer,
                           uint32_t got_n, uint64_t step, int layer, uint32_t n)
{
    if (id == step && got_layer == (uint32_t)layer && got_n == n)
        return ST_OK;
    log_error("rank %d: %s from rank %d is of step %llu, layer %u, %u tokens; expected %llu, %d, %u", w->rank, what, from,
              (unsigned long long)id, got_layer, got_n, (unsigned long long)step, layer, n);
    return ST_FORMAT;
}

static status take_partial(struct worker *w, struct arrival *a, int layer, uint64_t step, uint32_t n)
{
    struct wire_partial *p = &w->stage.partials[a->from];
    w->stage.answers[a->from] = *a;
    status st = wire_partial_decode(a->data, a->size, &w->limits, p);
    if (!st)
        st = check_answer(w, a->from, "partial sum", p->id, p->layer, p->n_tokens, step, layer, n);
    if (!st)
        wire_counts_add(&w->stage.counts, &p->counts);
    return st;
}

static status take_active(struct worker *w, struct arrival *a, int layer, uint64_t step, uint32_t n)
{
    const uint32_t own = (uint32_t)plan_n_neurons(w->o.plan, layer, a->from);
    struct wire_active *v = &w->stage.actives[a->from];
    w->stage.answers[a->from] = *a;
    status st = wire_active_decode(a->data, a->size, &w->limits, own, v);
    if (!st)
        st = check_answer(w, a->from, "activations", v->id, v->layer, v->n_tokens, step, layer, n);
    if (!st)
        wire_counts_add(&w->stage.counts, &v->counts);
    return st;
}

/* An owner's activations into their slots, as the owner itself has them. */
static void place_active(struct worker *w, const struct wire_active *v, const struct down *d)
{
    struct acts *h = &w->activated;
    h->cols = d->set->n_blocks * ACT_BLOCK;
    memset(h->f32, 0, (size_t)(v->n_tokens * h->cols) * sizeof(float));
    for (uint32_t t = 0; t < v->n_tokens; t++)
        for (uint32_t i = v->first[t]; i < v->first[t + 1]; i++)
            h->f32[t * h->cols + d->set->slot[v->index[i]]] = v->value[i];
    if (dtype_is_quantised(d->columns.type) && !d->columns.transposed)
        w->o.kernels->quantize(h, 0, v->n_tokens);
}

/* own += the part of every other owner, whose down projection lies here. */
static void project_active(struct worker *w, int layer, uint32_t n)
{
    struct stage *s = &w->stage;
    const int64_t values = (int64_t)n * w->o.model->hp.d_model;
    for (int r = 0; r < w->n_ranks; r++) {
        const struct down *d = &s->downs[(layer - s->first) * w->n_ranks + r];
        if (!d->set)
            continue;
        place_active(w, &s->actives[r], d);
        down_project(w, d, n, s->other);
        for (int64_t i = 0; i < values; i++)
            s->own[i] += s->other[i];
    }
}

/* What the predictors of a PowerInfer model read: the residual stream as it is. */
static const struct acts *own_residual(struct worker *w, uint32_t n)
{
    if (!w->limits.residual)
        return NULL;
    memcpy(w->residual.f32, w->stage.x, (size_t)(n * w->residual.cols) * sizeof(float));
    w->o.kernels->quantize(&w->residual, 0, n);
    return &w->residual;
}

static void compute_own(struct worker *w, int layer, uint32_t n)
{
    struct stage *s = &w->stage;
    if (!owner_of(w, layer, w->rank)) {
        memset(s->own, 0, (size_t)(n * w->o.model->hp.d_model) * sizeof *s->own);
        return;
    }
    shard_compute(w, layer, &s->in, own_residual(w, n), n, s->own);
    if (w->o.observe)
        w->o.observe(w->o.observe_arg, layer, n, s->in.f32, w->activated.f32);
}

/* The answers are added: their places are the transport's again. */
static status release_answers(struct worker *w, int layer)
{
    status st = ST_OK;
    for (int r = 0; r < w->n_ranks && !st; r++)
        if (r != w->rank && owner_of(w, layer, r))
            st = transport_release(w->o.transport, &w->stage.answers[r]);
    return st;
}

status ffn_block(struct worker *w, int layer, uint64_t step, uint32_t n)
{
    struct stage *s = &w->stage;
    const bool active = plan_down_at_stage(w->o.plan, layer);
    int expected;
    norm_tokens(w, s->layers[layer - s->first].ffn_norm, n, owners_want_q8(w, layer));
    status st = owners_ask(w, layer, step, n, &expected);
    if (st)
        return st;
    compute_own(w, layer, n);
    struct wire_counts counts = take_counts(w);
    wire_counts_add(&s->counts, &counts);
    st = owners_await(w, layer, step, n, expected, active ? WIRE_ACTIVE : WIRE_PARTIAL,
                      active ? take_active : take_partial);
    if (st)
        return st;
    if (active)
        project_active(w, layer, n);
    counts = take_counts(w);
    wire_counts_add(&s->counts, &counts);
    merge_partials(w, layer, n);
    return release_answers(w, layer);
}
