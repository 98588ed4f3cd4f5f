/* The tensors of layers with experts: the router, and each expert's gate, up and down, which lie one after the other in
 * tensors of three dimensions; gate and up may lie in one, and in old files every expert has tensors of its own. */
#include "model/experts.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "model/family.h"

int bundles_count(const struct hparams *hp, int layer)
{
    const bool experts = hp->n_experts > 0 && layer >= hp->n_dense_layers;
    return experts ? (int)hp->n_experts + (hp->d_shared > 0) : 1;
}

/* What a table has found, the layer's no more: it is the bundles'. */
static struct bundle take_found(struct layer_weights *w)
{
    const struct bundle found = {.gate = w->gate, .up = w->up, .down = w->down, .gate_bias = w->gate_bias,
                                 .up_bias = w->up_bias};
    w->gate = w->up = w->down = w->gate_bias = w->up_bias = (struct matrix){0};
    return found;
}

static status find_router(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    const struct expert_family *of = hp->family->experts;
    const int64_t d = hp->d_model, n = hp->n_experts;
    const enum presence bias = of->biases ? ALWAYS : NEVER;
    const struct layer_tensor tensors[] = {
        {"ffn_gate_inp.weight", AT(router), ALWAYS, {ROLE_FLOATS, n, d, 0}},
        {"ffn_gate_inp.bias", AT(router_bias), bias, {ROLE_VECTOR, 1, n, 0}},
        {"exp_probs_b.bias", AT(choice_bias), of->choice_bias, {ROLE_VECTOR, 1, n, 0}},
        {"ffn_down_exps.bias", AT(expert_down_bias), bias, {ROLE_FLOATS, n, d, 0}},
    };
    return find_table(f, layer, tensors, sizeof tensors / sizeof *tensors, w);
}

/* ---- one after the other ---- */

/* The file's tensors: gate and up [n_experts * d_expert, d], down [n_experts * d, d_expert], biases [n_experts,
 * d_expert]; where gate and up are one, gate is [n_experts * 2 d_expert, d], of each expert its gates and then its
 * ups. */
static status find_stacked(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    const int64_t d = hp->d_model, n = hp->d_expert, experts = hp->n_experts;
    const enum presence bias = hp->family->experts->biases ? ALWAYS : NEVER;
    const bool fused = layer_tensor(f, layer, "ffn_gate_up_exps.weight");
    const struct layer_tensor tensors[] = {
        {"ffn_gate_up_exps.weight", AT(gate), fused ? ALWAYS : NEVER, {ROLE_MATRIX, 2 * n, d, experts}},
        {"ffn_gate_exps.weight", AT(gate), fused ? NEVER : ALWAYS, {ROLE_MATRIX, n, d, experts}},
        {"ffn_up_exps.weight", AT(up), fused ? NEVER : ALWAYS, {ROLE_MATRIX, n, d, experts}},
        {"ffn_down_exps.weight", AT(down), ALWAYS, {ROLE_MATRIX, d, n, experts}},
        {"ffn_gate_exps.bias", AT(gate_bias), bias, {ROLE_FLOATS, experts, n, 0}},
        {"ffn_up_exps.bias", AT(up_bias), bias, {ROLE_FLOATS, experts, n, 0}},
    };
    return find_table(f, layer, tensors, sizeof tensors / sizeof *tensors, w);
}

static struct bundle expert_of(const struct hparams *hp, const struct bundle *all, int64_t i)
{
    const int64_t n = hp->d_expert, d = hp->d_model;
    struct bundle b = {.gate = rows_of(&all->gate, i * n, (i + 1) * n), .up = rows_of(&all->up, i * n, (i + 1) * n),
                       .down = rows_of(&all->down, i * d, (i + 1) * d),
                       .gate_bias = rows_of(&all->gate_bias, i, i + 1), .up_bias = rows_of(&all->up_bias, i, i + 1)};
    if (!all->up.data) {
        b.gate = rows_of(&all->gate, 2 * i * n, (2 * i + 1) * n);
        b.up = rows_of(&all->gate, (2 * i + 1) * n, (2 * i + 2) * n);
    }
    return b;
}

