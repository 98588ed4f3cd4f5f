/* Plans: cutting by shares, the round trip through JSON, every way a text can be wrong, and memory that runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "placement/plan.h"
#include "tests/unit/alloc_fail.h"

static const struct plan_model small = {.architecture = "llama", .n_layers = 30, .n_vocab = 1000,
                                        .layer = {.d_ff = 1536, .neuron_unit = 32, .n_kv_heads = 8, .head_unit = 2},
                                        .file_bytes = 98765, .file_hash = 0x0123456789abcdef};

static struct plan *make(const struct plan_model *m, enum plan_split split, int n, const double *shares)
{
    struct plan *p = NULL;
    assert_int_equal(plan_make(m, split, n, shares, &p), ST_OK);
    return p;
}

/* Rank r holds [expected[r], expected[r + 1]). */
static void assert_bounds(const struct plan *p, int layer, const int64_t *expected)
{
    for (int r = 0; r < p->n_ranks; r++) {
        const struct neuron_range *range;
        int n = plan_neurons(p, layer, r, &range);
        assert_int_equal(n, expected[r] < expected[r + 1]);
        assert_int_equal(plan_n_neurons(p, layer, r), expected[r + 1] - expected[r]);
        if (n) {
            assert_int_equal(range->begin, expected[r]);
            assert_int_equal(range->end, expected[r + 1]);
        }
    }
}

static void assert_same_neurons(const struct plan *a, const struct plan *b, int layer)
{
    for (int r = 0; r < a->n_ranks; r++) {
        const struct neuron_range *x, *y;
        int n = plan_neurons(a, layer, r, &x);
        assert_int_equal(plan_neurons(b, layer, r, &y), n);
        if (n)
            assert_memory_equal(x, y, (size_t)n * sizeof *x);
    }
    assert_int_equal(a->layers[layer].splits_units, b->layers[layer].splits_units);
    assert_int_equal(plan_down_at_stage(a, layer), plan_down_at_stage(b, layer));
}

static void assert_stage(const struct plan *p, int rank, int first, int last)
{
    int a = -1, b = -1;
    plan_stage(p, rank, &a, &b);
    assert_int_equal(b - a, last - first);
    if (first != last)
        assert_int_equal(a, first);
}

/* Rank r holds KV heads [expected[r], expected[r + 1]). */
static void assert_heads(const struct plan *p, int layer, const int64_t *expected)
{
    for (int r = 0; r < p->n_ranks; r++) {
        int64_t begin = -1, end = -1;
        plan_heads(p, layer, r, 8, &begin, &end);
        assert_int_equal(end - begin, expected[r + 1] - expected[r]);
        if (begin < end)
            assert_int_equal(begin, expected[r]);
    }
}

static void stages_cut_layers(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_STAGES, 3, (const double[]){3, 1, 2});
    assert_heads(p, 14, (const int64_t[]){0, 8, 8, 8});
    assert_heads(p, 15, (const int64_t[]){0, 0, 8, 8});
    assert_stage(p, 0, 0, 15);
    assert_stage(p, 1, 15, 20);
    assert_stage(p, 2, 20, 30);
    assert_bounds(p, 0, (const int64_t[]){0, 1536, 1536, 1536});
    assert_bounds(p, 14, (const int64_t[]){0, 1536, 1536, 1536});
    assert_bounds(p, 15, (const int64_t[]){0, 0, 1536, 1536});
    assert_bounds(p, 29, (const int64_t[]){0, 0, 0, 1536});
    assert_int_equal(plan_first_stage(p), 0);
    assert_int_equal(plan_last_stage(p), 2);
    assert_int_equal(plan_next_stage(p, 0), 1);
    assert_int_equal(plan_next_stage(p, 1), 2);
    assert_int_equal(plan_next_stage(p, 2), -1);
    plan_free(p);
}

static void shards_cut_neurons(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_SHARDS, 2, (const double[]){3, 1});
    assert_stage(p, 0, 0, 30);
    assert_stage(p, 1, 0, 0);
    for (int l = 0; l < 30; l++) {
        assert_bounds(p, l, (const int64_t[]){0, 1152, 1536});
        assert_heads(p, l, (const int64_t[]){0, 6, 8});
    }
    assert_int_equal(plan_last_stage(p), 0);
    assert_int_equal(plan_next_stage(p, 0), -1);
    assert_int_equal(plan_next_stage(p, 1), -1);
    plan_free(p);
}

