#include "device/cuda/ffn_layer.h"

#include <stdlib.h>

#include "base/log.h"
#include "device/readers.h"

static void lay_rows(struct cuda *c, struct neuron_rows *m, const struct matrix *from, int64_t n, bool planes)
{
    neuron_rows_shape(m, from->type, n, from->cols, planes);
    m->top = arena_alloc(&c->arena, (size_t)n * m->top_bytes);
    m->rest = arena_alloc(&c->arena, (size_t)n * m->rest_bytes);
}

static void lay_decision(struct cuda *c, int layer, struct ffn_layer *s)
{
    const int64_t n = s->held.set.n;
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

void cuda_ffn_layer_lay(struct cuda *c, int layer, const struct neuron_list *neurons, bool down, struct ffn_layer *s)
{
    const struct layer_weights *f = &c->o.model->layers[layer];
    const struct matrix *gate = f->gate.data ? &f->gate : &f->up;
    s->has_gate = f->gate.data != NULL;
    cuda_held_lay(c, neurons, &s->held);
    const int64_t n = s->held.set.n;
    s->decision = decide(&c->o, layer);
    const bool planes = s->decision == DECIDE_ESTIMATE || s->decision == DECIDE_PRODUCT;
    if (s->decision == DECIDE_NOT || s->decision == DECIDE_GATE)
        lay_matrix(&c->arena, &s->gate, gate, n, gate->cols);
    else
        lay_rows(c, &s->gate_rows, gate, n, planes);
    if (s->has_gate && s->decision == DECIDE_NOT)
        lay_matrix(&c->arena, &s->up, &f->up, n, f->up.cols);
    else if (s->has_gate)
        lay_rows(c, &s->up_rows, &f->up, n, s->decision == DECIDE_PRODUCT);
    if (f->up_bias.data)
        s->bias = lay_floats(&c->arena, n);
    lay_decision(c, layer, s);
    if (down)
        cuda_down_lay(c, layer, &s->held, s->decision == DECIDE_NOT, &s->down);
}

void cuda_ffn_layer_free(struct ffn_layer *s) { cuda_held_free(&s->held); }

/* ---- filling ---- */

/* Makes [n] floats in the host's memory, which are then copied. */
static float *begin_floats(struct loader *l, const struct ffn_layer *s, const float *to)
{
    float *values = to && !l->failed ? calloc((size_t)s->held.set.n, sizeof *values) : NULL;
    if (to && !l->failed && !values) {
        log_error("out of memory for numbers of neurons, while they are loaded");
        l->failed = ST_NOMEM;
    }
    return values;
}

static void end_floats(struct loader *l, const struct ffn_layer *s, float *to, float *values)
{
    if (values)
        cuda_load_array(l, to, values, (size_t)s->held.set.n * sizeof *values);
    free(values);
}

/* `to` NULL: the layer's decision needs none. */
static void load_picked(struct loader *l, const struct ffn_layer *s, const float *from, float otherwise,
                        const float *weight, float *to)
{
    float *values = begin_floats(l, s, to);
    if (values)
        neuron_set_pick(&s->held.set, from, otherwise, weight, values);
    end_floats(l, s, to, values);
}

static void load_measured(struct loader *l, struct ffn_layer *s, const struct neuron_layer *from)
{
    load_picked(l, s, from->bound, 0, NULL, s->bound);
    load_picked(l, s, from->gate_slope, 1, NULL, s->gate_slope);
    load_picked(l, s, from->gate_offset, 0, NULL, s->gate_offset);
    load_picked(l, s, from->up_slope, 1, from->weight, s->up_slope);
    load_picked(l, s, from->up_offset, 0, from->weight, s->up_offset);
}

static void load_bias(struct loader *l, struct ffn_layer *s, const struct matrix *bias)
{
    float *values = begin_floats(l, s, s->bias);
    if (values)
        loading_reads(&l->loading, bias, 0, 1);
    for (int64_t i = 0; values && i < s->held.set.n; i++)
        dequantize_row(bias->type, bias->data + dtype_row_bytes(bias->type, s->held.set.ids[i]), 1, &values[i]);
    end_floats(l, s, s->bias, values);
}

void cuda_ffn_layer_load(struct loader *l, int layer, struct ffn_layer *s)
{
    const struct device_options *o = &l->c->o;
    const struct layer_weights *from = &o->model->layers[layer];
    const struct matrix *gate = s->has_gate ? &from->gate : &from->up, *fc1, *fc2;
    cuda_held_load(l, &s->held);
    const int32_t *ids = s->held.set.ids;
    cuda_load_packed(l, &s->gate, gate, 0, 0, ids);
    cuda_load_packed(l, &s->up, &from->up, 0, 0, ids);
    cuda_load_rows(l, &s->gate_rows, gate, ids);
    cuda_load_rows(l, &s->up_rows, &from->up, ids);
    load_bias(l, s, &from->up_bias);
    if (s->decision == DECIDE_MLP) {
        mlp_of(o, layer, &fc1, &fc2);
        cuda_load_packed(l, &s->fc1, fc1, 0, 0, NULL);
        cuda_load_packed(l, &s->fc2, fc2, 0, 0, ids);
    }
    if (o->neurons)
        load_measured(l, s, &o->neurons->layers[layer]);
    cuda_down_load(l, &s->down, layer);
}
