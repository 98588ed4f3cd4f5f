#include "tests/conformance/device_conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "device/cpu/table.h"
#include "model/model.h"
#include "sparsity/neurons.h"
#include "tests/conformance/device_states.h"
#include "tests/conformance/kernels_suite.h"

enum { N_CTX = 160, N_BATCH = 48, SEQUENCES = 5, STEPS = 8, DECODED = 4 };
enum { PAGES = (N_CTX + DEVICE_PAGE - 1) / DEVICE_PAGE, ALL_PAGES = SEQUENCES * PAGES };

#define CHECK(ok, ...)                                                                                                 \
    do {                                                                                                               \
        if (!(ok)) {                                                                                                   \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            return false;                                                                                              \
        }                                                                                                              \
    } while (0)

/* ---- one device ---- */

/* A device that is a home, or has parts alone. */
struct bed {
    const struct device_ops *ops;
    struct device_options o;
    struct shard shard;
    struct shard_layer *layers;
    struct neuron_list *sets;     /* of all layers' bundles that neurons are held of */
    struct span *spans;           /* one of each */
    int n_sets;
    struct guest_neurons *guests; /* [n_layers] whose down projections are here */
    struct span guest_span;
    struct pool *pool;
    struct device *d;
    float *message; /* [n_batch, d_model] that is pinned */
};

/* The neurons of the other shares are guests here. */
static void invite(struct bed *b, const struct model *m, int64_t begin, int64_t end)
{
    b->guest_span = (struct span){(int32_t)begin, (int32_t)end};
    b->guests = calloc((size_t)m->hp.n_layers, sizeof *b->guests);
    for (int i = 0; i < m->hp.n_layers; i++) {
        b->guests[i].layer = i;
        if (begin < end)
            b->guests[i].neurons = (struct neuron_list){.spans = &b->guest_span, .n_spans = 1};
    }
    b->shard.guests = b->guests;
    b->shard.n_guests = m->hp.n_layers;
}

/* Shares [begin, end) of 2 of n neurons. */
static struct span share_of(const struct model *m, int64_t n, int begin, int end)
{
    const int64_t neurons[] = {0, n / model_neuron_unit(m) / 2 * model_neuron_unit(m), n};
    return (struct span){(int32_t)neurons[begin], (int32_t)neurons[end]};
}

/* Those of every bundle of a layer. */
static void deal_neurons(struct bed *b, const struct model *m, int layer, int begin, int end)
{
    const struct layer_weights *w = &m->layers[layer];
    struct shard_layer *l = &b->layers[layer];
    l->sets = b->sets + b->n_sets;
    for (int i = 0; i < w->n_bundles; i++) {
        const struct span span = share_of(m, w->bundles[i].n, begin, end);
        if (span.begin == span.end)
            continue;
        b->spans[b->n_sets] = span;
        b->sets[b->n_sets] = (struct neuron_list){.spans = &b->spans[b->n_sets], .n_spans = 1, .bundle = i};
        b->n_sets++;
        l->n_sets++;
    }
}

/* What a device holds: shares [begin, end) of 2 of all heads, neurons and rows, on their units. at_home: all down
 * projections are. */
static void deal(struct bed *b, const struct model *m, int begin, int end, bool home, bool at_home)
{
    const struct span others = share_of(m, m->hp.d_ff, end, 2);
    const int64_t rows[] = {0, m->hp.n_vocab / 2, m->hp.n_vocab};
    const size_t bundles = (size_t)m->hp.n_layers * (size_t)(m->hp.n_experts + 1);
    b->layers = calloc((size_t)m->hp.n_layers, sizeof *b->layers);
    b->sets = calloc(bundles, sizeof *b->sets);
    b->spans = calloc(bundles, sizeof *b->spans);
    for (int i = 0; i < m->hp.n_layers; i++) {
        const int64_t n = model_heads(&m->hp, i), unit = model_head_unit(m, i), heads[] = {0, n / unit / 2 * unit, n};
        b->layers[i] = (struct shard_layer){.head_begin = heads[begin], .head_end = heads[end],
                                            .down = home || !at_home};
        deal_neurons(b, m, i, begin, end);
    }
    b->shard = (struct shard){.layers = b->layers, .row_begin = rows[begin], .row_end = rows[end],
                              .last = home ? m->hp.n_layers : 0, .embeds = home, .ends = home,
                              .uses = {home, !home}};
    if (home && at_home)
        invite(b, m, others.begin, others.end);
}

