/* Fitting a layer with experts: each is fitted on the tokens that have chosen it, all of them share a limit, and where
 * few have chosen one nothing is thought to be known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "sparsity/fit/choice.h"
#include "sparsity/fit/fit.h"
#include "sparsity/fit/products.h"
#include "sparsity/fit/quantise.h"

/* The last of the experts is the one that few choose. Shared neurons are more than an expert's. */
enum { D_MODEL = 64, EXPERTS = 4, WIDTH = 64, SHARED = 96, D_FF = EXPERTS * WIDTH + SHARED, USED = 2, SAMPLES = 2048,
       FRESH = 512, RARE = EXPERTS - 1, OF_RARE = 20 };

struct layer {
    struct pool *pool;
    struct model model;
    struct layer_weights weights;
    struct bundle bundles[EXPERTS + 1];
    float x[(SAMPLES + FRESH) * D_MODEL], weight[(SAMPLES + FRESH) * (USED + 1)];
    uint32_t expert[(SAMPLES + FRESH) * USED], fired[D_FF], chosen[EXPERTS];
    double sum[D_FF];
    struct layer_sample sample;
    struct fit_options options;
    uint8_t *owned[3 * (EXPERTS + 1)];
    int n_owned;
};

static uint64_t seed;

static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) / (1 << 24);
}

static float normal(void)
{
    float sum = -6;
    for (int i = 0; i < 12; i++)
        sum += uniform();
    return sum;
}

static struct matrix make_matrix(struct layer *l, int64_t rows, int64_t cols)
{
    float *w = malloc((size_t)(rows * cols) * sizeof *w);
    uint8_t *data = l->owned[l->n_owned++] = malloc((size_t)rows * dtype_row_bytes(DT_Q8_0, cols));
    assert_true(w && data);
    for (int64_t i = 0; i < rows * cols; i++)
        w[i] = normal();
    quantise_rows(l->pool, DT_Q8_0, w, rows, cols, NULL, data);
    free(w);
    return (struct matrix){.type = DT_Q8_0, .rows = rows, .cols = cols, .data = data, .name = "made"};
}

/* Most tokens choose 0, and 1 or 2; every hundredth chooses the rare one in place of 0. */
static void choose(struct layer *l, int t)
{
    const int step = SAMPLES / OF_RARE;
    uint32_t *expert = l->expert + t * USED;
    float *weight = l->weight + t * (USED + 1);
    expert[0] = t % step == step - 1 ? RARE : 0;
    expert[1] = t % 3 ? 1 : 2;
    weight[0] = 0.5f + 0.4f * uniform();
    weight[1] = 1 - weight[0];
    weight[2] = uniform();
    for (int k = 0; t < SAMPLES && k < USED; k++)
        l->chosen[expert[k]]++;
}

static struct layer *make_layer(enum activation a)
{
    struct layer *l = calloc(1, sizeof *l);
    assert_non_null(l);
    seed = 1;
    assert_int_equal(pool_create(1, &l->pool), ST_OK);
    assert_int_equal(fit_defaults(&l->options), ST_OK);
    l->model.hp = (struct hparams){.n_layers = 1, .d_model = D_MODEL, .d_ff = D_FF, .activation = a, .has_gate = true,
                                   .n_experts = EXPERTS, .n_experts_used = USED, .d_expert = WIDTH, .d_shared = SHARED,
                                   .shared_routed = true};
    for (int i = 0; i <= EXPERTS; i++) {
        const int64_t n = i < EXPERTS ? WIDTH : SHARED;
        l->bundles[i] = (struct bundle){.first = i * WIDTH, .n = n, .routed = i < EXPERTS,
                                        .gate = make_matrix(l, n, D_MODEL), .up = make_matrix(l, n, D_MODEL),
                                        .down = make_matrix(l, D_MODEL, n)};
    }
    l->weights = (struct layer_weights){.bundles = l->bundles, .n_bundles = EXPERTS + 1};
    l->model.layers = &l->weights;
    for (int i = 0; i < (SAMPLES + FRESH) * D_MODEL; i++)
        l->x[i] = normal();
    for (int t = 0; t < SAMPLES + FRESH; t++)
        choose(l, t);
    for (int j = 0; j < D_FF; j++) {
        const uint32_t most = j < EXPERTS * WIDTH ? l->chosen[j / WIDTH] : SAMPLES;
        l->fired[j] = most / 2;
        l->sum[j] = most;
    }
    l->sample = (struct layer_sample){.model = &l->model, .activation = a, .n = SAMPLES, .n_fit = SAMPLES * 3 / 4,
                                      .x = l->x,
                                      .expert = l->expert, .weight = l->weight, .fired = l->fired, .sum = l->sum,
                                      .chosen = l->chosen, .n_tokens = SAMPLES};
    return l;
}

