/* Fitting a layer whose truth is known: what the predictors and thresholds then do on samples they have not seen. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/log.h"
#include "sparsity/fit/fit.h"
#include "sparsity/fit/linear.h"
#include "sparsity/fit/mlp.h"
#include "sparsity/fit/mlp_inside.h"
#include "sparsity/fit/products.h"
#include "sparsity/fit/quantise.h"
#include "tests/unit/alloc_fail.h"

/* Also the memory that kernels read. */
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return alloc_fail_now() ? NULL : __real_aligned_alloc(alignment, size);
}
void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, long offset);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, long offset);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, long offset)
{
    return __real_mmap(at, n, protection, flags, fd, offset);
}
int __real_pthread_create(void *thread, const void *attributes, void *(*start)(void *), void *arg);
int __wrap_pthread_create(void *thread, const void *attributes, void *(*start)(void *), void *arg);
int __wrap_pthread_create(void *thread, const void *attributes, void *(*start)(void *), void *arg)
{
    return __real_pthread_create(thread, attributes, start, arg);
}

enum { D_MODEL = 64, D_FF = 256, SAMPLES = 2048, FRESH = 1024, RANK = 6 };

/* A layer with weights, and samples of it. */
struct layer {
    struct pool *pool;
    struct model model;
    struct layer_weights weights;
    struct bundle bundle; /* its only one, as bundle_up makes it of the weights */
    float bias[D_FF];
    float *x, *fresh; /* [SAMPLES, D_MODEL], [FRESH, D_MODEL] */
    uint32_t fired[D_FF];
    double sum[D_FF];
    struct layer_sample sample;
    struct fit_options options;
    void *owned[16];
    int n_owned;
};

static uint64_t seed;

static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) / (1 << 24) - 0.5f;
}

static float normal(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += uniform();
    return sum;
}

static void *own(struct layer *l, void *p)
{
    assert_non_null(p);
    l->owned[l->n_owned++] = p;
    return p;
}

/* Random weights of Q8_0 or Q4_0, of rank `rank` (0: full). */
static struct matrix make_matrix(struct layer *l, enum dtype type, int64_t rows, int64_t cols, int rank)
{
    float *w = calloc((size_t)(rows * cols), sizeof *w), left[D_FF * RANK], right[RANK * D_MODEL];
    for (int i = 0; i < rows * rank; i++)
        left[i] = normal();
    for (int i = 0; i < rank * cols; i++)
        right[i] = normal();
    for (int64_t i = 0; i < rows * cols; i++) {
        w[i] = rank ? 0 : normal();
        for (int k = 0; k < rank; k++)
            w[i] += left[i / cols * rank + k] * right[k * cols + i % cols];
    }
    uint8_t *data = own(l, malloc((size_t)rows * dtype_row_bytes(type, cols)));
    quantise_rows(l->pool, type, w, rows, cols, NULL, data);
    free(w);
    return (struct matrix){.type = type, .rows = rows, .cols = cols, .data = data, .name = "made"};
}

/* About as the norm leaves them: a constant part, on which the gate's bias rests, and noise. */
static float *make_samples(struct layer *l, int64_t n)
{
    float *x = own(l, malloc((size_t)(n * D_MODEL) * sizeof *x));
    for (int64_t i = 0; i < n * D_MODEL; i++)
        x[i] = i % D_MODEL < 4 ? 2 + 0.1f * normal() : normal();
    return x;
}

static void bundle_up(struct layer *l)
{
    const struct layer_weights *w = &l->weights;
    l->bundle = (struct bundle){.n = D_FF, .gate = w->gate, .up = w->up, .up_bias = w->up_bias, .down = w->down,
                                .down_t = w->down_t};
    l->weights.bundles = &l->bundle;
    l->weights.n_bundles = 1;
}