static void both_cuts_both(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_BOTH, 2, NULL);
    assert_stage(p, 0, 0, 15);
    assert_stage(p, 1, 15, 30);
    for (int l = 0; l < 30; l++)
        assert_bounds(p, l, (const int64_t[]){0, 768, 1536});
    plan_free(p);
}

static void assert_rows(const struct plan *p, int rank, int64_t begin, int64_t end)
{
    int64_t b = -1, e = -1;
    plan_rows(p, rank, 1000, &b, &e);
    assert_int_equal(b, begin);
    assert_int_equal(e, end);
}

/* Units of heads are whole: who gets none has none. A single unit stays on the stage. */
static void heads_are_cut_in_units(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_BOTH, 5, (const double[]){1, 1, 2, 1, 1});
    for (int l = 0; l < 30; l++)
        assert_heads(p, l, (const int64_t[]){0, 2, 4, 6, 8, 8});
    plan_free(p);
    struct plan_model m = small;
    m.layer.head_unit = 8;
    p = make(&m, SPLIT_BOTH, 2, (const double[]){1, 2});
    assert_heads(p, 9, (const int64_t[]){0, 8, 8});
    assert_heads(p, 10, (const int64_t[]){0, 0, 8});
    assert_false(p->layers[0].heads_cut);
    plan_free(p);
}

static void assert_residual_refused(struct plan *p, const char *says)
{
    struct log_catcher catcher;
    log_catch(&catcher);
    status st = plan_set_residual(p, true);
    log_catch(NULL);
    assert_int_equal(st, ST_USAGE);
    assert_non_null(strstr(catcher.first_error, says));
    assert_false(p->residual_all);
}

static void residual_stream_is_on_all_of_one_stage(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_SHARDS, 2, NULL);
    assert_int_equal(plan_set_residual(p, true), ST_OK);
    assert_true(p->residual_all);
    assert_int_equal(plan_set_residual(p, false), ST_OK);
    plan_set_down(p, true);
    assert_residual_refused(p, "down projections on their stage");
    plan_free(p);
    p = make(&small, SPLIT_BOTH, 2, NULL);
    assert_residual_refused(p, "several stages");
    plan_free(p);
}

static void ranks_that_hold_anything_take_part(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_SHARDS, 3, (const double[]){1, 1, 1e-300});
    assert_true(plan_takes_part(p, 0) && plan_takes_part(p, 1));
    assert_false(plan_takes_part(p, 2));
    p->rows[2] -= 16;
    assert_true(plan_takes_part(p, 2));
    p->rows[2] += 16;
    p->layers[29].heads[2] = 6;
    assert_true(plan_takes_part(p, 2));
    plan_free(p);
    p = make(&small, SPLIT_STAGES, 2, NULL);
    assert_true(plan_takes_part(p, 0) && plan_takes_part(p, 1));
    plan_free(p);
}

/* The output matrix is cut where neurons are; uncut it belongs to the last stage. */
static void rows_are_cut_with_neurons(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_SHARDS, 2, (const double[]){3, 1});
    assert_rows(p, 0, 0, 752);
    assert_rows(p, 1, 752, 1000);
    plan_free(p);
    p = make(&small, SPLIT_STAGES, 2, NULL);
    assert_rows(p, 0, 0, 0);
    assert_rows(p, 1, 0, 1000);
    plan_free(p);
}

/* Remainders: 48 units over shares of 1 are 7 each (6.857..) for the six largest remainders, 6 for the last; totals are
 * exact, and nobody is further than one unit from their due. */