static void free_layer(struct layer *l)
{
    pool_destroy(l->pool);
    for (int i = 0; i < l->n_owned; i++)
        free(l->owned[i]);
    free(l);
}

static struct fitted_layer fitted(struct layer *l)
{
    struct fitted_layer f;
    assert_int_equal(fit_layer(&l->sample, &l->options, &f), ST_OK);
    return f;
}

/* out [FRESH, w->rows], as the engine computes it. */
static float *multiply(const struct layer *l, const struct matrix *w, bool estimate)
{
    struct products p;
    float *out = malloc((size_t)(FRESH * w->rows) * sizeof *out);
    assert_non_null(out);
    assert_int_equal(products_open(&p, l->options.kernels, l->pool, FRESH, w->cols), ST_OK);
    memcpy(p.acts.f32, l->x + SAMPLES * D_MODEL, FRESH * D_MODEL * sizeof *l->x);
    products_quantize(&p);
    assert_int_equal((estimate ? products_estimate : products_exact)(&p, w, out), ST_OK);
    products_close(&p);
    return out;
}

/* The weight that a fresh token has for a bundle; 0: it has not chosen it. */
static float weight_for(const struct layer *l, int bundle, int t)
{
    const int at = SAMPLES + t;
    for (int k = 0; k < USED; k++)
        if (bundle < EXPERTS && l->expert[at * USED + k] == (uint32_t)bundle)
            return l->weight[at * (USED + 1) + k];
    return bundle == EXPERTS ? l->weight[at * (USED + 1) + USED] : 0;
}

static void assert_near(double a, double b, double most)
{
    if (!(fabs(a - b) <= most))
        fail_msg("%g is not within %g of %g", a, most, b);
}

static void shares_are_of_all_tokens(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_RELU);
    struct fitted_layer f = fitted(l);
    for (int e = 0; e < EXPERTS; e++)
        assert_near((double)f.layer.chosen[e], l->chosen[e] / (double)SAMPLES, 1e-6);
    assert_int_equal(l->chosen[RARE], OF_RARE);
    assert_near((double)f.layer.fired[RARE * WIDTH], OF_RARE / 2 / (double)SAMPLES, 1e-6);
    assert_near((double)f.layer.fired[D_FF - 1], 0.5, 1e-6);
    assert_near((double)f.layer.live, 0.5, 0.001); /* of those that tokens look at */
    fitted_layer_free(&f);
    free_layer(l);
}

/* Those that stand for the layer are there whatever else is; no token twice, fitting ones first. */
static void a_choice_holds_who_stands_for_the_layer(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_SILU);
    for (int64_t pairs = 1; pairs < 1 << 24; pairs *= 16) {
        const int64_t standing = choice_standing(&l->sample, pairs);
        int64_t stand = 0;
        assert_int_equal(choice_pairs(&l->sample, pairs), standing * (USED * WIDTH + SHARED));
        for (int b = 0; b <= EXPERTS; b++) {
            struct choice c;
            assert_int_equal(choice_make(&l->sample, b, pairs, &c), ST_OK);
            for (int64_t i = 0; i < c.n; i++) {
                assert_true(i == 0 || c.token[i] > c.token[i - 1]);
                assert_int_equal(c.token[i] >= l->sample.n_fit, i >= c.n_fit);
                stand += c.stands[i] && b < EXPERTS;
            }
            assert_true(b < EXPERTS || c.n == standing);
            assert_true(b != RARE || c.n == OF_RARE); /* all that there are */
            assert_true(c.n <= (pairs / WIDTH > standing ? pairs / WIDTH : standing));
            choice_free(&c);
        }
        assert_int_equal(stand, standing * USED);
    }
    free_layer(l);
}

/* Over fresh tokens, each with its own weights, so many pairs are below a threshold. */
static void a_threshold_skips_the_wanted_share(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_SILU);
    struct fitted_layer f = fitted(l);
    double pairs = 0, below[SKIP_STEPS] = {0};
    fit_skip(&f, 1);
    for (int b = 0; b <= EXPERTS; b++) {
        const struct bundle *of = &l->bundles[b];
        const struct neuron_layer *n = &f.layer;
        float *gate = multiply(l, &of->gate, true), *up = multiply(l, &of->up, true);
        for (int64_t i = 0; i < FRESH * of->n; i++) {
            const int64_t j = of->first + i % of->n;
            const float weight = weight_for(l, b, (int)(i / of->n));
            const float g = gate[i] * n->gate_slope[j] + n->gate_offset[j],
                        u = up[i] * n->up_slope[j] + n->up_offset[j];
            const float score = fabsf(g / (1 + expf(-g)) * u) * n->weight[j] * weight;
            for (int step = 0; weight > 0 && step < SKIP_STEPS; step++)
                below[step] += score < n->skip[step];
            pairs += weight > 0;
        }
        free(gate);
        free(up);
    }
    for (int step = 0; step < SKIP_STEPS; step++)
        assert_near(below[step] / pairs, 0.1 * (step + 1), 0.02);
    assert_true(f.layer.gate_slope[RARE * WIDTH] == 1 && f.layer.up_offset[RARE * WIDTH] == 0);
    assert_true(f.layer.gate_slope[0] != 1);
    fitted_layer_free(&f);
    free_layer(l);
}

