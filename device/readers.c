#include "device/readers.h"

#include "kernels/kernels.h"

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

void mlp_of(const struct device_options *o, int layer, const struct matrix **fc1, const struct matrix **fc2)
{
    const bool measured = neurons_mlp_holds(o->model, o->neurons);
    *fc1 = measured ? &o->neurons->layers[layer].fc1 : &o->model->layers[layer].fc1;
    *fc2 = measured ? &o->neurons->layers[layer].fc2 : &o->model->layers[layer].fc2;
}

static bool mlp_predicts(const struct device_options *o)
{
    return o->sparse == SPARSE_PREDICTED && o->predictor == PREDICTOR_MLP;
}

bool device_reads_residual(const struct device_options *o)
{
    return mlp_predicts(o) && !neurons_mlp_holds(o->model, o->neurons);
}

struct readers readers_of(const struct device_options *o, enum operand what, int layer)
{
    const struct layer_weights *f = &o->model->layers[layer];
    const bool residual = device_reads_residual(o), predicts = mlp_predicts(o);
    const struct matrix *fc1 = NULL, *fc2 = NULL;
    const struct bundle *const ends[] = {f->bundles, &f->bundles[f->n_bundles - 1]}; /* experts have the same types */
    struct readers r = {false, false};
    if (predicts)
        mlp_of(o, layer, &fc1, &fc2);
    switch (what) {
    case X_OF_ATTENTION:
        add_matrix(&r, f->q_low.data ? &f->q_low : &f->q);
        add_matrix(&r, &f->k);
        add_matrix(&r, &f->v);
        add_matrix(&r, &f->qkv);
        add_matrix(&r, &f->z);
        add_matrix(&r, &f->beta);
        add_matrix(&r, &f->alpha);
        add_matrix(&r, &f->beta_alpha);
        break;
    case X_OF_FFN: /* estimates read what the rows read that they are a part of */
        for (int i = 0; i < 2; i++) {
            add_matrix(&r, &ends[i]->gate);
            add_matrix(&r, &ends[i]->up);
        }
        if (predicts && !residual)
            add_type(&r, fc1->type);
        break;
    case X_OF_OUTPUT: add_matrix(&r, &o->model->output); break;
    case RESIDUAL:
        if (residual)
            add_type(&r, fc1->type);
        break;
    case MIXED: add_matrix(&r, &f->o); break;
    case HIDDEN:
        if (predicts)
            add_type(&r, fc2->type);
        break;
    case ACTIVATED:
        for (int i = 0; i < 2; i++)
            add_matrix(&r, &ends[i]->down);
        if (f->down_t.data) /* its rows are scaled by what the neurons are */
            r.f32 = true;
        break;
    }
    return r;
}

enum operand x_of(enum device_part part)
{
    return part == DEVICE_ATTENTION ? X_OF_ATTENTION : part == DEVICE_FFN ? X_OF_FFN : X_OF_OUTPUT;
}

bool device_reads_floats(const struct device_options *o, enum device_part part, int layer)
{
    return readers_of(o, x_of(part), layer).f32;
}

struct device_shape device_shape(const struct model *m)
{
    return (struct device_shape){.model = m, .n_layers = m->hp.n_layers, .d_model = m->hp.d_model,
                                 .n_vocab = m->hp.n_vocab, .n_experts = m->hp.n_experts,
                                 .n_experts_used = m->hp.n_experts_used,
                                 .n_weights = model_route_weights(&m->hp),
                                 .n_dense_layers = m->hp.n_dense_layers};
}

int64_t device_heads(const struct device_shape *s, int layer) { return model_heads(&s->model->hp, layer); }

uint32_t device_states(const struct model *m, uint32_t n_sequences)
{
    return m->hp.delta.key_heads ? 2 * n_sequences : 0;
}