static void cuts_are_exact_and_fair(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_SHARDS, 7, NULL);
    assert_bounds(p, 0, (const int64_t[]){0, 224, 448, 672, 896, 1120, 1344, 1536});
    plan_free(p);
    uint32_t seed = 1;
    for (int round = 0; round < 300; round++) {
        double shares[PLAN_MAX_RANKS], sum = 0;
        int n = 1 + round % PLAN_MAX_RANKS;
        struct plan_model m = small;
        m.layer.d_ff = 1 + (round * 7919) % 20000;
        m.layer.neuron_unit = round % 3 ? 32 : 256;
        for (int r = 0; r < n; r++) {
            seed = seed * 1664525 + 1013904223;
            sum += shares[r] = (seed >> 8) % 1000 + 0.25;
        }
        p = make(&m, SPLIT_BOTH, n, shares);
        const int64_t unit = m.layer.neuron_unit;
        int64_t units = (m.layer.d_ff + unit - 1) / unit;
        int64_t neurons = 0;
        int layers = 0;
        for (int r = 0; r < n; r++) {
            int first, last;
            plan_stage(p, r, &first, &last);
            layers += last - first;
            assert_true(fabs(last - first - shares[r] / sum * m.n_layers) < 1 + 1e-9);
            int64_t begin = neurons;
            neurons += plan_n_neurons(p, 0, r);
            assert_true(begin % unit == 0 || begin == m.layer.d_ff);
            int64_t mine = (neurons + unit - 1) / unit - (begin + unit - 1) / unit;
            assert_true(fabs((double)mine - shares[r] / sum * (double)units) < 1 + 1e-9);
        }
        assert_int_equal(layers, m.n_layers);
        assert_int_equal(neurons, m.layer.d_ff);
        assert_int_equal(plan_check(p, &m, n), ST_OK);
        plan_free(p);
    }
}

static void tiny_and_huge_shares_work(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_BOTH, 3, (const double[]){1e-300, 1e308, 1e308});
    assert_bounds(p, 0, (const int64_t[]){0, 0, 768, 1536});
    assert_stage(p, 0, 0, 0);
    assert_stage(p, 1, 0, 15);
    assert_int_equal(plan_first_stage(p), 1);
    plan_free(p);
}

static void refuses_to_make(const struct plan_model *m, int n, const double *shares, status expected, const char *says)
{
    struct log_catcher catcher;
    struct plan *p = NULL;
    log_catch(&catcher);
    status st = plan_make(m, SPLIT_BOTH, n, shares, &p);
    log_catch(NULL);
    assert_int_equal(st, expected);
    assert_non_null(strstr(catcher.first_error, says));
    assert_null(p);
}

static void ranks_without_a_share_get_nothing(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_SHARDS, 4, (const double[]){1, 0, 2, 0});
    assert_bounds(p, 7, (const int64_t[]){0, 512, 512, 1536, 1536});
    plan_free(p);
    p = make(&small, SPLIT_BOTH, 3, (const double[]){3, 7, 0});
    assert_stage(p, 2, 0, 0);
    assert_bounds(p, 29, (const int64_t[]){0, 448, 1536, 1536});
    assert_int_equal(p->rows[2], small.n_vocab);
    plan_free(p);
}

static void bad_shares_and_ranks_are_refused(void **state)
{
    (void)state;
    struct plan_model deep = small;
    deep.n_layers = PLAN_MAX_LAYERS + 1;
    refuses_to_make(&small, 2, (const double[]){0, 0}, ST_USAGE, "all 2 are 0");
    refuses_to_make(&small, 2, (const double[]){-1, 1}, ST_USAGE, "rank 0's is -1");
    refuses_to_make(&small, 2, (const double[]){1, NAN}, ST_USAGE, "rank 1's is");
    refuses_to_make(&small, 2, (const double[]){1, INFINITY}, ST_USAGE, "rank 1's is inf");
    refuses_to_make(&small, 0, NULL, ST_USAGE, "0 ranks, expected 1 to 64");
    refuses_to_make(&small, 65, NULL, ST_USAGE, "65 ranks");
    refuses_to_make(&deep, 2, NULL, ST_UNSUPPORTED, "1025 layers");
}

static void assert_plans_equal(const struct plan *a, const struct plan *b)
{
    assert_string_equal(a->model.architecture, b->model.architecture);
    assert_int_equal(a->model.n_layers, b->model.n_layers);
    assert_true(a->model.file_bytes == b->model.file_bytes && a->model.file_hash == b->model.file_hash);
    assert_int_equal(a->residual_all, b->residual_all);
    assert_int_equal(a->n_ranks, b->n_ranks);
    assert_int_equal(a->rows_cut, b->rows_cut);
    for (int r = 0; a->rows_cut && r <= a->n_ranks; r++)
        assert_int_equal(a->rows[r], b->rows[r]);
    assert_int_equal(a->n_holders, b->n_holders);
    assert_memory_equal(a->holders, b->holders, (size_t)a->n_holders * sizeof *a->holders);
    for (int l = 0; l < a->model.n_layers; l++) {
        assert_int_equal(a->layers[l].stage, b->layers[l].stage);
        assert_memory_equal(&a->layers[l].shape, &b->layers[l].shape, sizeof a->layers[l].shape);
        assert_same_neurons(a, b, l);
        assert_int_equal(a->layers[l].heads_cut, b->layers[l].heads_cut);
        assert_memory_equal(a->layers[l].heads, b->layers[l].heads, sizeof a->layers[l].heads);
    }
}

