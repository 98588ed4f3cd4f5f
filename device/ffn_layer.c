#include "device/ffn_layer.h"

#include "device/readers.h"

/* ---- memory ---- */

static void lay_decision(const struct laying *to, int layer, struct ffn_layer *s)
{
    struct arena *a = to->arena;
    const int64_t n = s->set.n;
    if (s->decision == DECIDE_MLP) {
        const struct matrix *fc1, *fc2;
        mlp_of(to->o, layer, &fc1, &fc2);
        lay_matrix(a, &s->fc1, fc1, fc1->rows, fc1->cols);
        lay_matrix(a, &s->fc2, fc2, n, fc2->cols);
        s->fc2_threshold = mlp_threshold(to->o, layer);
    } else if (s->decision == DECIDE_ESTIMATE) {
        s->bound = lay_floats(a, n);
    } else if (s->decision == DECIDE_PRODUCT) {
        s->gate_slope = lay_floats(a, n);
        s->gate_offset = lay_floats(a, n);
        s->up_slope = lay_floats(a, n);
        s->up_offset = lay_floats(a, n);
        s->skip = skip_threshold(to->o, layer);
    }
}

/* Lets what the arena has handed out from `begin` on, rows or columns, take as much as the packed form of this matrix:
 * the arena's pieces follow each other. */
static void lay_room(struct arena *a, size_t begin, const struct matrix *m, int64_t rows, int64_t cols)
{
    struct packed p;
    packed_shape(&p, m->type, rows, cols);
    const size_t need = packed_bytes(&p), laid = a->used - begin;
    if (need > laid)
        arena_alloc(a, need - laid);
}

static void lay_gate(const struct laying *to, const struct matrix *gate, struct ffn_layer *s)
{
    const bool planes = s->decision == DECIDE_ESTIMATE || s->decision == DECIDE_PRODUCT;
    if (s->decision == DECIDE_NOT || s->decision == DECIDE_GATE)
        lay_matrix(to->arena, &s->gate, gate, s->set.n, gate->cols);
    else
        lay_rows(to->arena, &s->gate_rows, gate, s->set.n, planes);
}

static void lay_up(const struct laying *to, const struct matrix *up, struct ffn_layer *s)
{
    const size_t begin = to->arena->used;
    if (s->decision == DECIDE_NOT)
        lay_matrix(to->arena, &s->up, up, s->set.n, up->cols);
    else
        lay_rows(to->arena, &s->up_rows, up, s->set.n, s->decision == DECIDE_PRODUCT);
    if (to->changes && s->decision == DECIDE_GATE)
        lay_room(to->arena, begin, up, s->set.n, up->cols);
}

static void lay_down(const struct laying *to, struct ffn_layer *s)
{
    const struct matrix *down = &s->of->down;
    const size_t begin = to->arena->used;
    down_lay(to, s->of, &s->set, s->decision == DECIDE_NOT, &s->down);
    if (to->changes && s->decision == DECIDE_GATE && down_may_pack(&s->down))
        lay_room(to->arena, begin, down, down->rows, s->set.n);
}

void ffn_layer_lay(const struct laying *to, int layer, const struct neuron_list *neurons, bool down,
                   struct ffn_layer *s)
{
    const struct bundle *of = &to->o->model->layers[layer].bundles[neurons->bundle];
    s->of = of;
    s->has_gate = of->gate.data != NULL;
    s->decision = decide(to->o, layer);
    neuron_set_lay(to, &s->set, of, neurons);
    lay_gate(to, s->has_gate ? &of->gate : &of->up, s);
    if (s->has_gate)
        lay_up(to, &of->up, s);
    s->bias = lay_part(to->arena, s->has_gate ? &of->gate_bias : &of->up_bias, s->set.n);
    if (s->has_gate)
        s->up_bias = lay_part(to->arena, &of->up_bias, s->set.n);
    lay_decision(to, layer, s);
    if (down)
        lay_down(to, s);
}

void ffn_layer_free(struct ffn_layer *s) { neuron_set_free(&s->set); }

/* ---- filling ---- */

/* Values of the bundle's neurons in an array of the layer's. */
static const float *in_bundle(const struct ffn_layer *s, const float *of_layer)
{
    return of_layer ? of_layer + s->of->first : NULL;
}

static void load_measured(struct loading *l, struct ffn_layer *s, const struct neuron_layer *from)
{
    const float *weight = in_bundle(s, from->weight);
    load_picked(l, s->bound, &s->set, in_bundle(s, from->bound), 0, NULL);
    load_picked(l, s->gate_slope, &s->set, in_bundle(s, from->gate_slope), 1, NULL);
    load_picked(l, s->gate_offset, &s->set, in_bundle(s, from->gate_offset), 0, NULL);
    load_picked(l, s->up_slope, &s->set, in_bundle(s, from->up_slope), 1, weight);
    load_picked(l, s->up_offset, &s->set, in_bundle(s, from->up_offset), 0, weight);
}

void ffn_layer_load(struct loading *l, int layer, struct ffn_layer *s)
{
    const struct device_options *o = l->o;
    const struct bundle *from = s->of;
    const struct matrix *gate = s->has_gate ? &from->gate : &from->up, *fc1, *fc2;
    neuron_set_load(l, &s->set);
    load_packed(l, &s->gate, gate, 0, 0, s->set.ids);
    load_packed(l, &s->up, &from->up, 0, 0, s->set.ids);
    load_rows(l, &s->gate_rows, gate, s->set.ids);
    load_rows(l, &s->up_rows, &from->up, s->set.ids);
    load_values(l, s->bias, s->has_gate ? &from->gate_bias : &from->up_bias, s->set.ids, s->set.n);
    load_values(l, s->up_bias, &from->up_bias, s->set.ids, s->set.n);
    if (s->decision == DECIDE_MLP) {
        mlp_of(o, layer, &fc1, &fc2);
        load_packed(l, &s->fc1, fc1, 0, 0, NULL);
        load_packed(l, &s->fc2, fc2, from->first, 0, s->set.ids);
    }
    if (o->neurons)
        load_measured(l, s, &o->neurons->layers[layer]);
    down_load(l, &s->down, from);
}

/* ---- counting ---- */

uint64_t ffn_layer_fixed_bytes(const struct ffn_layer *s)
{
    uint64_t bytes = packed_bytes(&s->gate) + packed_bytes(&s->up) + packed_bytes(&s->fc1) + packed_bytes(&s->fc2);
    if (s->gate_rows.planes)
        bytes += (uint64_t)s->set.n * s->gate_rows.top_bytes;
    if (s->up_rows.planes)
        bytes += (uint64_t)s->set.n * s->up_rows.top_bytes;
    return bytes;
}
