/* Down projections that lie on the stage: their owners answer with live activations, which are projected here. */
#include <string.h>

#include "base/log.h"
#include "worker/internal.h"

/* An owner's activations into their slots, as the owner itself has them. */
static void place_active(struct worker *w, int layer, const struct wire_active *v, const struct down *d)
{
    struct acts *h = &w->activated;
    h->cols = d->set->n_blocks * ACT_BLOCK;
    memset(h->f32, 0, (size_t)(v->n_tokens * h->cols) * sizeof(float));
    for (uint32_t t = 0; t < v->n_tokens; t++)
        for (uint32_t i = v->first[t]; i < v->first[t + 1]; i++)
            h->f32[t * h->cols + d->set->slot[v->index[i]]] = v->value[i];
    if (readers_of(w, ACTIVATED, layer).q8)
        w->o.kernels->quantize(h, 0, v->n_tokens);
}

status take_active(struct worker *w, struct arrival *a, const struct task *t)
{
    struct stage *s = &w->stage;
    const struct down *d = &s->downs[(t->layer - s->first) * w->n_ranks + a->from];
    struct wire_active v;
    log_sender(a->from);
    status st = wire_active_decode(a->data, a->size, &w->limits, (uint32_t)d->set->n, s->pairs, &v);
    log_sender(-1);
    if (st)
        return st;
    const struct task found = {.part = PART_FFN, .layer = (int)v.layer, .step = v.id, .n = v.n_tokens};
    st = check_answer(a->from, "activations", &found, t);
    if (st)
        return st;
    count_answer(w, &v.counts, v.busy_ns);
    place_active(w, t->layer, &v, d);
    down_project(w, d, t->n, s->other);
    for (int64_t i = 0; i < (int64_t)t->n * w->limits.d_model; i++)
        s->own[i] += s->other[i];
    return transport_release(w->o.transport, a);
}
