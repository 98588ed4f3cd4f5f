/* This rank's neurons: which they are, where their arrays lie, and filling those from the file. */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "worker/internal.h"

static int32_t *integers(struct worker *w, int64_t n) { return arena_alloc(&w->arena, (size_t)n * sizeof(int32_t)); }

/* Whether the set is one range of whole units, so that its down projection can be packed as a slice of columns. */
static bool is_whole(const struct worker *w, const struct neuron_range *ranges, int n_ranges)
{
    const int64_t unit = model_neuron_unit(w->o.model), d_ff = w->o.model->hp.d_ff;
    return n_ranges == 1 && ranges->begin % unit == 0 && (ranges->end % unit == 0 || ranges->end == d_ff);
}

static int64_t count_blocks(const struct neuron_range *ranges, int n_ranges)
{
    int64_t n = 0, last = -1;
    for (int i = 0; i < n_ranges; i++) {
        for (int64_t b = ranges[i].begin / ACT_BLOCK; b * ACT_BLOCK < ranges[i].end; b++) {
            n += b != last;
            last = b;
        }
    }
    return n;
}

static void fill_set(struct neuron_set *s, const struct neuron_range *ranges, int n_ranges)
{
    int64_t own = 0, blocks = 0;
    for (int i = 0; i < n_ranges; i++) {
        for (int32_t id = ranges[i].begin; id < ranges[i].end; id++, own++) {
            const int32_t block = id / ACT_BLOCK;
            if (blocks == 0 || s->block[blocks - 1] != block) {
                memset(s->column + blocks * ACT_BLOCK, 0xff, ACT_BLOCK * sizeof *s->column);
                s->block[blocks++] = block;
            }
            s->ids[own] = id;
            s->slot[own] = (int32_t)((blocks - 1) * ACT_BLOCK + id % ACT_BLOCK);
            s->column[s->slot[own]] = (int32_t)own;
        }
    }
}

/* The neurons of a layer that `rank` holds. */
static void lay_set(struct worker *w, int layer, int rank, struct neuron_set *s)
{
    const struct neuron_range *ranges;
    const int n_ranges = plan_neurons(w->o.plan, layer, rank, &ranges);
    s->n = plan_n_neurons(w->o.plan, layer, rank);
    s->n_blocks = count_blocks(ranges, n_ranges);
    s->whole = is_whole(w, ranges, n_ranges);
    s->ids = integers(w, s->n);
    s->slot = integers(w, s->n);
    s->block = integers(w, s->n_blocks);
    s->column = integers(w, s->n_blocks * ACT_BLOCK);
    if (s->column)
        fill_set(s, ranges, n_ranges);
}

static void lay_down(struct worker *w, int layer, const struct neuron_set *set, bool dense, struct down *d)
{
    const struct layer_weights *f = &w->o.model->layers[layer];
    const bool transposed = f->down_t.data != NULL;
    const struct matrix *from = transposed ? &f->down_t : &f->down;
    *d = (struct down){.set = set, .by_column = !dense || !set->whole || transposed};
    if (!d->by_column) {
        lay_matrix(w, &d->matrix, from, from->rows, set->n);
        return;
    }
    struct neuron_columns *c = &d->columns;
    neuron_columns_shape(c, from->type, transposed, w->o.model->hp.d_model, set->n, set->n_blocks);
    c->block = set->block;
    c->column = set->column;
    c->codes = arena_alloc(&w->arena, neuron_columns_code_bytes(c));
    c->scales = arena_alloc(&w->arena, neuron_columns_scale_bytes(c));
}

static void lay_rows(struct worker *w, struct neuron_rows *m, const struct matrix *from, int64_t n, bool planes)
{
    neuron_rows_shape(m, from->type, n, from->cols, planes);
    m->top = arena_alloc(&w->arena, (size_t)n * m->top_bytes);
    m->rest = arena_alloc(&w->arena, (size_t)n * m->rest_bytes);
}

