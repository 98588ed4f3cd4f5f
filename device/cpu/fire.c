#include "device/cpu/fire.h"

#include <math.h>
#include <string.h>

#include "device/readers.h"

enum {
    PIECE_PAIRS = 32768, /* pairs of a neuron and a token that a thread takes together, if a piece has more neurons than: */
    PIECE_NEURONS = 32,
    MOST_PIECE = 512     /* neurons of a piece: the top bits of their rows stay in the second-level cache */
};

struct fire {
    struct cpu *c;
    struct firing *at;
    const struct ffn_layer *s;
    const struct acts *x;
    const struct acts *predicts; /* what an MLP reads */
    uint32_t n;
    enum activation activation;
    struct acts h;     /* [n, slots], a view of at->of.activated */
    bool quantise;     /* the down projection reads quantised activations */
};

/* Neurons [begin, end) of a piece, and what its thread has for it. */
struct piece {
    int64_t begin, end;
    struct live_scratch *live;
};

/* ---- pairs ---- */

/* value[t * stride + i] decides about own neuron begin + i: those above `bound` (or bound_of[i], where it is not NULL)
 * become pairs, and so does what is no number: its neuron is computed, and the block's end shows it. A neuron's pairs
 * follow each other. Returns how many. */
static int64_t pick_pairs(const struct piece *p, uint32_t n, const float *value, int64_t stride, float bound,
                          const float *bound_of)
{
    int32_t *row = p->live->row, *token = p->live->token;
    int64_t found = 0;
    for (int64_t i = 0; i < p->end - p->begin; i++) {
        const float limit = bound_of ? bound_of[i] : bound;
        for (uint32_t t = 0; t < n; t++) {
            row[found] = (int32_t)(p->begin + i);
            token[found] = (int32_t)t;
            found += !(value[t * stride + i] <= limit);
        }
    }
    return found;
}

/* Keeps the pairs whose gate is positive, or no number; gate[i] stays beside its pair. */
static int64_t keep_positive(struct live_scratch *l, int64_t n_pairs)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n_pairs; i++) {
        l->row[kept] = l->row[i];
        l->token[kept] = l->token[i];
        l->gate[kept] = l->gate[i];
        kept += !(l->gate[i] <= 0);
    }
    return kept;
}

/* How many different neurons the pairs have: each one's row is read once. */
static int64_t count_rows(const struct live_scratch *l, int64_t n_pairs)
{
    int64_t rows = n_pairs > 0;
    for (int64_t i = 1; i < n_pairs; i++)
        rows += l->row[i] != l->row[i - 1];
    return rows;
}

/* ---- the steps of a piece ---- */

static void add_bias(const struct fire *f, const struct live_scratch *l, int64_t n_pairs)
{
    for (int64_t i = 0; f->s->bias && i < n_pairs; i++)
        l->gate[i] += f->s->bias[l->row[i]];
}

/* The gates of the pairs, from their rows. */
static void compute_gates(const struct fire *f, struct live_scratch *l, int64_t n_pairs)
{
    const struct neuron_rows *m = &f->s->gate_rows;
    f->c->o.kernels->dot_rows(m, &f->at->lanes, l->row, l->token, n_pairs, l->gate);
    add_bias(f, l, n_pairs);
    l->counts.flagged += (uint64_t)n_pairs;
    /* of rows that were estimated, the top part has been read */
    l->counts.bytes += (uint64_t)count_rows(l, n_pairs) * (m->planes ? m->rest_bytes : m->top_bytes);
}

/* Up of the pairs, and their activations into the slots. */
static void activate_pairs(const struct fire *f, struct live_scratch *l, int64_t n_pairs)
{
    const struct ffn_layer *s = f->s;
    const struct kernels *k = f->c->o.kernels;
    if (s->has_gate) {
        k->dot_rows(&s->up_rows, &f->at->lanes, l->row, l->token, n_pairs, l->up);
        l->counts.bytes += (uint64_t)count_rows(l, n_pairs) *
                           (s->up_rows.planes ? s->up_rows.rest_bytes : s->up_rows.top_bytes);
    }
    k->activate(f->activation, s->has_gate ? l->gate : NULL, s->has_gate ? l->up : l->gate, n_pairs, l->gate);
    for (int64_t i = 0; i < n_pairs; i++)
        f->h.f32[l->token[i] * f->h.cols + s->set.slot[l->row[i]]] = l->gate[i];
    l->counts.live += (uint64_t)n_pairs;
}

