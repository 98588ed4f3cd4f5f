/* The parts of `hearth prepare`: its checkpoint, its counts, its report's figures. The command as a whole:
 * tests/cli/prepare_test.sh. */
#include <math.h>
#include <unistd.h>
#include "tests/engine/made_model.h"

#include "base/log.h"
#include "cli/command.h"
#include "cli/report_text.h"
#include "coordinator/scoring.h"
#include "prepare/count.h"
#include "prepare/part.h"
#include "prepare/report.h"

enum { D_MODEL = 40, D_FF = 24, FIRST = 2, LAST = 5, WINDOWS = 7, SAMPLES = 9 };

static const struct part_shape shape = {.settings = {{"the model", "77"}, {"--miss", "0.02"}}, .first = FIRST,
                                        .last = LAST, .d_model = D_MODEL, .d_ff = D_FF,
                                        .n_windows = WINDOWS, .n_samples = SAMPLES};

/* A new name for a checkpoint; the file is not there. */
static char *name(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/hearth-part-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    unlink(path);
    return path;
}

static const struct kernels *scalar(void)
{
    const struct kernels *k = NULL;
    assert_int_equal(kernels_select("scalar", &k), ST_OK);
    return k;
}

static struct part *opened(const char *path, const struct part_shape *s, bool expect_resumed)
{
    struct part *p = NULL;
    bool resumed = !expect_resumed;
    assert_int_equal(part_open(path, s, scalar(), &resumed, &p), ST_OK);
    assert_int_equal(resumed, expect_resumed);
    return p;
}

static void test_checkpoint(void **state)
{
    (void)state;
    const char *path = name();
    struct part *p = opened(path, &shape, false);
    float x[D_MODEL], all[SAMPLES * D_MODEL];
    assert_int_equal(part_state(p)->activation, -1);
    part_state(p)->windows = 3;
    part_state(p)->scores[WINDOWS - 1] = (struct score){.windows = 1, .sum = 2.5};
    part_state(p)->fired[(LAST - FIRST) * D_FF - 1] = 11;
    part_state(p)->sum[(LAST - FIRST) * D_FF - 1] = 0.25;
    part_state(p)->level[LAST - FIRST - 1] = 0.125f;
    for (int layer = FIRST; layer < LAST; layer++) {
        for (int i = 0; i < SAMPLES; i++) {
            for (int j = 0; j < D_MODEL; j++)
                x[j] = (float)(layer * 1000 + i * 50 + j); /* f16 is exact up to 2048 */
            assert_int_equal(part_put_sample(p, layer, (uint64_t)i, x), ST_OK);
        }
    }
    x[0] = 1e9f; /* more than f16 holds */
    assert_int_equal(part_put_sample(p, FIRST, 0, x), ST_OK);
    assert_int_equal(part_put_layer(p, 3, (const uint8_t *)"a fitted layer", 14), ST_OK);
    part_close(p);

    p = opened(path, &shape, true);
    assert_int_equal(part_state(p)->windows, 3);
    assert_true(part_state(p)->scores[WINDOWS - 1].sum == 2.5);
    assert_int_equal(part_state(p)->fired[(LAST - FIRST) * D_FF - 1], 11);
    assert_true(part_state(p)->sum[(LAST - FIRST) * D_FF - 1] == 0.25);
    assert_true(part_state(p)->level[LAST - FIRST - 1] == 0.125f);
    assert_int_equal(part_samples(p, FIRST, SAMPLES, all), ST_OK);
    assert_true(all[0] == 65504);
    for (int i = 1; i < SAMPLES; i++)
        assert_true(fabsf(all[i * D_MODEL + 3] - (float)(FIRST * 1000 + i * 50 + 3)) <= 1);
    uint8_t *bytes = NULL;
    size_t n = 0;
    assert_int_equal(part_layer(p, 2, &bytes, &n), ST_OK);
    assert_null(bytes);
    assert_int_equal(part_layer(p, 3, &bytes, &n), ST_OK);
    assert_int_equal(n, 14);
    assert_memory_equal(bytes, "a fitted layer", 14);
    free(bytes);

    struct part *second = NULL;
    struct log_catcher line;
    bool resumed;
    log_catch(&line);
    assert_int_equal(part_open(path, &shape, scalar(), &resumed, &second), ST_IO); /* two at once */
    log_catch(NULL);
    assert_non_null(strstr(line.first_error, "in use"));
    part_remove(p);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* One of the states may be torn, the other is then taken; without both it starts anew. */
static void test_torn_checkpoint(void **state)
{
    (void)state;
    const char *path = name();
    struct part *p = opened(path, &shape, false);
    for (uint64_t w = 1; w <= 4; w++) {
        part_state(p)->windows = w;
        assert_int_equal(part_save(p), ST_OK);
    }
    part_close(p);
    const long slots[2] = {4096, 8192}; /* a page for the header, one for each state: it is small */
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, slots[1] + 40, SEEK_SET); /* the newer one: generation 5 */
    fputc('x', f);
    fclose(f);
    p = opened(path, &shape, true);
    assert_int_equal(part_state(p)->windows, 3);
    part_state(p)->windows = 6; /* goes over the torn one */
    assert_int_equal(part_save(p), ST_OK);
    part_close(p);
    p = opened(path, &shape, true);
    assert_int_equal(part_state(p)->windows, 6);
    part_close(p);

    for (int i = 0; i < 2; i++) {
        f = fopen(path, "r+b");
        assert_non_null(f);
        fseek(f, slots[i] + 100, SEEK_SET);
        fputs("xyz", f);
        fclose(f);
    }
    p = opened(path, &shape, false);
    assert_int_equal(part_state(p)->windows, 0);
    part_state(p)->windows = 2;
    assert_int_equal(part_save(p), ST_OK);
    part_remove(p);
}

