/* Plans whose holders are devices of ranks: what each has, plans of the older version beside it, and everything that
 * can be wrong with holders and sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/plan.h"
#include "tests/unit/alloc_fail.h"

static char *text_of(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, TEST_DATA "/plans/%s.json", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = calloc(1, 1 << 14);
    assert_true(fread(text, 1, (1 << 14) - 1, f) > 0);
    fclose(f);
    return text;
}

static struct plan *parse(const char *text)
{
    struct plan *p = NULL;
    assert_int_equal(plan_parse(text, strlen(text), "test", &p), ST_OK);
    return p;
}

static void assert_ranges(int n, const struct neuron_range *found, int expected_n, const struct neuron_range *expected)
{
    assert_int_equal(n, expected_n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(found[i].begin, expected[i].begin);
        assert_int_equal(found[i].end, expected[i].end);
    }
}

static void assert_set(const struct plan *p, int layer, int holder, int i, int n, const struct neuron_range *expected)
{
    const struct neuron_range *found;
    const int n_found = plan_set(p, layer, holder, i, &found);
    assert_ranges(n_found, found, n, expected);
}

static void assert_neurons(const struct plan *p, int layer, int holder, int n, const struct neuron_range *expected)
{
    const struct neuron_range *found;
    const int n_found = plan_neurons(p, layer, holder, &found);
    assert_ranges(n_found, found, n, expected);
}

static void holders_are_devices_of_ranks(void **state)
{
    (void)state;
    static const char *const device[] = {"cpu", "cpu", "cpu:1", "cuda:0"};
    static const int rank[] = {0, 1, 1, 0};
    char *text = text_of("devices-2");
    struct plan *p = parse(text);
    assert_int_equal(p->n_ranks, 2);
    assert_int_equal(plan_n_holders(p), 4);
    for (int h = 0; h < 4; h++) {
        assert_string_equal(plan_holder_device(p, h), device[h]);
        assert_int_equal(plan_holder_rank(p, h), rank[h]);
        assert_int_equal(plan_holder_is_cpu(p, h), h < 3);
    }
    char *again = plan_format(p);
    assert_string_equal(again, text);
    free(again);
    free(text);
    plan_free(p);
}

static void a_holder_has_several_sets_and_all_their_neurons(void **state)
{
    (void)state;
    char *text = text_of("devices-2");
    struct plan *p = parse(text);
    assert_int_equal(plan_n_sets(p, 0, 0), 2);
    assert_set(p, 0, 0, 0, 1, (const struct neuron_range[]){{512, 640}});
    assert_set(p, 0, 0, 1, 1, (const struct neuron_range[]){{896, 1024}});
    assert_set(p, 0, 0, 2, 0, NULL);
    assert_set(p, 0, 3, 0, 2, (const struct neuron_range[]){{0, 512}, {1408, 1536}});
    assert_neurons(p, 0, 0, 2, (const struct neuron_range[]){{512, 640}, {896, 1024}});
    assert_int_equal(plan_n_neurons(p, 28, 0), 256);
    /* what touches is one range of the holder, and still two sets */
    assert_int_equal(plan_n_sets(p, 29, 3), 2);
    assert_neurons(p, 29, 3, 2, (const struct neuron_range[]){{0, 100}, {900, 964}});
    assert_set(p, 29, 3, 1, 1, (const struct neuron_range[]){{70, 100}});
    assert_int_equal(plan_n_sets(p, 29, 0), 0);
    assert_int_equal(plan_n_neurons(p, 29, 0), 0);
    free(text);
    plan_free(p);
}

/* Heads that nobody has cut, and a stage, are on a CPU. A rank is asked once for all that its holders have. */
static void a_rank_holds_what_its_holders_have(void **state)
{
    (void)state;
    char *text = text_of("devices-2");
    struct plan *p = parse(text);
    int64_t begin, end;
    plan_heads(p, 0, 3, 3, &begin, &end);
    assert_true(begin == 2 && end == 3);
    plan_heads(p, 29, 1, 3, &begin, &end);
    assert_true(begin == 0 && end == 3);
    plan_heads(p, 29, 2, 3, &begin, &end);
    assert_true(begin == end);
    plan_rows(p, 3, 49152, &begin, &end);
    assert_true(begin == 32768 && end == 49152);
    assert_true(plan_rank_holds(p, PLAN_HEADS, 0, 0) && plan_rank_holds(p, PLAN_HEADS, 0, 1)); /* 1: on cpu:1 alone */
    assert_false(plan_rank_holds(p, PLAN_HEADS, 29, 0));
    assert_true(plan_rank_holds(p, PLAN_HEADS, 29, 1));
    assert_true(plan_rank_holds(p, PLAN_NEURONS, 29, 0)); /* on cuda:0 alone */
    assert_true(plan_rank_holds(p, PLAN_ROWS, 0, 0) && plan_rank_holds(p, PLAN_ROWS, 0, 1));
    assert_true(plan_takes_part(p, 0) && plan_takes_part(p, 1) && !plan_takes_part(p, 2));
    free(text);
    plan_free(p);
}