/* What the neuron file says of a layer; NULL: there is none. */
static const struct neuron_layer *measured(const struct worker *w, int layer)
{
    return w->o.neurons ? &w->o.neurons->layers[layer] : NULL;
}

static enum decision decide(const struct worker *w, int layer)
{
    const struct neuron_layer *n = measured(w, layer);
    switch (w->o.sparse) {
    case SPARSE_EXACT: return n && n->live > DENSE_FROM ? DECIDE_NOT : DECIDE_GATE;
    case SPARSE_PREDICTED: return w->o.predictor == PREDICTOR_MLP ? DECIDE_MLP : DECIDE_ESTIMATE;
    case SPARSE_THRESHOLD: return DECIDE_PRODUCT;
    default: return DECIDE_NOT;
    }
}

/* The threshold at which the wanted share of neurons is skipped. */
static float skip_threshold(const struct worker *w, int layer)
{
    const float share = w->o.skip_share > 0 ? w->o.skip_share : w->o.neurons->skip_share;
    int step = (int)lroundf(share * 10) - 1;
    step = step < 0 ? 0 : step >= SKIP_STEPS ? SKIP_STEPS - 1 : step;
    return w->o.neurons->layers[layer].skip[step];
}

/* The predictor's matrices: the neuron file's, else the model's own in a PowerInfer file. */
static void mlp_of(const struct worker_options *o, int layer, const struct matrix **fc1, const struct matrix **fc2)
{
    const bool measured_mlp = neurons_mlp_holds(o->model, o->neurons);
    *fc1 = measured_mlp ? &o->neurons->layers[layer].fc1 : &o->model->layers[layer].fc1;
    *fc2 = measured_mlp ? &o->neurons->layers[layer].fc2 : &o->model->layers[layer].fc2;
}

bool mlp_reads_residual(const struct worker_options *o)
{
    return o->sparse == SPARSE_PREDICTED && o->predictor == PREDICTOR_MLP && !neurons_mlp_holds(o->model, o->neurons);
}

static void lay_decision(struct worker *w, int layer, struct shard *s)
{
    const int64_t n = s->set.n;
    if (s->decision == DECIDE_MLP) {
        const struct matrix *fc1, *fc2;
        mlp_of(&w->o, layer, &fc1, &fc2);
        lay_matrix(w, &s->fc1, fc1, fc1->rows, fc1->cols);
        lay_matrix(w, &s->fc2, fc2, n, fc2->cols);
        s->fc2_threshold = mlp_reads_residual(&w->o) ? w->o.model->hp.sparse_threshold : measured(w, layer)->mlp_threshold;
    } else if (s->decision == DECIDE_ESTIMATE) {
        s->bound = lay_floats(w, n);
    } else if (s->decision == DECIDE_PRODUCT) {
        s->gate_slope = lay_floats(w, n);
        s->gate_offset = lay_floats(w, n);
        s->up_slope = lay_floats(w, n);
        s->up_offset = lay_floats(w, n);
        s->skip = skip_threshold(w, layer);
    }
}

static void lay_shard(struct worker *w, int layer, struct shard *s)
{
    const struct layer_weights *f = &w->o.model->layers[layer];
    const struct matrix *gate = f->gate.data ? &f->gate : &f->up;
    s->has_gate = f->gate.data != NULL;
    lay_set(w, layer, w->rank, &s->set);
    const int64_t n = s->set.n;
    s->decision = decide(w, layer);
    const bool planes = s->decision == DECIDE_ESTIMATE || s->decision == DECIDE_PRODUCT;
    if (s->decision == DECIDE_NOT || s->decision == DECIDE_GATE)
        lay_matrix(w, &s->gate, gate, n, gate->cols);
    else
        lay_rows(w, &s->gate_rows, gate, n, planes);
    if (s->has_gate && s->decision == DECIDE_NOT)
        lay_matrix(w, &s->up, &f->up, n, f->up.cols);
    const size_t up_begin = w->arena.used;
    if (s->has_gate && s->decision != DECIDE_NOT)
        lay_rows(w, &s->up_rows, &f->up, n, s->decision == DECIDE_PRODUCT);
    if (s->has_gate && s->decision == DECIDE_GATE)
        relay_reserve(w, up_begin, &f->up, n, f->up.cols);
    if (f->up_bias.data)
        s->bias = lay_floats(w, n);
    lay_decision(w, layer, s);
    const size_t down_begin = w->arena.used;
    if (!plan_down_at_stage(w->o.plan, layer) || w->o.plan->layers[layer].stage == w->rank)
        lay_down(w, layer, &s->set, s->decision == DECIDE_NOT, &s->down);
    if (s->decision == DECIDE_GATE && relay_packs_down(&s->down))
        relay_reserve(w, down_begin, &f->down, f->down.rows, n);
}