/* Learned positions may be few. */
static uint32_t context_of(const struct model *m)
{
    return m->positions.data && m->hp.n_ctx_train < N_CTX ? (uint32_t)m->hp.n_ctx_train : N_CTX;
}

static uint64_t loaded_bytes;

static void count_loaded(void *arg, uint64_t bytes)
{
    (void)arg;
    loaded_bytes += bytes;
}

static bool bed_open(struct bed *b, const struct device_trial *t)
{
    const struct device_ops *ops = t->ops;
    struct device_memory need = {0}, again = {0};
    b->ops = ops;
    b->o = (struct device_options){.model = t->m, .shard = &b->shard, .sparse = t->sparse, .predictor = t->predictor,
                                   .neurons = t->neurons, .n_ctx = context_of(t->m), .n_batch = t->n_batch,
                                   .n_pages = ALL_PAGES, .n_states = device_states(t->m, SEQUENCES),
                                   .n_passing = STATES_PASSING, .kernels = t->kernels,
                                   .n_threads = t->n_threads};
    CHECK(ops->need(&b->o, &need) == ST_OK && ops->need(&b->o, &again) == ST_OK, "%s: need fails\n", ops->name);
    CHECK(memcmp(&need, &again, sizeof need) == 0 && need.total == need.weights + need.kv + need.states + need.buffers,
          "%s: need is not its parts, or is not the same twice\n", ops->name);
    CHECK(pool_create(t->n_threads, &b->pool) == ST_OK, "no threads\n");
    b->o.pool = b->pool;
    CHECK(ops->open(&b->o, &b->d) == ST_OK, "%s: cannot be opened\n", ops->name);
    b->message = calloc(t->n_batch, (size_t)t->m->hp.d_model * sizeof *b->message);
    if (ops->pin)
        ops->pin(b->d, b->message, t->n_batch * (size_t)t->m->hp.d_model * sizeof *b->message);
    loaded_bytes = 0;
    CHECK(ops->load(b->d, &(struct device_loading){.loaded = count_loaded}) == ST_OK, "%s: does not load\n", ops->name);
    CHECK(loaded_bytes && loaded_bytes <= need.weights, "%s: %llu bytes loaded of %llu\n", ops->name,
          (unsigned long long)loaded_bytes, (unsigned long long)need.weights);
    return true;
}

static void bed_close(struct bed *b)
{
    if (b->d)
        b->ops->close(b->d);
    pool_destroy(b->pool);
    free(b->message);
    free(b->layers);
    free(b->sets);
    free(b->spans);
    free(b->guests);
}

/* ---- a step ---- */

static void free_message(const struct input_bytes *x, const struct sum_bytes *sums)
{
    void *const all[] = {x->codes, x->scale, x->f32, x->residual, x->expert, x->weight, sums->width, sums->packed};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i])
            guarded_free(all[i]);
}

/* Neurons that another device computes, and the home projects. */
static bool add_live(struct bed *home, struct bed *other, const struct work *w)
{
    const uint32_t pairs = other->ops->fire(other->d, w, other->d->in[USE_SERVED]);
    const size_t first = (w->n + 1) * sizeof(uint32_t), others = pairs * sizeof(uint32_t);
    struct live live = {guarded(first), guarded(others), guarded(others)};
    other->ops->live(other->d, w, &live);
    bool intact = guarded_intact(live.first, first) && guarded_intact(live.index, others) &&
                  guarded_intact(live.value, others) && live.first[0] == 0 && live.first[w->n] == pairs;
    for (uint32_t t = 0; t < w->n && intact; t++)
        for (uint32_t i = live.first[t]; i < live.first[t + 1]; i++)
            intact &= live.value[i] != 0 && (i == live.first[t] || live.index[i - 1] < live.index[i]);
    if (intact)
        home->ops->project(home->d, w, w->layer, &live, home->d->sums[USE_OWN]);
    guarded_free(live.first);
    guarded_free(live.index);
    guarded_free(live.value);
    CHECK(intact, "%s: neurons of layer %d are not what was promised\n", other->ops->name, w->layer);
    return true;
}