/* What version 1 said is said in version 2, and from then on stays. */
static void older_plans_are_read_as_before(void **state)
{
    (void)state;
    static const char *const names[][2] = {{"cut-1", "cut-2"}, {"sets-1", "sets-2"}};
    for (int i = 0; i < 2; i++) {
        char *older = text_of(names[i][0]), *newer = text_of(names[i][1]);
        struct plan *p = parse(older), *q = parse(newer);
        char *from_older = plan_format(p), *from_newer = plan_format(q);
        assert_string_equal(from_older, newer);
        assert_string_equal(from_newer, newer);
        free(from_older);
        free(from_newer);
        free(older);
        free(newer);
        plan_free(p);
        plan_free(q);
    }
}

#define HEAD "{\"hearth_plan\":2,\"model\":{\"architecture\":\"a\",\"layers\":2},\"ranks\":2"
#define HOLDERS(list) HEAD ",\"holders\":[" list "]"
#define CPUS "{\"rank\":0,\"device\":\"cpu\"},{\"rank\":1,\"device\":\"cpu\"}"
#define THREE HOLDERS(CPUS ",{\"rank\":1,\"device\":\"cpu:1\"}")
#define FIRST "{\"from\":0,\"to\":1,\"stage\":0,\"d_ff\":96,\"sets\":[{\"holder\":0,\"neurons\":[[0,96]]}]}"
#define LAYER(fields) THREE ",\"layers\":[" FIRST ",{\"from\":1,\"to\":2,\"stage\":0," fields "}]}"
#define SETS(sets) LAYER("\"d_ff\":64,\"neuron_unit\":32,\"sets\":" sets)
#define SPLIT(sets) LAYER("\"d_ff\":64,\"neuron_unit\":32,\"units\":\"split\",\"sets\":" sets)
#define SET(holder, neurons) "{\"holder\":" #holder ",\"neurons\":" neurons "}"
#define WHOLE "\"sets\":[" SET(0, "[[0,64]]") "]"

static void layers_differ_in_shape(void **state)
{
    (void)state;
    struct plan *p = parse(LAYER("\"d_ff\":8,\"neuron_unit\":32,\"kv_heads\":4,\"head_unit\":2,\"experts\":8,"
                                 "\"experts_used\":2,\"heads\":[0,0,2,4],\"sets\":[" SET(2, "[[32,64]]") ","
                                 SET(1, "[[0,32]]") "]"));
    assert_int_equal(p->layers[0].shape.d_ff, 96);
    assert_int_equal(p->layers[1].shape.d_ff, 8);
    assert_true(p->layers[0].shape.n_kv_heads == 0 && p->layers[1].shape.n_kv_heads == 4);
    assert_true(p->layers[1].shape.n_experts == 8 && p->layers[1].shape.n_experts_used == 2);
    assert_int_equal(plan_n_neurons(p, 1, 2), 32);
    char *text = plan_format(p);
    struct plan *q = parse(text);
    assert_memory_equal(&p->layers[1].shape, &q->layers[1].shape, sizeof p->layers[1].shape);
    const struct plan_model alike = {.architecture = "a", .n_layers = 2, .layer = {.d_ff = 96}};
    struct log_catcher caught;
    log_catch(&caught);
    assert_int_equal(plan_check(p, &alike, 2), ST_MISMATCH);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "plan: layer 1 is made for a number of neurons (d_ff) of 8, found 96");
    free(text);
    plan_free(p);
    plan_free(q);
}