static void formatted_plans_read_back(void **state)
{
    (void)state;
    static const enum plan_split splits[] = {SPLIT_STAGES, SPLIT_SHARDS, SPLIT_BOTH};
    for (int i = 0; i < 3; i++) {
        for (int n = 1; n <= PLAN_MAX_RANKS; n += 9) {
            struct plan *p = make(&small, splits[i], n, NULL), *q = NULL;
            p->residual_all = splits[i] == SPLIT_SHARDS;
            char *text = plan_format(p);
            assert_non_null(text);
            assert_int_equal(plan_parse(text, strlen(text), "test", &q), ST_OK);
            assert_plans_equal(p, q);
            free(text);
            plan_free(p);
            plan_free(q);
        }
    }
}

static void format_is_what_people_write(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_BOTH, 2, NULL);
    char *text = plan_format(p);
    assert_string_equal(text,
        "{\n  \"hearth_plan\": 2,\n"
        "  \"model\": {\"architecture\": \"llama\", \"layers\": 30, \"file_bytes\": 98765, "
        "\"file_hash\": \"0123456789abcdef\"},\n"
        "  \"ranks\": 2,\n"
        "  \"holders\": [{\"rank\": 0, \"device\": \"cpu\"}, {\"rank\": 1, \"device\": \"cpu\"}],\n"
        "  \"layers\": [\n"
        "    {\"from\": 0, \"to\": 15, \"stage\": 0,\n"
        "     \"d_ff\": 1536, \"neuron_unit\": 32, \"kv_heads\": 8, \"head_unit\": 2, \"experts\": 0,\n"
        "     \"heads\": [0, 4, 8],\n"
        "     \"sets\": [{\"holder\": 0, \"neurons\": [[0, 768]]},\n"
        "              {\"holder\": 1, \"neurons\": [[768, 1536]]}]},\n"
        "    {\"from\": 15, \"to\": 30, \"stage\": 1,\n"
        "     \"d_ff\": 1536, \"neuron_unit\": 32, \"kv_heads\": 8, \"head_unit\": 2, \"experts\": 0,\n"
        "     \"heads\": [0, 4, 8],\n"
        "     \"sets\": [{\"holder\": 0, \"neurons\": [[0, 768]]},\n"
        "              {\"holder\": 1, \"neurons\": [[768, 1536]]}]}\n"
        "  ],\n  \"rows\": [0, 512, 1000]\n}\n");
    free(text);
    plan_free(p);
}

#define MODEL "\"model\":{\"architecture\":\"llama\",\"layers\":4,\"d_ff\":96,\"neuron_unit\":32}"
#define HEAD "{\"hearth_plan\":1," MODEL ",\"ranks\":2,\"layers\":["
#define RUN(from, to, stage, neurons) "{\"from\":" #from ",\"to\":" #to ",\"stage\":" #stage ",\"neurons\":" neurons "}"
#define CUT "[0,32,96]"
#define HEADS(heads) "{\"from\":0,\"to\":4,\"stage\":0,\"heads\":" heads ",\"neurons\":" CUT "}"

/* A plan by hand: optional fields left out, stages in any order of ranks, a rank without neurons; with the byte order
 * mark and the line ends of some editors. */
static void hand_written_plan_is_read(void **state)
{
    (void)state;
    static const char text[] = "\xef\xbb\xbf{\r\n\"ranks\": 2, \"hearth_plan\": 1, \"layers\": ["
        RUN(0, 1, 1, "[0, 0, 96]") ","
        RUN(1, 4, 0, "[0, 10, 96]") "], \"model\": {\"architecture\": \"qwen2\", \"layers\": 4, \"d_ff\": 96}}";
    struct plan *p = NULL;
    assert_int_equal(plan_parse(text, sizeof text - 1, "test", &p), ST_OK);
    assert_int_equal(p->layers[0].shape.neuron_unit, 0);
    assert_int_equal(p->layers[0].shape.n_kv_heads, 0);
    assert_heads(p, 0, (const int64_t[]){0, 0, 8});
    assert_true(p->model.file_bytes == 0 && p->model.file_hash == 0);
    assert_stage(p, 1, 0, 1);
    assert_stage(p, 0, 1, 4);
    assert_int_equal(plan_first_stage(p), 1);
    assert_int_equal(plan_next_stage(p, 1), 0);
    assert_int_equal(plan_last_stage(p), 0);
    assert_bounds(p, 0, (const int64_t[]){0, 0, 96});
    assert_bounds(p, 3, (const int64_t[]){0, 10, 96});
    char *again = plan_format(p);
    struct plan *q = NULL;
    assert_int_equal(plan_parse(again, strlen(again), "test", &q), ST_OK);
    assert_plans_equal(p, q);
    free(again);
    plan_free(p);
    plan_free(q);
}

