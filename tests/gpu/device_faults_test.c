/* What goes wrong on a GPU: numbers that are none, too little memory, calls that fail. One line, no crash, no leak. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/threads.h"
#include "device/cpu/table.h"
#include "device/cuda/measure.h"
#include "device/cuda/table.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "tests/gpu/memory.h"

#ifdef HEARTH_SIMT
#include <simt.h>
#endif

enum { TOKENS = 3, FIRST = 0, SEQUENCE = 1, PAGES = 2 };

/* A device that has all of a model. */
struct whole {
    struct model *m;
    struct span span;
    struct neuron_list set;
    struct shard_layer *layers;
    struct shard shard;
    struct pool *pool;
    struct device_options o;
    float *logits, *x;
    int steps;
};

static void whole_begin(struct whole *w, const char *name)
{
    char path[512];
    *w = (struct whole){.steps = 1};
    snprintf(path, sizeof path, TEST_DATA "/%s.gguf", name);
    assert_int_equal(model_load(path, &w->m), ST_OK);
    const struct hparams *hp = &w->m->hp;
    w->span = (struct span){0, (int32_t)hp->d_ff};
    w->set = (struct neuron_list){.spans = &w->span, .n_spans = 1};
    w->layers = calloc((size_t)hp->n_layers, sizeof *w->layers);
    w->logits = calloc((size_t)(TOKENS * hp->n_vocab), sizeof *w->logits);
    w->x = calloc((size_t)(TOKENS * hp->d_model), sizeof *w->x);
    assert_true(w->layers && w->logits && w->x);
    for (int i = 0; i < hp->n_layers; i++)
        w->layers[i] = (struct shard_layer){.head_end = hp->n_kv_heads, .sets = &w->set, .n_sets = 1, .down = true};
    w->shard = (struct shard){.layers = w->layers, .row_end = hp->n_vocab, .last = hp->n_layers, .embeds = true,
                              .ends = true, .uses = {true, true}};
    assert_int_equal(pool_create(1, &w->pool), ST_OK);
    w->o = (struct device_options){.model = w->m, .shard = &w->shard, .n_ctx = 64, .n_batch = TOKENS, .n_pages = PAGES,
                                   .n_passing = 1, .kernels = kernels_available(0), .pool = w->pool, .n_threads = 1};
}

static void whole_end(struct whole *w)
{
    pool_destroy(w->pool);
    model_free(w->m);
    free(w->layers);
    free(w->logits);
    free(w->x);
}

/* Counts, asked for after each part. */
static struct device_counts *asked;

static void ask(struct device *d)
{
    if (!asked)
        return;
    const struct device_counts of = d->ops->counts(d);
    asked->bytes += of.bytes;
    asked->flagged += of.flagged;
    asked->live += of.live;
}

static status run_layers(struct device *d, const struct batch *b, int n_layers)
{
    struct work w = {.n = b->n_tokens, .batch = b};
    status st = ST_OK;
    for (w.layer = 0; w.layer < n_layers; w.layer++) {
        for (int part = DEVICE_ATTENTION; part <= DEVICE_FFN && !st; part++) {
            w.part = part;
            st = d->ops->norm(d, &w);
            if (!st)
                d->ops->part(d, &w, d->in[USE_OWN], d->sums[USE_OWN]);
            ask(d);
            st = st ? st : d->ops->add(d, &w);
        }
    }
    return st;
}

/* A step, and what is made of its end. */
static status run_step(struct whole *w, struct device *d)
{
    static const int32_t tokens[TOKENS] = {5, 9, 7};
    static const uint32_t tables[] = {0, 1, 1, 0}, wanted[] = {2, 1};
    const struct run run = {.sequence = SEQUENCE, .position = FIRST, .n = TOKENS};
    const struct batch b = {&run, 1, TOKENS, tables, 2};
    const struct work end = {.part = DEVICE_OUTPUT, .n = 2, .batch = &b, .tokens = wanted};
    status st = d->ops->embed(d, &b, tokens);
    if (!st && d->ops->passing) { /* out and in again */
        d->ops->give_states(d, TOKENS, d->ops->passing(d, 0));
        st = d->ops->take_states(d, &b, d->ops->passing(d, 0), "x");
    }
    st = st ? st : run_layers(d, &b, w->m->hp.n_layers);
    if (!st)
        d->ops->export_states(d, TOKENS, w->x);
    st = st ? st : d->ops->norm(d, &end);
    if (!st)
        d->ops->logits(d, &end, d->in[USE_OWN], w->logits, w->m->hp.n_vocab);
    return st ? st : d->ops->check_logits(d, &end, w->logits);
}