/* Products of a piece's rows of a packed matrix into y [n, own]. */
static void multiply_piece(const struct fire *f, const struct packed *m, const struct piece *p, const struct acts *x,
                           float *y)
{
    f->c->o.kernels->matmul(m, p->begin / ROW_GROUP, (p->end + ROW_GROUP - 1) / ROW_GROUP, x, f->n, y, f->s->set.n);
}

static void add_bias_rows(const struct fire *f, const struct piece *p, float *y)
{
    for (uint32_t t = 0; f->s->bias && t < f->n; t++)
        f->c->o.kernels->add(y + t * f->s->set.n + p->begin, f->s->bias + p->begin, p->end - p->begin);
}

static int64_t decide_by_gate(const struct fire *f, const struct piece *p)
{
    float *gate = f->at->of.gate + p->begin;
    multiply_piece(f, &f->s->gate, p, f->x, f->at->of.gate);
    add_bias_rows(f, p, f->at->of.gate);
    const int64_t n_pairs = pick_pairs(p, f->n, gate, f->s->set.n, 0, NULL);
    for (int64_t i = 0; i < n_pairs; i++)
        p->live->gate[i] = f->at->of.gate[p->live->token[i] * f->s->set.n + p->live->row[i]];
    p->live->counts.flagged += (uint64_t)n_pairs;
    return n_pairs;
}

static int64_t decide_by_estimate(const struct fire *f, const struct piece *p)
{
    const struct ffn_layer *s = f->s;
    float *gate = f->at->of.gate + p->begin;
    f->c->o.kernels->estimate_rows(&s->gate_rows, p->begin, p->end, &f->at->lanes, f->n, gate, s->set.n);
    const int64_t n_pairs = pick_pairs(p, f->n, gate, s->set.n, 0, s->bound + p->begin);
    compute_gates(f, p->live, n_pairs);
    return keep_positive(p->live, n_pairs);
}

static int64_t decide_by_mlp(const struct fire *f, const struct piece *p)
{
    const float below = nextafterf(f->s->fc2_threshold, -INFINITY); /* flagged: logit >= threshold */
    multiply_piece(f, &f->s->fc2, p, &f->at->of.hidden, f->at->of.gate);
    const int64_t n_pairs = pick_pairs(p, f->n, f->at->of.gate + p->begin, f->s->set.n, below, NULL);
    compute_gates(f, p->live, n_pairs);
    return keep_positive(p->live, n_pairs);
}

static int64_t decide_by_product(const struct fire *f, const struct piece *p)
{
    const struct ffn_layer *s = f->s;
    const struct kernels *k = f->c->o.kernels;
    const int64_t rows = p->end - p->begin, own = s->set.n;
    float *gate = f->at->of.gate + p->begin, *up = f->at->of.up + p->begin;
    k->estimate_rows(&s->gate_rows, p->begin, p->end, &f->at->lanes, f->n, gate, own);
    k->estimate_rows(&s->up_rows, p->begin, p->end, &f->at->lanes, f->n, up, own);
    for (uint32_t t = 0; t < f->n; t++) {
        float *product = gate + t * own, *other = up + t * own;
        for (int64_t i = 0, j = p->begin; i < rows; i++, j++) {
            product[i] = product[i] * s->gate_slope[j] + s->gate_offset[j];
            other[i] = other[i] * s->up_slope[j] + s->up_offset[j];
        }
        k->activate(f->activation, product, other, rows, product);
        for (int64_t i = 0; i < rows; i++)
            product[i] = fabsf(product[i]);
    }
    const int64_t n_pairs = pick_pairs(p, f->n, gate, own, nextafterf(s->skip, -INFINITY), NULL);
    compute_gates(f, p->live, n_pairs);
    return n_pairs;
}

static void fire_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    const struct ffn_layer *s = f->s;
    const int64_t own = s->set.n;
    struct piece p = {begin * ACT_BLOCK, end * ACT_BLOCK < own ? end * ACT_BLOCK : own, &f->at->live[thread]};
    int64_t n_pairs;
    if (s->set.whole)
        for (uint32_t t = 0; t < f->n; t++)
            memset(f->h.f32 + t * f->h.cols + p.begin, 0, (size_t)(p.end - p.begin) * sizeof(float));
    switch (s->decision) {
    case DECIDE_GATE: n_pairs = decide_by_gate(f, &p); break;
    case DECIDE_ESTIMATE: n_pairs = decide_by_estimate(f, &p); break;
    case DECIDE_MLP: n_pairs = decide_by_mlp(f, &p); break;
    default: n_pairs = decide_by_product(f, &p); break;
    }
    activate_pairs(f, p.live, n_pairs);
}