/* Heads without their number in the model; some layers leave them out. */
static void hand_written_heads_are_read(void **state)
{
    (void)state;
    static const char text[] = "{\"hearth_plan\":1,\"ranks\":2," MODEL ",\"layers\":["
        "{\"from\":0,\"to\":2,\"stage\":0,\"heads\":[0,0,5],\"neurons\":" CUT "}," RUN(2, 4, 0, CUT) "],"
        "\"residual\":\"all\"}";
    struct plan *p = NULL;
    assert_int_equal(plan_parse(text, sizeof text - 1, "test", &p), ST_OK);
    assert_int_equal(p->layers[3].shape.n_kv_heads, 5);
    assert_true(p->layers[0].heads_cut && !p->layers[3].heads_cut && p->residual_all);
    assert_heads(p, 1, (const int64_t[]){0, 0, 5});
    assert_heads(p, 2, (const int64_t[]){0, 8, 8});
    plan_free(p);
}

static void assert_text_refused(const char *text, const char *says)
{
    struct log_catcher catcher;
    struct plan *p = NULL;
    log_catch(&catcher);
    status st = plan_parse(text, strlen(text), "my.json", &p);
    log_catch(NULL);
    if (st != ST_FORMAT || !strstr(catcher.first_error, says))
        print_error("expected a refusal with '%s', got %s: %s\nof %s\n", says, status_name(st),
                    catcher.first_error, text);
    assert_int_equal(st, ST_FORMAT);
    assert_non_null(strstr(catcher.first_error, "my.json: "));
    assert_non_null(strstr(catcher.first_error, says));
    assert_null(p);
}