/* ---- each by itself ---- */

static status find_single(struct finder *f, const struct hparams *hp, int layer, int64_t i, struct layer_weights *w)
{
    const int64_t d = hp->d_model, n = hp->d_expert;
    char name[3][TENSOR_NAME];
    static const char *const what[] = {"gate", "up", "down"};
    for (int k = 0; k < 3; k++)
        snprintf(name[k], sizeof *name, "ffn_%s.%" PRId64 ".weight", what[k], i);
    const struct layer_tensor tensors[] = {
        {name[0], AT(gate), ALWAYS, {ROLE_MATRIX, n, d, 0}},
        {name[1], AT(up), ALWAYS, {ROLE_MATRIX, n, d, 0}},
        {name[2], AT(down), ALWAYS, {ROLE_MATRIX, d, n, 0}},
    };
    return find_table(f, layer, tensors, sizeof tensors / sizeof *tensors, w);
}

/* Whoever prepares what an expert reads does it for all at once. */
static status check_type(const struct finder *f, const struct matrix *m, const struct matrix *first)
{
    if (m->type == first->type)
        return ST_OK;
    log_error("%s: tensor %s: expected type %s as of the layer's other experts, found %s", gguf_path(f->g), m->name,
              dtype_name(first->type), dtype_name(m->type));
    return ST_UNSUPPORTED;
}

static status check_types(const struct finder *f, const struct bundle *b, const struct bundle *first)
{
    status s = check_type(f, &b->gate, &first->gate);
    if (s == ST_OK)
        s = check_type(f, &b->up, &first->up);
    return s == ST_OK ? check_type(f, &b->down, &first->down) : s;
}

/* ---- the whole ---- */

static status find_routed(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    const bool single = layer_tensor(f, layer, "ffn_gate.0.weight");
    status s = single ? ST_OK : find_stacked(f, hp, layer, w);
    const struct bundle all = take_found(w);
    for (int64_t i = 0; s == ST_OK && i < hp->n_experts; i++) {
        struct bundle *b = &w->bundles[i];
        if (single) {
            s = find_single(f, hp, layer, i, w);
            *b = take_found(w);
            s = s == ST_OK ? check_types(f, b, w->bundles) : s;
        } else {
            *b = expert_of(hp, &all, i);
        }
        b->first = i * hp->d_expert;
        b->n = hp->d_expert;
        b->routed = true;
    }
    return s;
}

/* Neurons that all tokens share are the last bundle. */
static status find_shared(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    const int64_t d = hp->d_model, n = hp->d_shared;
    const struct layer_tensor tensors[] = {
        {"ffn_gate_shexp.weight", AT(gate), ALWAYS, {ROLE_MATRIX, n, d, 0}},
        {"ffn_up_shexp.weight", AT(up), ALWAYS, {ROLE_MATRIX, n, d, 0}},
        {"ffn_down_shexp.weight", AT(down), ALWAYS, {ROLE_MATRIX, d, n, 0}},
        {"ffn_gate_inp_shexp.weight", AT(shared_router), hp->shared_routed ? ALWAYS : NEVER, {ROLE_VECTOR, 1, d, 0}},
    };
    if (n == 0)
        return ST_OK;
    status s = find_table(f, layer, tensors, sizeof tensors / sizeof *tensors, w);
    struct bundle *b = &w->bundles[hp->n_experts];
    *b = take_found(w);
    b->first = hp->n_experts * hp->d_expert;
    b->n = n;
    return s;
}

status find_experts(struct finder *f, const struct hparams *hp, int layer, struct layer_weights *w)
{
    status s = find_router(f, hp, layer, w);
    if (s == ST_OK)
        s = find_routed(f, hp, layer, w);
    return s == ST_OK ? find_shared(f, hp, layer, w) : s;
}

int64_t model_layer_neurons(const struct model *m, int layer)
{
    const struct layer_weights *w = &m->layers[layer];
    const struct bundle *last = &w->bundles[w->n_bundles - 1];
    return last->first + last->n;
}
