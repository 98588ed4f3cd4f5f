/* Predictors that read x in another form than the layer's weights do, at home and at other owners: each form predicts
 * what the others predict, and any number of ranks makes the same bits. */
#include "tests/engine/made_neurons.h"

#include <math.h>

enum { PROMPT = 20 };

static const enum dtype weights[] = {DT_F32, DT_F16, DT_BF16, DT_Q4_0};
static const struct { enum dtype fc1, fc2; } forms[] = {{DT_F32, DT_F32},  {DT_Q8_0, DT_Q8_0}, {DT_Q8_0, DT_F16},
                                                        {DT_F16, DT_Q8_0}, {DT_BF16, DT_F32}};

/* Of the neurons that a text's layers have, the share that was flagged. */
static double flagged(const struct cluster_options *o, const struct job *j)
{
    struct cluster *c = start(o);
    int32_t next;
    assert_int_equal(dialogue_prompt(cluster_dialogue(c), j->prompt, j->n_prompt, &next, NULL, NULL), ST_OK);
    const struct wire_counts n = session_counts(cluster_session(c));
    cluster_stop(c);
    return (double)n.flagged / (double)n.neurons;
}

static double distance(const struct trace *a, const struct trace *b)
{
    double sum = 0;
    for (size_t i = 0; i < a->n_vocab; i++) /* after the prompt: texts may part later */
        sum += pow((double)a->rows[i] - (double)b->rows[i], 2);
    return sqrt(sum);
}

static void all_ranks_agree(const struct trace *one, const struct cluster_options *with, const struct job *j)
{
    for (int i = 0; i < 10; i++) {
        struct cluster_options o = *with;
        o.ranks = 1 + i / 2 % 3;
        o.residual = i < 6 && i % 2;
        o.split = i < 6 ? SPLIT_SHARDS : SPLIT_BOTH;
        o.down_at_stage = i == 8;
        o.kernels = NULL;
        o.n_batch = i % 3 ? 256 : 7;
        if (!SANITIZED || i % 3 == 2)
            must_equal(one, &o, j);
    }
}

static void test_predictors_read_what_is_there(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 3, 2};
    fill_prompt(prompt, PROMPT);
    for (size_t w = 0; w < sizeof weights / sizeof *weights; w++) {
        const enum dtype t = weights[w];
        const struct made_model m = {2, 96, 384, 3, 3, 32, 0, t, t, t, w % 2 ? DT_Q8_0 : t, t};
        char model[MADE_NAME], neurons[MADE_NAME];
        made_model_write(&m, model);
        struct cluster_options o = plain_options(model);
        o.activation = "relu";
        struct trace dense = run(&o, &j), floats = {0};
        o.sparse = SPARSE_PREDICTED;
        o.predictor = PREDICTOR_MLP;
        o.kernels = "scalar";
        o.neurons = neurons;
        double share = 0;
        for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
            const struct made_recipe r = {.activation = ACT_RELU, .mlp = 0.2f, .fc1 = forms[f].fc1,
                                          .fc2 = forms[f].fc2};
            made_neurons_write(model, &m, &r, neurons);
            struct trace one = run(&o, &j);
            if (f == 0) { /* at home x is there as floats whatever the weights are */
                floats = one;
                share = flagged(&o, &j);
                assert_true(share > 0.2 && share < 0.8 && distance(&floats, &dense) > 0);
            } else {
                assert_true(fabs(flagged(&o, &j) - share) < 0.02);
                if (distance(&one, &floats) > 0.3 * distance(&floats, &dense)) {
                    describe(&o);
                    fail_msg("an MLP of %s and %s is %g away from one of floats, dense is %g away", dtype_name(r.fc1),
                             dtype_name(r.fc2), distance(&one, &floats), distance(&floats, &dense));
                }
            }
            all_ranks_agree(&one, &o, &j);
            unlink(neurons);
            if (f > 0)
                trace_free(&one);
        }
        trace_free(&floats);
        trace_free(&dense);
        unlink(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_predictors_read_what_is_there)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
