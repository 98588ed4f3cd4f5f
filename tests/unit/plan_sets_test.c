/* Plans that give sets of neurons to ranks: reading, writing, every way a set can be wrong, and dealing by heat. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/plan.h"
#include "tests/unit/alloc_fail.h"

#define HEAD "{\"hearth_plan\":1,\"model\":{\"architecture\":\"llama\",\"layers\":4,\"d_ff\":96,\"neuron_unit\":32}," \
             "\"ranks\":2,\"layers\":["
#define RUN(neurons) "{\"from\":0,\"to\":4,\"stage\":0,\"neurons\":" neurons "}]}"
#define RUN_DOWN(down) "{\"from\":0,\"to\":4,\"stage\":0,\"down\":" down ",\"neurons\":[0,32,96]}]}"

static struct plan *parse(const char *text)
{
    struct plan *p = NULL;
    assert_int_equal(plan_parse(text, strlen(text), "test", &p), ST_OK);
    return p;
}

static void assert_ranges(const struct plan *p, int layer, int rank, int n, const struct neuron_range *expected)
{
    const struct neuron_range *found;
    int64_t sum = 0;
    assert_int_equal(plan_neurons(p, layer, rank, &found), n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(found[i].begin, expected[i].begin);
        assert_int_equal(found[i].end, expected[i].end);
        sum += expected[i].end - expected[i].begin;
    }
    assert_int_equal(plan_n_neurons(p, layer, rank), sum);
}

static const char sets_text[] =
    "{\n  \"hearth_plan\": 1,\n"
    "  \"model\": {\"architecture\": \"llama\", \"layers\": 3, \"d_ff\": 96},\n"
    "  \"ranks\": 3,\n  \"layers\": [\n"
    "    {\"from\": 0, \"to\": 2, \"stage\": 0, \"neurons\": [\n"
    "      [[0, 8], [9, 10], [12, 13], [14, 15], [16, 17], [18, 19],\n"
    "       [95, 96]],\n"
    "      [],\n"
    "      [[8, 9], [10, 12], [13, 14], [15, 16], [17, 18], [19, 95]]\n"
    "    ]},\n"
    "    {\"from\": 2, \"to\": 3, \"stage\": 1, \"down\": \"stage\", \"neurons\": [0, 1, 64, 96]}\n"
    "  ]\n}\n";

/* The same in the newest version. */
static const char newest_text[] =
    "{\n  \"hearth_plan\": 2,\n"
    "  \"model\": {\"architecture\": \"llama\", \"layers\": 3},\n"
    "  \"ranks\": 3,\n"
    "  \"holders\": [{\"rank\": 0, \"device\": \"cpu\"}, {\"rank\": 1, \"device\": \"cpu\"}, "
    "{\"rank\": 2, \"device\": \"cpu\"}],\n"
    "  \"layers\": [\n"
    "    {\"from\": 0, \"to\": 2, \"stage\": 0, \"units\": \"split\",\n"
    "     \"d_ff\": 96, \"experts\": 0,\n"
    "     \"sets\": [{\"holder\": 0, \"neurons\": [[0, 8], [9, 10], [12, 13], [14, 15], [16, 17], [18, 19],\n"
    "               [95, 96]]},\n"
    "              {\"holder\": 2, \"neurons\": [[8, 9], [10, 12], [13, 14], [15, 16], [17, 18], [19, 95]]}]},\n"
    "    {\"from\": 2, \"to\": 3, \"stage\": 1, \"down\": \"stage\",\n"
    "     \"d_ff\": 96, \"experts\": 0,\n"
    "     \"sets\": [{\"holder\": 0, \"neurons\": [[0, 1]]},\n"
    "              {\"holder\": 1, \"neurons\": [[1, 64]]},\n"
    "              {\"holder\": 2, \"neurons\": [[64, 96]]}]}\n"
    "  ]\n}\n";

