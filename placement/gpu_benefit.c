#include "placement/gpu_benefit.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/parts.h"

/* Heads, neurons or rows of a layer that the rank has. */
struct gpu_block {
    int kernels;
    bool x_here, others;   /* the rank has x; other ranks have parts of the block */
    size_t first, n_units; /* what can be given, in the order in which it is */
    size_t given;          /* so many of them */
    double held, read;     /* of all */
};

struct gpu_unit {
    struct weight weight;
    size_t at;             /* of a layer's neurons: its place among the rank's units */
};

/* The next units of a block, those from `from` to `upto`; or all of two blocks that go together. */
struct gpu_step {
    double value;          /* the largest first: gain per byte */
    double bytes;
    int block, n_blocks;
    size_t from, upto;
};

enum gpu_order { BY_GAIN, BY_LAYER, BY_HEAT };

struct benefit {
    const struct cost_model *m;
    const struct plan *plan;
    const struct probe_gpu *g;
    int rank;
    double cpu;                /* bytes per ms */
    double bytes, base;        /* at most; what the home of x takes of it */
    bool whole, cut;           /* layers are given whole; a layer's neurons can be cut in units */
    bool may_have_none;        /* the GPU has been measured: where nothing gains it gets nothing */
    int n_blocks;              /* attention and FFN of each layer, and the output */
    struct gpu_block *blocks;
    struct gpu_unit *units;    /* room for all */
    size_t n_units, n_steps;
    struct gpu_step *steps;
    size_t *best;              /* [n_blocks] given */
    double best_ms;
    bool best_home;
};

/* What stands for what nobody has measured: in what order parts go to a GPU hardly depends on it. */
static const double usual_cpu = 50e6; /* bytes per ms */
static const struct probe_gpu usual_gpu = {.read_gb_per_s = 500, .up_gb_per_s = 20, .down_gb_per_s = 20,
                                           .launch_us = 1.5, .wait_us = 15};

/* ---- what there is ---- */

static void add_unit(struct benefit *b, struct gpu_block *block, struct weight w, size_t at)
{
    if (block->n_units == 0)
        block->first = b->n_units;
    b->units[b->n_units++] = (struct gpu_unit){w, at};
    block->n_units++;
    block->held += w.held;
    block->read += w.read;
}

static int more_is_read(const void *a, const void *b)
{
    const struct gpu_unit *x = a, *y = b;
    const double hot = x->weight.read * y->weight.held, other = y->weight.read * x->weight.held;
    return hot != other ? (hot < other ? 1 : -1) : (x->at > y->at) - (x->at < y->at);
}

/* Units in the order of layers and neurons are numbered by *at; sorted, the hottest of a block come first. */
static void add_neurons(struct benefit *b, struct gpu_block *block, int layer, size_t *at)
{
    const struct neuron_range *ranges;
    const struct plan_shape *shape = &b->plan->layers[layer].shape;
    const bool down = !plan_down_at_stage(b->plan, layer) || b->plan->layers[layer].stage == b->rank;
    const int n = plan_neurons(b->plan, layer, b->rank, &ranges);
    struct weight all = {0};
    for (int i = 0; i < n; i++) {
        for (int32_t j = ranges[i].begin, end; j < ranges[i].end; j = end) {
            end = b->cut && plan_unit_end(shape, j) < ranges[i].end ? plan_unit_end(shape, j) : ranges[i].end;
            const struct weight w = weight_of_neurons(b->m, layer, (struct neuron_range){j, end}, down);
            if (b->cut)
                add_unit(b, block, w, (*at)++);
            all = (struct weight){all.held + w.held, all.read + w.read};
        }
    }
    if (!b->cut && n)
        add_unit(b, block, all, 0);
    qsort(b->units + block->first, block->n_units, sizeof *b->units, more_is_read);
}

static bool others_have(const struct benefit *b, enum plan_part part, int layer)
{
    bool others = false;
    for (int r = 0; r < b->plan->n_ranks; r++)
        others |= r != b->rank && plan_rank_holds(b->plan, part, layer, r);
    return others;
}

static bool has_x(const struct benefit *b, int layer)
{
    return b->plan->layers[layer].stage == b->rank || (b->plan->residual_all && plan_takes_part(b->plan, b->rank));
}

static void list_blocks(struct benefit *b)
{
    size_t at = 0;
    for (int l = 0; l < b->plan->model.n_layers; l++) {
        struct gpu_block *attention = &b->blocks[2 * l], *ffn = attention + 1;
        const double share = heads_share(b->m, b->plan, l, b->rank);
        *attention = (struct gpu_block){ATTENTION_KERNELS, has_x(b, l), others_have(b, PLAN_HEADS, l), .n_units = 0};
        *ffn = (struct gpu_block){FFN_KERNELS, has_x(b, l), others_have(b, PLAN_NEURONS, l), .n_units = 0};
        if (share > 0)
            add_unit(b, attention, weight_of_heads(b->m, l, share), 0);
        add_neurons(b, ffn, l, &at);
    }
    struct gpu_block *output = &b->blocks[b->n_blocks - 1];
    const double share = rows_share(b->m, b->plan, b->rank);
    const bool last = plan_last_stage(b->plan) == b->rank;
    *output = (struct gpu_block){OUTPUT_KERNELS, last, others_have(b, PLAN_ROWS, 0), .n_units = 0};
    if (share > 0)
        add_unit(b, output, weight_of_rows(b->m, share), 0);
    b->base = plan_first_stage(b->plan) == b->rank ? weight_of_embedding(b->m).held : 0;
}