/* rank: of the gate; without a gate, of up. */
static struct layer *make_layer(enum activation a, enum dtype type, int rank, bool gate)
{
    struct layer *l = calloc(1, sizeof *l);
    seed = 1;
    assert_non_null(l);
    assert_int_equal(pool_create(1, &l->pool), ST_OK);
    assert_int_equal(fit_defaults(&l->options), ST_OK);
    l->model.hp = (struct hparams){.n_layers = 1, .d_model = D_MODEL, .d_ff = D_FF, .activation = a, .has_gate = gate};
    l->model.layers = &l->weights;
    if (gate)
        l->weights.gate = make_matrix(l, type, D_FF, D_MODEL, rank);
    l->weights.up = make_matrix(l, type, D_FF, D_MODEL, gate ? 0 : rank);
    l->weights.down = make_matrix(l, type, D_MODEL, D_FF, 0);
    for (int j = 0; j < D_FF; j++) {
        l->bias[j] = 4 * normal() - 4;
        l->fired[j] = (uint32_t)j;
        l->sum[j] = 0.5 * j;
    }
    if (!gate)
        l->weights.up_bias = (struct matrix){DT_F32, 1, D_FF, (const uint8_t *)l->bias, "bias"};
    bundle_up(l);
    l->x = make_samples(l, SAMPLES);
    l->fresh = make_samples(l, FRESH);
    l->sample = (struct layer_sample){.model = &l->model, .activation = a, .n = SAMPLES, .n_fit = SAMPLES * 3 / 4,
                                      .x = l->x, .fired = l->fired, .sum = l->sum, .n_tokens = D_FF};
    return l;
}

static void free_layer(struct layer *l)
{
    pool_destroy(l->pool);
    for (int i = 0; i < l->n_owned; i++)
        free(l->owned[i]);
    free(l);
}

/* out [n, w->rows] from x [n, w->cols], as the engine computes it. */
static void multiply(const struct layer *l, const struct matrix *w, const float *x, int64_t n, bool estimate,
                     float *out)
{
    struct products p;
    assert_int_equal(products_open(&p, l->options.kernels, l->pool, n, w->cols), ST_OK);
    memcpy(p.acts.f32, x, (size_t)(n * w->cols) * sizeof *x);
    products_quantize(&p);
    assert_int_equal((estimate ? products_estimate : products_exact)(&p, w, out), ST_OK);
    products_close(&p);
}

static float *room(int64_t n)
{
    float *p = malloc((size_t)n * sizeof *p);
    assert_non_null(p);
    return p;
}

/* How a predictor does on the fresh samples. */
struct outcome {
    double recall, accuracy, flagged;
};

static struct outcome judge(const struct layer *l, const float *margin, const float *limit_of, float limit)
{
    const bool gate = l->weights.gate.data;
    float *value = room(FRESH * D_FF);
    double live = 0, flagged = 0, hit = 0, n = FRESH * D_FF;
    multiply(l, gate ? &l->weights.gate : &l->weights.up, l->fresh, FRESH, false, value);
    for (int64_t i = 0; i < FRESH * D_FF; i++) {
        const bool fires = value[i] + (gate ? 0 : l->bias[i % D_FF]) > 0;
        const bool flag = limit_of ? margin[i] > limit_of[i % D_FF] : margin[i] >= limit;
        live += fires;
        flagged += flag;
        hit += flag && fires;
    }
    free(value);
    assert_in_range((int)live, 1000, (int)n - 1000);
    return (struct outcome){hit / live, 1 - (live + flagged - 2 * hit) / n, flagged / n};
}

static struct outcome judge_planes(const struct layer *l, const struct fitted_layer *f)
{
    float *estimate = room(FRESH * D_FF);
    multiply(l, l->weights.gate.data ? &l->weights.gate : &l->weights.up, l->fresh, FRESH, true, estimate);
    struct outcome o = judge(l, estimate, f->layer.bound, 0);
    free(estimate);
    return o;
}