/* Opening with this shape is refused in one line that says this, and changes nothing. */
static void refuses(const char *path, const struct part_shape *s, const char *says)
{
    struct log_catcher caught;
    struct part *p = NULL;
    bool resumed;
    log_catch(&caught);
    assert_int_equal(part_open(path, s, scalar(), &resumed, &p), ST_MISMATCH);
    log_catch(NULL);
    if (!strstr(caught.first_error, says) || !strstr(caught.first_error, path) ||
        !strstr(caught.first_error, "--neurons FILE"))
        fail_msg("expected '%s', found '%s'", says, caught.first_error);
    assert_null(p);
}

/* What was counted is kept, whoever comes with something else. */
static void test_other_checkpoint(void **state)
{
    (void)state;
    const char *path = name();
    struct part_shape other = shape, fewer = shape;
    strcpy(other.settings[1].value, "0.1");
    fewer.last--;
    struct part *p = opened(path, &other, false); /* no work is in it: */
    part_close(p);
    p = opened(path, &shape, false);
    part_state(p)->windows = 2;
    assert_int_equal(part_save(p), ST_OK);
    part_close(p);
    refuses(path, &other, "--miss is 0.02 there and 0.1 now");
    refuses(path, &fewer, "layers 2 to 4 there and 2 to 3 now");
    p = opened(path, &shape, true);
    assert_int_equal(part_state(p)->windows, 2);
    part_close(p);

    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, 8, SEEK_SET);
    fputc(99, f);
    fclose(f);
    refuses(path, &shape, "another hearth (version 99");
    f = fopen(path, "wb");
    assert_non_null(f);
    fputs("a diary", f);
    fclose(f);
    refuses(path, &shape, "is no checkpoint of hearth prepare");
    f = fopen(path, "rb");
    assert_non_null(f);
    char held[16] = "";
    assert_int_equal(fread(held, 1, sizeof held, f), 7);
    assert_string_equal(held, "a diary");
    fclose(f);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, 1 << 20), 0); /* a kill between making room and writing */
    part_remove(opened(path, &shape, false));
}

/* What a float model of a width that no MLP can read is told, before it is counted. */
static void test_mlp_that_cannot_be(void **state)
{
    (void)state;
    static const struct made_model odd = {2, 48, 64, 3, 3, 16, 0, DT_F32, DT_F16, DT_F16, DT_F16, DT_F32};
    const struct launch alone = {.local_ranks = 1};
    char model[MADE_NAME], text[MADE_NAME], *neurons, *made = NULL;
    static char words[4096];
    struct log_catcher caught;
    memset(words, 'x', sizeof words);
    made_model_write(&odd, model);
    made_file_of(words, sizeof words, text);
    assert_true(asprintf(&neurons, "%s.neurons", model) > 0 && asprintf(&made, "%s.html", neurons) > 0);
    char *with[] = {"hearth prepare", "-q", "-m", model, "-f", text, "-c", "64", "-t", "1", "--activation", "relu",
                    "--samples", "512", "--neurons", neurons, "--mlp-size", "0", NULL};
    log_catch(&caught);
    assert_int_equal(command_prepare(&alone, 16, with), ST_UNSUPPORTED);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "d_model of 48"));
    assert_non_null(strstr(caught.first_error, "--mlp-size 0"));
    assert_int_equal(command_prepare(&alone, 18, with), ST_OK); /* the way out, though the options differ */
    assert_int_equal(unlink(neurons), 0);
    assert_int_equal(unlink(made), 0);
    unlink(model);
    unlink(text);
    free(neurons);
    free(made);
}

