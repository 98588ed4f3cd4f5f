/* Who reads what, and in which form. Whoever makes an activation, sends it or takes it asks here, and nobody else
 * decides: a reader that one of them did not think of would find the codes of some other token. */
#include "worker/internal.h"

static void add_type(struct readers *r, enum dtype type)
{
    if (dtype_is_quantised(type))
        r->q8 = true;
    else
        r->f32 = true;
}

/* A matrix that the model may not have. */
static void add_matrix(struct readers *r, const struct matrix *m)
{
    if (m->data)
        add_type(r, m->type);
}

struct readers readers_of(const struct worker *w, enum operand what, int layer)
{
    const struct layer_weights *f = &w->o.model->layers[layer];
    const struct shard *s = &w->shards[layer]; /* laid out for every layer on every rank, also one without neurons */
    const bool residual_predicts = w->limits.residual, predicts = s->decision == DECIDE_MLP;
    struct readers r = {false, false};
    switch (what) {
    case X_OF_ATTENTION:
        add_matrix(&r, &f->q);
        add_matrix(&r, &f->k);
        add_matrix(&r, &f->v);
        break;
    case X_OF_FFN: /* estimates read what the rows read that they are a part of */
        add_matrix(&r, &f->gate);
        add_matrix(&r, &f->up);
        if (predicts && !residual_predicts)
            add_type(&r, s->fc1.type);
        break;
    case X_OF_OUTPUT: add_matrix(&r, &w->o.model->output); break;
    case RESIDUAL:
        if (predicts && residual_predicts)
            add_type(&r, s->fc1.type);
        break;
    case MIXED: add_matrix(&r, &f->o); break;
    case HIDDEN: add_type(&r, s->fc2.type); break;
    case ACTIVATED:
        add_matrix(&r, &f->down);
        if (f->down_t.data) /* its rows are scaled by what the neurons are */
            r.f32 = true;
        break;
    }
    return r;
}

enum operand x_of(enum wire_part part)
{
    return part == PART_ATTENTION ? X_OF_ATTENTION : part == PART_FFN ? X_OF_FFN : X_OF_OUTPUT;
}
