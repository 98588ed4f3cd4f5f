/* Which modes a model can run in, what the refusals say, and whose activation holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/log.h"
#include "sparsity/mode.h"
#include "tests/unit/neuron_fixture.h"

static struct log_catcher caught;

#define assert_logged(text)                                                                       \
    do {                                                                                          \
        if (!strstr(caught.first_error, text))                                                    \
            fail_msg("expected a line with \"%s\", found \"%s\"", text, caught.first_error);      \
    } while (0)

/* A model of each kind; the neuron files have everything, or (part) lack it in a layer. */
static struct {
    struct tiny_model floats, quantised, with_books, powerinfer;
    struct tiny_neurons full, part;
} f;

static int set_up(void **state)
{
    (void)state;
    tiny_model_open(&f.floats, (struct tiny_recipe){0});
    tiny_model_open(&f.quantised, (struct tiny_recipe){.gate_type = DT_Q4_0, .up_type = DT_Q8_0});
    tiny_model_open(&f.with_books, (struct tiny_recipe){.gate_type = DT_MXFP4, .up_type = DT_IQ4_NL});
    tiny_model_open(&f.powerinfer, (struct tiny_recipe){.powerinfer = true, .gate_type = DT_F16, .up_type = DT_F16});
    assert_non_null(f.floats.model);
    assert_non_null(f.quantised.model);
    assert_non_null(f.with_books.model);
    assert_non_null(f.powerinfer.model);
    tiny_neurons_make(&f.part, f.quantised.model);
    tiny_neurons_make(&f.full, f.quantised.model);
    tiny_neurons_fill(&f.full);
    log_catch(&caught);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    log_catch(NULL);
    tiny_model_close(&f.floats);
    tiny_model_close(&f.quantised);
    tiny_model_close(&f.with_books);
    tiny_model_close(&f.powerinfer);
    return 0;
}

static void names_go_both_ways(void **state)
{
    (void)state;
    for (int i = 0; i <= SPARSE_PREDICTED; i++) {
        enum sparse_mode m = SPARSE_DENSE;
        assert_true(sparse_mode_of(sparse_mode_name((enum sparse_mode)i), &m));
        assert_int_equal(m, i);
    }
    for (int i = 0; i <= PREDICTOR_PLANES; i++) {
        enum predictor p = PREDICTOR_AUTO;
        assert_true(predictor_of(predictor_name((enum predictor)i), &p));
        assert_int_equal(p, i);
    }
    enum sparse_mode m = SPARSE_EXACT;
    assert_false(sparse_mode_of("Dense", &m));
    assert_false(sparse_mode_of("", &m));
    assert_int_equal(m, SPARSE_EXACT);
}

static void the_option_comes_before_the_file_before_the_model(void **state)
{
    (void)state;
    enum activation a = ACTIVATIONS;
    struct model *m = f.floats.model;
    assert_int_equal(activation_settle(m, NULL, NULL, &a), ST_OK);
    assert_int_equal(a, ACT_SILU);
    assert_int_equal(activation_settle(m, &f.full.n, NULL, &a), ST_OK);
    assert_int_equal(a, ACT_RELU);
    assert_int_equal(activation_settle(m, &f.full.n, "drelu", &a), ST_OK);
    assert_int_equal(a, ACT_DRELU);
    assert_int_equal(activation_settle(f.powerinfer.model, NULL, NULL, &a), ST_OK);
    assert_int_equal(a, ACT_RELU);

    a = ACTIVATIONS;
    assert_int_equal(activation_settle(m, NULL, "gelu", &a), ST_USAGE);
    assert_logged("--activation: expected silu, relu, relu2 or drelu, found 'gelu'");
    struct neurons own = f.full.n;
    own.activation = ACT_GELU;
    caught.first_error[0] = 0;
    assert_int_equal(activation_settle(m, &own, NULL, &a), ST_FORMAT);
    assert_logged("made with activation gelu");
    assert_int_equal(a, ACTIVATIONS);
    struct model other = *m;
    other.hp.activation = ACT_GELU;
    assert_int_equal(activation_settle(&other, &own, NULL, &a), ST_OK);
    assert_int_equal(a, ACT_GELU);
    other = *m;
    a = ACTIVATIONS;
    other.hp.activation_known = false;
    caught.first_error[0] = 0;
    assert_int_equal(activation_settle(&other, NULL, NULL, &a), ST_USAGE);
    assert_logged("say --activation relu");
    other.hp.has_gate = false;
    caught.first_error[0] = 0;
    assert_int_equal(activation_settle(&other, NULL, "drelu", &a), ST_USAGE);
    assert_logged("drelu (--activation) needs a gate");
    assert_int_equal(activation_settle(&other, NULL, "silu", &a), ST_USAGE);
    assert_int_equal(a, ACTIVATIONS);
    assert_int_equal(activation_settle(&other, NULL, "relu2", &a), ST_OK);
}