static struct outcome judge_mlp(const struct layer *l, const struct fitted_layer *f)
{
    const int64_t r = f->layer.fc1.rows;
    float *hidden = room(FRESH * r), *logit = room(FRESH * D_FF);
    multiply(l, &f->layer.fc1, l->fresh, FRESH, false, hidden);
    for (int64_t i = 0; i < FRESH * r; i++)
        hidden[i] = hidden[i] > 0 ? hidden[i] : 0;
    multiply(l, &f->layer.fc2, hidden, FRESH, false, logit);
    struct outcome o = judge(l, logit, NULL, f->layer.mlp_threshold);
    free(hidden);
    free(logit);
    return o;
}

static void assert_near(double a, double b, double most)
{
    if (!(fabs(a - b) <= most))
        fail_msg("%g is not within %g of %g", a, most, b);
}

static void assert_quality(struct outcome o, const struct predictor_quality *q)
{
    assert_near(o.recall, (double)q->recall, 0.01);
    assert_near(o.accuracy, (double)q->accuracy, 0.01);
    assert_near(o.flagged, (double)q->flagged, 0.01);
}

/* ---- statistics ---- */

static void test_statistics(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_RELU, DT_Q8_0, 0, true);
    struct fitted_layer f;
    assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
    double live = 0;
    for (int j = 0; j < D_FF; j++) {
        assert_near((double)f.layer.fired[j], (double)j / D_FF, 1e-6);
        assert_near((double)f.layer.strength[j], 0.5 * j / D_FF, 1e-6);
        live += (double)j / D_FF / D_FF;
    }
    assert_near((double)f.layer.live, live, 1e-6);
    assert_null(f.layer.fc1.data);
    assert_null(f.layer.weight);
    fitted_layer_free(&f);
    free_layer(l);
}

static void test_too_few_samples(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_RELU, DT_Q8_0, 0, true);
    struct fitted_layer f;
    struct log_catcher lines;
    l->sample.n = FIT_MIN_SAMPLES - 1;
    l->sample.n_fit = FIT_MIN_SAMPLES * 3 / 4;
    log_catch(&lines);
    assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_USAGE);
    log_catch(NULL);
    assert_non_null(strstr(lines.first_error, "256"));
    free_layer(l);
}

/* ---- predictors ---- */

static void test_planes_miss_no_more_than_they_may(void **state)
{
    (void)state;
    const float misses[] = {0.005f, 0.02f, 0.1f};
    double flagged = 1;
    for (int i = 0; i < 3; i++) {
        struct layer *l = make_layer(ACT_RELU, DT_Q4_0, 0, true);
        struct fitted_layer f;
        l->options.miss = misses[i];
        l->options.recall = 1 - misses[i];
        assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
        const struct outcome o = judge_planes(l, &f);
        assert_true(o.recall >= 1 - 1.15 * (double)misses[i]);
        assert_true(o.recall <= 1 - 0.5 * (double)misses[i]);
        assert_true(o.flagged < flagged);
        assert_quality(o, &f.layer.planes);
        flagged = o.flagged;
        fitted_layer_free(&f);
        free_layer(l);
    }
    assert_true(flagged < 0.6);
}

/* Where many would be flagged for little, more are missed, but no more than the wanted recall allows. */
static void test_planes_give_recall_for_accuracy(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_RELU, DT_Q4_0, 0, true);
    struct fitted_layer strict, f;
    l->options.miss = 0.005f;
    l->options.accuracy = 0;
    assert_int_equal(fit_layer(&l->sample, &l->options, &strict), ST_OK);
    l->options.accuracy = 1;
    l->options.recall = 0.9f;
    assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
    const struct outcome o = judge_planes(l, &f);
    assert_true(o.accuracy > judge_planes(l, &strict).accuracy + 0.02);
    assert_near(o.recall, 0.9, 0.02);
    fitted_layer_free(&strict);
    fitted_layer_free(&f);
    free_layer(l);
}

static void test_planes_of_up_know_its_bias(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_RELU, DT_Q8_0, 0, false);
    struct fitted_layer f;
    assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
    const struct outcome o = judge_planes(l, &f);
    assert_true(o.recall >= 0.945);
    assert_true(o.flagged < 0.7);
    assert_quality(o, &f.layer.planes);
    fitted_layer_free(&f);
    free_layer(l);
}