/* The down projections that lie on this stage for their owners. */
static void lay_stage_downs(struct worker *w, int layer)
{
    const int i = layer - w->stage.first;
    for (int r = 0; r < w->n_ranks; r++) {
        struct neuron_set *set = &w->stage.sets[i * w->n_ranks + r];
        if (r == w->rank || !plan_down_at_stage(w->o.plan, layer) || !owner_of(w, PART_FFN, layer, r))
            continue;
        lay_set(w, layer, r, set);
        lay_down(w, layer, set, false, &w->stage.downs[i * w->n_ranks + r]);
    }
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

struct widths worker_lay_shards(struct worker *w)
{
    struct widths widest = {0};
    for (int i = 0; i < w->o.model->hp.n_layers; i++) {
        struct shard *s = &w->shards[i];
        lay_shard(w, i, s);
        widest.neurons = larger(widest.neurons, s->set.n);
        widest.slots = larger(widest.slots, s->set.n_blocks * ACT_BLOCK);
        widest.hidden = larger(widest.hidden, s->fc1.rows);
        widest.sparse |= s->decision != DECIDE_NOT && s->set.n;
        widest.aside = relay_aside(s) > widest.aside ? relay_aside(s) : widest.aside;
        if (i < w->stage.first || i >= w->stage.last)
            continue;
        lay_stage_downs(w, i);
        for (int r = 0; r < w->n_ranks; r++)
            widest.slots = larger(widest.slots, w->stage.sets[(i - w->stage.first) * w->n_ranks + r].n_blocks * ACT_BLOCK);
    }
    return widest;
}

/* ---- filling ---- */

struct filling {
    const struct matrix *from;
    const int32_t *ids;
    struct packed *packed;
    struct neuron_rows *rows;
    struct neuron_columns *columns;
};

static void fill_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct filling *f = arg;
    const size_t stride = dtype_row_bytes(f->from->type, f->from->cols);
    (void)thread;
    if (f->packed)
        packed_fill(f->packed, begin, end, f->from->data, stride, f->ids);
    else if (f->rows)
        neuron_rows_fill(f->rows, begin, end, f->from->data, stride, f->ids);
    else {
        const int64_t last = end * COLUMN_TILE;
        neuron_columns_fill(f->columns, begin * COLUMN_TILE, last < f->columns->rows ? last : f->columns->rows,
                            f->from->data, stride);
    }
}

/* The rows of n neurons (ids NULL: the first n), and what lies between them. */
static void reads_neurons(struct loading *l, const struct matrix *from, const int32_t *ids, int64_t n)
{
    const int64_t first = ids ? ids[0] : 0, last = ids ? ids[n - 1] : n - 1;
    loading_reads(l, from, first, last + 1 - first);
}

void load_packed(struct loading *l, struct packed *to, const struct matrix *from, const int32_t *ids)
{
    struct filling f = {.from = from, .ids = ids, .packed = to};
    if (!to->groups)
        return;
    reads_neurons(l, from, ids, to->rows);
    pool_for(l->w->pool, to->groups, 16, fill_piece, &f);
    loading_done(l, packed_bytes(to));
}