static void bad_texts_are_refused_by_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "line 1"},
        {"{\n\"hearth_plan\": 1,\n oops}", "line 3"},
        {"[]", "a plan is an object, found an array"},
        {"{}", "hearth_plan is missing, expected an integer"},
        {"{\"hearth_plan\":3}", "hearth_plan is 3, expected 1 to 2"},
        {"{\"hearth_plan\":0}", "hearth_plan is 0, expected 1 to 2"},
        {"{\"hearth_plan\":1,\"holders\":[]}", "holders is not a known field"},
        {"{\"hearth_plan\":1,\"hearth_plan\":1}", "duplicate"},
        {"{\"hearth_plan\":1,\"extra\\u001b[31m\":0}", "extra?[31m is not a known field"},
        {"{\"hearth_plan\":1}", "model is missing"},
        {"{\"hearth_plan\":1,\"model\":3}", "model is an integer, expected an object"},
        {"{\"hearth_plan\":1,\"model\":{\"arch\":\"llama\"}}", "model.arch is not a known field"},
        {"{\"hearth_plan\":1,\"model\":{\"layers\":1}}", "model.architecture is missing"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"\"}}", "model.architecture is ''"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a b\"}}", "model.architecture is 'a b'"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}}", "1 to 31 letters"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":0}}",
         "model.layers is 0, expected 1 to 1024"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":99999999999}}",
         "model.layers is 99999999999"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":1e99}}", "model.layers is a real number"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":99999999999999999999}}", "too big integer"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":4}}", "model.d_ff is missing"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":4,\"d_ff\":-1}}", "model.d_ff is -1"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":4,\"d_ff\":1,\"neuron_unit\":0}}",
         "model.neuron_unit is 0"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":4,\"d_ff\":1,\"file_bytes\":\"1\"}}",
         "model.file_bytes is a string"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":4,\"d_ff\":1,\"file_hash\":1}}",
         "model.file_hash is an integer"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":4,\"d_ff\":1,\"file_hash\":\"0x1\"}}",
         "model.file_hash is '0x1'"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":4,\"d_ff\":1,\"file_hash\":\"\"}}",
         "model.file_hash is ''"},
        {"{\"hearth_plan\":1," MODEL "}", "ranks is missing"},
        {"{\"hearth_plan\":1," MODEL ",\"ranks\":65}", "ranks is 65, expected 1 to 64"},
        {"{\"hearth_plan\":1," MODEL ",\"ranks\":2}", "layers is missing"},
        {"{\"hearth_plan\":1," MODEL ",\"ranks\":2,\"layers\":{}}", "layers is an object, expected an array"},
        {HEAD "]}", "layers ends at layer 0, expected all 4"},
        {HEAD "7]}", "layers[0] is an integer, expected an object"},
        {HEAD "{\"form\":0}]}", "layers[0].form is not a known field"},
        {HEAD RUN(1, 4, 0, CUT) "]}", "layers[0].from is 1, expected 0"},
        {HEAD RUN(0, 5, 0, CUT) "]}", "layers[0].to is 5, expected 1 to 4"},
        {HEAD RUN(0, 0, 0, CUT) "]}", "layers[0].to is 0, expected 1 to 4"},
        {HEAD RUN(0, 4, 2, CUT) "]}", "layers[0].stage is 2, expected 0 to 1"},
        {HEAD RUN(0, 4, true, CUT) "]}", "layers[0].stage is true, expected an integer"},
        {HEAD RUN(0, 2, 0, CUT) "," RUN(3, 4, 0, CUT) "]}", "layers[1].from is 3, expected 2"},
        {HEAD RUN(0, 2, 0, CUT) "]}", "layers ends at layer 2, expected all 4"},
        {HEAD RUN(0, 4, 0, CUT) "," RUN(4, 5, 0, CUT) "]}", "layers[1] is one too many"},
        {HEAD RUN(0, 1, 0, CUT) "," RUN(1, 2, 1, CUT) "," RUN(2, 4, 0, CUT) "]}", "layers[2].stage is 0 again"},
        {HEAD RUN(0, 4, 0, "null") "]}", "layers[0].neurons is null, expected an array"},
        {HEAD RUN(0, 4, 0, "[0,96]") "]}", "layers[0].neurons has 2 boundaries, expected 3"},
        {HEAD RUN(0, 4, 0, "[0,32,64,96]") "]}", "layers[0].neurons has 4 boundaries, expected 3"},
        {HEAD RUN(0, 4, 0, "[32,32,96]") "]}", "layers[0].neurons[0] is 32, expected 0"},
        {HEAD RUN(0, 4, 0, "[0,32,64]") "]}", "layers[0].neurons[2] is 64, expected 96"},
        {HEAD RUN(0, 4, 0, "[0,128,96]") "]}", "layers[0].neurons[1] is 128, expected 0 to 96"},
        {HEAD RUN(0, 4, 0, "[0,-32,96]") "]}", "layers[0].neurons[1] is -32, expected 0 to 96"},
        {HEAD RUN(0, 4, 0, "[0,33,96]") "]}", "layers[0].neurons[1] is 33, expected a multiple of 32"},
        {HEAD RUN(0, 4, 0, "[0,\"32\",96]") "]}", "layers[0].neurons[1] is a string, expected an integer"},
        {HEAD RUN(0, 4, 0, CUT) "],\"rows\":7}", "rows is an integer, expected an array of boundaries"},
        {HEAD RUN(0, 4, 0, CUT) "],\"rows\":[0,64]}", "rows has 2 boundaries, expected 3"},
        {HEAD RUN(0, 4, 0, CUT) "],\"rows\":[1,64,128]}", "rows[0] is 1, expected 0"},
        {HEAD RUN(0, 4, 0, CUT) "],\"rows\":[0,64,32]}", "rows[2] is 32, expected 64 to "},
        {HEAD RUN(0, 4, 0, CUT) "],\"rows\":[0,0,0]}", "rows[2] is 0, expected 1 to "},
        {HEAD HEADS("3") "]}", "layers[0].heads is an integer, expected an array"},
        {HEAD HEADS("[0,3]") "]}", "layers[0].heads has 2 boundaries, expected 3"},
        {HEAD HEADS("[0,0,0]") "]}", "layers[0].heads[2] is 0, expected 1 to "},
        {HEAD HEADS("[0,3,2]") "]}", "layers[0].heads[2] is 2, expected 3 to "},
        {HEAD HEADS("[1,2,3]") "]}", "layers[0].heads[0] is 1, expected 0"},
        {HEAD HEADS("[0,2,99999999999]") "]}", "layers[0].heads[2] is 99999999999"},
        {HEAD "{\"from\":0,\"to\":2,\"stage\":0,\"heads\":[0,1,3],\"neurons\":" CUT "},"
         "{\"from\":2,\"to\":4,\"stage\":0,\"heads\":[0,1,4],\"neurons\":" CUT "}]}",
         "layers[1].heads[2] is 4, expected 3"},
        {HEAD RUN(0, 4, 0, CUT) "],\"residual\":1}", "residual is an integer, expected \"home\" or \"all\""},
        {HEAD RUN(0, 4, 0, CUT) "],\"residual\":\"both\"}", "residual is both, expected"},
        {HEAD RUN(0, 2, 0, CUT) "," RUN(2, 4, 1, CUT) "],\"residual\":\"all\"}", "with a plan of several stages"},
        {HEAD "{\"from\":0,\"to\":4,\"stage\":0,\"down\":\"stage\",\"neurons\":" CUT "}],\"residual\":\"all\"}",
         "with down projections on their stage"},
        {"{\"hearth_plan\":1,\"model\":{\"architecture\":\"a\",\"layers\":4,\"d_ff\":96,\"kv_heads\":6,"
         "\"head_unit\":2},"
         "\"ranks\":2,\"layers\":[" HEADS("[0,3,6]") "]}", "layers[0].heads[1] is 3, expected a multiple of 2"},
        {HEAD RUN(0, 4, 0, CUT) "]} x", "line 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_text_refused(bad[i].text, bad[i].says);
}

