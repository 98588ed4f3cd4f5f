/* The neurons of a layer: bundles, and units within them. */
#include "placement/plan.h"

#include <string.h>

struct plan_shape plan_model_shape(const struct plan_model *m, int layer)
{
    struct plan_shape s = m->layer;
    if (layer < m->n_dense_layers) {
        s.d_ff = m->d_dense;
        s.n_experts = s.n_experts_used = s.d_shared = 0;
    }
    if (layer < PLAN_MAX_LAYERS && m->is_net[layer]) {
        s.n_kv_heads = m->key_heads;
        s.head_unit = m->key_head_unit;
    }
    return s;
}

int64_t plan_shape_neurons(const struct plan_shape *s)
{
    return s->n_experts ? s->n_experts * s->d_ff + s->d_shared : s->d_ff;
}

int plan_n_bundles(const struct plan_shape *s)
{
    return s->n_experts ? (int)s->n_experts + (s->d_shared > 0) : 1;
}

struct neuron_range plan_bundle(const struct plan_shape *s, int i)
{
    const int64_t begin = i * s->d_ff, end = s->n_experts && i == s->n_experts ? begin + s->d_shared : begin + s->d_ff;
    return (struct neuron_range){(int32_t)begin, (int32_t)end};
}

int plan_bundle_of(const struct plan_shape *s, int32_t neuron)
{
    const int64_t i = neuron / s->d_ff, last = s->n_experts; /* what is shared may be wider than an expert */
    return (int)(i < last ? i : last);
}

int32_t plan_unit_end(const struct plan_shape *s, int32_t neuron)
{
    const struct neuron_range b = plan_bundle(s, plan_bundle_of(s, neuron));
    const int64_t unit = s->neuron_unit ? s->neuron_unit : b.end - b.begin;
    const int64_t end = b.begin + ((neuron - b.begin) / unit + 1) * unit;
    return end < b.end ? (int32_t)end : b.end;
}

bool plan_on_unit(const struct plan_shape *s, int32_t neuron, int64_t unit)
{
    return (neuron - plan_bundle(s, plan_bundle_of(s, neuron)).begin) % unit == 0;
}