/* ---- how long it takes ---- */

/* A block of which so much is read on the GPU. */
static double block_ms(const struct benefit *b, const struct gpu_block *block, double read, bool home)
{
    const bool x_on_gpu = home && block->x_here;
    const struct part part = {fmax(block->read - read, 0), read, block->kernels, x_on_gpu};
    const double lift = x_on_gpu && block->others ? round_ms(b->m, b->g, false) : 0;
    return block->n_units || block->x_here ? lift + part_ms(b->m, b->g, b->cpu, &part) : 0;
}

static double read_of(const struct benefit *b, const struct gpu_block *block, size_t n)
{
    double read = 0;
    for (size_t i = 0; i < n; i++)
        read += b->units[block->first + i].weight.read;
    return n == block->n_units ? block->read : read;
}

/* ---- in which order ---- */

/* The lower hull of a block's time over bytes: what a step gains per byte gets less from step to step. */
static void add_hull(struct benefit *b, int i, bool home)
{
    const struct gpu_block *block = &b->blocks[i];
    const size_t start = b->n_steps;
    double read = 0, last = block_ms(b, block, 0, home);
    for (size_t n = 1; n <= block->n_units; n++) {
        const struct weight w = b->units[block->first + n - 1].weight;
        read = n == block->n_units ? block->read : read + w.read;
        const double ms = block_ms(b, block, read, home);
        struct gpu_step step = {last - ms, w.held, i, 1, n - 1, n};
        last = ms;
        for (const struct gpu_step *before; b->n_steps > start; b->n_steps--) { /* what gains more comes with it */
            before = &b->steps[b->n_steps - 1];
            if (step.value * before->bytes < before->value * step.bytes)
                break;
            step = (struct gpu_step){step.value + before->value, step.bytes + before->bytes, i, 1, before->from, n};
        }
        b->steps[b->n_steps++] = step;
    }
    while (b->n_steps > start && !(b->steps[b->n_steps - 1].value > 0)) /* what costs more than it gains */
        b->n_steps--;
    for (size_t s = start; s < b->n_steps; s++)
        b->steps[s].value /= b->steps[s].bytes;
}

/* All of a block, or of a layer's two. */
static void add_whole(struct benefit *b, int i, int n_blocks, enum gpu_order order, bool home)
{
    struct gpu_step step = {.block = i, .n_blocks = n_blocks, .upto = SIZE_MAX};
    double gain = 0;
    for (int k = i; k < i + n_blocks; k++) {
        step.bytes += b->blocks[k].held;
        gain += block_ms(b, &b->blocks[k], 0, home) - block_ms(b, &b->blocks[k], b->blocks[k].read, home);
    }
    step.value = order == BY_LAYER ? -i : gain / step.bytes;
    if (step.bytes > 0 && (order == BY_LAYER || gain > 0))
        b->steps[b->n_steps++] = step;
}

/* Attention and the output before all neurons, and these by how much of them is read. */
static void add_by_heat(struct benefit *b, int i)
{
    const struct gpu_block *block = &b->blocks[i];
    const bool neurons = i % 2 == 1;
    for (size_t n = 1; n <= block->n_units; n++) {
        const struct weight w = b->units[block->first + n - 1].weight;
        b->steps[b->n_steps++] = (struct gpu_step){neurons ? w.read / w.held : DBL_MAX, w.held, i, 1, n - 1, n};
    }
}

static int earlier(const void *a, const void *b)
{
    const struct gpu_step *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? 1 : -1;
    return x->block != y->block ? x->block - y->block : (x->upto > y->upto) - (x->upto < y->upto);
}

static void list_steps(struct benefit *b, enum gpu_order order, bool home)
{
    const int output = b->n_blocks - 1;
    b->n_steps = 0;
    if (b->whole || order == BY_LAYER) {
        for (int i = 0; i < output; i += 2)
            add_whole(b, i, 2, order, home);
        add_whole(b, output, 1, order, home);
    } else {
        for (int i = 0; i <= output; i++)
            order == BY_GAIN ? add_hull(b, i, home) : add_by_heat(b, i);
    }
    qsort(b->steps, b->n_steps, sizeof *b->steps, earlier);
}

/* ---- the choice ---- */

static void keep_if_best(struct benefit *b, bool home)
{
    double ms = 0;
    bool any = b->may_have_none;
    for (int i = 0; i < b->n_blocks; i++) {
        ms += block_ms(b, &b->blocks[i], read_of(b, &b->blocks[i], b->blocks[i].given), home);
        any |= b->blocks[i].given > 0;
    }
    if (ms >= b->best_ms || !any)
        return;
    b->best_ms = ms;
    b->best_home = home;
    for (int i = 0; i < b->n_blocks; i++)
        b->best[i] = b->blocks[i].given;
}

