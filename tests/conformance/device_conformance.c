#include "tests/conformance/device_conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "device/cpu/table.h"
#include "model/model.h"
#include "tests/conformance/kernels_suite.h"

enum { N_CTX = 160, N_BATCH = 48, SEQUENCES = 5, STEPS = 8, LONGEST_RUN = 20 };
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
    struct neuron_list set;
    struct span span;
    struct pool *pool;
    struct device *d;
};

/* What a device holds: shares [begin, end) of 2 of all heads, neurons and rows, on their units. */
static void deal(struct bed *b, const struct model *m, int begin, int end, bool home)
{
    const int64_t heads[] = {0, m->hp.n_kv_heads / model_head_unit(m) / 2 * model_head_unit(m), m->hp.n_kv_heads};
    const int64_t neurons[] = {0, m->hp.d_ff / model_neuron_unit(m) / 2 * model_neuron_unit(m), m->hp.d_ff};
    const int64_t rows[] = {0, m->hp.n_vocab / 2, m->hp.n_vocab};
    b->span = (struct span){(int32_t)neurons[begin], (int32_t)neurons[end]};
    b->set = (struct neuron_list){&b->span, 1};
    b->layers = calloc((size_t)m->hp.n_layers, sizeof *b->layers);
    for (int i = 0; i < m->hp.n_layers; i++)
        b->layers[i] = (struct shard_layer){.head_begin = heads[begin], .head_end = heads[end], .sets = &b->set,
                                            .n_sets = b->span.begin < b->span.end, .down = true};
    b->shard = (struct shard){.layers = b->layers, .row_begin = rows[begin], .row_end = rows[end],
                              .last = home ? m->hp.n_layers : 0, .embeds = home, .ends = home,
                              .uses = {home, !home}};
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

static bool bed_open(struct bed *b, const struct device_ops *ops, const struct model *m, const struct kernels *kernels,
                     int n_threads)
{
    struct device_memory need = {0}, again = {0};
    b->ops = ops;
    b->o = (struct device_options){.model = m, .shard = &b->shard, .n_ctx = context_of(m), .n_batch = N_BATCH,
                                   .n_pages = ALL_PAGES, .kernels = kernels, .n_threads = n_threads};
    CHECK(ops->need(&b->o, &need) == ST_OK && ops->need(&b->o, &again) == ST_OK, "%s: need fails\n", ops->name);
    CHECK(memcmp(&need, &again, sizeof need) == 0 && need.total == need.weights + need.kv + need.buffers,
          "%s: need is not its parts, or is not the same twice\n", ops->name);
    CHECK(pool_create(n_threads, &b->pool) == ST_OK, "no threads\n");
    b->o.pool = b->pool;
    CHECK(ops->open(&b->o, &b->d) == ST_OK, "%s: cannot be opened\n", ops->name);
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
    free(b->layers);
}

/* ---- a step ---- */

/* Passes the home's input to another device and adds the other's part, in memory that shows what is written beside it. */
static bool add_other(struct bed *home, struct bed *other, const struct work *w)
{
    const size_t d = (size_t)home->o.model->hp.d_model, values = w->n * d, widths = w->n * ((d + 31) / 32);
    const bool floats = device_reads_floats(&home->o, w->part, w->layer);
    struct input_bytes x = {0};
    struct sum_bytes sums = {guarded(widths), NULL};
    x.codes = guarded(values);
    x.scale = guarded(values / 32 * sizeof(float) + 1);
    x.f32 = floats ? guarded(values * sizeof(float)) : NULL;
    home->ops->export_input(home->d, w, home->d->in[USE_OWN], &x);
    other->ops->import_input(other->d, w, &x, other->d->in[USE_SERVED]);
    other->ops->part(other->d, w, other->d->in[USE_SERVED], other->d->sums[USE_SERVED]);
    while (!other->ops->done(other->d))
        ;
    sums.packed = guarded(widths * 32 * sizeof(double)); /* the most */
    other->ops->export_sums(other->d, w->n, other->d->sums[USE_SERVED], false, &sums);
    home->ops->import_sums(home->d, w->n, &sums, home->d->sums[USE_OWN]);
    bool intact = guarded_intact(x.codes, values) && guarded_intact(x.scale, values / 32 * sizeof(float) + 1) &&
                  guarded_intact(sums.width, widths) && guarded_intact(sums.packed, widths * 32 * sizeof(double)) &&
                  (!floats || guarded_intact(x.f32, values * sizeof(float)));
    for (size_t i = 0; i < widths && intact; i++)
        intact = sums.width[i] >= 3 && sums.width[i] <= 8 && sums.width[i] != 7;
    guarded_free(x.codes);
    guarded_free(x.scale);
    if (floats)
        guarded_free(x.f32);
    guarded_free(sums.width);
    guarded_free(sums.packed);
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
    return run_output(home, other, b, logits);
}

/* ---- many sequences ---- */

struct sequences {
    uint32_t length[SEQUENCES];
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

/* Runs of some of the sequences, in any order; some go back first. */
static uint32_t draw_runs(struct rng *r, struct sequences *s, uint32_t n_ctx, struct run *runs, uint32_t *n_tokens)
{
    uint32_t order[SEQUENCES], n = 0;
    shuffle(r, order, SEQUENCES);
    *n_tokens = 0;
    for (int i = 0; i < SEQUENCES; i++) {
        const uint32_t q = order[i];
        uint32_t length = rng_next(r) % 8 ? 1 + (uint32_t)(rng_next(r) % LONGEST_RUN) : 1;
        if (rng_next(r) % 6 == 0)
            s->length[q] = (uint32_t)(rng_next(r) % (s->length[q] + 1));
        length = length > n_ctx - s->length[q] ? n_ctx - s->length[q] : length;
        length = length > N_BATCH - *n_tokens ? N_BATCH - *n_tokens : length;
        if (!length || rng_next(r) % 4 == 0)
            continue;
        runs[n++] = (struct run){q, s->length[q], length};
        *n_tokens += length;
        s->length[q] += length;
    }
    return n;
}

/* What the reference makes of the runs, each by itself. Logits come in the order of run_output. */
static bool expect(struct bed *reference, struct sequences *s, const struct run *runs, uint32_t n_runs, uint32_t n_tokens)
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

static bool step_equals(struct bed *home, struct bed *other, struct bed *reference, struct sequences *s, struct rng *r)
{
    const size_t d = (size_t)home->o.model->hp.d_model, n_vocab = (size_t)home->o.model->hp.n_vocab;
    struct run runs[SEQUENCES];
    int32_t tokens[N_BATCH];
    uint32_t n_tokens, at = 0;
    const uint32_t n_runs = draw_runs(r, s, home->o.n_ctx, runs, &n_tokens);
    for (uint32_t i = 0; i < n_runs; at += runs[i++].n) {
        for (uint32_t t = 0; t < runs[i].n; t++)
            s->tokens[runs[i].sequence][runs[i].position + t] = (int32_t)(rng_next(r) % n_vocab);
        memcpy(tokens + at, s->tokens[runs[i].sequence] + runs[i].position, runs[i].n * sizeof *tokens);
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
    /* the reference's own copy is checked by sequence 0 */
    const uint32_t begin = from ? from - 1 : 0;
    const struct run runs[] = {{0, begin, 1}, {1, begin, 1}};
    const int32_t same[] = {s->tokens[0][begin], s->tokens[0][begin]};
    const struct batch b = {runs, 2, 2, s->tables, PAGES};
    const size_t d = (size_t)home->o.model->hp.d_model;
    if (!run_step(home, other, &b, same, s->x, s->logits))
        return false;
    CHECK(memcmp(s->x, s->x + d, d * sizeof(float)) == 0, "%s: a copied page is another\n", home->ops->name);
    return step_equals(home, other, reference, s, r);
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

static bool all_hold(struct bed *home, struct bed *other, struct bed *reference, struct sequences *s, struct rng *r)
{
    for (int i = 0; i < STEPS; i++)
        if (!step_equals(home, other, reference, s, r))
            return false;
    return copies_pages(home, other, reference, s, r) && scores(home, reference, s, r);
}

static bool compare(const struct device_ops *ops, const struct model *m, const struct kernels *kernels, int n_threads,
                    int cut)
{
    struct bed home = {0}, other = {0}, reference = {0};
    struct sequences *s = calloc(1, sizeof *s);
    struct rng r = {(uint64_t)cut + 5};
    deal(&home, m, 0, cut, true);
    deal(&other, m, cut, 2, false);
    deal(&reference, m, 0, 2, true);
    bool ok = s && bed_open(&home, ops, m, kernels, n_threads) &&
              bed_open(&reference, &device_cpu, m, kernels_available(0), 1) &&
              (cut == 2 || bed_open(&other, ops, m, kernels, n_threads));
    if (ok) {
        shuffle(&r, s->tables, ALL_PAGES);
        for (uint32_t i = 0; i < ALL_PAGES; i++)
            s->in_order[i] = i;
        s->x = malloc(N_BATCH * (size_t)m->hp.d_model * sizeof(float));
        s->x_expected = malloc(N_BATCH * (size_t)m->hp.d_model * sizeof(float));
        s->logits = malloc(N_BATCH * (size_t)m->hp.n_vocab * sizeof(float));
        s->logits_expected = malloc(N_BATCH * (size_t)m->hp.n_vocab * sizeof(float));
        ok = s->x && s->x_expected && s->logits && s->logits_expected &&
             all_hold(&home, cut == 2 ? NULL : &other, &reference, s, &r);
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

/* All on one device; cut in two; nothing but x on the first. */
bool device_conforms(const struct device_ops *ops, const struct model *m, const struct kernels *kernels, int n_threads)
{
    const bool cuttable = m->hp.n_kv_heads / model_head_unit(m) > 1 && m->hp.d_ff > model_neuron_unit(m);
    return compare(ops, m, kernels, n_threads, 2) && (!cuttable || compare(ops, m, kernels, n_threads, 1)) &&
           compare(ops, m, kernels, n_threads, 0);
}