/* All neurons of a piece: gate and up by groups. */
static void fire_all(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    const struct ffn_layer *s = f->s;
    const struct kernels *k = f->c->o.kernels;
    const int64_t own = s->set.n;
    struct piece p = {begin * ACT_BLOCK, end * ACT_BLOCK < own ? end * ACT_BLOCK : own, &f->at->live[thread]};
    multiply_piece(f, &s->gate, &p, f->x, f->at->of.gate);
    add_bias_rows(f, &p, f->at->of.gate);
    if (s->has_gate)
        multiply_piece(f, &s->up, &p, f->x, f->at->of.up);
    for (uint32_t t = 0; t < f->n; t++) {
        const float *gate = f->at->of.gate + t * own + p.begin, *up = s->has_gate ? f->at->of.up + t * own + p.begin : gate;
        float *out = s->set.whole ? f->h.f32 + t * f->h.cols + p.begin : f->at->of.gate + t * own + p.begin;
        k->activate(f->activation, s->has_gate ? gate : NULL, up, p.end - p.begin, out);
        for (int64_t i = p.begin; !s->set.whole && i < p.end; i++)
            f->h.f32[t * f->h.cols + s->set.slot[i]] = f->at->of.gate[t * own + i];
    }
}

/* Then a piece's blocks are quantised at once, by the thread that has them in cache. */
static void fire_and_quantise(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    const int64_t own = f->s->set.n, first = begin * ACT_BLOCK, last = end * ACT_BLOCK < own ? end * ACT_BLOCK : own;
    (f->s->decision == DECIDE_NOT ? fire_all : fire_piece)(arg, begin, end, thread);
    for (uint32_t t = 0; f->quantise && f->s->set.whole && t < f->n; t++) {
        struct acts h = acts_slice(&f->h, t, first, last - first);
        f->c->o.kernels->quantize(&h, 0, 1);
    }
}

static void quantise_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    (void)thread;
    f->c->o.kernels->quantize((struct acts *)&f->h, begin, end);
}

/* ---- before the pieces ---- */

static void spread_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    (void)thread;
    f->c->o.kernels->spread(f->x, begin, end, &f->at->lanes);
}

static void hidden_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    const struct packed *fc1 = &f->s->fc1;
    const int64_t r0 = begin * ROW_GROUP, r1 = end * ROW_GROUP < fc1->rows ? end * ROW_GROUP : fc1->rows;
    (void)thread;
    f->c->o.kernels->matmul(fc1, begin, end, f->predicts, f->n, f->at->of.hidden.f32, fc1->rows);
    for (uint32_t t = 0; t < f->n; t++) {
        float *v = f->at->of.hidden.f32 + t * fc1->rows + r0;
        f->c->o.kernels->activate(ACT_RELU, NULL, v, r1 - r0, v);
    }
}

/* hidden = relu(fc1 x), quantised if fc2 reads it so. */
static void compute_hidden(struct fire *f, int layer)
{
    struct cpu *c = f->c;
    struct acts *hidden = &f->at->of.hidden;
    hidden->cols = f->s->fc1.rows;
    pool_for(c->o.pool, f->s->fc1.groups, group_grain(c, f->s->fc1.groups), hidden_groups, f);
    if (readers_of(&c->o, HIDDEN, layer).q8)
        c->o.kernels->quantize(hidden, 0, f->n);
}

/* What predictors read: x normed, or as it is. */
static const struct acts *predictor_reads(struct fire *f, int layer, const struct input *in)
{
    struct acts *r = &f->at->of.residual;
    if (!device_reads_residual(&f->c->o))
        return f->x;
    r->f32 = (float *)in->residual; /* only read */
    if (readers_of(&f->c->o, RESIDUAL, layer).q8)
        f->c->o.kernels->quantize(r, 0, f->n);
    return r;
}

/* ---- counting ---- */

/* What the threads have counted, all together. */
static void add_counts(struct cpu *c, struct firing *f, struct ffn_layer *s)
{
    for (int t = 0; t < c->o.n_threads; t++) {
        struct device_counts *of = &f->live[t].counts;
        c->counts.bytes += of->bytes;
        c->counts.flagged += of->flagged;
        c->counts.live += of->live;
        s->fired += of->live;
        *of = (struct device_counts){0};
    }
}