/* Passes the home's input to another device and adds the other's part, in memory that shows what is written beside
 * it. */
static bool add_other(struct bed *home, struct bed *other, const struct work *w)
{
    const size_t d = (size_t)home->o.model->hp.d_model, values = w->n * d, widths = w->n * ((d + 31) / 32);
    const bool floats = device_reads_floats(&home->o, w->part, w->layer);
    const bool residual = w->part == DEVICE_FFN && device_reads_residual(&home->o);
    const struct hparams *hp = &home->o.model->hp;
    const bool routes = w->part == DEVICE_FFN && model_has_experts(home->o.model, w->layer);
    const size_t experts = w->n * (size_t)hp->n_experts_used * sizeof(uint32_t);
    const size_t weights = w->n * (size_t)model_route_weights(hp) * sizeof(float);
    struct input_bytes x = {0};
    struct sum_bytes sums = {guarded(widths), NULL};
    x.codes = guarded(values);
    x.scale = guarded(values / 32 * sizeof(float) + 1);
    x.f32 = floats ? guarded(values * sizeof(float)) : NULL;
    x.residual = residual ? guarded(values * sizeof(float)) : NULL;
    x.expert = routes ? guarded(experts) : NULL;
    x.weight = routes ? guarded(weights) : NULL;
    home->ops->export_input(home->d, w, home->d->in[USE_OWN], &x);
    other->ops->import_input(other->d, w, &x, other->d->in[USE_SERVED]);
    if (w->part == DEVICE_FFN && !other->layers[w->layer].down) {
        const bool added = add_live(home, other, w);
        free_message(&x, &sums);
        return added;
    }
    other->ops->part(other->d, w, other->d->in[USE_SERVED], other->d->sums[USE_SERVED]);
    while (!other->ops->done(other->d))
        ;
    sums.packed = guarded(widths * 32 * sizeof(double)); /* the most */
    other->ops->export_sums(other->d, w->n, other->d->sums[USE_SERVED], false, &sums);
    home->ops->import_sums(home->d, w->n, &sums, home->d->sums[USE_OWN]);
    bool intact = guarded_intact(x.codes, values) && guarded_intact(x.scale, values / 32 * sizeof(float) + 1) &&
                  guarded_intact(sums.width, widths) && guarded_intact(sums.packed, widths * 32 * sizeof(double)) &&
                  (!floats || guarded_intact(x.f32, values * sizeof(float))) &&
                  (!residual || guarded_intact(x.residual, values * sizeof(float))) &&
                  (!routes || (guarded_intact(x.expert, experts) && guarded_intact(x.weight, weights)));
    for (size_t i = 0; i < widths && intact; i++)
        intact = sums.width[i] >= 3 && sums.width[i] <= 8 && sums.width[i] != 7;
    free_message(&x, &sums);
    CHECK(intact, "%s: part %d of layer %d writes beside its message\n", other->ops->name, (int)w->part, w->layer);
    return true;
}

static bool run_block(struct bed *home, struct bed *other, const struct work *w)
{
    const struct shard_layer *l = &home->layers[w->layer];
    CHECK(home->ops->norm(home->d, w) == ST_OK, "norm fails\n");
    if (w->part == DEVICE_ATTENTION ? l->head_begin < l->head_end : l->n_sets > 0)
        home->ops->part(home->d, w, home->d->in[USE_OWN], home->d->sums[USE_OWN]);
    else
        home->ops->clear_sums(home->d, w->n, home->d->sums[USE_OWN]);
    if (other && !add_other(home, other, w))
        return false;
    CHECK(home->ops->add(home->d, w) == ST_OK, "add fails\n");
    return true;
}