/* The whole life of a device. */
static status live_and_die(struct whole *w, const struct device_ops *ops)
{
    struct device *d = NULL;
    status st = ops->open(&w->o, &d);
    if (!st && ops->pin)
        ops->pin(d, w->x, TOKENS * (size_t)w->m->hp.d_model * sizeof *w->x);
    st = st ? st : ops->load(d, &(struct device_loading){0});
    for (int i = 0; i < w->steps && !st; i++)
        st = run_step(w, d);
    if (d)
        ops->close(d);
    return st;
}

/* ---- numbers that are none ---- */

enum { NUMBER = 4 }; /* which of a row is none */

/* A copy of a matrix whose row `row` has a NaN; the caller frees. */
static uint8_t *plant(struct matrix *m, int64_t row)
{
    static const uint8_t nan32[] = {0, 0, 0xc0, 0x7f}, nan16[] = {0, 0x7e};
    const size_t bytes = dtype_row_bytes(m->type, m->cols), size = m->type == DT_F32 ? 4 : 2;
    uint8_t *copy = malloc((size_t)m->rows * bytes);
    assert_non_null(copy);
    memcpy(copy, m->data, (size_t)m->rows * bytes);
    uint8_t *at = copy + (size_t)row * bytes; /* of quantised types the first block's scale */
    memcpy(dtype_is_quantised(m->type) ? at : at + NUMBER * size, size == 4 ? nan32 : nan16, size);
    m->data = copy;
    return copy;
}

/* Both devices find it, and say where; `same`: to the value. */
static void finds(struct whole *w, struct matrix *m, int64_t row, bool same)
{
    struct log_catcher cpu, cuda;
    const uint8_t *before = m->data;
    uint8_t *planted = plant(m, row);
    log_catch(&cpu);
    assert_int_equal(live_and_die(w, &device_cpu), ST_NAN);
    log_catch(NULL);
    log_catch(&cuda);
    assert_int_equal(live_and_die(w, &device_cuda), ST_NAN);
    log_catch(NULL);
    char *value = strstr(cpu.first_error, same ? " is " : ": value");
    assert_non_null(value);
    if (strncmp(cpu.first_error, cuda.first_error, (size_t)(value - cpu.first_error)) != 0)
        fail_msg("the CPU says: %s; the GPU: %s", cpu.first_error, cuda.first_error);
    m->data = before;
    free(planted);
}

static void test_numbers(void **state)
{
    (void)state;
    struct whole w;
    whole_begin(&w, "family-llama-q4_0");
    struct layer_weights *last = &w.m->layers[w.m->hp.n_layers - 1];
    finds(&w, &w.m->embedding, 9, true);
    finds(&w, &last->attn_norm, 0, true);
    finds(&w, &last->ffn_norm, 0, true);
    finds(&w, &w.m->out_norm, 0, true);
    finds(&w, &w.m->output, 3, true);
    finds(&w, &last->q, 0, false);
    finds(&w, &last->o, 6, false);
    finds(&w, &last->bundles->gate, 1, false);
    finds(&w, &last->bundles->down, 6, false);
    whole_end(&w);
}