static void sets_are_read_and_written(void **state)
{
    (void)state;
    struct plan *p = parse(sets_text);
    for (int l = 0; l < 2; l++) {
        assert_int_equal(plan_n_sets(p, l, 0), 1);
        assert_int_equal(plan_n_sets(p, l, 1), 0);
        assert_ranges(p, l, 0, 7, (const struct neuron_range[]){{0, 8}, {9, 10}, {12, 13}, {14, 15}, {16, 17}, {18, 19},
                                                                {95, 96}});
        assert_ranges(p, l, 1, 0, NULL);
        assert_ranges(p, l, 2, 6, (const struct neuron_range[]){{8, 9}, {10, 12}, {13, 14}, {15, 16}, {17, 18},
                                                                {19, 95}});
        assert_false(plan_down_at_stage(p, l));
    }
    assert_ranges(p, 2, 0, 1, (const struct neuron_range[]){{0, 1}});
    assert_ranges(p, 2, 1, 1, (const struct neuron_range[]){{1, 64}});
    assert_ranges(p, 2, 2, 1, (const struct neuron_range[]){{64, 96}});
    assert_true(plan_down_at_stage(p, 2));
    char *text = plan_format(p);
    assert_string_equal(text, newest_text);
    free(text);
    plan_free(p);
    p = parse(newest_text);
    text = plan_format(p);
    assert_string_equal(text, newest_text);
    free(text);
    plan_free(p);
}

/* Ranges that touch are one; "owners" is what is meant without a word. */
static void other_words_for_the_same_plan(void **state)
{
    (void)state;
    struct plan *p = parse(HEAD "{\"from\":0,\"to\":4,\"stage\":0,\"down\":\"owners\",\"neurons\":"
                           "[[[1,2],[2,40],[40,64]],[[0,1],[64,96]]]}]}");
    assert_ranges(p, 3, 0, 1, (const struct neuron_range[]){{1, 64}});
    assert_ranges(p, 3, 1, 2, (const struct neuron_range[]){{0, 1}, {64, 96}});
    assert_false(plan_down_at_stage(p, 0));
    plan_set_down(p, true);
    assert_true(plan_down_at_stage(p, 0) && plan_down_at_stage(p, 3));
    plan_free(p);
}

/* Sets may split units, boundaries may not. */
static void only_boundaries_need_whole_units(void **state)
{
    (void)state;
    struct plan_model m = {.architecture = "llama", .n_layers = 4, .layer = {.d_ff = 96, .neuron_unit = 64}};
    struct log_catcher caught;
    struct plan *sets = parse(HEAD RUN("[[[0,7]],[[7,96]]]")), *cut = parse(HEAD RUN("[0,32,96]"));
    assert_int_equal(plan_check(sets, &m, 2), ST_OK);
    log_catch(&caught);
    assert_int_equal(plan_check(cut, &m, 2), ST_MISMATCH);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "plan: layer 0 is cut at neuron 32, expected a multiple of 64");
    char *text = plan_format(sets);
    struct plan *again = parse(text);
    assert_true(again->layers[0].splits_units);
    free(text);
    plan_free(again);
    plan_free(sets);
    plan_free(cut);
}