/* Logits of all tokens: logits [n, n_vocab]. */
static bool run_output(struct bed *home, struct bed *other, const struct batch *b, float *logits)
{
    const int64_t n_vocab = home->o.model->hp.n_vocab;
    uint32_t tokens[N_BATCH];
    for (uint32_t i = 0; i < b->n_tokens; i++)
        tokens[i] = b->n_tokens - 1 - i; /* any order */
    const struct work w = {.part = DEVICE_OUTPUT, .n = b->n_tokens, .batch = b, .tokens = tokens};
    CHECK(home->ops->norm(home->d, &w) == ST_OK, "norm fails\n");
    home->ops->logits(home->d, &w, home->d->in[USE_OWN], logits + home->shard.row_begin, n_vocab);
    if (other) {
        struct input_bytes x = {.f32 = malloc(w.n * (size_t)home->o.model->hp.d_model * sizeof(float))};
        const struct input_bytes q8 = {.codes = (int8_t *)x.f32, .scale = x.f32 + w.n * home->o.model->hp.d_model / 4};
        const struct input_bytes *form = device_reads_floats(&home->o, w.part, 0) ? &x : &q8;
        home->ops->export_input(home->d, &w, home->d->in[USE_OWN], form);
        other->ops->import_input(other->d, &w, form, other->d->in[USE_SERVED]);
        other->ops->logits(other->d, &w, other->d->in[USE_SERVED], logits + other->shard.row_begin, n_vocab);
        free(x.f32);
    }
    CHECK(home->ops->check_logits(home->d, &w, logits) == ST_OK, "logits are no numbers\n");
    return true;
}

/* x [n, d] and logits [n, n_vocab] of a batch. */
static bool run_step(struct bed *home, struct bed *other, const struct batch *b, const int32_t *tokens, float *x,
                     float *logits)
{
    CHECK(home->ops->embed(home->d, b, tokens) == ST_OK, "embed fails\n");
    struct work w = {.n = b->n_tokens, .batch = b};
    for (w.layer = 0; w.layer < home->o.model->hp.n_layers; w.layer++) {
        for (int part = DEVICE_ATTENTION; part <= DEVICE_FFN; part++) {
            w.part = part;
            if (!run_block(home, other, &w))
                return false;
        }
    }
    home->ops->export_states(home->d, b->n_tokens, x);
    if (!states_pass(home->d, b, home->o.model->hp.d_model, x, home->message))
        return false;
    return run_output(home, other, b, logits);
}

/* ---- many sequences ---- */

struct sequences {
    uint32_t length[SEQUENCES];
    uint32_t kept[SEQUENCES];    /* where each has kept its state; 0: nowhere */
    int32_t tokens[SEQUENCES][N_CTX];
    uint32_t tables[ALL_PAGES];  /* under test: scattered */
    uint32_t in_order[ALL_PAGES]; /* of the reference */
    float *x, *logits, *x_expected, *logits_expected;
};

static void shuffle(struct rng *r, uint32_t *of, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        of[i] = i;
    for (uint32_t i = n; i-- > 1;) {
        const uint32_t j = (uint32_t)(rng_next(r) % (i + 1)), swap = of[i];
        of[i] = of[j];
        of[j] = swap;
    }
}

/* The next run of q, which may go back first: anywhere, or with delta nets to its beginning or where its state was
 * kept. */
static struct run draw_run(struct rng *r, struct sequences *s, const struct device_options *o, uint32_t q)
{
    struct run run = {.sequence = q, .position = s->length[q]};
    const uint32_t kept = SEQUENCES + 1 + q;
    if (rng_next(r) % 6 == 0) {
        run.position = o->n_states ? s->kept[q] : (uint32_t)(rng_next(r) % (s->length[q] + 1));
        run.begin_with = o->n_states && run.position ? kept : 0;
    }
    run.keep_as = o->n_states && rng_next(r) % 4 == 0 ? kept : 0;
    return run;
}