static status ignore_window(void *arg, size_t window, const struct score *s)
{
    score_add(arg, s);
    (void)window;
    return ST_OK;
}

/* Counts windows [first, n) of a model into a checkpoint. */
static void count(const char *model, struct part *p, int ranks, uint32_t n_batch, size_t first, struct score *score)
{
    struct cluster_options o = plain_options(model);
    struct counter c;
    struct windows w;
    const size_t window = 32;
    assert_int_equal(counter_start(&c, p, ACT_RELU, window - 1, 3, first), ST_OK);
    o.split = SPLIT_STAGES;
    o.ranks = ranks;
    o.n_ctx = (uint32_t)window;
    o.n_batch = n_batch;
    o.activation = "relu";
    o.neurons = "";
    o.observe = counter_observe;
    o.observe_arg = &c;
    struct cluster *cluster = start(&o);
    static const char text[] =
        "The old clock in the hall struck nine as Maria came down the stairs; nobody had wound it since the autumn, "
        "and nobody would, she thought, as long as the house stood. In the kitchen the kettle sang, the cat slept on "
        "the letters, and the rain went on as it had for a week, quietly and without any hurry at all. She read the "
        "first letter, then the second, and put the third one, which was thicker than the rest, into the fire.";
    assert_int_equal(windows_cut(cluster_tokenizer(cluster), text, sizeof text - 1, window, 0, WINDOWS, &w), ST_OK);
    assert_true(w.n >= 3);
    assert_int_equal(windows_score(cluster_session(cluster), &w, first, w.n, ignore_window, score), ST_OK);
    windows_free(&w);
    cluster_stop(cluster);
    assert_int_equal(c.failed, ST_OK);
    counter_stop(&c);
}

/* Counts are the same however the layers and the tokens are cut, and what is seen twice counts once. */
static void test_counts(void **state)
{
    (void)state;
    static const char model[] = TEST_DATA "/tiny-q8_0.gguf";
    struct model *m;
    struct log_catcher ignored;
    assert_int_equal(model_load(model, &m), ST_OK);
    struct part_shape s = {.last = m->hp.n_layers, .d_model = m->hp.d_model, .d_ff = m->hp.d_ff, .n_windows = WINDOWS,
                           .n_samples = 20};
    char first_path[64], second_path[64];
    snprintf(first_path, sizeof first_path, "%s", name());
    snprintf(second_path, sizeof second_path, "%s", name());
    struct part *a = opened(first_path, &s, false), *b = opened(second_path, &s, false);
    struct score one = {0}, two = {0};
    const size_t neurons = (size_t)(s.last * s.d_ff);
    log_catch(&ignored);
    count(model, a, 1, 256, 0, &one);
    count(model, b, 2, 7, 0, &two);
    log_catch(NULL);
    assert_true(one.sum == two.sum && one.scored == two.scored && one.scored > 0);
    assert_memory_equal(part_state(a)->fired, part_state(b)->fired, neurons * sizeof(uint32_t));
    assert_memory_equal(part_state(a)->sum, part_state(b)->sum, neurons * sizeof(double));
    size_t x_bytes = (size_t)(20 * s.d_model) * sizeof(float);
    float *x = malloc(x_bytes), *y = malloc(x_bytes);
    uint64_t fired = 0;
    for (int layer = 0; layer < s.last; layer++) {
        assert_int_equal(part_samples(a, layer, 20, x), ST_OK);
        assert_int_equal(part_samples(b, layer, 20, y), ST_OK);
        assert_memory_equal(x, y, x_bytes);
        assert_true(x[19 * s.d_model] != 0);
    }
    for (size_t i = 0; i < neurons; i++)
        fired += part_state(a)->fired[i];
    const double tokens = 31.0 * (double)one.windows, live = (double)fired / tokens / (double)neurons;
    assert_true(live > 0.3 && live < 0.7); /* random weights: about a half */

    /* Again from the second window on, all but the last being in the checkpoint already: only that one counts. */
    part_state(b)->windows = one.windows - 1;
    count(model, b, 1, 256, 1, &two);
    uint64_t again = 0;
    for (size_t i = 0; i < neurons; i++)
        again += part_state(b)->fired[i];
    assert_true(again > fired && again < fired + neurons * 31);
    free(x);
    free(y);
    part_remove(a);
    part_remove(b);
    model_free(m);
}