static void test_mlp_learns_a_gate_of_low_rank(void **state)
{
    (void)state;
    for (int gate = 0; gate < 2; gate++) {
        struct layer *l = make_layer(ACT_RELU, DT_Q8_0, RANK, gate);
        struct fitted_layer f;
        l->options.mlp_bytes = 1 << 20;
        assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
        assert_in_range(f.layer.fc1.rows, 32, 64); /* no larger than it must be: 96 were allowed */
        assert_int_equal(f.layer.fc2.rows, D_FF);
        assert_int_equal(f.layer.fc2.cols, f.layer.fc1.rows);
        const struct outcome o = judge_mlp(l, &f);
        assert_true(o.recall >= 0.945);
        assert_true(o.accuracy >= 0.945);
        assert_quality(o, &f.layer.mlp);
        fitted_layer_free(&f);
        free_layer(l);
    }
}

static void test_mlp_stays_within_its_bytes(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_RELU, DT_Q8_0, 0, true);
    struct fitted_layer f;
    l->options.mlp_bytes = mlp_bytes(32, D_MODEL, D_FF) - 1;
    assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
    assert_null(f.layer.fc1.data);
    fitted_layer_free(&f);
    l->options.mlp_bytes = mlp_bytes(64, D_MODEL, D_FF) - 1;
    assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
    assert_int_equal(f.layer.fc1.rows, 32);
    assert_quality(judge_mlp(l, &f), &f.layer.mlp);
    fitted_layer_free(&f);
    free_layer(l);
}

/* Mean square of the difference between what fires and how likely a net finds it, over the fresh samples. */
static double net_error(const struct layer *l, const struct mlp_data *d, const struct mlp_net *net)
{
    float *hidden = room(FRESH * net->r), *logit = room(FRESH * D_FF), *gate = room(FRESH * D_FF);
    float *up = room(FRESH * D_FF);
    double sum = 0;
    const struct product h = {.transpose_b = true, .m = FRESH, .n = net->r, .k = D_MODEL, .a = l->fresh, .b = net->fc1,
                              .c = hidden};
    linear_product(d->pool, &h);
    for (int64_t i = 0; i < FRESH * net->r; i++)
        hidden[i] = hidden[i] > 0 ? hidden[i] : 0;
    const struct product z = {.transpose_b = true, .m = FRESH, .n = D_FF, .k = net->r, .a = hidden, .b = net->fc2,
                              .c = logit};
    linear_product(d->pool, &z);
    multiply(l, &l->weights.gate, l->fresh, FRESH, false, gate);
    multiply(l, &l->weights.up, l->fresh, FRESH, false, up);
    for (int64_t i = 0; i < FRESH * D_FF; i++) {
        const double e = 1 / (1 + exp(-(double)logit[i])) - (gate[i] > 0 && up[i] > 0);
        sum += e * e / (FRESH * D_FF);
    }
    free(hidden);
    free(logit);
    free(gate);
    free(up);
    return sum;
}