/* Whether `m` with activation `a` can run so; what AUTO settles to is checked too. */
static void check(struct model *m, enum activation a, const struct neurons *n, enum sparse_mode mode,
                  enum predictor wanted, enum predictor settled)
{
    m->hp.activation = a;
    caught.first_error[0] = 0;
    enum predictor p = wanted;
    if (sparse_mode_check(m, n, mode, &p) != ST_OK)
        fail_msg("%s", caught.first_error);
    assert_int_equal(p, settled);
}

static void what_can_run_runs(void **state)
{
    (void)state;
    const enum predictor any = PREDICTOR_AUTO, mlp = PREDICTOR_MLP, planes = PREDICTOR_PLANES;
    struct model *floats = f.floats.model, *quantised = f.quantised.model, *powerinfer = f.powerinfer.model;
    check(floats, ACT_SILU, NULL, SPARSE_DENSE, any, any);
    check(floats, ACT_RELU, NULL, SPARSE_EXACT, any, any);
    check(quantised, ACT_DRELU, NULL, SPARSE_EXACT, any, any);
    check(quantised, ACT_RELU, &f.full.n, SPARSE_PREDICTED, any, mlp);
    check(quantised, ACT_RELU, &f.full.n, SPARSE_PREDICTED, planes, planes);
    check(floats, ACT_RELU, &f.full.n, SPARSE_PREDICTED, any, mlp);
    check(powerinfer, ACT_RELU, NULL, SPARSE_PREDICTED, any, mlp);
    check(powerinfer, ACT_RELU, NULL, SPARSE_PREDICTED, mlp, mlp);
    assert_true(neurons_mlp_holds(quantised, &f.full.n));
    assert_false(neurons_mlp_holds(powerinfer, NULL));
    powerinfer->hp.activation = ACT_RELU2;
    assert_false(neurons_mlp_holds(powerinfer, &f.full.n)); /* made for relu */
    f.full.layers[1].fc1.data = f.full.layers[1].fc2.data = NULL;
    assert_false(neurons_mlp_holds(quantised, &f.full.n));
    check(quantised, ACT_RELU, &f.full.n, SPARSE_PREDICTED, any, planes);
    f.full.n.activation = ACT_SILU;
    check(quantised, ACT_SILU, &f.full.n, SPARSE_THRESHOLD, any, any);
    /* Where there is no gate, up decides. */
    for (int i = 0; i < TINY_LAYERS; i++)
        floats->layers[i].bundles->gate = (struct matrix){0}, floats->layers[i].bundles->up = quantised->layers[i].up;
    f.full.n.activation = ACT_RELU;
    check(floats, ACT_RELU, &f.full.n, SPARSE_PREDICTED, planes, planes);
}

static void refused(struct model *m, enum activation a, const struct neurons *n, enum sparse_mode mode,
                    enum predictor p, const char *line)
{
    m->hp.activation = a;
    caught.first_error[0] = 0;
    enum predictor after = p;
    assert_int_equal(sparse_mode_check(m, n, mode, &after), ST_USAGE);
    assert_int_equal(after, p);
    assert_string_equal(caught.first_error, line);
}