/* The same of experts: every token chooses so many, no neuron fires but for those that have chosen its expert, and
 * samples keep what they have chosen. */
static void test_counts_of_experts(void **state)
{
    (void)state;
    static const char *const models[] = {TEST_DATA "/model-deepseek2-q8_0.gguf", TEST_DATA "/model-qwen2moe.gguf"};
    struct log_catcher ignored;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct model *m;
        assert_int_equal(model_load(models[i], &m), ST_OK);
        const struct hparams *hp = &m->hp;
        const struct part_shape s = {.last = hp->n_layers, .d_model = hp->d_model, .d_ff = hp->d_ff,
                                     .n_experts = hp->n_experts, .n_used = hp->n_experts_used,
                                     .n_weights = model_route_weights(hp), .n_windows = WINDOWS, .n_samples = 20};
        char paths[2][64];
        struct part *p[2];
        struct score scores[2] = {{0}};
        uint32_t expert[2][20 * 2];
        float weight[2][20 * 3];
        assert_true(hp->n_experts_used == 2 && model_route_weights(hp) <= 3);
        log_catch(&ignored);
        for (int k = 0; k < 2; k++) {
            snprintf(paths[k], sizeof paths[k], "%s", name());
            p[k] = opened(paths[k], &s, false);
            count(models[i], p[k], k + 1, k ? 7 : 256, 0, &scores[k]);
        }
        log_catch(NULL);
        const struct part_state *a = part_state(p[0]), *b = part_state(p[1]);
        const uint64_t tokens = 31 * scores[0].windows;
        assert_memory_equal(a->fired, b->fired, (size_t)(s.last * s.d_ff) * sizeof(uint32_t));
        assert_memory_equal(a->sum, b->sum, (size_t)(s.last * s.d_ff) * sizeof(double));
        assert_memory_equal(a->chosen, b->chosen, (size_t)(s.last * s.n_experts) * sizeof(uint32_t));
        for (int l = 0; l < s.last; l++) {
            uint64_t choices = 0;
            for (int64_t e = 0; e < s.n_experts; e++)
                choices += a->chosen[l * s.n_experts + e];
            assert_int_equal(choices, model_has_experts(m, l) ? tokens * 2 : 0);
            for (int64_t j = 0; model_has_experts(m, l) && j < s.n_experts * hp->d_expert; j++)
                assert_true(a->fired[l * s.d_ff + j] <= a->chosen[l * s.n_experts + j / hp->d_expert]);
            for (int k = 0; k < 2; k++)
                assert_int_equal(part_routes(p[k], l, 20, expert[k], weight[k]), ST_OK);
            assert_memory_equal(expert[0], expert[1], sizeof *expert);
            assert_memory_equal(weight[0], weight[1], 20 * (size_t)s.n_weights * sizeof(float));
            for (int t = 0; model_has_experts(m, l) && t < 20; t++)
                assert_true(expert[0][2 * t] != expert[0][2 * t + 1] && weight[0][t * s.n_weights] > 0);
        }
        part_remove(p[0]);
        part_remove(p[1]);
        model_free(m);
    }
}

/* Whoever changed the checkpoint is not believed. */
static void test_routes_of_no_expert(void **state)
{
    (void)state;
    struct part_shape s = shape;
    const uint32_t expert[2] = {4, 1}, beyond[2] = {0, 5};
    const float weight[2] = {0.75f, 0.25f};
    uint32_t experts[SAMPLES * 2];
    float weights[SAMPLES * 2];
    struct log_catcher line;
    s.n_experts = 5;
    s.n_used = s.n_weights = 2;
    struct part *p = opened(name(), &s, false);
    for (uint64_t i = 0; i < SAMPLES; i++)
        assert_int_equal(part_put_routes(p, LAST - 1, i, expert, weight), ST_OK);
    assert_int_equal(part_routes(p, LAST - 1, SAMPLES, experts, weights), ST_OK);
    assert_true(experts[16] == 4 && experts[17] == 1 && weights[16] == 0.75f && weights[17] == 0.25f);
    assert_int_equal(part_put_routes(p, LAST - 1, 3, beyond, weight), ST_OK);
    log_catch(&line);
    assert_int_equal(part_routes(p, LAST - 1, SAMPLES, experts, weights), ST_IO);
    log_catch(NULL);
    assert_non_null(strstr(line.first_error, "layer 4 has chosen expert 5, expected one of 5"));
    part_remove(p);
}