/* The linear start knows the gate alone; that half of its neurons stay silent because of up must be learned. */
static void test_training_learns(void **state)
{
    (void)state;
    enum { R = 64 };
    struct layer *l = make_layer(ACT_DRELU, DT_Q8_0, 0, true);
    float *gate = own(l, room(D_FF * D_MODEL)), *up = own(l, room(D_FF * D_MODEL));
    for (int j = 0; j < D_FF; j++) {
        const size_t at = (size_t)j * dtype_row_bytes(DT_Q8_0, D_MODEL);
        dequantize_row(DT_Q8_0, l->weights.gate.data + at, D_MODEL, gate + j * D_MODEL);
        dequantize_row(DT_Q8_0, l->weights.up.data + at, D_MODEL, up + j * D_MODEL);
    }
    const struct mlp_data d = {.pool = l->pool, .d_model = D_MODEL, .d_ff = D_FF, .n = SAMPLES, .x = l->x,
                               .weight = gate, .weight2 = up};
    struct mlp_net net = {.type = DT_Q4_0, .r = R, .fc1 = own(l, room(R * D_MODEL)), .fc2 = own(l, room(D_FF * R)),
                          .fc1_blocks = own(l, malloc(R * dtype_row_bytes(DT_Q4_0, D_MODEL))),
                          .fc2_blocks = own(l, malloc(D_FF * dtype_row_bytes(DT_Q4_0, R)))};
    struct mlp_factors f = {0};
    assert_int_equal(linear_open(), ST_OK);
    assert_int_equal(mlp_factorise(&d, &f), ST_OK);
    mlp_start(&d, &f, &net);
    assert_int_equal(mlp_quantise(&d, &f, &net), ST_OK);
    const double before = net_error(l, &d, &net);
    assert_int_equal(mlp_train(&d, &l->options, &net), ST_OK);
    assert_true(net_error(l, &d, &net) < 0.8 * before);
    mlp_factors_free(&f);
    free_layer(l);
}

/* dReLU: neurons whose up is not positive do not count as missed. */
static void test_drelu_needs_both(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_DRELU, DT_Q8_0, 0, true), *relu = make_layer(ACT_RELU, DT_Q8_0, 0, true);
    struct fitted_layer f, g;
    assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
    assert_int_equal(fit_layer(&relu->sample, &relu->options, &g), ST_OK);
    assert_true(f.layer.planes.precision < 0.7f * g.layer.planes.precision);
    fitted_layer_free(&f);
    fitted_layer_free(&g);
    free_layer(l);
    free_layer(relu);
}

static void test_mlp_bytes_follow_uncertainty(void **state)
{
    (void)state;
    static const uint32_t never[4], half[4] = {50, 50, 50, 50}, few[4] = {10, 10, 10, 10};
    const uint32_t *const fired[] = {never, half, few};
    uint64_t bytes[3];
    fit_mlp_bytes(fired, 3, 4, 100, 1000, bytes);
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[0] + bytes[1] + bytes[2], 1000);
    assert_near((double)bytes[2] / (double)bytes[1], 0.469, 0.003); /* entropy of .1, in bits */
}

/* ---- thresholds ---- */

/* The share of a layer's pairs below a threshold, in fresh samples. */
static double skipped(const struct layer *l, const struct fitted_layer *f, float skip)
{
    float *gate = room(FRESH * D_FF), *up = room(FRESH * D_FF);
    double n = 0;
    multiply(l, &l->weights.gate, l->fresh, FRESH, true, gate);
    multiply(l, &l->weights.up, l->fresh, FRESH, true, up);
    l->options.kernels->activate(ACT_SILU, gate, up, FRESH * D_FF, gate);
    for (int64_t i = 0; i < FRESH * D_FF; i++)
        n += fabsf(gate[i]) * f->layer.weight[i % D_FF] < skip;
    free(gate);
    free(up);
    return n / (FRESH * D_FF);
}

static void test_weight_is_the_norm_of_the_down_column(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_SILU, DT_Q8_0, 0, true);
    struct fitted_layer f;
    float row[D_FF], sum[D_FF] = {0};
    for (int turn = 0; turn < 2; turn++) { /* ffn_down, then the same transposed */
        if (turn) {
            float *t = own(l, room(D_FF * D_MODEL));
            for (int i = 0; i < D_MODEL; i++) {
                dequantize_row(DT_Q8_0, l->weights.down.data + (size_t)i * dtype_row_bytes(DT_Q8_0, D_FF), D_FF, row);
                for (int j = 0; j < D_FF; j++)
                    t[j * D_MODEL + i] = row[j];
            }
            l->weights.down_t = (struct matrix){DT_F32, D_FF, D_MODEL, (const uint8_t *)t, "down_t"};
            l->weights.down.data = NULL;
            bundle_up(l);
        } else {
            for (int i = 0; i < D_MODEL; i++) {
                dequantize_row(DT_Q8_0, l->weights.down.data + (size_t)i * dtype_row_bytes(DT_Q8_0, D_FF), D_FF, row);
                for (int j = 0; j < D_FF; j++)
                    sum[j] += row[j] * row[j];
            }
        }
        assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
        assert_null(f.layer.bound);
        for (int j = 0; j < D_FF; j++)
            assert_near((double)f.layer.weight[j], sqrt((double)sum[j]), 1e-4);
        fitted_layer_free(&f);
    }
    free_layer(l);
}

