/* Which of this rank's neurons fire, and what they then are: f(gate x, up x) (base/activation.h).
 *
 * A layer decides in one of five ways (enum decision). All but the dense one end alike: pairs of a neuron and a token
 * are narrowed down, and what is left is computed row by row. A piece of neurons passes through all of its steps on one
 * thread, while its activations are in cache. */
#include <math.h>
#include <string.h>

#include "worker/internal.h"

struct fire {
    struct worker *w;
    const struct shard *s;
    const struct acts *x;
    uint32_t n;
    enum activation activation;
    struct acts h;     /* [n, slots], a view of w->activated */
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
    f->w->o.kernels->dot_rows(m, &f->w->lanes, l->row, l->token, n_pairs, l->gate);
    add_bias(f, l, n_pairs);
    l->counts.flagged += (uint64_t)n_pairs;
    /* of rows that were estimated, the top part has been read */
    l->counts.bytes += (uint64_t)count_rows(l, n_pairs) * (m->planes ? m->rest_bytes : m->top_bytes);
}

/* Up of the pairs, and their activations into the slots. */
static void activate_pairs(const struct fire *f, struct live_scratch *l, int64_t n_pairs)
{
    const struct shard *s = f->s;
    const struct kernels *k = f->w->o.kernels;
    if (s->has_gate) {
        k->dot_rows(&s->up_rows, &f->w->lanes, l->row, l->token, n_pairs, l->up);
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
    f->w->o.kernels->matmul(m, p->begin / ROW_GROUP, (p->end + ROW_GROUP - 1) / ROW_GROUP, x, f->n, y, f->s->set.n);
}

static void add_bias_rows(const struct fire *f, const struct piece *p, float *y)
{
    for (uint32_t t = 0; f->s->bias && t < f->n; t++)
        f->w->o.kernels->add(y + t * f->s->set.n + p->begin, f->s->bias + p->begin, p->end - p->begin);
}

static int64_t decide_by_gate(const struct fire *f, const struct piece *p)
{
    float *gate = f->w->gate + p->begin;
    multiply_piece(f, &f->s->gate, p, f->x, f->w->gate);
    add_bias_rows(f, p, f->w->gate);
    const int64_t n_pairs = pick_pairs(p, f->n, gate, f->s->set.n, 0, NULL);
    for (int64_t i = 0; i < n_pairs; i++)
        p->live->gate[i] = f->w->gate[p->live->token[i] * f->s->set.n + p->live->row[i]];
    p->live->counts.flagged += (uint64_t)n_pairs;
    return n_pairs;
}

static int64_t decide_by_estimate(const struct fire *f, const struct piece *p)
{
    const struct shard *s = f->s;
    float *gate = f->w->gate + p->begin;
    f->w->o.kernels->estimate_rows(&s->gate_rows, p->begin, p->end, &f->w->lanes, f->n, gate, s->set.n);
    const int64_t n_pairs = pick_pairs(p, f->n, gate, s->set.n, 0, s->bound + p->begin);
    compute_gates(f, p->live, n_pairs);
    return keep_positive(p->live, n_pairs);
}

static int64_t decide_by_mlp(const struct fire *f, const struct piece *p)
{
    const float below = nextafterf(f->s->fc2_threshold, -INFINITY); /* flagged: logit >= threshold */
    multiply_piece(f, &f->s->fc2, p, &f->w->hidden, f->w->gate);
    const int64_t n_pairs = pick_pairs(p, f->n, f->w->gate + p->begin, f->s->set.n, below, NULL);
    compute_gates(f, p->live, n_pairs);
    return keep_positive(p->live, n_pairs);
}

static int64_t decide_by_product(const struct fire *f, const struct piece *p)
{
    const struct shard *s = f->s;
    const struct kernels *k = f->w->o.kernels;
    const int64_t rows = p->end - p->begin, own = s->set.n;
    float *gate = f->w->gate + p->begin, *up = f->w->up + p->begin;
    k->estimate_rows(&s->gate_rows, p->begin, p->end, &f->w->lanes, f->n, gate, own);
    k->estimate_rows(&s->up_rows, p->begin, p->end, &f->w->lanes, f->n, up, own);
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
    const struct shard *s = f->s;
    const int64_t own = s->set.n;
    struct piece p = {begin * ACT_BLOCK, end * ACT_BLOCK < own ? end * ACT_BLOCK : own, &f->w->live[thread]};
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
    const struct shard *s = f->s;
    const struct kernels *k = f->w->o.kernels;
    const int64_t own = s->set.n;
    struct piece p = {begin * ACT_BLOCK, end * ACT_BLOCK < own ? end * ACT_BLOCK : own, &f->w->live[thread]};
    multiply_piece(f, &s->gate, &p, f->x, f->w->gate);
    add_bias_rows(f, &p, f->w->gate);
    if (s->has_gate)
        multiply_piece(f, &s->up, &p, f->x, f->w->up);
    for (uint32_t t = 0; t < f->n; t++) {
        const float *gate = f->w->gate + t * own + p.begin, *up = s->has_gate ? f->w->up + t * own + p.begin : gate;
        float *out = s->set.whole ? f->h.f32 + t * f->h.cols + p.begin : f->w->gate + t * own + p.begin;
        k->activate(f->activation, s->has_gate ? gate : NULL, up, p.end - p.begin, out);
        for (int64_t i = p.begin; !s->set.whole && i < p.end; i++)
            f->h.f32[t * f->h.cols + s->set.slot[i]] = f->w->gate[t * own + i];
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
        f->w->o.kernels->quantize(&h, 0, 1);
    }
}

static void quantise_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    (void)thread;
    f->w->o.kernels->quantize((struct acts *)&f->h, begin, end);
}