static void test_figures(void **state)
{
    (void)state;
    const float fired[10] = {0, 0.4f, 0, 0.1f, 0.2f, 0.1f, 0, 0.1f, 0.1f, 0};
    double share = 0;
    float y[11];
    assert_int_equal(report_neurons_for(fired, 10, 0.8, &share), ST_OK);
    assert_true(fabs(share - 0.4) < 1e-6); /* .4 + .2 + .1 + .1 of 1 */
    assert_int_equal(report_neurons_for(fired, 10, 0.39, &share), ST_OK);
    assert_true(fabs(share - 0.1) < 1e-6);
    assert_int_equal(report_curve(fired, 10, 11, y), ST_OK);
    const float expected[11] = {0, 0.4f, 0.6f, 0.7f, 0.8f, 0.9f, 1, 1, 1, 1, 1};
    for (int i = 0; i < 11; i++)
        assert_true(fabsf(y[i] - expected[i]) < 1e-6f);
    const float none[3] = {0};
    assert_int_equal(report_neurons_for(none, 3, 0.8, &share), ST_OK);
    assert_true(share == 0);
    assert_int_equal(report_curve(none, 3, 2, y), ST_OK);
    assert_true(y[1] == 0);
}

/* Both forms of the report name what it is about, and the page needs nothing from outside. */
static void test_report(void **state)
{
    (void)state;
    float fired[2][4] = {{0.5f, 0.25f, 0, 0.25f}, {1, 0.5f, 0.25f, 0.25f}}, bound[4] = {0};
    struct neuron_layer layers[2] = {{.fired = fired[0], .strength = fired[0], .live = 0.25f, .bound = bound,
                                      .planes = {.recall = 0.987f, .precision = 0.5f, .accuracy = 0.9f}},
                                     {.fired = fired[1], .strength = fired[1], .live = 0.5f, .bound = bound,
                                      .planes = {.recall = 0.965f, .precision = 0.5f, .accuracy = 0.9f}}};
    struct neurons n = {.activation = ACT_RELU, .n_layers = 2, .d_model = 8, .d_ff = 4, .n_tokens = 100,
                        .layers = layers};
    struct score dense = {.windows = 1, .scored = 100, .sum = 200, .squares = 500}, worse = dense;
    worse.sum = 201;
    struct part_measure measures[] = {{.sparse = SPARSE_EXACT, .score = dense, .used = 1},
                                      {.sparse = SPARSE_PREDICTED, .predictor = PREDICTOR_PLANES, .score = worse}};
    struct report r = {.model = "a <b>model</b>.gguf", .text = "text", .neurons_path = "x", .neurons = &n,
                       .model_bytes = 1000, .neurons_bytes = 100, .n_windows = 1, .window = 512, .dense = dense,
                       .measures = measures, .n_measures = 2, .seconds = 3};
    for (int html = 0; html < 2; html++) {
        char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);
        assert_non_null(f);
        assert_int_equal((html ? report_html : report_text)(f, &r), ST_OK);
        fclose(f);
        assert_non_null(strstr(text, "7.3891")); /* e^2 */
        assert_non_null(strstr(text, "+1.01 %"));
        assert_non_null(strstr(text, "predicted, planes"));
        assert_non_null(strstr(text, "98.7"));
        assert_non_null(strstr(text, "37.5")); /* live */
        assert_true(!html || (strstr(text, "<svg") && !strstr(text, "http") && !strstr(text, "<script")));
        assert_true(!html || !strstr(text, "<b>model"));
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_checkpoint), cmocka_unit_test(test_torn_checkpoint),
                                       cmocka_unit_test(test_other_checkpoint),
                                       cmocka_unit_test(test_mlp_that_cannot_be),
                                       cmocka_unit_test(test_counts), cmocka_unit_test(test_counts_of_experts),
                                       cmocka_unit_test(test_routes_of_no_expert), cmocka_unit_test(test_figures),
                                       cmocka_unit_test(test_report)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