static void test_skip_takes_the_wanted_share(void **state)
{
    (void)state;
    struct layer *l[2];
    struct fitted_layer f[2];
    for (int i = 0; i < 2; i++) {
        l[i] = make_layer(ACT_SILU, DT_Q4_0, i ? 0 : 2, true);
        assert_int_equal(fit_layer(&l[i]->sample, &l[i]->options, &f[i]), ST_OK);
        for (int k = 1; k < SKIP_POINTS; k++) {
            assert_true(f[i].curve.score[k] >= f[i].curve.score[k - 1]);
            assert_true(f[i].curve.loss[k] >= f[i].curve.loss[k - 1]);
        }
    }
    fit_skip(f, 2);
    for (int step = 0; step < SKIP_STEPS; step++) {
        assert_near(skipped(l[0], &f[0], f[0].layer.skip[step]), 0.1 * (step + 1), 0.02);
        assert_near(skipped(l[1], &f[1], f[1].layer.skip[step]), 0.1 * (step + 1), 0.02);
    }
    for (int i = 0; i < 2; i++) {
        fitted_layer_free(&f[i]);
        free_layer(l[i]);
    }
}

/* ---- bytes ---- */

/* Decodes what is to be of these dimensions. */
static status decode(const uint8_t *bytes, size_t n, int64_t d_model, int64_t d_ff, const char *where,
                     struct fitted_layer *out)
{
    *out = (struct fitted_layer){.d_model = d_model, .n = d_ff};
    return fitted_layer_decode(bytes, n, where, out);
}

static struct fitted_layer fit_all(struct layer *l)
{
    struct fitted_layer f;
    l->options.mlp_bytes = 1 << 20;
    assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
    return f;
}

static void assert_same_bytes(const struct fitted_layer *a, const struct fitted_layer *b)
{
    uint8_t *x, *y;
    size_t n, m;
    assert_int_equal(fitted_layer_encode(a, &x, &n), ST_OK);
    assert_int_equal(fitted_layer_encode(b, &y, &m), ST_OK);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static void test_round_trip(void **state)
{
    (void)state;
    for (int silu = 0; silu < 2; silu++) {
        struct layer *l = make_layer(silu ? ACT_SILU : ACT_RELU, DT_Q8_0, RANK, true);
        struct fitted_layer f = fit_all(l), back;
        uint8_t *bytes;
        size_t n;
        assert_int_equal(fitted_layer_encode(&f, &bytes, &n), ST_OK);
        assert_int_equal(decode(bytes, n, D_MODEL, D_FF, "here", &back), ST_OK);
        free(bytes);
        assert_same_bytes(&f, &back);
        assert_memory_equal(f.layer.fired, back.layer.fired, D_FF * sizeof(float));
        if (silu) {
            assert_memory_equal(f.layer.weight, back.layer.weight, D_FF * sizeof(float));
            assert_memory_equal(&f.curve, &back.curve, sizeof f.curve);
        } else {
            assert_memory_equal(f.layer.bound, back.layer.bound, D_FF * sizeof(float));
            assert_memory_equal(&f.layer.mlp, &back.layer.mlp, sizeof f.layer.mlp);
            assert_memory_equal(f.layer.fc2.data, back.layer.fc2.data,
                                D_FF * dtype_row_bytes(DT_Q4_0, f.layer.fc2.cols));
        }
        fitted_layer_free(&f);
        fitted_layer_free(&back);
        free_layer(l);
    }
}

/* Where nothing fired, nothing is to be flagged: such bounds are infinite, and must come back. */
static void test_infinite_bounds(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_RELU, DT_Q8_0, RANK, true);
    struct fitted_layer f = fit_all(l), back;
    float *bound = (float *)(uintptr_t)f.layer.bound;
    uint8_t *bytes;
    size_t n;
    bound[3] = f.layer.mlp_threshold = INFINITY;
    bound[4] = -INFINITY;
    assert_int_equal(fitted_layer_encode(&f, &bytes, &n), ST_OK);
    assert_int_equal(decode(bytes, n, D_MODEL, D_FF, "here", &back), ST_OK);
    assert_same_bytes(&f, &back);
    free(bytes);
    fitted_layer_free(&f);
    fitted_layer_free(&back);
    free_layer(l);
}