/* Runs of some of the sequences, in any order. */
static uint32_t draw_runs(struct rng *r, struct sequences *s, const struct device_options *o, struct run *runs)
{
    uint32_t order[SEQUENCES], n = 0, n_tokens = 0;
    shuffle(r, order, SEQUENCES);
    for (int i = 0; i < SEQUENCES; i++) {
        const uint32_t q = order[i];
        uint32_t length = rng_next(r) % 8 ? 1 + (uint32_t)(rng_next(r) % (o->n_batch * 5 / 12)) : 1;
        struct run run = draw_run(r, s, o, q);
        length = length > o->n_ctx - run.position ? o->n_ctx - run.position : length;
        length = length > o->n_batch - n_tokens ? o->n_batch - n_tokens : length;
        if (!length || rng_next(r) % 4 == 0)
            continue;
        run.n = length;
        runs[n++] = run;
        n_tokens += length;
        s->length[q] = run.position + length;
        s->kept[q] = run.keep_as ? s->length[q] : s->kept[q];
    }
    return n;
}

/* What the reference makes of the runs, each by itself. Logits come in the order of run_output. */
static bool expect(struct bed *reference, struct sequences *s, const struct run *runs, uint32_t n_runs,
                   uint32_t n_tokens)
{
    const int64_t d = reference->o.model->hp.d_model, n_vocab = reference->o.model->hp.n_vocab;
    uint32_t at = 0;
    for (uint32_t i = 0; i < n_runs; at += runs[i++].n) {
        const struct batch b = {&runs[i], 1, runs[i].n, s->in_order, PAGES};
        if (!run_step(reference, NULL, &b, s->tokens[runs[i].sequence] + runs[i].position, s->x_expected + at * d,
                      s->logits_expected + (n_tokens - at - runs[i].n) * n_vocab))
            return false;
    }
    return true;
}

static bool runs_equal(struct bed *home, struct bed *other, struct bed *reference, struct sequences *s, struct rng *r,
                       const struct run *runs, uint32_t n_runs)
{
    const size_t d = (size_t)home->o.model->hp.d_model, n_vocab = (size_t)home->o.model->hp.n_vocab;
    int32_t tokens[N_BATCH];
    uint32_t n_tokens = 0, at = 0;
    for (uint32_t i = 0; i < n_runs; at += runs[i++].n) {
        for (uint32_t t = 0; t < runs[i].n; t++)
            s->tokens[runs[i].sequence][runs[i].position + t] = (int32_t)(rng_next(r) % n_vocab);
        memcpy(tokens + at, s->tokens[runs[i].sequence] + runs[i].position, runs[i].n * sizeof *tokens);
        n_tokens += runs[i].n;
    }
    const struct batch b = {runs, n_runs, n_tokens, s->tables, PAGES};
    if (!n_tokens)
        return true;
    if (!run_step(home, other, &b, tokens, s->x, s->logits) || !expect(reference, s, runs, n_runs, n_tokens))
        return false;
    CHECK(memcmp(s->x, s->x_expected, n_tokens * d * sizeof(float)) == 0, "%s%s: x of %u tokens in %u runs differs\n",
          home->ops->name, other ? " and another" : "", n_tokens, n_runs);
    CHECK(memcmp(s->logits, s->logits_expected, n_tokens * n_vocab * sizeof(float)) == 0,
          "%s%s: logits of %u tokens in %u runs differ\n", home->ops->name, other ? " and another" : "", n_tokens,
          n_runs);
    return true;
}

static bool step_equals(struct bed *home, struct bed *other, struct bed *reference, struct sequences *s, struct rng *r)
{
    struct run runs[SEQUENCES];
    const uint32_t n_runs = draw_runs(r, s, &home->o, runs);
    return runs_equal(home, other, reference, s, r, runs, n_runs);
}