/* After one was found, and returned, the device goes on. */
static void test_goes_on(void **state)
{
    (void)state;
    struct whole w;
    struct device *d;
    struct log_catcher found;
    const struct run run = {.sequence = SEQUENCE, .position = 2, .n = 1};
    const struct batch b = {&run, 1, 1, (const uint32_t[]){0, 1}, 1};
    whole_begin(&w, "family-llama-q4_0");
    float *hidden = calloc((size_t)w.m->hp.d_model, sizeof *hidden);
    assert_int_equal(device_cuda.open(&w.o, &d), ST_OK);
    assert_int_equal(device_cuda.load(d, &(struct device_loading){0}), ST_OK);
    memset(&hidden[2], 0xff, sizeof *hidden);
    log_catch(&found);
    status st = device_cuda.import_states(d, &b, hidden, "the hidden state from rank 3");
    device_cuda.export_states(d, 1, w.x);
    st = st ? st : device_cuda.norm(d, &(struct work){.n = 1, .batch = &b});
    log_catch(NULL);
    assert_int_equal(st, ST_NAN);
    assert_non_null(strstr(found.first_error,
                           "the hidden state from rank 3: value 2 of the token at position 2 of sequence 1"));
    assert_int_equal(run_step(&w, d), ST_OK);
    device_cuda.close(d);
    free(hidden);
    whole_end(&w);
}

/* x with the FFN of a layer added, or that it is no number: what is noted comes with what leaves the device. */
static status run_ffn(struct whole *w, struct device *d, const struct batch *b, int layer)
{
    const struct work ffn = {.part = DEVICE_FFN, .layer = layer, .n = b->n_tokens, .batch = b};
    float *x = malloc((size_t)w->m->hp.d_model * sizeof *x);
    assert_non_null(x);
    assert_int_equal(d->ops->import_states(d, b, w->x, "x"), ST_OK);
    assert_int_equal(d->ops->norm(d, &ffn), ST_OK);
    d->ops->part(d, &ffn, d->in[USE_OWN], d->sums[USE_OWN]);
    assert_int_equal(d->ops->add(d, &ffn), ST_OK);
    assert_int_equal(d->ops->norm(d, &ffn), ST_OK);
    d->ops->export_states(d, b->n_tokens, x);
    free(x);
    return d->ops->norm(d, &ffn);
}

/* Sums that were none are not left to the next block where no attention begins them in between. */
static void test_sums_begin(void **state)
{
    (void)state;
    struct whole w;
    struct device *d;
    struct log_catcher found;
    const struct run run = {.sequence = SEQUENCE, .position = FIRST, .n = 1};
    const struct batch b = {&run, 1, 1, (const uint32_t[]){0, 1}, 1};
    whole_begin(&w, "family-llama-q4_0");
    const int last = w.m->hp.n_layers - 1;
    uint8_t *planted = plant(&w.m->layers[last].bundles->down, 6);
    for (int i = 0; i <= last; i++)
        w.layers[i].head_end = 0;
    for (int64_t i = 0; i < w.m->hp.d_model; i++)
        w.x[i] = 1 + (float)(i % 7);
    assert_int_equal(device_cuda.open(&w.o, &d), ST_OK);
    assert_int_equal(device_cuda.load(d, &(struct device_loading){0}), ST_OK);
    log_catch(&found);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(run_ffn(&w, d, &b, 0), ST_OK);
        assert_int_equal(run_ffn(&w, d, &b, last), ST_NAN);
    }
    log_catch(NULL);
    device_cuda.close(d);
    free(planted);
    whole_end(&w);
}

/* A call that fails leaves its error with the thread, which may have several devices: it is not theirs. Nor is it one
 * that work is not done yet. */
static void test_errors_of_others(void **state)
{
    (void)state;
    static const int32_t tokens[] = {5};
    struct whole w;
    struct device *d;
    const struct run run = {.sequence = SEQUENCE, .position = 0, .n = 1};
    const struct batch b = {&run, 1, 1, (const uint32_t[]){0, 1}, 1};
    const struct work work = {.n = 1, .batch = &b};
    int waited = 0;
    whole_begin(&w, "family-llama-q4_0");
    assert_int_not_equal(cudaSetDevice(99), cudaSuccess);
    assert_int_equal(device_cuda.open(&w.o, &d), ST_OK);
    assert_int_equal(device_cuda.load(d, &(struct device_loading){0}), ST_OK);
    assert_int_equal(device_cuda.embed(d, &b, tokens), ST_OK);
    assert_int_equal(device_cuda.norm(d, &work), ST_OK);
    device_cuda.part(d, &work, d->in[USE_OWN], d->sums[USE_OWN]);
    while (!device_cuda.done(d))
        waited++;
    assert_int_equal(device_cuda.add(d, &work), ST_OK);
    assert_int_equal(device_cuda.found(d), ST_OK);
    device_cuda.close(d);
    print_message("asked %d times whether it was done\n", waited);
    whole_end(&w);
}

