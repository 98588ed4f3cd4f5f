/* How the neurons of a model with experts lie in the neuron file, and how often its experts are chosen. */
#include "sparsity/neurons.h"

#include <math.h>
#include <string.h>

int64_t neurons_experts(const struct neurons *n, int layer)
{
    return layer < n->experts.dense_layers ? 0 : n->experts.n;
}

int64_t neurons_of_layer(const struct neurons *n, int layer)
{
    if (!n->experts.n)
        return n->d_ff;
    return layer < n->experts.dense_layers ? n->experts.dense : n->experts.n * n->experts.width + n->experts.shared;
}

int64_t neurons_expert_of(const struct neurons *n, int layer, int64_t neuron)
{
    const int64_t experts = neurons_experts(n, layer), expert = experts ? neuron / n->experts.width : 0;
    return expert < experts ? expert : -1;
}

void neurons_shape_of(const struct model *m, struct neurons *out)
{
    const struct hparams *hp = &m->hp;
    out->n_layers = hp->n_layers;
    out->d_model = hp->d_model;
    out->d_ff = hp->d_ff;
    memset(&out->experts, 0, sizeof out->experts);
    if (!hp->n_experts)
        return;
    out->experts.n = hp->n_experts;
    out->experts.used = hp->n_experts_used;
    out->experts.width = hp->d_expert;
    out->experts.shared = hp->d_shared;
    out->experts.dense_layers = hp->n_dense_layers;
    out->experts.dense = hp->n_dense_layers ? hp->d_dense : 0;
}

float neurons_looked_at(const struct neurons *n, int layer, int64_t neuron)
{
    const int64_t expert = neurons_expert_of(n, layer, neuron);
    return expert < 0 ? 1 : n->layers[layer].chosen[expert];
}

uint64_t neurons_expert_tokens(const struct neurons *n, int layer, int64_t expert)
{
    return (uint64_t)llround((double)n->layers[layer].chosen[expert] * (double)n->n_tokens);
}

double neurons_expert_live(const struct neurons *n, int layer, int64_t expert)
{
    const struct neuron_layer *l = &n->layers[layer];
    const double chosen = (double)l->chosen[expert];
    double fired = 0;
    for (int64_t j = expert * n->experts.width; j < (expert + 1) * n->experts.width; j++)
        fired += (double)l->fired[j];
    return chosen > 0 ? fired / chosen / (double)n->experts.width : 0;
}

struct expert_use neurons_expert_use(const struct neurons *n, int layer)
{
    struct expert_use use = {0};
    for (int64_t e = 0; e < neurons_experts(n, layer); e++) {
        const uint64_t tokens = neurons_expert_tokens(n, layer, e);
        use.most = e == 0 || tokens > use.most ? tokens : use.most;
        use.least = e == 0 || tokens < use.least ? tokens : use.least;
        use.rare += tokens < EXPERT_RARE;
    }
    return use;
}