static void assert_refused(const uint8_t *bytes, size_t n)
{
    struct fitted_layer f;
    uint8_t *exact = malloc(n ? n : 1); /* so that a read past the end is seen */
    struct log_catcher lines;
    memcpy(exact, bytes, n);
    log_catch(&lines);
    assert_int_equal(decode(exact, n, D_MODEL, D_FF, "the message", &f), ST_FORMAT);
    log_catch(NULL);
    assert_non_null(strstr(lines.first_error, "the message"));
    free(exact);
}

/* The same with a hash that is right. */
static void assert_refused_in_itself(uint8_t *bytes, size_t n)
{
    const uint64_t hash = XXH3_64bits(bytes, n - 8);
    for (int i = 0; i < 8; i++)
        bytes[n - 8 + (size_t)i] = (uint8_t)(hash >> (8 * i));
    assert_refused(bytes, n);
}

static void test_hostile_bytes(void **state)
{
    (void)state;
    enum { FLAGS_AT = 32, FLOATS_AT = 40, MLP_AT = FLAGS_AT + 8 + 3 * 4 * D_FF + 16 };
    struct layer *l = make_layer(ACT_RELU, DT_Q8_0, RANK, true);
    struct fitted_layer f = fit_all(l), out;
    uint8_t *bytes, *copy;
    size_t n;
    assert_int_equal(fitted_layer_encode(&f, &bytes, &n), ST_OK);
    copy = malloc(n + 1);
    for (size_t i = 0; i < n; i += i < 100 ? 1 : 97) {
        assert_refused(bytes, i);
        memcpy(copy, bytes, n);
        copy[i] ^= 0x10;
        assert_refused(copy, n);
        memcpy(copy, bytes, n);
        memmove(copy + i, copy + i + 1, n - i - 1);
        if (n - 1 > 8)
            assert_refused_in_itself(copy, n - 1);
    }
    const uint32_t nan = 0x7fc00000, types[] = {DT_F32, DT_Q4_K, 0xffffffff}, ranks[] = {0, 31, 33, 64, 0xffffffe0};
    memcpy(copy, bytes, n);
    memcpy(copy + FLOATS_AT + 40, &nan, 4);
    assert_refused_in_itself(copy, n);
    memcpy(copy, bytes, n);
    copy[FLAGS_AT] |= 8;
    assert_refused_in_itself(copy, n);
    for (int i = 0; i < 3; i++) {
        memcpy(copy, bytes, n);
        memcpy(copy + MLP_AT, &types[i], 4);
        assert_refused_in_itself(copy, n);
    }
    for (int i = 0; i < 5; i++) {
        memcpy(copy, bytes, n);
        memcpy(copy + MLP_AT + 8, &ranks[i], 4);
        assert_refused_in_itself(copy, n);
    }
    struct log_catcher lines;
    log_catch(&lines);
    assert_int_equal(decode(bytes, n, D_MODEL, 2 * D_FF, "here", &out), ST_FORMAT);
    assert_int_equal(decode(bytes, n, 2 * D_MODEL, D_FF, "here", &out), ST_FORMAT);
    log_catch(NULL);
    free(bytes);
    free(copy);
    fitted_layer_free(&f);
    free_layer(l);
}

