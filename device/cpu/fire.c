#include "device/cpu/fire.h"

#include <string.h>

#include "device/readers.h"

enum {
    PIECE_PAIRS = 32768, /* pairs of a neuron and a token that a thread takes together, if a piece has more neurons
                          * than: */
    PIECE_NEURONS = 32,
    MOST_PIECE = 512     /* neurons of a piece: the top bits of their rows stay in the second-level cache */
};

struct fire {
    struct cpu *c;
    struct firing *at;
    const struct acts *predicts; /* what an MLP reads */
    uint32_t n;
    int64_t pieces, rows;        /* of all shares; their tokens */
    bool quantise;               /* the down projection reads quantised activations */
};

static int64_t blocks_of(const struct share *of) { return (of->s->set.n + ACT_BLOCK - 1) / ACT_BLOCK; }

/* ---- a piece ---- */

/* What token t's neurons of the piece are. */
static void activate_token(const struct piece *p, uint32_t t, float *out)
{
    const struct share *of = p->of;
    const float *gate = of->gate + t * of->s->set.n + p->begin, *up = of->up + t * of->s->set.n + p->begin;
    const bool has_gate = of->s->has_gate;
    p->c->o.kernels->activate(p->c->hp->activation, has_gate ? gate : NULL, has_gate ? up : gate, p->end - p->begin,
                              out);
    for (int64_t i = 0; of->weight && i < p->end - p->begin; i++)
        out[i] *= of->weight[t];
}

/* All neurons of a piece: gate and up by groups. */
static void fire_all(const struct piece *p)
{
    const struct share *of = p->of;
    const struct ffn_layer *s = of->s;
    piece_multiply(p, &s->gate, &of->x, of->gate);
    piece_add_bias(p, s->bias, of->gate);
    if (s->has_gate) {
        piece_multiply(p, &s->up, &of->x, of->up);
        piece_add_bias(p, s->up_bias, of->up);
    }
    for (uint32_t t = 0; t < of->n; t++) {
        float *h = of->h.f32 + t * of->h.cols, *gate = of->gate + t * s->set.n;
        activate_token(p, t, (s->set.whole ? h : gate) + p->begin);
        for (int64_t i = p->begin; !s->set.whole && i < p->end; i++)
            h[s->set.slot[i]] = gate[i];
    }
}

static void fire_single(const struct piece *p)
{
    const struct share *of = p->of;
    if (of->s->set.whole)
        for (uint32_t t = 0; t < of->n; t++)
            memset(of->h.f32 + t * of->h.cols + p->begin, 0, (size_t)(p->end - p->begin) * sizeof(float));
    piece_fire_single(p);
}

/* A piece's blocks are quantised at once, by the thread that has them in cache. */
static void fire_piece(const struct fire *f, struct share *of, int64_t number, int thread)
{
    const int64_t own = of->s->set.n, begin = (number - of->first_piece) * of->grain * ACT_BLOCK;
    const int64_t end = begin + of->grain * ACT_BLOCK;
    const struct piece p = {f->c, of, &f->at->of.hidden, begin, end < own ? end : own, &f->at->live[thread]};
    if (of->s->decision == DECIDE_NOT)
        fire_all(&p);
    else
        fire_single(&p);
    for (uint32_t t = 0; f->quantise && of->s->set.whole && t < of->n; t++) {
        struct acts h = acts_slice(&of->h, t, p.begin, p.end - p.begin);
        f->c->o.kernels->quantize(&h, 0, 1);
    }
}

static void fire_pieces(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    const struct shares *shares = &f->at->shares;
    struct share *of = shares->of;
    for (int64_t i = begin; i < end; i++) {
        while (of + 1 < shares->of + shares->n && of[1].first_piece <= i)
            of++;
        fire_piece(f, of, i, thread);
    }
}

/* ---- what pieces do not do ---- */

/* Tokens of sets whose blocks are no piece's own. */
static void quantise_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    const struct shares *shares = &f->at->shares;
    (void)thread;
    for (struct share *of = shares->of; of < shares->of + shares->n; of++) {
        const int64_t first = begin - of->first_row, last = end - of->first_row;
        if (!of->s->set.whole && first < of->n && last > 0)
            f->c->o.kernels->quantize(&of->h, first < 0 ? 0 : first, last < of->n ? last : of->n);
    }
}

static void hidden_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct fire *f = arg;
    const struct packed *fc1 = &f->at->shares.of->s->fc1;
    const int64_t r0 = begin * ROW_GROUP, r1 = end * ROW_GROUP < fc1->rows ? end * ROW_GROUP : fc1->rows;
    (void)thread;
    f->c->o.kernels->matmul(fc1, begin, end, f->predicts, f->n, f->at->of.hidden.f32, fc1->rows);
    for (uint32_t t = 0; t < f->n; t++) {
        float *v = f->at->of.hidden.f32 + t * fc1->rows + r0;
        f->c->o.kernels->activate(ACT_RELU, NULL, v, r1 - r0, v);
    }
}

/* hidden = relu(fc1 x), quantised if fc2 reads it so: of a layer, whose neurons all tokens need. */
static void compute_hidden(struct fire *f, int layer)
{
    struct cpu *c = f->c;
    struct acts *hidden = &f->at->of.hidden;
    const struct packed *fc1 = &f->at->shares.of->s->fc1;
    hidden->cols = fc1->rows;
    pool_for(c->o.pool, fc1->groups, group_grain(c, fc1->groups, f->n), hidden_groups, f);
    if (readers_of(&c->o, HIDDEN, layer).q8)
        c->o.kernels->quantize(hidden, 0, f->n);
}