static void deep_text_is_refused(void **state)
{
    (void)state;
    char *text = malloc(1 << 20);
    memset(text, '[', 1 << 20);
    text[(1 << 20) - 1] = '\0';
    assert_text_refused(text, "maximum parsing depth");
    free(text);
}

static void refuses_model(const struct plan *p, struct plan_model m, int n_ranks, const char *says)
{
    struct log_catcher catcher;
    log_catch(&catcher);
    status st = plan_check(p, &m, n_ranks);
    log_catch(NULL);
    assert_int_equal(st, ST_MISMATCH);
    assert_non_null(strstr(catcher.first_error, says));
}

static void plan_of_another_model_is_a_mismatch(void **state)
{
    (void)state;
    struct plan *p = make(&small, SPLIT_BOTH, 2, NULL);
    struct plan_model m = small;
    assert_int_equal(plan_check(p, &m, 2), ST_OK);
    refuses_model(p, m, 3, "ranks of 2, found 3");
    strcpy(m.architecture, "qwen2");
    refuses_model(p, m, 2, "'llama', found 'qwen2'");
    m = small;
    m.n_layers = 16;
    refuses_model(p, m, 2, "layers of 30, found 16");
    m = small;
    m.layer.d_ff = 1504;
    refuses_model(p, m, 2, "1536, found 1504");
    m = small;
    m.layer.n_kv_heads = 7;
    refuses_model(p, m, 2, "KV heads of 8, found 7");
    m = small;
    m.layer.head_unit = 8;
    refuses_model(p, m, 2, "layer 0 is cut at KV head 4, expected a multiple of 8");
    m = small;
    m.n_vocab = 999;
    refuses_model(p, m, 2, "vocabulary of 1000, found 999");
    m = small;
    m.layer.neuron_unit = 512;
    refuses_model(p, m, 2, "layer 0 is cut at neuron 768, expected a multiple of 512");
    m = small;
    m.layer.n_experts = 8;
    refuses_model(p, m, 2, "layer 0 is made for a number of experts of 0, found 8");
    m = small;
    m.file_bytes++;
    refuses_model(p, m, 2, "98765, found 98766");
    m = small;
    m.file_hash = 1;
    refuses_model(p, m, 2, "hash 0123456789abcdef, found 0000000000000001");
    m = small;
    m.file_bytes = m.file_hash = 0; /* not stated */
    m.layer.neuron_unit = 256;            /* 768 lies on it as well */
    assert_int_equal(plan_check(p, &m, 2), ST_OK);
    plan_free(p);
}