static void what_cannot_run_is_told_what_can(void **state)
{
    (void)state;
    struct model *floats = f.floats.model, *quantised = f.quantised.model;
    refused(quantised, ACT_SILU, NULL, SPARSE_EXACT, PREDICTOR_AUTO,
            "tiny.gguf: --sparse exact needs a ReLU-family model, its activation is silu; it can run dense, threshold "
            "(after `hearth prepare`); if it is ReLU-trained, say --activation relu");
    refused(floats, ACT_SILU, NULL, SPARSE_PREDICTED, PREDICTOR_AUTO,
            "tiny.gguf: --sparse predicted needs a ReLU-family model, its activation is silu; it can run dense; if it "
            "is ReLU-trained, say --activation relu");
    refused(quantised, ACT_RELU, &f.full.n, SPARSE_THRESHOLD, PREDICTOR_AUTO,
            "tiny.gguf: --sparse threshold is for SiLU models, its activation is relu; it can run dense, exact, "
            "predicted");
    refused(floats, ACT_SILU, NULL, SPARSE_THRESHOLD, PREDICTOR_AUTO,
            "tiny.gguf: --sparse threshold needs weights of Q4_0 to Q8_0 or Q3_K to Q6_K, and blk.0.ffn_gate.weight is "
            "F32; it can run dense");
    refused(quantised, ACT_SILU, NULL, SPARSE_THRESHOLD, PREDICTOR_AUTO,
            "tiny.gguf: --sparse threshold needs thresholds from a neuron file, and there is none: run `hearth "
            "prepare` first; it can run dense, threshold (after `hearth prepare`)");
    refused(quantised, ACT_RELU, NULL, SPARSE_PREDICTED, PREDICTOR_AUTO,
            "tiny.gguf: --sparse predicted needs bounds for every neuron from a neuron file, and there is none: run "
            "`hearth prepare` first; it can run dense, exact, predicted (after `hearth prepare`)");
    refused(quantised, ACT_RELU, &f.part.n, SPARSE_PREDICTED, PREDICTOR_MLP,
            "tiny.gguf: --sparse predicted --predictor mlp needs an MLP for every layer, which the neuron file lacks: "
            "run `hearth prepare` first; it can run dense, exact, predicted (after `hearth prepare`)");
    refused(floats, ACT_RELU, &f.full.n, SPARSE_PREDICTED, PREDICTOR_PLANES,
            "tiny.gguf: --sparse predicted --predictor planes needs weights of Q4_0 to Q8_0 or Q3_K to Q6_K, and "
            "blk.0.ffn_gate.weight is F32; it can run dense, exact, predicted");
    refused(f.with_books.model, ACT_SILU, NULL, SPARSE_THRESHOLD, PREDICTOR_AUTO,
            "tiny.gguf: --sparse threshold needs weights of Q4_0 to Q8_0 or Q3_K to Q6_K, and blk.0.ffn_gate.weight is "
            "MXFP4; it can run dense");
    /* No type of its weights has planes, so that an MLP is what it can have. */
    refused(floats, ACT_RELU, NULL, SPARSE_PREDICTED, PREDICTOR_AUTO,
            "tiny.gguf: --sparse predicted needs an MLP for every layer from a neuron file, and there is none: run "
            "`hearth prepare` first; it can run dense, exact, predicted (after `hearth prepare`)");
    /* Made for relu, run as drelu: its numbers do not hold. */
    refused(quantised, ACT_DRELU, &f.full.n, SPARSE_PREDICTED, PREDICTOR_PLANES,
            "tiny.gguf: --sparse predicted --predictor planes needs bounds for every neuron, and the neuron file was "
            "made with activation relu, not drelu: run `hearth prepare` again; it can run dense, exact, predicted "
            "(after `hearth prepare`)");
}

/* What neurons with gates have biases in any layer: what estimates and MLPs are made of knows nothing of them. */
static void biases_beside_gates_are_for_whole_products(void **state)
{
    (void)state;
    static const char *const wanted[] = {"", " --predictor mlp", " --predictor planes"};
    struct model *m = f.quantised.model;
    char line[256];
    for (int which = 0; which < 2; which++) {
        struct bundle *b = m->layers[TINY_LAYERS - 1].bundles;
        struct matrix *bias = which ? &b->up_bias : &b->gate_bias;
        *bias = (struct matrix){DT_F32, 1, b->n, b->up.data, "bias"};
        assert_true(model_has_biased_gates(m));
        check(m, ACT_SILU, &f.full.n, SPARSE_DENSE, PREDICTOR_AUTO, PREDICTOR_AUTO);
        check(m, ACT_RELU, &f.full.n, SPARSE_EXACT, PREDICTOR_AUTO, PREDICTOR_AUTO);
        assert_false(neurons_mlp_holds(m, &f.full.n));
        for (int p = PREDICTOR_AUTO; p <= PREDICTOR_PLANES; p++) {
            snprintf(line, sizeof line,
                     "tiny.gguf: --sparse predicted%s is for FFNs whose gates have no biases; it can run dense, "
                     "exact", wanted[p]);
            refused(m, ACT_RELU, &f.full.n, SPARSE_PREDICTED, (enum predictor)p, line);
        }
        f.full.n.activation = ACT_SILU;
        refused(m, ACT_SILU, &f.full.n, SPARSE_THRESHOLD, PREDICTOR_AUTO,
                "tiny.gguf: --sparse threshold is for FFNs whose gates have no biases; it can run dense");
        f.full.n.activation = ACT_RELU;
        *bias = (struct matrix){0};
    }
    assert_false(model_has_biased_gates(m));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(names_go_both_ways), TEST(the_option_comes_before_the_file_before_the_model), TEST(what_can_run_runs),
        TEST(what_cannot_run_is_told_what_can), TEST(biases_beside_gates_are_for_whole_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