static void load_rows(struct loading *l, struct neuron_rows *to, const struct matrix *from, const int32_t *ids)
{
    struct filling f = {.from = from, .ids = ids, .rows = to};
    if (!to->rows)
        return;
    reads_neurons(l, from, ids, to->rows);
    pool_for(l->w->pool, to->rows, 64, fill_piece, &f);
    loading_done(l, (uint64_t)to->rows * (to->top_bytes + to->rest_bytes));
}

static void load_down(struct loading *l, struct down *d, int layer)
{
    const struct layer_weights *from = &l->w->o.model->layers[layer];
    if (!d->set || !d->set->n)
        return;
    if (!d->by_column) {
        load_slice(l, &d->matrix, &from->down, 0, d->set->ids[0]);
        return;
    }
    struct filling f = {.from = d->columns.transposed ? &from->down_t : &from->down, .columns = &d->columns};
    if (d->columns.transposed)
        reads_neurons(l, f.from, d->set->ids, d->set->n);
    else
        loading_reads(l, f.from, 0, f.from->rows);
    pool_for(l->w->pool, (d->columns.rows + COLUMN_TILE - 1) / COLUMN_TILE, 1, fill_piece, &f);
    loading_done(l, neuron_columns_code_bytes(&d->columns) + neuron_columns_scale_bytes(&d->columns));
}

/* to[i] = from[ids[i]] */
static void pick_floats(float *to, const float *from, const struct neuron_set *set)
{
    for (int64_t i = 0; to && i < set->n; i++)
        to[i] = from[set->ids[i]];
}

/* to[i] = from[ids[i]] * weight[ids[i]]; from NULL: `otherwise` instead, weight NULL: 1. */
static void pick_scaled(float *to, const float *from, float otherwise, const float *weight, const struct neuron_set *set)
{
    for (int64_t i = 0; to && i < set->n; i++)
        to[i] = (from ? from[set->ids[i]] : otherwise) * (weight ? weight[set->ids[i]] : 1);
}

static void load_measured(struct shard *s, const struct neuron_layer *from)
{
    pick_floats(s->bound, from->bound, &s->set);
    pick_scaled(s->gate_slope, from->gate_slope, 1, NULL, &s->set);
    pick_scaled(s->gate_offset, from->gate_offset, 0, NULL, &s->set);
    pick_scaled(s->up_slope, from->up_slope, 1, from->weight, &s->set);
    pick_scaled(s->up_offset, from->up_offset, 0, from->weight, &s->set);
}

static void load_bias(struct loading *l, struct shard *s, const struct matrix *bias)
{
    if (s->bias)
        loading_reads(l, bias, 0, 1);
    for (int64_t i = 0; s->bias && i < s->set.n; i++)
        dequantize_row(bias->type, bias->data + dtype_row_bytes(bias->type, s->set.ids[i]), 1, &s->bias[i]);
}

void load_shard(struct loading *l, int layer)
{
    struct worker *w = l->w;
    struct shard *s = &w->shards[layer];
    const struct layer_weights *from = &w->o.model->layers[layer];
    const struct matrix *gate = s->has_gate ? &from->gate : &from->up, *fc1, *fc2;
    load_packed(l, &s->gate, gate, s->set.ids);
    load_packed(l, &s->up, &from->up, s->set.ids);
    load_rows(l, &s->gate_rows, gate, s->set.ids);
    load_rows(l, &s->up_rows, &from->up, s->set.ids);
    load_bias(l, s, &from->up_bias);
    if (s->decision == DECIDE_MLP) {
        mlp_of(&w->o, layer, &fc1, &fc2);
        load_packed(l, &s->fc1, fc1, NULL);
        load_packed(l, &s->fc2, fc2, s->set.ids);
    }
    if (w->o.neurons)
        load_measured(s, &w->o.neurons->layers[layer]);
    load_down(l, &s->down, layer);
    if (layer < w->stage.first || layer >= w->stage.last)
        return;
    const int i = layer - w->stage.first;
    for (int r = 0; r < w->n_ranks; r++)
        load_down(l, &w->stage.downs[i * w->n_ranks + r], layer);
}