/* What is counted does not depend on when it is asked for. */
static void test_counts(void **state)
{
    (void)state;
    struct whole w;
    struct device *d;
    struct device_counts sum = {0};
    whole_begin(&w, "family-llama-q4_0");
    w.m->hp.activation = ACT_RELU;
    w.o.sparse = SPARSE_EXACT;
    assert_int_equal(device_cuda.open(&w.o, &d), ST_OK);
    assert_int_equal(device_cuda.load(d, &(struct device_loading){0}), ST_OK);
    assert_int_equal(run_step(&w, d), ST_OK);
    const struct device_counts once = d->ops->counts(d);
    asked = &sum;
    assert_int_equal(run_step(&w, d), ST_OK);
    ask(d);
    asked = NULL;
    device_cuda.close(d);
    whole_end(&w);
    assert_true(once.live > 0);
    assert_int_equal(sum.flagged, once.flagged);
    assert_int_equal(sum.live, once.live);
    assert_int_equal(sum.bytes, once.bytes);
}

/* ---- memory ---- */

static void refused(struct whole *w, status expected, const char *says)
{
    struct log_catcher c;
    log_catch(&c);
    assert_int_equal(live_and_die(w, &device_cuda), expected);
    log_catch(NULL);
    if (!strstr(c.first_error, says))
        fail_msg("it says: %s; expected: %s", c.first_error, says);
}

static void watch(void *arg, const struct observed *o) { (void)arg, (void)o; }

static void test_refusals(void **state)
{
    (void)state;
    struct whole w;
    struct device_memory need;
    whole_begin(&w, "family-llama-q4_0");
    assert_int_equal(device_cuda.need(&w.o, &need), ST_OK);
    w.o.vram_budget = need.total - 1;
    refused(&w, ST_BUDGET, "--vram-budget allows");
    w.o.vram_budget = need.total;
    assert_int_equal(live_and_die(&w, &device_cuda), ST_OK);
    w.o.n_pages = 1 << 30;
    w.o.vram_budget = 0;
    refused(&w, ST_NOMEM, "free: give it fewer layers (-ngl, --vram-budget)");
    w.o.n_pages = PAGES;
    w.o.observe = watch;
    refused(&w, ST_UNSUPPORTED, "--device cpu");
    w.o.observe = NULL;
    w.m->hp.head_dim = 12;
    assert_int_equal(device_cuda.need(&w.o, &need), ST_UNSUPPORTED);
    whole_end(&w);
}

/* Layers have one scratch, and those that see all of a text need more of it than those that slide. */
static void test_scratch(void **state)
{
    (void)state;
    struct whole w;
    struct device_memory all, first, none;
    whole_begin(&w, "tiny-mistral");
    w.o.n_ctx = 1 << 14;
    assert_int_equal(device_cuda.need(&w.o, &all), ST_OK);
    w.m->hp.layer[1].slides = false;
    assert_int_equal(device_cuda.need(&w.o, &first), ST_OK);
    w.m->hp.layer[0].slides = false;
    assert_int_equal(device_cuda.need(&w.o, &none), ST_OK);
    assert_true(all.buffers < first.buffers && first.buffers == none.buffers);
    whole_end(&w);
}

/* What a GPU does not compute of a model it names, before anything else is done. */
static void test_lacks(void **state)
{
    (void)state;
    struct whole w;
    whole_begin(&w, "model-gpt-oss-f16");
    w.m->layers[0].ffn_post_norm = w.m->layers[0].ffn_norm;
    refused(&w, ST_UNSUPPORTED, "a GPU does not compute norms of what biases of experts are a part of, which this "
                                "gpt-oss model has: --device cpu");
    whole_end(&w);
    whole_begin(&w, "model-qwen35");
    refused(&w, ST_UNSUPPORTED, "a GPU does not compute gated delta nets, which this qwen35 model has: --device cpu");
    whole_end(&w);
}