/* What predictors read: x normed, or as it is. */
static const struct acts *predictor_reads(struct fire *f, int layer, const struct input *in)
{
    struct acts *r = &f->at->of.residual;
    if (!device_reads_residual(&f->c->o))
        return &in->acts;
    r->f32 = (float *)in->residual; /* only read */
    if (readers_of(&f->c->o, RESIDUAL, layer).q8)
        f->c->o.kernels->quantize(r, 0, f->n);
    return r;
}

/* ---- counting ---- */

static void count_share(struct cpu *c, struct share *of)
{
    struct ffn_layer *s = of->s;
    const uint64_t pairs = (uint64_t)s->set.n * of->n;
    s->seen += pairs;
    s->fired += of->fired;
    c->counts.bytes += ffn_layer_fixed_bytes(s);
    c->counts.neurons += pairs;
    if (s->decision == DECIDE_NOT) {
        c->counts.flagged += pairs;
        c->counts.live += pairs;
    }
}

static void count(struct cpu *c, struct firing *f)
{
    for (int i = 0; i < f->shares.n; i++)
        count_share(c, &f->shares.of[i]);
    for (int t = 0; t < c->o.n_threads; t++) {
        struct device_counts *of = &f->live[t].counts;
        c->counts.bytes += of->bytes;
        c->counts.flagged += of->flagged;
        c->counts.live += of->live;
        *of = (struct device_counts){0};
    }
}

/* ---- the whole ---- */

/* Blocks of neurons that a thread takes at a time, where all shares are so many blocks of a token: whole groups, small
 * enough to share evenly. */
static int64_t piece_blocks(const struct fire *f, const struct share *of, int64_t all)
{
    enum { PIECES_PER_THREAD = 4 };
    const struct ffn_layer *s = of->s;
    const bool twice = s->decision != DECIDE_GATE && s->decision != DECIDE_MLP; /* rows are read again, from cache */
    int64_t most = s->decision == DECIDE_NOT ? MOST_PIECE : f->at->most_pairs / of->n;
    most = twice && most > MOST_PIECE ? MOST_PIECE : most; /* else long: the first rows of a piece come unannounced */
    most = s->decision == DECIDE_NOT && of->n <= FEW_TOKENS ? blocks_of(of) * ACT_BLOCK : most;
    int64_t grain = all / (f->c->o.n_threads * PIECES_PER_THREAD) / of->n;
    grain = grain > most / ACT_BLOCK ? most / ACT_BLOCK : grain;
    return grain < 1 ? 1 : grain;
}

/* Where a share is computed: its part of what is laid for all. */
static void place_share(struct fire *f, struct share *of, int64_t neurons, int64_t slots)
{
    const struct firing_acts *all = &f->at->of;
    const struct ffn_layer *s = of->s;
    of->gate = all->gate + neurons;
    of->up = all->up + neurons;
    of->h = (struct acts){.cols = down_slots(&s->down, &s->set), .f32 = all->activated.f32 + slots,
                          .codes = all->activated.codes + slots, .blocks = all->activated.blocks + slots / ACT_BLOCK};
    if (!s->set.whole || of->h.cols != s->set.n) /* slots of other neurons stay zero */
        memset(of->h.f32, 0, (size_t)(of->n * of->h.cols) * sizeof(float));
}

/* Says where shares are computed, and in which pieces. */
static void place_shares(struct fire *f)
{
    const struct shares *shares = &f->at->shares;
    int64_t all = 0, neurons = 0, slots = 0;
    for (struct share *of = shares->of; of < shares->of + shares->n; of++)
        all += blocks_of(of) * of->n;
    for (struct share *of = shares->of; of < shares->of + shares->n; of++) {
        place_share(f, of, neurons, slots);
        of->grain = piece_blocks(f, of, all);
        of->first_piece = f->pieces;
        of->first_row = f->rows;
        f->pieces += (blocks_of(of) + of->grain - 1) / of->grain;
        f->rows += of->s->set.whole ? 0 : of->n;
        neurons += of->n * of->s->set.n;
        slots += of->n * of->s->set.n_blocks * ACT_BLOCK;
    }
}

void fire(struct cpu *c, struct firing *at, int layer, const struct input *in, uint32_t n)
{
    struct fire f = {.c = c, .at = at, .n = n, .quantise = readers_of(&c->o, ACTIVATED, layer).q8};
    place_shares(&f);
    if (at->shares.n && at->shares.of->s->decision == DECIDE_MLP) {
        f.predicts = predictor_reads(&f, layer, in);
        compute_hidden(&f, layer);
    }
    pool_for(c->o.pool, f.pieces, 1, fire_pieces, &f);
    if (f.quantise && f.rows)
        pool_for(c->o.pool, f.rows, 4, quantise_rows, &f);
    count(c, at);
}

/* ---- memory ---- */

void firing_lay(struct cpu *c, struct firing *f, const struct widths *widest)
{
    const int64_t n = c->o.n_batch;
    const struct laying to = cpu_laying(c);
    firing_acts_lay(&to, &f->of, widest);
    shares_lay(c, &f->shares, widest->sparse);
    if (!widest->sparse)
        return;
    f->most_pairs = n * PIECE_NEURONS > PIECE_PAIRS ? n * PIECE_NEURONS : PIECE_PAIRS;
    for (int t = 0; t < c->o.n_threads; t++) {
        struct live_scratch *s = &f->live[t];
        s->row = lay_integers(&c->arena, f->most_pairs);
        s->token = lay_integers(&c->arena, f->most_pairs);
        s->gate = lay_floats(&c->arena, f->most_pairs);
        s->up = lay_floats(&c->arena, f->most_pairs);
    }
}
