#include "device/cpu/ffn_layer.h"

#include "device/cpu/fill.h"
#include "device/cpu/relayout.h"
#include "device/readers.h"

static void lay_rows(struct cpu *c, struct neuron_rows *m, const struct matrix *from, int64_t n, bool planes)
{
    neuron_rows_shape(m, from->type, n, from->cols, planes);
    m->top = arena_alloc(&c->arena, (size_t)n * m->top_bytes);
    m->rest = arena_alloc(&c->arena, (size_t)n * m->rest_bytes);
}

static void lay_decision(struct cpu *c, int layer, struct ffn_layer *s)
{
    const int64_t n = s->set.n;
    if (s->decision == DECIDE_MLP) {
        const struct matrix *fc1, *fc2;
        mlp_of(&c->o, layer, &fc1, &fc2);
        lay_matrix(&c->arena, &s->fc1, fc1, fc1->rows, fc1->cols);
        lay_matrix(&c->arena, &s->fc2, fc2, n, fc2->cols);
        s->fc2_threshold = mlp_threshold(&c->o, layer);
    } else if (s->decision == DECIDE_ESTIMATE) {
        s->bound = lay_floats(&c->arena, n);
    } else if (s->decision == DECIDE_PRODUCT) {
        s->gate_slope = lay_floats(&c->arena, n);
        s->gate_offset = lay_floats(&c->arena, n);
        s->up_slope = lay_floats(&c->arena, n);
        s->up_offset = lay_floats(&c->arena, n);
        s->skip = skip_threshold(&c->o, layer);
    }
}

void ffn_layer_lay(struct cpu *c, int layer, const struct neuron_list *neurons, bool down, struct ffn_layer *s)
{
    const struct layer_weights *f = &c->o.model->layers[layer];
    const struct matrix *gate = f->gate.data ? &f->gate : &f->up;
    s->has_gate = f->gate.data != NULL;
    neuron_set_lay(c, neurons, &s->set);
    const int64_t n = s->set.n;
    s->decision = decide(&c->o, layer);
    const bool planes = s->decision == DECIDE_ESTIMATE || s->decision == DECIDE_PRODUCT;
    if (s->decision == DECIDE_NOT || s->decision == DECIDE_GATE)
        lay_matrix(&c->arena, &s->gate, gate, n, gate->cols);
    else
        lay_rows(c, &s->gate_rows, gate, n, planes);
    if (s->has_gate && s->decision == DECIDE_NOT)
        lay_matrix(&c->arena, &s->up, &f->up, n, f->up.cols);
    const size_t up_begin = c->arena.used;
    if (s->has_gate && s->decision != DECIDE_NOT)
        lay_rows(c, &s->up_rows, &f->up, n, s->decision == DECIDE_PRODUCT);
    if (s->has_gate && s->decision == DECIDE_GATE)
        relayout_reserve(c, up_begin, &f->up, n, f->up.cols);
    if (f->up_bias.data)
        s->bias = lay_floats(&c->arena, n);
    lay_decision(c, layer, s);
    const size_t down_begin = c->arena.used;
    if (down)
        down_lay(c, layer, &s->set, s->decision == DECIDE_NOT, &s->down);
    if (s->decision == DECIDE_GATE && relayout_packs_down(&s->down))
        relayout_reserve(c, down_begin, &f->down, f->down.rows, n);
}

/* ---- filling ---- */

/* `to` NULL: the layer's decision needs none. */
static void pick(const struct neuron_set *set, const float *from, float otherwise, const float *weight, float *to)
{
    if (to)
        neuron_set_pick(set, from, otherwise, weight, to);
}

static void load_measured(struct ffn_layer *s, const struct neuron_layer *from)
{
    pick(&s->set, from->bound, 0, NULL, s->bound);
    pick(&s->set, from->gate_slope, 1, NULL, s->gate_slope);
    pick(&s->set, from->gate_offset, 0, NULL, s->gate_offset);
    pick(&s->set, from->up_slope, 1, from->weight, s->up_slope);
    pick(&s->set, from->up_offset, 0, from->weight, s->up_offset);
}

static void load_bias(struct loading *l, struct ffn_layer *s, const struct matrix *bias)
{
    if (s->bias)
        loading_reads(l, bias, 0, 1);
    for (int64_t i = 0; s->bias && i < s->set.n; i++)
        dequantize_row(bias->type, bias->data + dtype_row_bytes(bias->type, s->set.ids[i]), 1, &s->bias[i]);
}

void ffn_layer_load(struct loading *l, int layer, struct ffn_layer *s)
{
    const struct device_options *o = l->o;
    const struct layer_weights *from = &o->model->layers[layer];
    const struct matrix *gate = s->has_gate ? &from->gate : &from->up, *fc1, *fc2;
    fill_packed(l, &s->gate, gate, s->set.ids);
    fill_packed(l, &s->up, &from->up, s->set.ids);
    fill_rows(l, &s->gate_rows, gate, s->set.ids);
    fill_rows(l, &s->up_rows, &from->up, s->set.ids);
    load_bias(l, s, &from->up_bias);
    if (s->decision == DECIDE_MLP) {
        mlp_of(o, layer, &fc1, &fc2);
        fill_packed(l, &s->fc1, fc1, NULL);
        fill_packed(l, &s->fc2, fc2, s->set.ids);
    }
    if (o->neurons)
        load_measured(s, &o->neurons->layers[layer]);
    down_load(l, &s->down, layer);
}