/* ---- calls that fail ---- */

#ifdef HEARTH_SIMT
static int error_lines;

static void count_errors(enum log_kind kind, const char *line)
{
    error_lines += kind == LOG_ERROR && !strstr(line, "no number"); /* what a lost GPU gives */
}

/* The n-th call fails, and those after it where it stays so. */
static void fails(struct whole *w, long n, cudaError_t error, bool stays)
{
    error_lines = 0;
    log_redirect(count_errors);
    simt_fail(n, error, stays);
    const status st = live_and_die(w, &device_cuda);
    simt_fail(0, cudaSuccess, false);
    cudaDeviceReset();
    log_redirect(NULL);
    if (st == ST_OK ? error_lines > 1 : error_lines != 1) /* what fails while it is closed changes nothing */
        fail_msg("call %ld fails with %s: %s, %d lines", n, cudaGetErrorName(error), status_name(st), error_lines);
}

static long calls_of(struct whole *w, int steps)
{
    const long before = simt_calls();
    w->steps = steps;
    assert_int_equal(live_and_die(w, &device_cuda), ST_OK);
    return simt_calls() - before;
}

static void test_calls(void **state)
{
    (void)state;
    struct whole w;
    whole_begin(&w, "family-llama-q4_0");
    const long once = calls_of(&w, 1), thrice = calls_of(&w, 3); /* the second step makes graphs, the third launches
                                                                  * them */
    assert_true(once > 100 && thrice > once);
    for (long n = 1; n <= thrice; n++)
        fails(&w, n, n % 2 ? cudaErrorLaunchFailure : cudaErrorMemoryAllocation, n % 3 == 0);
    assert_int_equal(live_and_die(&w, &device_cuda), ST_OK);
    whole_end(&w);
}

/* Whichever call fails while a GPU is measured: one reason, nothing logged, and the next time it goes well. */
static void test_measuring_calls(void **state)
{
    (void)state;
    struct gpu_speed s;
    char why[LOG_LINE_MAX];
    const long before = simt_calls();
    assert_int_equal(measure_gpu(0, &s, why), ST_OK);
    const long calls = simt_calls() - before;
    assert_true(s.read_gb_per_s > 0 && s.up_gb_per_s > 0 && s.down_gb_per_s > 0 && s.launch_us > 0 && s.wait_us > 0);
    assert_true(calls > 30);
    error_lines = 0;
    log_redirect(count_errors);
    for (long n = 1; n <= calls; n += n < 30 ? 1 : 97) { /* the first ones are all different */
        strcpy(why, "nothing");
        simt_fail(n, cudaErrorMemoryAllocation, false);
        const status st = measure_gpu(0, &s, why);
        simt_fail(0, cudaSuccess, false);
        if (st && (st != ST_UNSUPPORTED || !strstr(why, "cuda:0 cannot be measured: ") || !strstr(why, " fails: ")))
            fail_msg("call %ld of %ld: %s: %s", n, calls, status_name(st), why);
        if (!st && n < 10)
            fail_msg("call %ld of %ld fails, and nothing shows", n, calls);
    }
    log_redirect(NULL);
    assert_int_equal(error_lines, 0);
    assert_int_equal(measure_gpu(0, &s, why), ST_OK);
}
#else
static void test_measuring_calls(void **state)
{
    (void)state;
    skip();
}

static void test_calls(void **state)
{
    (void)state;
    skip(); /* calls of a real GPU do as they like */
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_numbers), cmocka_unit_test(test_goes_on),
                                       cmocka_unit_test(test_sums_begin),
                                       cmocka_unit_test(test_errors_of_others), cmocka_unit_test(test_counts),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_scratch),
                                       cmocka_unit_test(test_lacks), cmocka_unit_test(test_measuring_calls),
                                       cmocka_unit_test(test_calls)};
    return gpu_for_test() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