static void count(struct cpu *c, struct firing *f, struct ffn_layer *s, uint32_t n)
{
    const uint64_t pairs = (uint64_t)s->set.n * n;
    s->seen += pairs;
    add_counts(c, f, s);
    c->counts.bytes += ffn_layer_fixed_bytes(s);
    c->counts.neurons += pairs;
    if (s->decision == DECIDE_NOT) {
        c->counts.flagged += pairs;
        c->counts.live += pairs;
    }
}

/* ---- the whole ---- */

/* Blocks of neurons that a thread takes at a time: whole groups, small enough to share evenly. */
static int64_t piece_blocks(const struct fire *f)
{
    enum { PIECES_PER_THREAD = 4 };
    const struct ffn_layer *s = f->s;
    const int64_t blocks = (s->set.n + ACT_BLOCK - 1) / ACT_BLOCK;
    const bool twice = s->decision != DECIDE_GATE && s->decision != DECIDE_MLP; /* rows are read again, from cache */
    int64_t most = s->decision == DECIDE_NOT ? MOST_PIECE : f->at->most_pairs / f->n;
    most = twice && most > MOST_PIECE ? MOST_PIECE : most; /* else long: the first rows of a piece come unannounced */
    int64_t grain = blocks / (f->c->o.n_threads * PIECES_PER_THREAD);
    grain = grain > most / ACT_BLOCK ? most / ACT_BLOCK : grain;
    return grain < 1 ? 1 : grain;
}

void fire(struct cpu *c, struct firing *at, int layer, struct ffn_layer *s, const struct input *in, uint32_t n)
{
    struct fire f = {.c = c, .at = at, .s = s, .x = &in->acts, .n = n, .activation = c->hp->activation,
                     .h = at->of.activated};
    f.quantise = readers_of(&c->o, ACTIVATED, layer).q8;
    f.h.cols = down_slots(&s->down, &s->set);
    at->of.activated.cols = f.h.cols;
    if (!s->set.whole || f.h.cols != s->set.n) /* slots of other neurons stay zero */
        memset(f.h.f32, 0, (size_t)(n * f.h.cols) * sizeof(float));
    if (s->decision != DECIDE_NOT)
        pool_for(c->o.pool, n, 4, spread_tokens, &f);
    if (s->decision == DECIDE_MLP) {
        f.predicts = predictor_reads(&f, layer, in);
        compute_hidden(&f, layer);
    }
    pool_for(c->o.pool, (s->set.n + ACT_BLOCK - 1) / ACT_BLOCK, piece_blocks(&f), fire_and_quantise, &f);
    if (f.quantise && !s->set.whole)
        pool_for(c->o.pool, n, 4, quantise_tokens, &f);
    count(c, at, s, n);
}

/* ---- memory ---- */

static void lay_lanes(struct cpu *c, struct lane_acts *l)
{
    const int64_t n = c->o.n_batch;
    lane_acts_shape(l, c->hp->d_model);
    const int64_t blocks = lane_acts_blocks(l);
    l->codes = arena_alloc(&c->arena, (size_t)(n * lane_acts_codes(l)));
    l->scale = lay_floats(&c->arena, n * blocks);
    l->scaled_sum = lay_floats(&c->arena, n * blocks);
    l->minus_sum = lay_integers(&c->arena, n * blocks);
    l->minus_sum_low = lay_integers(&c->arena, n * blocks);
}

void firing_lay(struct cpu *c, struct firing *f, const struct widths *widest)
{
    const int64_t n = c->o.n_batch;
    const struct laying to = cpu_laying(c);
    firing_acts_lay(&to, &f->of, widest);
    if (!widest->sparse)
        return;
    lay_lanes(c, &f->lanes);
    f->most_pairs = n * PIECE_NEURONS > PIECE_PAIRS ? n * PIECE_NEURONS : PIECE_PAIRS;
    for (int t = 0; t < c->o.n_threads; t++) {
        struct live_scratch *s = &f->live[t];
        s->row = lay_integers(&c->arena, f->most_pairs);
        s->token = lay_integers(&c->arena, f->most_pairs);
        s->gate = lay_floats(&c->arena, f->most_pairs);
        s->up = lay_floats(&c->arena, f->most_pairs);
    }
}