/* Sequence 1 goes on with the state of sequence 0, whose pages it has. */
static bool goes_on(struct bed *home, struct bed *other, struct bed *reference, struct sequences *s, struct rng *r)
{
    const struct run run = {.sequence = 1, .position = s->length[0], .n = 1, .begin_with = device_state_of(0)};
    if (run.position == home->o.n_ctx)
        return true;
    s->length[1]++;
    s->kept[1] = 0;
    return runs_equal(home, other, reference, s, r, &run, 1) && step_equals(home, other, reference, s, r);
}

/* Sequence 0's keys and values are copied page by page to where sequence 1 has its own: it then is the same text. */
static bool copies_pages(struct bed *home, struct bed *other, struct bed *reference, struct sequences *s, struct rng *r)
{
    const uint32_t from = s->length[0];
    for (int layer = 0; layer < home->o.model->hp.n_layers; layer++) {
        for (uint32_t i = 0; i * DEVICE_PAGE < from; i++) {
            home->ops->copy_page(home->d, layer, s->tables[i], s->tables[PAGES + i]);
            if (other)
                other->ops->copy_page(other->d, layer, s->tables[i], s->tables[PAGES + i]);
            reference->ops->copy_page(reference->d, layer, i, PAGES + i);
        }
    }
    memcpy(s->tokens[1], s->tokens[0], sizeof *s->tokens);
    s->length[1] = from;
    if (home->o.n_states)
        return goes_on(home, other, reference, s, r);
    /* the reference's own copy is checked by sequence 0 */
    const uint32_t begin = from ? from - 1 : 0;
    const struct run runs[] = {{.sequence = 0, .position = begin, .n = 1},
                               {.sequence = 1, .position = begin, .n = 1}};
    const int32_t same[] = {s->tokens[0][begin], s->tokens[0][begin]};
    const struct batch b = {runs, 2, 2, s->tables, PAGES};
    const size_t d = (size_t)home->o.model->hp.d_model;
    if (!run_step(home, other, &b, same, s->x, s->logits))
        return false;
    CHECK(memcmp(s->x, s->x + d, d * sizeof(float)) == 0, "%s: a copied page is another\n", home->ops->name);
    return step_equals(home, other, reference, s, r);
}

/* Two sequences go on token by token, as texts are written. */
static bool decodes(struct bed *home, struct bed *other, struct bed *reference, struct sequences *s, struct rng *r)
{
    for (int i = 0; i < DECODED; i++) {
        struct run runs[] = {{.sequence = 2, .n = 1}, {.sequence = 3, .n = 1}};
        for (int k = 0; k < 2; k++)
            runs[k].position = s->length[2 + k] %= home->o.n_ctx;
        if (!runs_equal(home, other, reference, s, r, runs, 2))
            return false;
        s->length[2]++;
        s->length[3]++;
    }
    return true;
}

static bool scores(const struct bed *home, const struct bed *reference, struct sequences *s, struct rng *r)
{
    enum { ROWS = 5 };
    const int64_t n_vocab = home->o.model->hp.n_vocab;
    int32_t next[ROWS];
    float found[ROWS], expected[ROWS];
    for (int i = 0; i < ROWS; i++)
        next[i] = i ? (int32_t)(rng_next(r) % (uint64_t)n_vocab) : -1;
    for (int64_t i = 0; i < ROWS * n_vocab; i++)
        s->logits[i] = s->logits_expected[i] = 8 * rng_float(r);
    home->ops->score(home->d, ROWS, s->logits, next, found);
    reference->ops->score(reference->d, ROWS, s->logits_expected, next, expected);
    CHECK(memcmp(found, expected, sizeof found) == 0, "%s: scores differ\n", home->ops->name);
    return true;
}

static bool all_hold(struct bed *home, struct bed *other, struct bed *reference, struct sequences *s, struct rng *r,
                     int steps)
{
    for (int i = 0; i < steps; i++)
        if (!step_equals(home, other, reference, s, r))
            return false;
    return decodes(home, other, reference, s, r) && copies_pages(home, other, reference, s, r) &&
           scores(home, reference, s, r);
}