static void bad_sets_are_refused_by_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {HEAD RUN("[]"), "layers[0].neurons has 0 boundaries, expected 3"},
        {HEAD RUN("[[]]"), "layers[0].neurons has 1 lists of ranges, expected 2 (one for each rank)"},
        {HEAD RUN("[[],[],[]]"), "layers[0].neurons has 3 lists of ranges"},
        {HEAD RUN("[[],7]"), "layers[0].neurons[1] is an integer, expected an array of ranges"},
        {HEAD RUN("[[7],[]]"), "layers[0].neurons[0][0] is no range, expected [begin, end]"},
        {HEAD RUN("[[[0,96],[]],[]]"), "layers[0].neurons[0][1] is no range"},
        {HEAD RUN("[[[0,32,96]],[]]"), "layers[0].neurons[0][0] is no range"},
        {HEAD RUN("[[[0,\"1\"]],[]]"), "layers[0].neurons[0][0][1] is a string, expected an integer"},
        {HEAD RUN("[[[-1,96]],[]]"), "layers[0].neurons[0][0][0] is -1, expected 0 to 95"},
        {HEAD RUN("[[[0,97]],[]]"), "layers[0].neurons[0][0][1] is 97, expected 1 to 96"},
        {HEAD RUN("[[[0,4294967392]],[]]"), "layers[0].neurons[0][0][1] is 4294967392"},
        {HEAD RUN("[[[5,5]],[]]"), "layers[0].neurons[0][0][1] is 5, expected 6 to 96"},
        {HEAD RUN("[[[0,8],[7,96]],[]]"), "layers[0].neurons[0][1][0] is 7, expected 8 to 95"},
        {HEAD RUN("[[[0,96]],[[95,96]]]"), "layers[0].neurons: neuron 95 is listed twice"},
        {HEAD RUN("[[[0,9]],[[8,96]]]"), "layers[0].neurons: neuron 8 is listed twice"},
        {HEAD RUN("[[[0,96]],[[0,96]]]"), "layers[0].neurons: neuron 0 is listed twice"},
        {HEAD RUN("[[[0,10],[11,96]],[]]"), "layers[0].neurons: neuron 10 is not listed"},
        {HEAD RUN("[[[1,96]],[]]"), "layers[0].neurons: neuron 0 is not listed"},
        {HEAD RUN("[[[0,90]],[[90,95]]]"), "layers[0].neurons: neuron 95 is not listed"},
        {HEAD RUN("[[],[]]"), "layers[0].neurons: neuron 0 is not listed"},
        {HEAD RUN_DOWN("7"), "layers[0].down is an integer, expected \"owners\" or \"stage\""},
        {HEAD RUN_DOWN("\"here\""), "layers[0].down is here, expected \"owners\" or \"stage\""},
        {HEAD RUN_DOWN("null"), "layers[0].down is null, expected"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct log_catcher caught;
        struct plan *p = NULL;
        log_catch(&caught);
        status st = plan_parse(bad[i].text, strlen(bad[i].text), "my.json", &p);
        log_catch(NULL);
        if (st != ST_FORMAT || !strstr(caught.first_error, bad[i].says))
            print_error("expected '%s', got %s: %s\n", bad[i].says, status_name(st), caught.first_error);
        assert_int_equal(st, ST_FORMAT);
        assert_non_null(strstr(caught.first_error, bad[i].says));
        assert_null(p);
    }
}

/* ---- dealing by heat ---- */

enum { LAYERS = 4, D_FF = 2048 };

static const struct plan_model model = {.architecture = "llama", .n_layers = LAYERS, .n_vocab = 1000,
                                        .layer = {.d_ff = D_FF, .neuron_unit = 128}};

/* Skewed as real layers are: most neurons fire rarely, a few, anywhere, often. */
static void make_fired(float fired[LAYERS][D_FF])
{
    uint32_t seed = 7;
    for (int l = 0; l < LAYERS; l++) {
        for (int j = 0; j < D_FF; j++) {
            seed = seed * 1664525 + 1013904223;
            double u = (double)(seed >> 8) / (1 << 24);
            fired[l][j] = (float)(0.9 * u * u * u * u);
        }
    }
}

/* Of what fires in a layer, the share that fires on its stage; every neuron must be there once. */
static double share_at_stage(const struct plan *p, int layer, const float *fired, int *n_ranges)
{
    double at_stage = 0, all = 0;
    int times[D_FF] = {0};
    *n_ranges = 0;
    for (int r = 0; r < p->n_ranks; r++) {
        const struct neuron_range *ranges;
        int n = plan_neurons(p, layer, r, &ranges);
        *n_ranges += n;
        for (int i = 0; i < n; i++) {
            assert_true(i == 0 || ranges[i].begin > ranges[i - 1].end);
            for (int j = ranges[i].begin; j < ranges[i].end; j++) {
                times[j]++;
                all += fired[j];
                at_stage += r == p->layers[layer].stage ? fired[j] : 0;
            }
        }
    }
    for (int j = 0; j < D_FF; j++)
        assert_int_equal(times[j], 1);
    return at_stage / all;
}