/* ---- runs ---- */

static void test_threads_change_nothing(void **state)
{
    (void)state;
    struct fitted_layer f[2];
    for (int i = 0; i < 2; i++) {
        struct layer *l = make_layer(ACT_RELU, DT_Q8_0, 0, true);
        l->options.n_threads = i ? 3 : 1;
        l->options.mlp_bytes = mlp_bytes(32, D_MODEL, D_FF);
        assert_int_equal(fit_layer(&l->sample, &l->options, &f[i]), ST_OK);
        free_layer(l);
    }
    assert_same_bytes(&f[0], &f[1]);
    for (int i = 0; i < 2; i++)
        fitted_layer_free(&f[i]);
}

struct countdown {
    int left;
    float last;
};

static bool count_down(void *arg, float done)
{
    struct countdown *c = arg;
    assert_true(done >= c->last && done <= 1);
    c->last = done;
    return c->left-- > 0;
}

static void test_cancel(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_RELU, DT_Q8_0, 0, true);
    struct fitted_layer f;
    status st = ST_CANCELLED;
    l->options.mlp_bytes = mlp_bytes(32, D_MODEL, D_FF);
    l->options.epochs = 2;
    l->options.progress = count_down;
    for (int calls = 0; st == ST_CANCELLED; calls++) {
        struct countdown c = {.left = calls};
        l->options.progress_arg = &c;
        st = fit_layer(&l->sample, &l->options, &f);
        assert_true(calls > 3 || st == ST_CANCELLED);
    }
    assert_int_equal(st, ST_OK);
    fitted_layer_free(&f);
    free_layer(l);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (int silu = 0; silu < 2; silu++) {
        struct layer *l = make_layer(silu ? ACT_SILU : ACT_DRELU, DT_Q8_0, 0, true);
        struct log_catcher lines;
        struct fitted_layer f;
        uint8_t *bytes;
        size_t n;
        status st;
        l->sample.n = FIT_MIN_SAMPLES;
        l->sample.n_fit = FIT_MIN_SAMPLES / 2;
        l->options.epochs = 1;
        l->options.mlp_bytes = mlp_bytes(32, D_MODEL, D_FF);
        log_catch(&lines);
        for (long i = 0; alloc_fail_at(i), st = fit_layer(&l->sample, &l->options, &f), alloc_failed(); i++)
            assert_int_equal(st, ST_NOMEM);
        assert_int_equal(st, ST_OK);
        for (long i = 0; alloc_fail_at(i), st = fitted_layer_encode(&f, &bytes, &n), alloc_failed(); i++)
            assert_int_equal(st, ST_NOMEM);
        fitted_layer_free(&f);
        for (long i = 0;
             alloc_fail_at(i), st = decode(bytes, n, D_MODEL, D_FF, "here", &f), alloc_failed(); i++)
            assert_int_equal(st, ST_NOMEM);
        log_catch(NULL);
        assert_int_equal(st, ST_OK);
        free(bytes);
        fitted_layer_free(&f);
        free_layer(l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_too_few_samples),
        cmocka_unit_test(test_planes_miss_no_more_than_they_may),
        cmocka_unit_test(test_planes_give_recall_for_accuracy),
        cmocka_unit_test(test_planes_of_up_know_its_bias),
        cmocka_unit_test(test_mlp_learns_a_gate_of_low_rank),
        cmocka_unit_test(test_mlp_stays_within_its_bytes),
        cmocka_unit_test(test_training_learns),
        cmocka_unit_test(test_drelu_needs_both),
        cmocka_unit_test(test_mlp_bytes_follow_uncertainty),
        cmocka_unit_test(test_weight_is_the_norm_of_the_down_column),
        cmocka_unit_test(test_skip_takes_the_wanted_share),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_infinite_bounds),
        cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