static void all_devices_that_can_be_named_are_read(void **state)
{
    (void)state;
    static const char *const devices[] = {"cpu:1", "cpu:999", "cuda:0", "cuda:15"};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        char text[1024];
        snprintf(text, sizeof text, HOLDERS(CPUS ",{\"rank\":1,\"device\":\"%s\"}") ",\"layers\":[" FIRST
                 ",{\"from\":1,\"to\":2,\"stage\":0,\"d_ff\":64," WHOLE "}]}", devices[i]);
        struct plan *p = parse(text);
        assert_string_equal(plan_holder_device(p, 2), devices[i]);
        plan_free(p);
    }
}

static void assert_refused(const char *text, const char *says)
{
    struct log_catcher caught;
    struct plan *p = NULL;
    log_catch(&caught);
    status st = plan_parse(text, strlen(text), "my.json", &p);
    log_catch(NULL);
    if (st != ST_FORMAT || !strstr(caught.first_error, says))
        print_error("expected '%s', got %s: %s\n", says, status_name(st), caught.first_error);
    assert_int_equal(st, ST_FORMAT);
    assert_non_null(strstr(caught.first_error, "my.json: "));
    assert_non_null(strstr(caught.first_error, says));
    assert_null(p);
}

static void bad_holders_are_refused_by_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{\"hearth_plan\":2,\"model\":{\"architecture\":\"a\",\"layers\":2,\"d_ff\":8}}",
         "model.d_ff is not a known field"},
        {HEAD "}", "holders is missing"},
        {HOLDERS("") "}", "holders has 0 devices, expected 2 (the ranks' CPUs) to 128"},
        {HOLDERS("7,7") "}", "holders[0] is an integer, expected an object"},
        {HOLDERS("{\"rank\":0,\"name\":\"cpu\"},7") "}", "holders[0].name is not a known field"},
        {HOLDERS("{\"rank\":2,\"device\":\"cpu\"},7") "}", "holders[0].rank is 2, expected 0 to 1"},
        {HOLDERS("{\"rank\":0},7") "}", "holders[0].device is missing, expected a string"},
        {HOLDERS("{\"rank\":1,\"device\":\"cpu\"},7") "}", "holders[0] is cpu of rank 1, expected cpu of rank 0"},
        {HOLDERS("{\"rank\":0,\"device\":\"cuda:0\"},7") "}", "holders[0] is cuda:0 of rank 0, expected cpu of rank 0"},
        {HOLDERS(CPUS ",{\"rank\":1,\"device\":\"cpu\"}") "}", "holders[2] is cpu of rank 1 again, as holders[1] is"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"cuda:1\"},{\"rank\":0,\"device\":\"cuda:1\"}") "}",
         "holders[3] is cuda:1 of rank 0 again, as holders[2] is"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"tpu:0\"}") "}", "holders[2].device is 'tpu:0', which is no device"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"cuda\"}") "}", "holders[2].device is 'cuda', which is no device"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"cuda:\"}") "}", "is 'cuda:', which"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"cuda:01\"}") "}", "is 'cuda:01', which"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"cuda:00\"}") "}", "is 'cuda:00', which"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"cuda:1000\"}") "}", "is 'cuda:1000', which"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"cuda:-1\"}") "}", "is 'cuda:-1', which"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"cpu:0\"}") "}", "is 'cpu:0', which"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"cpu1\"}") "}", "is 'cpu1', which"},
        {HOLDERS(CPUS ",{\"rank\":0,\"device\":\"CPU\\u001b\"}") "}", "is 'CPU?', which"},
        {HOLDERS(CPUS) ",\"layers\":[{\"from\":0,\"to\":2,\"stage\":2}]}", "layers[0].stage is 2, expected 0 to 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(bad[i].text, bad[i].says);
}

#define REST "\"layers\":[" FIRST ",{\"from\":1,\"to\":2,\"stage\":1,\"d_ff\":64," WHOLE "}]}"

static void a_stage_is_on_the_device_that_is_named(void **state)
{
    (void)state;
    int64_t begin, end;
    struct plan *p = parse(THREE
                           ",\"stages\":[{\"rank\":1,\"device\":\"cpu:1\"},{\"rank\":0,\"device\":\"cpu\"}]," REST);
    assert_int_equal(plan_home(p, 0), 0);
    assert_int_equal(plan_home(p, 1), 2);
    plan_heads(p, 1, 2, 3, &begin, &end); /* what is not cut is there */
    assert_true(begin == 0 && end == 3);
    plan_heads(p, 1, 1, 3, &begin, &end);
    assert_true(begin == end);
    plan_rows(p, 2, 100, &begin, &end);
    assert_true(begin == 0 && end == 100);
    assert_true(plan_rank_holds(p, PLAN_HEADS, 1, 1) && plan_rank_holds(p, PLAN_ROWS, 0, 1));
    char *text = plan_format(p);
    assert_non_null(strstr(text, "\"stages\": [{\"rank\": 1, \"device\": \"cpu:1\"}]"));
    struct plan *q = parse(text);
    char *again = plan_format(q);
    assert_string_equal(again, text);
    assert_int_equal(plan_home(q, 1), 2);
    free(again);
    free(text);
    plan_free(p);
    plan_free(q);
    p = parse(THREE "," REST);
    text = plan_format(p);
    assert_null(strstr(text, "stages"));
    free(text);
    plan_free(p);
}