static bool compare(const struct device_trial *t, int cut, bool at_home)
{
    const struct model *m = t->m;
    struct device_trial reference_of = *t;
    reference_of.ops = &device_cpu;
    reference_of.kernels = kernels_available(0);
    reference_of.n_threads = 1;
    struct bed home = {0}, other = {0}, reference = {0};
    struct sequences *s = calloc(1, sizeof *s);
    struct rng r = {(uint64_t)cut + 5};
    deal(&home, m, 0, cut, true, at_home);
    deal(&other, m, cut, 2, false, at_home);
    deal(&reference, m, 0, 2, true, false);
    bool ok = s && bed_open(&home, t) && bed_open(&reference, &reference_of) && (cut == 2 || bed_open(&other, t));
    if (ok) {
        shuffle(&r, s->tables, ALL_PAGES);
        for (uint32_t i = 0; i < ALL_PAGES; i++)
            s->in_order[i] = i;
        s->x = malloc(N_BATCH * (size_t)m->hp.d_model * sizeof(float));
        s->x_expected = malloc(N_BATCH * (size_t)m->hp.d_model * sizeof(float));
        s->logits = malloc(N_BATCH * (size_t)m->hp.n_vocab * sizeof(float));
        s->logits_expected = malloc(N_BATCH * (size_t)m->hp.n_vocab * sizeof(float));
        ok = s->x && s->x_expected && s->logits && s->logits_expected &&
             all_hold(&home, cut == 2 ? NULL : &other, &reference, s, &r, t->steps);
        free(s->x);
        free(s->x_expected);
        free(s->logits);
        free(s->logits_expected);
    }
    bed_close(&home);
    bed_close(&other);
    bed_close(&reference);
    free(s);
    return ok;
}

/* All on one device; nothing but x on the first, or x and the down projections; cut in two, likewise. */
bool device_conforms(const struct device_trial *trial)
{
    const struct model *m = trial->m;
    const bool cuttable = m->hp.n_kv_heads / model_head_unit(m, m->hp.n_layers - 1) > 1 &&
                          m->layers->bundles->n > model_neuron_unit(m);
    const bool may_part = !m->hp.n_experts; /* down projections lie with their neurons */
    struct device_trial t = *trial;
    t.steps = t.steps ? t.steps : STEPS;
    t.n_batch = t.n_batch ? t.n_batch : N_BATCH;
    if (t.brief)
        return compare(&t, 2, false) && compare(&t, cuttable, false);
    return compare(&t, 2, false) && compare(&t, 0, false) && (!may_part || compare(&t, 0, true)) &&
           (!cuttable || (compare(&t, 1, false) && (!may_part || compare(&t, 1, true))));
}

/* ---- what neuron files say ---- */

struct neurons device_measures(const struct model *m, enum activation a)
{
    const int64_t n = m->hp.d_ff;
    struct neurons of = {.activation = a, .n_layers = m->hp.n_layers, .d_model = m->hp.d_model, .d_ff = n,
                         .skip_share = 0.5f, .layers = calloc((size_t)m->hp.n_layers, sizeof *of.layers)};
    float *values = malloc((size_t)n * 2 * sizeof *values);
    if (!of.layers || !values)
        abort();
    for (int64_t i = 0; i < n; i++) {
        values[i] = 0.5f + (float)(i % 97) / 97;
        values[n + i] = (float)(i % 89) / 89 - 0.7f;
    }
    for (int l = 0; l < m->hp.n_layers; l++) {
        of.layers[l] = (struct neuron_layer){.live = 0.5f, .weight = values, .gate_slope = values, .up_slope = values,
                                             .gate_offset = values + n, .up_offset = values + n, .bound = values + n};
        for (int i = 0; i < SKIP_STEPS; i++)
            of.layers[l].skip[i] = 0.05f;
    }
    return of;
}

void device_measures_free(struct neurons *n)
{
    free((float *)n->layers[0].weight);
    free(n->layers);
}