static void plan_is_loaded_from_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/hearth-plan-XXXXXX";
    struct log_catcher catcher;
    struct plan *p = make(&small, SPLIT_BOTH, 64, NULL), *q = NULL;
    char *text = plan_format(p);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    assert_int_equal(plan_load(path, &q), ST_OK);
    assert_plans_equal(p, q);
    unlink(path);
    log_catch(&catcher);
    assert_int_equal(plan_load(path, &q), ST_IO);
    assert_non_null(strstr(catcher.first_error, path));
    log_catch(&catcher);
    assert_int_equal(plan_load("/tmp", &q), ST_IO);
    assert_string_not_equal(catcher.first_error, "");
    log_catch(NULL);
    free(text);
    plan_free(p);
    plan_free(q);
}

static void memory_that_runs_out_is_st_nomem(void **state)
{
    (void)state;
    struct log_catcher catcher;
    struct plan *p = make(&small, SPLIT_BOTH, 3, NULL), *q = NULL;
    char *text = plan_format(p);
    status st;
    long n;
    log_catch(&catcher);
    for (n = 0; alloc_fail_at(n), st = plan_parse(text, strlen(text), "test", &q), alloc_failed(); n++) {
        assert_int_equal(st, ST_NOMEM);
        assert_null(q);
    }
    assert_int_equal(st, ST_OK);
    assert_int_equal(n, 7); /* the plan, layers, ranges, sets, and the check of each of three runs of layers */
    plan_free(q);
    q = NULL;
    for (n = 0; alloc_fail_at(n), st = plan_make(&small, SPLIT_BOTH, 3, NULL, &q), alloc_failed(); n++) {
        assert_int_equal(st, ST_NOMEM);
        assert_null(q);
    }
    assert_int_equal(st, ST_OK);
    assert_int_equal(n, 5); /* the plan, layers, boundaries, ranges, sets */
    log_catch(NULL);
    plan_free(q);
    plan_free(p);
    free(text);
}

/* The library may take its own lack of memory for a broken text, or live with it; nothing crashes or leaks. */
static void memory_that_runs_out_in_the_library_leaks_nothing(void **state)
{
    (void)state;
    struct log_catcher catcher;
    struct plan *p = make(&small, SPLIT_BOTH, 3, NULL);
    char *text = plan_format(p);
    int n_nomem = 0;
    bool failed = true;
    json_set_alloc_funcs(__wrap_malloc, free);
    for (long n = 0; failed; n++) {
        struct plan *q = NULL;
        log_catch(&catcher);
        alloc_fail_at(n);
        status st = plan_parse(text, strlen(text), "test", &q);
        failed = alloc_failed();
        n_nomem += st == ST_NOMEM;
        assert_true(st == ST_OK || st == ST_NOMEM || st == ST_FORMAT);
        assert_true((st == ST_OK) == (q != NULL) && (st == ST_OK) == (catcher.first_error[0] == '\0'));
        plan_free(q);
    }
    log_catch(NULL);
    json_set_alloc_funcs(malloc, free);
    assert_true(n_nomem > 20);
    plan_free(p);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_cut_layers),
        cmocka_unit_test(shards_cut_neurons),
        cmocka_unit_test(both_cuts_both),
        cmocka_unit_test(heads_are_cut_in_units),
        cmocka_unit_test(residual_stream_is_on_all_of_one_stage),
        cmocka_unit_test(ranks_that_hold_anything_take_part),
        cmocka_unit_test(rows_are_cut_with_neurons),
        cmocka_unit_test(cuts_are_exact_and_fair),
        cmocka_unit_test(tiny_and_huge_shares_work),
        cmocka_unit_test(ranks_without_a_share_get_nothing),
        cmocka_unit_test(bad_shares_and_ranks_are_refused),
        cmocka_unit_test(formatted_plans_read_back),
        cmocka_unit_test(format_is_what_people_write),
        cmocka_unit_test(hand_written_plan_is_read),
        cmocka_unit_test(hand_written_heads_are_read),
        cmocka_unit_test(bad_texts_are_refused_by_place),
        cmocka_unit_test(deep_text_is_refused),
        cmocka_unit_test(plan_of_another_model_is_a_mismatch),
        cmocka_unit_test(plan_is_loaded_from_a_file),
        cmocka_unit_test(memory_that_runs_out_is_st_nomem),
        cmocka_unit_test(memory_that_runs_out_in_the_library_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