static int hotter_first(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* What the n hottest neurons have of all that fires. */
static double best_share(const float *fired, int n)
{
    float sorted[D_FF];
    double best = 0, all = 0;
    memcpy(sorted, fired, sizeof sorted);
    qsort(sorted, D_FF, sizeof *sorted, hotter_first);
    for (int j = 0; j < D_FF; j++) {
        all += sorted[j];
        best += j < n ? sorted[j] : 0;
    }
    return best / all;
}

static void the_hottest_go_to_the_stage(void **state)
{
    (void)state;
    static float fired[LAYERS][D_FF];
    const float *rows[LAYERS];
    make_fired(fired);
    for (int l = 0; l < LAYERS; l++)
        rows[l] = fired[l];
    static const double shares[3][4] = {{1, 1}, {1, 2, 1}, {1, 1, 5, 1}};
    for (int n = 2; n <= 4; n++) {
        struct plan *p = NULL, *both = NULL;
        assert_int_equal(plan_make_hot(&model, n, shares[n - 2], rows, &p), ST_OK);
        assert_int_equal(plan_make(&model, SPLIT_BOTH, n, shares[n - 2], &both), ST_OK);
        for (int l = 0; l < LAYERS; l++) {
            int n_ranges, stage = p->layers[l].stage;
            double share = share_at_stage(p, l, fired[l], &n_ranges);
            double best = best_share(fired[l], (int)plan_n_neurons(p, l, stage));
            assert_int_equal(stage, both->layers[l].stage);
            assert_true(share > 0.94 * best && share <= best + 1e-6);
            assert_true(n_ranges < D_FF / 3); /* one by one they would be far more */
            for (int r = 0; r < n; r++)
                assert_int_equal(plan_n_neurons(p, l, r), plan_n_neurons(both, l, r));
        }
        assert_int_equal(plan_check(p, &model, n), ST_OK);
        char *text = plan_format(p), *again;
        struct plan *q = parse(text);
        again = plan_format(q);
        assert_string_equal(text, again);
        free(text);
        free(again);
        plan_free(p);
        plan_free(q);
        plan_free(both);
    }
}

/* Where all are equally hot the stage gets its share all the same, in one piece. */
static void equal_heat_is_dealt_in_file_order(void **state)
{
    (void)state;
    static const float values[] = {0, 0.25f, 1};
    for (int i = 0; i < 3; i++) {
        static float fired[D_FF];
        const float *rows[LAYERS] = {fired, fired, fired, fired};
        struct plan *p = NULL;
        for (int j = 0; j < D_FF; j++)
            fired[j] = values[i];
        assert_int_equal(plan_make_hot(&model, 2, (const double[]){3, 1}, rows, &p), ST_OK);
        assert_ranges(p, 0, 0, 1, (const struct neuron_range[]){{0, 1536}});
        assert_ranges(p, 0, 1, 1, (const struct neuron_range[]){{1536, 2048}});
        assert_int_equal(p->layers[3].stage, 1);
        assert_ranges(p, 3, 1, 1, (const struct neuron_range[]){{0, 512}});
        assert_ranges(p, 3, 0, 1, (const struct neuron_range[]){{512, 2048}});
        plan_free(p);
    }
}

/* A neuron well above its neighbours is taken out of a cold stretch, one just above them is not. */
static void lukewarm_neurons_stay_with_their_neighbours(void **state)
{
    (void)state;
    static float fired[D_FF];
    const float *rows[LAYERS] = {fired, fired, fired, fired};
    struct plan *p = NULL;
    for (int j = 0; j < D_FF; j++)
        fired[j] = j < 1024 ? 0.5f : 0.1f;
    fired[1500] = 0.9f;
    fired[1600] = 0.51f;
    assert_int_equal(plan_make_hot(&model, 2, NULL, rows, &p), ST_OK);
    assert_ranges(p, 0, 0, 2, (const struct neuron_range[]){{0, 1023}, {1500, 1501}});
    plan_free(p);
}

static void one_rank_needs_no_sets(void **state)
{
    (void)state;
    static float fired[D_FF];
    const float *rows[LAYERS] = {fired, fired, fired, fired};
    struct plan *p = NULL;
    assert_int_equal(plan_make_hot(&model, 1, NULL, rows, &p), ST_OK);
    assert_false(p->layers[0].splits_units);
    assert_ranges(p, 0, 0, 1, (const struct neuron_range[]){{0, D_FF}});
    plan_free(p);
}

static void bad_heat_is_refused(void **state)
{
    (void)state;
    static const float wrong[] = {-0.1f, 1.1f, NAN, INFINITY};
    static float fired[D_FF];
    const float *rows[LAYERS] = {fired, fired, NULL, fired};
    struct log_catcher caught;
    struct plan *p = NULL;
    log_catch(&caught);
    assert_int_equal(plan_make_hot(&model, 2, NULL, rows, &p), ST_USAGE);
    assert_non_null(strstr(caught.first_error, "layer 2"));
    rows[2] = fired;
    for (size_t i = 0; i < 4; i++) {
        fired[77] = wrong[i];
        log_catch(&caught);
        assert_int_equal(plan_make_hot(&model, 2, NULL, rows, &p), ST_USAGE);
        assert_non_null(strstr(caught.first_error, "layer 0: neuron 77 fires in a share of"));
    }
    log_catch(&caught);
    assert_int_equal(plan_make(&model, SPLIT_HOT, 2, NULL, &p), ST_USAGE);
    assert_non_null(strstr(caught.first_error, "neuron file"));
    log_catch(NULL);
    assert_null(p);
}

static void memory_that_runs_out_is_st_nomem(void **state)
{
    (void)state;
    static float fired[LAYERS][D_FF];
    const float *rows[LAYERS];
    struct log_catcher caught;
    struct plan *p = NULL;
    status st;
    long n;
    make_fired(fired);
    for (int l = 0; l < LAYERS; l++)
        rows[l] = fired[l];
    log_catch(&caught);
    for (n = 0; alloc_fail_at(n), st = plan_make_hot(&model, 2, NULL, rows, &p), alloc_failed(); n++) {
        assert_int_equal(st, ST_NOMEM);
        assert_null(p);
    }
    assert_int_equal(st, ST_OK);
    assert_true(n > 4); /* ranges grew */
    char *text = plan_format(p);
    plan_free(p);
    p = NULL;
    for (n = 0; alloc_fail_at(n), st = plan_parse(text, strlen(text), "test", &p), alloc_failed(); n++) {
        assert_int_equal(st, ST_NOMEM);
        assert_null(p);
    }
    assert_int_equal(st, ST_OK);
    log_catch(NULL);
    free(text);
    plan_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_are_read_and_written),
        cmocka_unit_test(other_words_for_the_same_plan),
        cmocka_unit_test(only_boundaries_need_whole_units),
        cmocka_unit_test(bad_sets_are_refused_by_place),
        cmocka_unit_test(the_hottest_go_to_the_stage),
        cmocka_unit_test(equal_heat_is_dealt_in_file_order),
        cmocka_unit_test(lukewarm_neurons_stay_with_their_neighbours),
        cmocka_unit_test(one_rank_needs_no_sets),
        cmocka_unit_test(bad_heat_is_refused),
        cmocka_unit_test(memory_that_runs_out_is_st_nomem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