static void give_none(struct benefit *b)
{
    for (int i = 0; i < b->n_blocks; i++)
        b->blocks[i].given = 0;
}

/* As many of a block's next units as there is room for, where that gains. */
static void fill(struct benefit *b, struct gpu_block *block, bool home, double *left)
{
    size_t n = block->given;
    double room = *left;
    for (; n < block->n_units && b->units[block->first + n].weight.held <= room; n++)
        room -= b->units[block->first + n].weight.held;
    if (block_ms(b, block, read_of(b, block, n), home) < block_ms(b, block, read_of(b, block, block->given), home)) {
        block->given = n;
        *left = room;
    }
}

/* Takes the steps in their order, and of one that has no room what has; those of its block after it are not its
 * next. */
static void try_order(struct benefit *b, enum gpu_order order, bool home)
{
    double left = b->bytes - (home ? b->base : 0);
    give_none(b);
    list_steps(b, order, home);
    for (size_t i = 0; i < b->n_steps && left >= 0; i++) {
        const struct gpu_step *s = &b->steps[i];
        const bool fits = s->bytes <= left;
        if (b->blocks[s->block].given != s->from)
            continue;
        for (int k = s->block; k < s->block + s->n_blocks; k++) {
            if (fits)
                b->blocks[k].given = s->upto < b->blocks[k].n_units ? s->upto : b->blocks[k].n_units;
            else
                fill(b, &b->blocks[k], home, &left);
        }
        left -= fits ? s->bytes : 0;
    }
    if (left >= 0)
        keep_if_best(b, home);
}

static void choose(struct benefit *b)
{
    b->best_ms = INFINITY;
    give_none(b);
    keep_if_best(b, false);
    try_order(b, BY_LAYER, true); /* first what is plainer, where it is as good */
    if (!b->whole)
        try_order(b, BY_HEAT, true);
    try_order(b, BY_GAIN, false);
    try_order(b, BY_GAIN, true);
}

/* flags: room for heads and neurons of each layer, and for every unit. */
static status give(const struct benefit *b, struct plan *plan, const char *device, bool *flags)
{
    const int n_layers = plan->model.n_layers;
    bool *heads = flags, *neurons = flags + n_layers, *units = neurons + n_layers, any = b->best_home;
    for (int i = 0; i < b->n_blocks; i++) {
        const struct gpu_block *block = &b->blocks[i];
        any |= b->best[i] > 0;
        if (i < 2 * n_layers)
            (i % 2 ? neurons : heads)[i / 2] = b->best[i] > 0;
        for (size_t n = 0; n < b->best[i] && i % 2 && b->cut; n++)
            units[b->units[block->first + n].at] = true;
    }
    if (!any)
        return ST_OK;
    if (b->cut)
        memset(neurons, true, (size_t)n_layers); /* units say which of them */
    return plan_give(plan, b->rank, device,
                     &(struct plan_gift){heads, neurons, b->cut ? units : NULL,
                                         b->best[b->n_blocks - 1] > 0, b->best_home});
}

static double cpu_speed(const struct probe *p, const struct plan *plan, int rank)
{
    bool used[PLAN_MAX_RANKS];
    double gb_per_s[PLAN_MAX_RANKS];
    if (!p)
        return usual_cpu;
    for (int r = 0; r < p->n_ranks; r++)
        used[r] = plan_takes_part(plan, r);
    cost_bandwidths(p, used, gb_per_s);
    return gb_per_s[rank] * 1e6;
}

status gpu_benefit_give(const struct probe *p, const struct cost_model *m, struct plan *plan, int rank,
                        const char *device, double bytes)
{
    const size_t n_layers = (size_t)plan->model.n_layers, units = (size_t)plan_count_units(plan, rank);
    const bool cut = units && !plan_down_at_stage(plan, 0);
    const struct probe_gpu *g = p ? cost_gpu(p, rank, device) : NULL;
    struct benefit b = {.m = m, .plan = plan, .g = g ? g : &usual_gpu, .rank = rank, .bytes = bytes,
                        .cpu = cpu_speed(p, plan, rank), .whole = (!m->fires && !m->chosen) || !cut, .cut = cut,
                        .may_have_none = g, .n_blocks = 2 * (int)n_layers + 1};
    const size_t most = units + (size_t)b.n_blocks;
    b.blocks = calloc((size_t)b.n_blocks, sizeof *b.blocks);
    b.best = calloc((size_t)b.n_blocks, sizeof *b.best);
    b.units = calloc(most, sizeof *b.units);
    b.steps = calloc(most, sizeof *b.steps);
    bool *flags = calloc(2 * n_layers + most, sizeof *flags);
    status st = ST_NOMEM;
    if (b.blocks && b.best && b.units && b.steps && flags) {
        list_blocks(&b);
        choose(&b);
        st = give(&b, plan, device, flags);
    } else {
        log_error("plan: no memory to choose what a GPU gets");
    }
    free(b.blocks);
    free(b.best);
    free(b.units);
    free(b.steps);
    free(flags);
    return st;
}