static void bad_stages_are_refused_by_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {THREE ",\"stages\":0," REST, "stages is an integer, expected an array"},
        {THREE ",\"stages\":[0]," REST, "stages[0] is an integer, expected an object"},
        {THREE ",\"stages\":[{\"rank\":2,\"device\":\"cpu\"}]," REST, "stages[0].rank is 2, expected 0 to 1"},
        {THREE ",\"stages\":[{\"rank\":1}]," REST, "stages[0].device is missing"},
        {THREE ",\"stages\":[{\"rank\":1,\"device\":\"tpu:0\"}]," REST, "stages[0].device is 'tpu:0'"},
        {THREE ",\"stages\":[{\"rank\":0,\"device\":\"cpu:1\"}]," REST,
         "stages[0] is on cpu:1 of rank 0, which is none of the holders"},
        {THREE ",\"stages\":[{\"rank\":1,\"device\":\"cpu:1\"},{\"rank\":1,\"device\":\"cpu\"}]," REST,
         "stages[1] is rank 1's again"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(bad[i].text, bad[i].says);
}

static void bad_sets_are_refused_by_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {LAYER("\"neurons\":[0,32,64]"), "layers[1].neurons is not a known field"},
        {LAYER("\"sets\":[]"), "layers[1].d_ff is missing"},
        {LAYER("\"d_ff\":0"), "layers[1].d_ff is 0, expected 1 to "},
        {LAYER("\"d_ff\":64"), "layers[1].sets is missing, expected an array"},
        {LAYER("\"d_ff\":64,\"units\":\"half\""), "layers[1].units is half, expected \"whole\" or \"split\""},
        {LAYER("\"d_ff\":64,\"experts\":-1"), "layers[1].experts is -1, expected 0 to "},
        {LAYER("\"d_ff\":64,\"experts\":4,\"experts_used\":5"), "layers[1].experts_used is 5, expected 0 to 4"},
        {LAYER("\"d_ff\":64,\"experts_used\":1"), "layers[1].experts_used is 1, expected 0"},
        {LAYER("\"d_ff\":64,\"heads\":[0,1,2]," WHOLE),
         "layers[1].heads has 3 boundaries, expected 4 (one more than holders)"},
        {LAYER("\"d_ff\":64,\"kv_heads\":3,\"heads\":[0,1,2,2]," WHOLE), "layers[1].heads[3] is 2, expected 3"},
        {SETS("[7]"), "layers[1].sets[0] is an integer, expected an object"},
        {SETS("[{\"holder\":0,\"rows\":[]}]"), "layers[1].sets[0].rows is not a known field"},
        {SETS("[{\"neurons\":[[0,64]]}]"), "layers[1].sets[0].holder is missing"},
        {SETS("[" SET(0, "[[0,32]]") "," SET(3, "[[32,64]]") "]"), "layers[1].sets[1].holder is 3, expected 0 to 2"},
        {SETS("[" SET(0, "[[0,32]]") "," SET(-1, "[[32,64]]") "]"), "layers[1].sets[1].holder is -1, expected 0 to 2"},
        {SETS("[{\"holder\":0}]"), "layers[1].sets[0].neurons is missing, expected an array of ranges"},
        {SETS("[" SET(0, "[]") "]"), "layers[1].sets[0].neurons is empty"},
        {SETS("[" SET(0, "[0,64]") "]"), "layers[1].sets[0].neurons[0] is no range, expected [begin, end]"},
        {SETS("[" SET(0, "[[0,65]]") "]"), "layers[1].sets[0].neurons[0][1] is 65, expected 1 to 64"},
        {SETS("[" SET(0, "[[32,32]]") "]"), "layers[1].sets[0].neurons[0][1] is 32, expected 33 to 64"},
        {SETS("[" SET(0, "[[32,64],[0,32]]") "]"), "layers[1].sets[0].neurons[1][0] is 0, expected 64 to 63"},
        {SETS("[" SET(0, "[[0,33]]") "," SET(1, "[[33,64]]") "]"),
         "layers[1].sets[1].neurons[0][0] is 33, expected a multiple of 32"},
        {SETS("[" SET(0, "[[0,64]]") "," SET(0, "[[32,64]]") "]"),
         "layers[1].sets[1].neurons: neuron 32 is in sets[0] too"},
        {SPLIT("[" SET(1, "[[0,40]]") "," SET(0, "[[39,64]]") "]"),
         "layers[1].sets[1].neurons: neuron 39 is in sets[0] too"},
        {SPLIT("[" SET(1, "[[39,64]]") "," SET(0, "[[0,40]]") "]"),
         "layers[1].sets[0].neurons: neuron 39 is in sets[1] too"},
        {SPLIT("[" SET(1, "[[0,7],[8,64]]") "]"), "layers[1].sets: neuron 7 is in none of them"},
        {SPLIT("[" SET(1, "[[1,64]]") "]"), "layers[1].sets: neuron 0 is in none of them"},
        {SPLIT("[" SET(2, "[[0,63]]") "]"), "layers[1].sets: neuron 63 is in none of them"},
        {SPLIT("[]"), "layers[1].sets: neuron 0 is in none of them"},
        {THREE ",\"layers\":[" FIRST ",{\"from\":1,\"to\":2,\"stage\":0,\"d_ff\":64," WHOLE "}],\"rows\":[0,1,2]}",
         "rows has 3 boundaries, expected 4 (one more than holders)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(bad[i].text, bad[i].says);
}

