/* The tensors of layers with experts: the router, and each expert's gate, up and down, which lie one after the other in
 * tensors of three dimensions. */
#include "model/weights.h"

int bundles_count(const struct hparams *hp, int layer)
{
    const bool experts = hp->n_experts > 0 && layer >= hp->n_dense_layers;
    return experts ? (int)hp->n_experts + (hp->d_shared > 0) : 1;
}

/* The file's tensors as they lie there. */
struct stacked {
    struct matrix gate, up, down; /* [n_experts * d_expert, d] twice, [n_experts * d, d_expert] */
};

static status find_stacked(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w,
                           struct stacked *out)
{
    const int64_t d = hp->d_model, n = hp->d_expert, experts = hp->n_experts;
    const struct layer_tensor tensors[] = {
        {"ffn_gate_inp.weight", AT(router), ALWAYS, {ROLE_MATRIX, experts, d, 0}},
        {"ffn_gate_exps.weight", AT(gate), ALWAYS, {ROLE_MATRIX, n, d, experts}},
        {"ffn_up_exps.weight", AT(up), ALWAYS, {ROLE_MATRIX, n, d, experts}},
        {"ffn_down_exps.weight", AT(down), ALWAYS, {ROLE_MATRIX, d, n, experts}},
    };
    status s = find_table(f, layer, tensors, sizeof tensors / sizeof *tensors, w);
    *out = (struct stacked){w->gate, w->up, w->down};
    w->gate = w->up = w->down = (struct matrix){0}; /* they are the bundles' */
    return s;
}

static struct bundle expert_of(const struct hparams *hp, const struct stacked *s, int64_t i)
{
    const int64_t n = hp->d_expert, d = hp->d_model;
    return (struct bundle){.first = i * n, .n = n, .routed = true, .gate = rows_of(&s->gate, i * n, (i + 1) * n),
                           .up = rows_of(&s->up, i * n, (i + 1) * n), .down = rows_of(&s->down, i * d, (i + 1) * d)};
}

status find_experts(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    struct stacked all;
    status s = find_stacked(f, hp, layer, w, &all);
    for (int64_t i = 0; s == ST_OK && i < hp->n_experts; i++)
        w->bundles[i] = expert_of(hp, &all, i);
    return s;
}

int64_t model_layer_neurons(const struct model *m, int layer)
{
    const struct layer_weights *w = &m->layers[layer];
    const struct bundle *last = &w->bundles[w->n_bundles - 1];
    return last->first + last->n;
}