/* Weights twice as large are what a token adds: thresholds follow. */
static void a_threshold_counts_the_experts_weight(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_SILU);
    struct fitted_layer f = fitted(l), twice;
    for (int i = 0; i < SAMPLES * (USED + 1); i++)
        l->weight[i] *= 2;
    twice = fitted(l);
    fit_skip(&f, 1);
    fit_skip(&twice, 1);
    assert_true(f.layer.skip[4] > 0);
    for (int step = 0; step < SKIP_STEPS; step++)
        assert_true(twice.layer.skip[step] == 2 * f.layer.skip[step]);
    fitted_layer_free(&f);
    fitted_layer_free(&twice);
    free_layer(l);
}

/* Of what fires in experts that were chosen often enough a share of about `miss` is missed; of the rare one nothing. */
static void bounds_miss_no_more_than_they_may(void **state)
{
    (void)state;
    struct layer *l = make_layer(ACT_RELU);
    l->options.recall = 1 - l->options.miss;
    struct fitted_layer f = fitted(l);
    double live = 0, hit = 0, flagged = 0, pairs = 0;
    assert_null(f.layer.fc1.data);
    for (int b = 0; b <= EXPERTS; b++) {
        const struct bundle *of = &l->bundles[b];
        float *gate = multiply(l, &of->gate, false), *estimate = multiply(l, &of->gate, true);
        for (int64_t i = 0; b != RARE && i < FRESH * of->n; i++) {
            const bool looked = weight_for(l, b, (int)(i / of->n)) > 0;
            const bool flag = looked && estimate[i] > f.layer.bound[of->first + i % of->n];
            pairs += looked;
            flagged += flag;
            live += looked && gate[i] > 0;
            hit += flag && gate[i] > 0;
        }
        free(gate);
        free(estimate);
    }
    assert_true(hit / live >= 0.975 && hit / live < 0.995);
    assert_true(flagged / pairs < 0.6);
    for (int j = 0; j < WIDTH; j++)
        assert_true(f.layer.bound[RARE * WIDTH + j] == -INFINITY && isfinite(f.layer.bound[j]));
    fitted_layer_free(&f);
    free_layer(l);
}

static void experts_come_back_from_bytes(void **state)
{
    (void)state;
    for (int silu = 0; silu < 2; silu++) {
        struct layer *l = make_layer(silu ? ACT_SILU : ACT_RELU);
        struct fitted_layer f = fitted(l), back = {.d_model = D_MODEL, .n = D_FF, .n_experts = EXPERTS};
        struct log_catcher lines;
        uint8_t *bytes;
        size_t n;
        assert_int_equal(fitted_layer_encode(&f, &bytes, &n), ST_OK);
        assert_int_equal(fitted_layer_decode(bytes, n, "here", &back), ST_OK);
        assert_memory_equal(f.layer.chosen, back.layer.chosen, sizeof l->chosen / sizeof *l->chosen * sizeof(float));
        assert_memory_equal(f.layer.fired, back.layer.fired, D_FF * sizeof(float));
        struct fitted_layer other = {.d_model = D_MODEL, .n = D_FF, .n_experts = EXPERTS + 1};
        log_catch(&lines);
        assert_int_equal(fitted_layer_decode(bytes, n, "here", &other), ST_FORMAT);
        log_catch(NULL);
        assert_non_null(strstr(lines.first_error, "5 experts"));
        free(bytes);
        fitted_layer_free(&f);
        fitted_layer_free(&back);
        free_layer(l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_of_all_tokens),
        cmocka_unit_test(a_choice_holds_who_stands_for_the_layer),
        cmocka_unit_test(a_threshold_skips_the_wanted_share),
        cmocka_unit_test(a_threshold_counts_the_experts_weight),
        cmocka_unit_test(bounds_miss_no_more_than_they_may),
        cmocka_unit_test(experts_come_back_from_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