/* Every single way to leave out, repeat or move a set of a plan is found. */
static void no_set_can_be_left_out_or_repeated(void **state)
{
    (void)state;
    enum { UNITS = 6 };
    for (int wrong = -1; wrong < 2 * UNITS; wrong++) {
        char text[2048], *at = text;
        at += sprintf(at, "%s,\"layers\":[%s,{\"from\":1,\"to\":2,\"stage\":0,\"d_ff\":%d,\"neuron_unit\":8,\"sets\":[",
                      THREE, FIRST, 8 * UNITS);
        for (int u = 0, n = 0; u < UNITS; u++)
            for (int times = wrong == u ? 0 : wrong == UNITS + u ? 2 : 1; times > 0; times--)
                at += sprintf(at, "%s{\"holder\":%d,\"neurons\":[[%d,%d]]}", n++ ? "," : "", (5 * u) % 3, 8 * u,
                              8 * u + 8);
        sprintf(at, "]}]}");
        if (wrong < 0)
            plan_free(parse(text));
        else
            assert_refused(text, wrong < UNITS ? "is in none of them" : " too");
    }
}

static void memory_that_runs_out_is_st_nomem(void **state)
{
    (void)state;
    char *text = text_of("devices-2");
    struct log_catcher caught;
    struct plan *p = NULL;
    status st;
    long n;
    log_catch(&caught);
    for (n = 0; alloc_fail_at(n), st = plan_parse(text, strlen(text), "test", &p), alloc_failed(); n++) {
        assert_int_equal(st, ST_NOMEM);
        assert_null(p);
    }
    log_catch(NULL);
    assert_int_equal(st, ST_OK);
    assert_int_equal(n, 6); /* the plan, layers, ranges, sets, and the check of each of two runs of layers */
    plan_free(p);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holders_are_devices_of_ranks),
        cmocka_unit_test(a_holder_has_several_sets_and_all_their_neurons),
        cmocka_unit_test(a_rank_holds_what_its_holders_have),
        cmocka_unit_test(older_plans_are_read_as_before),
        cmocka_unit_test(layers_differ_in_shape),
        cmocka_unit_test(all_devices_that_can_be_named_are_read),
        cmocka_unit_test(bad_holders_are_refused_by_place),
        cmocka_unit_test(a_stage_is_on_the_device_that_is_named),
        cmocka_unit_test(bad_stages_are_refused_by_place),
        cmocka_unit_test(bad_sets_are_refused_by_place),
        cmocka_unit_test(no_set_can_be_left_out_or_repeated),
        cmocka_unit_test(memory_that_runs_out_is_st_nomem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