/* ---- before the pieces ---- */

static void spread_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    (void)thread;
    f->w->o.kernels->spread(f->x, begin, end, &f->w->lanes);
}

struct hidden {
    struct worker *w;
    const struct packed *fc1;
    const struct acts *x;
    uint32_t n;
};

static void hidden_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct hidden *h = arg;
    const int64_t r0 = begin * ROW_GROUP, r1 = end * ROW_GROUP < h->fc1->rows ? end * ROW_GROUP : h->fc1->rows;
    (void)thread;
    h->w->o.kernels->matmul(h->fc1, begin, end, h->x, h->n, h->w->hidden.f32, h->fc1->rows);
    for (uint32_t t = 0; t < h->n; t++) {
        float *v = h->w->hidden.f32 + t * h->fc1->rows + r0;
        h->w->o.kernels->activate(ACT_RELU, NULL, v, r1 - r0, v);
    }
}

/* hidden = relu(fc1 x), quantised if fc2 reads it so. */
static void compute_hidden(struct worker *w, int layer, const struct acts *x, uint32_t n)
{
    const struct shard *s = &w->shards[layer];
    struct hidden h = {w, &s->fc1, x, n};
    w->hidden.cols = s->fc1.rows;
    pool_for(w->pool, s->fc1.groups, group_grain(w, s->fc1.groups), hidden_groups, &h);
    if (readers_of(w, HIDDEN, layer).q8)
        w->o.kernels->quantize(&w->hidden, 0, n);
}

/* ---- counting ---- */

/* Bytes of what is read whatever fires. */
static uint64_t fixed_bytes(const struct shard *s)
{
    uint64_t bytes = packed_bytes(&s->gate) + packed_bytes(&s->up) + packed_bytes(&s->fc1) + packed_bytes(&s->fc2);
    if (s->gate_rows.planes)
        bytes += (uint64_t)s->set.n * s->gate_rows.top_bytes;
    if (s->up_rows.planes)
        bytes += (uint64_t)s->set.n * s->up_rows.top_bytes;
    return bytes;
}

/* Blocks of neurons that a thread takes at a time: whole groups, small enough to share evenly. */
static int64_t piece_blocks(const struct worker *w, const struct shard *s, uint32_t n)
{
    enum { PIECES_PER_THREAD = 4 };
    const int64_t blocks = (s->set.n + ACT_BLOCK - 1) / ACT_BLOCK;
    const bool twice = s->decision != DECIDE_GATE && s->decision != DECIDE_MLP; /* rows are read again, from cache */
    int64_t most = s->decision == DECIDE_NOT ? MOST_PIECE : w->most_pairs / n;
    most = twice && most > MOST_PIECE ? MOST_PIECE : most; /* else long: the first rows of a piece come unannounced */
    int64_t grain = blocks / (w->o.n_threads * PIECES_PER_THREAD);
    grain = grain > most / ACT_BLOCK ? most / ACT_BLOCK : grain;
    return grain < 1 ? 1 : grain;
}

void shard_fire(struct worker *w, int layer, const struct acts *x, const struct acts *residual, uint32_t n)
{
    struct shard *s = &w->shards[layer];
    struct fire f = {.w = w, .s = s, .x = x, .n = n, .activation = w->o.model->hp.activation, .h = w->activated};
    f.quantise = readers_of(w, ACTIVATED, layer).q8;
    f.h.cols = s->down.set && !s->down.by_column ? s->set.n : s->set.n_blocks * ACT_BLOCK;
    w->activated.cols = f.h.cols;
    if (!s->set.whole || f.h.cols != s->set.n) /* slots of other neurons stay zero */
        memset(f.h.f32, 0, (size_t)(n * f.h.cols) * sizeof(float));
    if (s->decision != DECIDE_NOT)
        pool_for(w->pool, n, 4, spread_tokens, &f);
    if (s->decision == DECIDE_MLP)
        compute_hidden(w, layer, residual ? residual : x, n);
    pool_for(w->pool, (s->set.n + ACT_BLOCK - 1) / ACT_BLOCK, piece_blocks(w, s, n), fire_and_quantise, &f);
    if (f.quantise && !s->set.whole)
        pool_for(w->pool, n, 4, quantise_tokens, &f);
    w->counts.bytes += fixed_bytes(s);
    w->counts.neurons += (uint64_t)s->set.n * n;
    if (s->decision == DECIDE_NOT) {
        w->counts.flagged += (uint64_t)s->set.n * n;
        w->counts.live += (uint64_t)s->set.n * n;
    }
    relay_count(w, s, n);
}
