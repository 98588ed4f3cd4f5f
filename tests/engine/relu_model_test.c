/* A real model that is exactly sparse: SmolLM2-135M with ReLU, under HEARTH_TEST_RELU_MODEL. Its own reference figures
 * (computed in bf16 from the dequantised weights) are for the licence texts that every Debian has. */
#include "tests/engine/trace.h"

#include <math.h>

#include "device/device.h"

/* Share of the neurons that fire, by layer, over the first 32 windows of 512 tokens. */
static const double live_reference[] = {.355, .131, .106, .093, .050, .042, .103, .096, .148, .181,
                                        .176, .038, .177, .156, .170, .172, .213, .245, .306, .313,
                                        .353, .237, .307, .209, .230, .210, .228, .330, .212, .353};
enum { LAYERS = 30, WINDOW = 512, LIVE_WINDOWS = 32, ALL_WINDOWS = 47 };
static const double perplexity_reference = 25.90;

static const char *relu_model(void)
{
    const char *path = getenv("HEARTH_TEST_RELU_MODEL");
    if (SANITIZED || !path || !*path) {
        print_message("skipped: %s\n", SANITIZED ? "too slow under a sanitizer" : "HEARTH_TEST_RELU_MODEL is not set");
        return NULL;
    }
    return path;
}

/* The licences one after the other, or NULL; the caller frees. */
static char *licences(size_t *n)
{
    static const char *const names[] = {"GPL-3", "GPL-2", "GFDL-1.3", "Apache-2.0", "MPL-2.0", "LGPL-3"};
    enum { MOST = 1 << 20 };
    char *text = malloc(MOST);
    assert_non_null(text);
    *n = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        snprintf(path, sizeof path, "/usr/share/common-licenses/%s", names[i]);
        FILE *f = fopen(path, "rb");
        if (!f) {
            print_message("skipped: %s is not there\n", path);
            free(text);
            return NULL;
        }
        *n += fread(text + *n, 1, MOST - *n, f);
        fclose(f);
    }
    return text;
}

struct firing {
    double fired[LAYERS], seen[LAYERS];
    size_t d_ff;
};

static void count_live(void *arg, const struct observed *o)
{
    struct firing *live = arg;
    assert_int_equal(o->neurons->stride, live->d_ff);
    for (size_t i = 0; i < o->n * live->d_ff; i++)
        live->fired[o->layer] += o->neurons->h[i] != 0;
    live->seen[o->layer] += (double)(o->n * live->d_ff);
}

/* Mean negative log probability of the second halves of `windows` windows. */
static double score(struct cluster *c, const int32_t *tokens, size_t windows)
{
    float nll[WINDOW / 2 - 1];
    double sum = 0;
    for (size_t w = 0; w < windows; w++) {
        assert_int_equal(dialogue_score(cluster_dialogue(c), tokens + w * WINDOW, WINDOW, WINDOW / 2, nll), ST_OK);
        for (size_t i = 0; i < WINDOW / 2 - 1; i++)
            sum += (double)nll[i];
    }
    return sum / (double)(windows * (WINDOW / 2 - 1));
}

static struct cluster_options relu_options(const char *model)
{
    struct cluster_options o = plain_options(model);
    o.activation = "relu";
    o.neurons = "";
    o.threads = 2;
    o.n_ctx = WINDOW;
    return o;
}

static void test_reference_figures(void **state)
{
    (void)state;
    const char *model = relu_model();
    size_t n_bytes = 0, n;
    char *text = model ? licences(&n_bytes) : NULL;
    if (!text)
        skip();
    struct firing live = {.d_ff = 1536};
    struct cluster_options o = relu_options(model);
    o.observe = count_live;
    o.observe_arg = &live;
    struct cluster *c = start(&o);
    int32_t *tokens;
    assert_int_equal(tokenizer_encode(cluster_tokenizer(c), text, n_bytes, true, false, &tokens, &n), ST_OK);
    assert_true(n >= (size_t)ALL_WINDOWS * WINDOW);
    double first = score(c, tokens, LIVE_WINDOWS);
    for (int l = 0; l < LAYERS; l++) {
        const double share = live.fired[l] / live.seen[l];
        if (fabs(share - live_reference[l]) > .01)
            fail_msg("layer %d: %.4f of the neurons fire, expected %.3f", l, share, live_reference[l]);
    }
    double rest = score(c, tokens + LIVE_WINDOWS * WINDOW, ALL_WINDOWS - LIVE_WINDOWS);
    cluster_stop(c);
    double perplexity = exp((first * LIVE_WINDOWS + rest * (ALL_WINDOWS - LIVE_WINDOWS)) / ALL_WINDOWS);
    print_message("perplexity %.4f, reference %.2f\n", perplexity, perplexity_reference);
    assert_true(fabs(perplexity / perplexity_reference - 1) < .01);

    o = relu_options(model);
    o.sparse = SPARSE_EXACT;
    o.ranks = 2;
    o.threads = 1;
    c = start(&o);
    double exact = score(c, tokens, 2);
    cluster_stop(c);
    o.sparse = SPARSE_DENSE;
    c = start(&o);
    double dense = score(c, tokens, 2);
    cluster_stop(c);
    assert_memory_equal(&exact, &dense, sizeof exact); /* every bit */
    free(tokens);
    free(text);
}

static void test_exact_text(void **state)
{
    (void)state;
    const char *model = relu_model();
    if (!model)
        skip();
    static const int32_t prompt[] = {504, 3575, 282, 4649, 314};
    struct job j = {prompt, 5, 8, 64};
    struct cluster_options o = relu_options(model);
    struct trace expected = run(&o, &j);
    o.sparse = SPARSE_EXACT;
    for (int ranks = 1; ranks <= 4; ranks++) {
        o.ranks = ranks;
        o.threads = 1;
        o.split = ranks % 3;
        must_equal(&expected, &o, &j);
    }
    trace_free(&expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_figures),
        cmocka_unit_test(test_exact_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
