/* Probes: the round trip through JSON, every way a text can be wrong, memory that runs out; and what plans cost by
 * them: figures by hand, and that a slow network is never chosen. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/cost.h"
#include "placement/probe.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/shapes_model.h"

#define RANK "{\"host\":\"a\",\"cores\":2,\"threads\":1,\"memory_bytes\":8,\"gb_per_s\":[36.5],\"shared_gb_per_s\":20}"
#define RANK_B "{\"host\":\"b\",\"cores\":2,\"threads\":1,\"memory_bytes\":8,\"gb_per_s\":[10],\"shared_gb_per_s\":10}"
#define BOOT "01234567-89ab-cdef-0123-456789abcdef"
#define RANK_C \
    "{\"host\":\"a\",\"boot_id\":\"" BOOT "\",\"cores\":2,\"threads\":1,\"memory_bytes\":8,\"gb_per_s\":[10]," \
    "\"shared_gb_per_s\":10}"
#define GPU(device, name, read, launch) \
    "{\"device\":\"" device "\",\"name\":\"" name "\",\"id\":\"0a0b\",\"memory_bytes\":24000000000," \
    "\"read_gb_per_s\":" read ",\"up_gb_per_s\":25,\"down_gb_per_s\":26,\"launch_us\":" launch ",\"wait_us\":11}"
#define GPU_0 GPU("cuda:0", "NVIDIA GeForce RTX 4090", "930", "1.25")
#define RANK_OF_GPUS(gpus) \
    "{\"host\":\"a\",\"cores\":2,\"threads\":1,\"memory_bytes\":8,\"gb_per_s\":[36.5],\"shared_gb_per_s\":20," \
    "\"gpus\":" gpus "}"
#define OF_GPUS(gpus) HEAD "\"ranks\":[" RANK_OF_GPUS(gpus) "],\"transports\":[]}"
#define LINK(from, to) "{\"from\":" #from ",\"to\":" #to ",\"us\":[1.5,40],\"gb_per_s\":1.25}"
#define LINKS LINK(0, 1) "," LINK(1, 0)
#define HEAD "{\"hearth_probe\":1,\"sizes\":[1024,49152],"
#define GOOD HEAD "\"ranks\":[" RANK "," RANK_B "],\"transports\":[{\"name\":\"mpi\",\"links\":[" LINKS "]}]}"

static struct probe *parse(const char *text)
{
    struct probe *p = NULL;
    assert_int_equal(probe_parse(text, strlen(text), "text", &p), ST_OK);
    return p;
}

static void a_probe_reads_back_the_same(void **state)
{
    (void)state;
    struct probe *p = parse(GOOD);
    assert_int_equal(p->n_ranks, 2);
    assert_string_equal(p->ranks[1].host, "b");
    assert_true(p->ranks[0].curve[0] == 36.5 && p->ranks[0].shared_gb_per_s == 20);
    assert_int_equal(p->n_transports, 1);
    assert_true(p->transports[0].links[1].us[1] == 40 && p->transports[0].links[2].gb_per_s == 1.25);
    char *text = probe_format(p);
    assert_non_null(text);
    struct probe *again = parse(text);
    char *twice = probe_format(again);
    assert_string_equal(text, twice);
    free(text);
    free(twice);
    probe_free(p);
    probe_free(again);
    p = parse(HEAD "\"ranks\":[" RANK_C "],\"transports\":[]}");
    assert_string_equal(p->ranks[0].boot_id, BOOT);
    text = probe_format(p);
    assert_non_null(strstr(text, "\"boot_id\": \"" BOOT "\""));
    again = parse(text);
    assert_string_equal(again->ranks[0].boot_id, BOOT);
    free(text);
    probe_free(again);
    probe_free(p);
    p = parse(HEAD "\"ranks\":[" RANK "],\"transports\":[]}"); /* one rank has no links; this one no boot id */
    assert_string_equal(p->ranks[0].boot_id, "");
    assert_int_equal(probe_transport(p, NULL), -1);
    probe_free(p);
}

static void gpus_read_back_the_same(void **state)
{
    (void)state;
    struct probe *p = parse(OF_GPUS("[" GPU_0 "," GPU("cuda:12", "Tesla T4", "320.5", "2") "]"));
    char *text = probe_format(p), *twice;
    struct probe *again = parse(text);
    const struct probe_gpu *g = again->ranks[0].gpus;
    assert_int_equal(again->ranks[0].n_gpus, 2);
    assert_string_equal(g[0].device, "cuda:0");
    assert_string_equal(g[0].name, "NVIDIA GeForce RTX 4090");
    assert_string_equal(g[0].id, "0a0b");
    assert_int_equal(g[0].memory_bytes, 24000000000);
    assert_true(g[0].read_gb_per_s == 930 && g[0].up_gb_per_s == 25 && g[0].down_gb_per_s == 26);
    assert_true(g[0].launch_us == 1.25 && g[0].wait_us == 11);
    assert_string_equal(g[1].device, "cuda:12");
    assert_true(g[1].read_gb_per_s == 320.5);
    assert_string_equal(text, twice = probe_format(again));
    free(twice);
    free(text);
    probe_free(again);
    probe_free(p);
    p = parse(OF_GPUS("[]"));
    assert_int_equal(p->ranks[0].n_gpus, 0);
    probe_free(p);
}

static void assert_refused(const char *text, const char *says)
{
    struct log_catcher catcher = {0};
    struct probe *p = NULL;
    log_catch(&catcher);
    status st = probe_parse(text, strlen(text), "text", &p);
    log_catch(NULL);
    if (st != ST_FORMAT || !strstr(catcher.first_error, says))
        print_error("expected a refusal that says '%s', got %s: '%s'\n", says, status_name(st), catcher.first_error);
    assert_int_equal(st, ST_FORMAT);
    assert_non_null(strstr(catcher.first_error, says));
    assert_null(p);
}

/* What another rank's message says is an index. */
static void impossible_ranks_are_found(void **state)
{
    (void)state;
    const struct probe_rank good = {.cores = 2, .threads = 6, .n_curve = 4, .n_gpus = 1, .gpus = {{
        .memory_bytes = 1, .read_gb_per_s = 1, .up_gb_per_s = 1, .down_gb_per_s = 1, .launch_us = 1, .wait_us = 1}}};
    struct probe_rank wrong[] = {good, good, good, good, good, good, good, good, good, good, good};
    assert_true(probe_rank_possible(&good));
    wrong[0].n_curve = 0;
    wrong[1].n_curve = INT_MAX;
    wrong[2].threads = 0;
    wrong[3].threads = INT_MAX;
    wrong[4].cores = -1;
    wrong[5].cores = PROBE_MAX_CORES + 1;
    wrong[6].n_gpus = -1;
    wrong[7].n_gpus = PROBE_MAX_GPUS + 1;
    wrong[8].gpus[0].read_gb_per_s = NAN;
    wrong[9].gpus[0].wait_us = 0;
    wrong[10].gpus[0].memory_bytes = UINT64_MAX;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(probe_rank_possible(&wrong[i]));
}

static void wrong_texts_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"", "line"},
        {"[]", "a probe is an object"},
        {"{\"hearth_probe\":2}", "hearth_probe is 2, expected 1"},
        {"{\"hearth_plan\":1}", "hearth_probe is missing"},
        {"{\"hearth_probe\":1,\"speed\":3}", "speed is not a known field"},
        {HEAD "\"ranks\":[]}", "ranks is an array of 0"},
        {HEAD "\"ranks\":[" RANK "]}", "transports is missing"},
        {HEAD "\"ranks\":[" RANK "," RANK "],\"transports\":[]}", "transports is an array of 0"},
        {"{\"hearth_probe\":1,\"ranks\":[" RANK "],\"transports\":[]}", "sizes is missing"},
        {"{\"hearth_probe\":1,\"sizes\":[],\"ranks\":[" RANK "],\"transports\":[]}", "sizes is an array of 0"},
        {"{\"hearth_probe\":1,\"sizes\":[5,5],\"ranks\":[" RANK "],\"transports\":[]}", "sizes[1] is 5, expected 6"},
        {"{\"hearth_probe\":1,\"sizes\":[-5],\"ranks\":[" RANK "],\"transports\":[]}", "sizes[0] is -5"},
        {HEAD "\"ranks\":[3],\"transports\":[]}", "ranks[0] is an integer"},
        {HEAD "\"ranks\":[{\"host\":\"a b\"}],\"transports\":[]}", "ranks[0].host is no name"},
        {HEAD "\"ranks\":[{\"host\":\"a\",\"boot_id\":7}],\"transports\":[]}", "ranks[0].boot_id is an integer"},
        {HEAD "\"ranks\":[{\"host\":\"a\",\"boot_id\":\"\"}],\"transports\":[]}", "ranks[0].boot_id is no name"},
        {HEAD "\"ranks\":[{\"host\":\"a\",\"boot_id\":\"" BOOT "0\"}],\"transports\":[]}",
         "ranks[0].boot_id is no name of 1 to 36 characters"},
        {HEAD "\"ranks\":[{\"host\":\"a\",\"cores\":-2}],\"transports\":[]}", "ranks[0].cores is -2"},
        {HEAD "\"ranks\":[{\"host\":\"a\",\"cores\":2,\"threads\":6,\"memory_bytes\":8,\"gb_per_s\":[1],"
              "\"shared_gb_per_s\":1}],\"transports\":[]}",
              "ranks[0].gb_per_s is an array of 1, expected an array of 4"},
        {HEAD "\"ranks\":[{\"host\":\"a\",\"cores\":2,\"threads\":1,\"memory_bytes\":8,\"gb_per_s\":[-1],"
              "\"shared_gb_per_s\":1}],\"transports\":[]}", "ranks[0].gb_per_s[0] is -1, expected more than 0"},
        {HEAD "\"ranks\":[{\"host\":\"a\",\"cores\":2,\"threads\":1,\"memory_bytes\":8,\"gb_per_s\":[1],"
              "\"shared_gb_per_s\":1e300}],\"transports\":[]}", "ranks[0].shared_gb_per_s is 1e+300"},
        {HEAD "\"ranks\":[" RANK "," RANK "],\"transports\":[{\"name\":\"mpi\",\"links\":[" LINK(0, 1) "]}]}",
         "transports[0].links is an array of 1, expected an array of 2"},
        {HEAD "\"ranks\":[" RANK "," RANK "],\"transports\":[{\"name\":\"mpi\",\"links\":[" LINK(0, 1) "," LINK(0, 1)
              "]}]}", "transports[0].links[1].from and to are 0 and 1, expected every two ranks once"},
        {HEAD "\"ranks\":[" RANK "," RANK "],\"transports\":[{\"name\":\"mpi\",\"links\":[" LINK(0, 1) "," LINK(1, 1)
              "]}]}", "from and to are 1 and 1"},
        {HEAD "\"ranks\":[" RANK "," RANK "],\"transports\":[{\"name\":\"mpi\",\"links\":[" LINK(0, 1) "," LINK(2, 0)
              "]}]}", "links[1].from is 2"},
        {HEAD "\"ranks\":[" RANK "," RANK "],\"transports\":[{\"name\":\"mpi\",\"links\":[" LINK(0, 1)
              ",{\"from\":1,\"to\":0,\"us\":[1,0],\"gb_per_s\":1}]}]}", "links[1].us[1] is 0, expected more than 0"},
        {HEAD "\"ranks\":[" RANK "," RANK "],\"transports\":[{\"name\":\"\",\"links\":[]}]}", "transports[0].name"},
        {OF_GPUS("7"), "ranks[0].gpus is an integer of 0, expected an array of at most 16"},
        {OF_GPUS("[{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]"), "ranks[0].gpus is an array of 17"},
        {OF_GPUS("[7]"), "ranks[0].gpus[0] is an integer, expected an object"},
        {OF_GPUS("[{\"speed\":7}]"), "ranks[0].gpus[0].speed is not a known field"},
        {OF_GPUS("[{\"device\":\"hip:0\"}]"), "ranks[0].gpus[0].device is 'hip:0', which is no device"},
        {OF_GPUS("[" GPU("cpu", "x", "1", "1") "]"), "ranks[0].gpus[0].device is cpu, expected a GPU"},
        {OF_GPUS("[" GPU_0 "," GPU_0 "]"), "ranks[0].gpus[1].device is cuda:0 again"},
        {OF_GPUS("[" GPU("cuda:0", "", "1", "1") "]"), "ranks[0].gpus[0].name is no name of 1 to 63 characters"},
        {OF_GPUS("[" GPU("cuda:0", "a\\u0007", "1", "1") "]"), "ranks[0].gpus[0].name is no name"},
        {OF_GPUS("[" GPU("cuda:0", "x", "1e7", "1") "]"), "ranks[0].gpus[0].read_gb_per_s is 1e+07, expected more"},
        {OF_GPUS("[" GPU("cuda:0", "x", "1", "0") "]"), "ranks[0].gpus[0].launch_us is 0, expected more than 0"},
        {OF_GPUS("[{\"device\":\"cuda:0\",\"name\":\"x\",\"id\":\"0\",\"memory_bytes\":-1}]"),
         "ranks[0].gpus[0].memory_bytes is -1"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_refused(wrong[i][0], wrong[i][1]);
}

static void cut_off_texts_are_refused(void **state)
{
    (void)state;
    char *copy;
    for (size_t n = 0; n + 1 < strlen(GOOD); n++) {
        struct log_catcher quiet = {0};
        struct probe *p;
        copy = malloc(n ? n : 1); /* of exactly its size, for the address sanitizer */
        memcpy(copy, GOOD, n);
        log_catch(&quiet);
        assert_int_equal(probe_parse(copy, n, "text", &p), ST_FORMAT);
        log_catch(NULL);
        free(copy);
    }
}

static void another_rank_count_is_a_mismatch(void **state)
{
    (void)state;
    struct log_catcher catcher = {0};
    struct probe *p = parse(GOOD);
    assert_int_equal(probe_check(p, "text", 2), ST_OK);
    log_catch(&catcher);
    assert_int_equal(probe_check(p, "text", 3), ST_MISMATCH);
    log_catch(NULL);
    assert_non_null(strstr(catcher.first_error, "measured with 2 ranks, but there are 3"));
    probe_free(p);
}

static void a_transport_is_found_by_name_or_speed(void **state)
{
    (void)state;
    struct probe *p = parse(HEAD "\"ranks\":[" RANK "," RANK_B "],\"transports\":[{\"name\":\"mpi\",\"links\":["
                            LINKS "]},{\"name\":\"verbs\",\"links\":[{\"from\":0,\"to\":1,\"us\":[1,4],\"gb_per_s\":9},"
                            "{\"from\":1,\"to\":0,\"us\":[1,4],\"gb_per_s\":9}]}]}");
    assert_int_equal(probe_transport(p, NULL), 1);
    assert_int_equal(probe_transport(p, "mpi"), 0);
    assert_int_equal(probe_transport(p, "verbs"), 1);
    assert_int_equal(probe_transport(p, "pigeon"), 1);
    probe_free(p);
}

static void times_between_the_sizes_are_in_proportion(void **state)
{
    (void)state;
    struct probe *p = parse(GOOD);
    assert_true(probe_message_us(p, 0, 0, 1, 1) == 1.5);
    assert_true(probe_message_us(p, 0, 0, 1, 1024) == 1.5);
    assert_true(fabs(probe_message_us(p, 0, 1, 0, (1024 + 49152) / 2) - 20.75) < 1e-9);
    assert_true(fabs(probe_message_us(p, 0, 0, 1, 49152 + 12500) - 50) < 1e-9); /* 12500 B at 1.25 GB/s: 10 us */
    assert_true(probe_message_us(p, 0, 1, 1, 4096) == 0);
    probe_free(p);
}

/* ---- costs ---- */

enum { LAYERS = 4, D = 1024, FF = 4096, VOCAB = 8192 };

struct shapes {
    struct model model;
    struct layer_weights layers[LAYERS];
    struct bundle bundle;
    struct plan_model plan_model;
};

static void make_shapes(struct shapes *s)
{
    *s = (struct shapes){0};
    shapes_model(LAYERS, D, FF, VOCAB, s->layers, &s->bundle, &s->model);
    s->plan_model = (struct plan_model){.architecture = "llama", .n_layers = LAYERS, .n_vocab = VOCAB,
                                        .layer = {.d_ff = FF, .neuron_unit = 128}};
}

/* Ranks of `gb_per_s` on hosts of their own, links of `us` whatever the size. */
static struct probe *make_probe(int n, const double *gb_per_s, double us)
{
    struct probe *p;
    assert_int_equal(probe_create(n, n > 1, &p), ST_OK);
    p->n_sizes = 1;
    p->sizes[0] = 1 << 20;
    for (int r = 0; r < n; r++) {
        struct probe_rank *rank = &p->ranks[r];
        snprintf(rank->host, sizeof rank->host, "host%d", r);
        rank->cores = rank->threads = rank->n_curve = 1;
        rank->memory_bytes = UINT64_C(1) << 40;
        rank->curve[0] = rank->shared_gb_per_s = gb_per_s[r];
    }
    for (int i = 0; i < n * n && n > 1; i++)
        if (i / n != i % n)
            p->transports[0].links[i] = (struct probe_link){.us = {us}, .gb_per_s = 1e6};
    return p;
}

static struct cost cost_of(const struct probe *p, const struct cost_model *m, const struct plan_model *shape,
                           enum plan_split split)
{
    struct plan *plan;
    assert_int_equal(plan_make(shape, split, p->n_ranks, NULL, &plan), ST_OK);
    struct cost c = cost_of_plan(p, m, plan);
    plan_free(plan);
    return c;
}

static void assert_near(double found, double expected)
{
    if (fabs(found - expected) > 1e-3 * expected)
        print_error("%g, expected %g\n", found, expected);
    assert_true(fabs(found - expected) <= 1e-3 * expected);
}

static void costs_are_bytes_over_bandwidth(void **state)
{
    (void)state;
    struct shapes s;
    make_shapes(&s);
    const struct cost_model m = {.model = &s.model, .residual = -1};
    const double attention = LAYERS * 4.0 * D * D * 4, ffn = LAYERS * 3.0 * D * FF * 4, output = 4.0 * VOCAB * D;
    struct probe *one = make_probe(1, (const double[]){10}, 0);
    struct cost c = cost_of(one, &m, &s.plan_model, SPLIT_SHARDS);
    assert_near(c.compute_ms, (attention + ffn + output) / 10e6);
    assert_true(c.wire_ms == 0 && c.fits);
    one->ranks[0].memory_bytes = (uint64_t)(attention + ffn + output);
    assert_true(cost_of(one, &m, &s.plan_model, SPLIT_SHARDS).fits);
    s.model.embedding = s.model.output; /* in the first stage's memory, beside the output matrix */
    assert_false(cost_of(one, &m, &s.plan_model, SPLIT_SHARDS).fits);
    one->ranks[0].memory_bytes += (uint64_t)output;
    assert_true(cost_of(one, &m, &s.plan_model, SPLIT_SHARDS).fits);
    s.model.embedding = (struct matrix){0};

    struct probe *two = make_probe(2, (const double[]){10, 10}, 30);
    c = cost_of(two, &m, &s.plan_model, SPLIT_SHARDS);
    assert_near(c.compute_ms, (attention + (ffn + output) / 2) / 10e6);
    assert_near(c.wire_ms, (LAYERS + 1) * 2 * 30e-3); /* one exchange a layer and one for the output */
    c = cost_of(two, &m, &s.plan_model, SPLIT_STAGES);
    assert_near(c.compute_ms, (attention + ffn + output) / 10e6);
    assert_near(c.wire_ms, 2 * 30e-3); /* to the second stage, and the token back */
    probe_free(one);
    probe_free(two);
}

/* A rank's devices are one rank to the others, and CPUs have one memory: who of them holds what costs nothing. */
static void devices_of_a_rank_cost_what_the_rank_does(void **state)
{
    (void)state;
    static const char form[] =
        "{\"hearth_plan\":2,\"model\":{\"architecture\":\"llama\",\"layers\":4},\"ranks\":2,\"holders\":["
        "{\"rank\":0,\"device\":\"cpu\"},{\"rank\":1,\"device\":\"cpu\"}%s],\"layers\":[{\"from\":0,\"to\":4,"
        "\"stage\":0,\"d_ff\":4096,\"heads\":[0,4,%s8],\"sets\":[{\"holder\":0,\"neurons\":[[0,1024]]},"
        "{\"holder\":1,\"neurons\":[[1024,2048]]},{\"holder\":%d,\"neurons\":[[2048,4096]]}]}],"
        "\"rows\":[0,4096,%s8192]}";
    struct shapes s;
    struct cost cost[2];
    make_shapes(&s);
    const struct cost_model m = {.model = &s.model, .residual = -1};
    struct probe *two = make_probe(2, (const double[]){10, 30}, 30);
    two->ranks[1].memory_bytes = 125 << 20; /* of which rank 1 needs 32 + 144 + 16 MiB on whatever it has */
    for (int devices = 0; devices < 2; devices++) {
        char text[1024];
        struct plan *plan = NULL;
        snprintf(text, sizeof text, form, devices ? ",{\"rank\":1,\"device\":\"cpu:1\"}" : "", devices ? "6," : "",
                 devices ? 2 : 1, devices ? "6144," : "");
        assert_int_equal(plan_parse(text, strlen(text), "test", &plan), ST_OK);
        cost[devices] = cost_of_plan(two, &m, plan);
        plan_free(plan);
    }
    assert_near(cost[1].compute_ms, cost[0].compute_ms);
    assert_near(cost[1].wire_ms, cost[0].wire_ms);
    assert_true(cost[0].compute_ms > 0 && !cost[0].fits && !cost[1].fits);
    probe_free(two);
}

/* One rank has no link, wherever the residual stream is. */
static void one_rank_sends_nothing(void **state)
{
    (void)state;
    struct shapes s;
    struct plan *plan;
    make_shapes(&s);
    struct probe *one = make_probe(1, (const double[]){10}, 0);
    assert_int_equal(probe_transport(one, NULL), -1);
    assert_true(probe_message_us(one, -1, 0, 0, 1 << 20) == 0);
    for (int all = 0; all < 2; all++) {
        const struct cost_model m = {.model = &s.model, .residual = all};
        assert_int_equal(plan_make(&s.plan_model, SPLIT_SHARDS, 1, NULL, &plan), ST_OK);
        assert_int_equal(plan_set_residual(plan, all), ST_OK);
        const struct cost c = cost_of_plan(one, &m, plan);
        assert_true(c.compute_ms > 0 && c.wire_ms == 0 && c.fits);
        plan_free(plan);
    }
    probe_free(one);
}

static struct choice choose(const struct probe *p, const struct shapes *s, const double *shares)
{
    const struct cost_model m = {.model = &s->model, .residual = -1};
    struct choice c;
    assert_int_equal(cost_choose(p, &m, &s->plan_model, shares, &c), ST_OK);
    for (int i = 0; i < c.n; i++)
        assert_true(cost_ms(&c.candidates[c.best].cost) <= cost_ms(&c.candidates[i].cost) ||
                    !c.candidates[i].cost.fits);
    return c;
}

static void slow_links_leave_ranks_out(void **state)
{
    (void)state;
    struct shapes s;
    make_shapes(&s);
    struct probe *p = make_probe(3, (const double[]){20, 10, 30}, 5);
    struct choice c = choose(p, &s, NULL);
    assert_int_equal(c.n, 5); /* 1, 2, 3 ranks of shards; stages; both */
    const struct candidate *best = &c.candidates[c.best];
    assert_int_equal(best->split, SPLIT_SHARDS);
    assert_int_equal(best->n_used, 3);
    assert_true(best->shares[0] == 20 && best->shares[1] == 10 && best->shares[2] == 30); /* the bandwidths */
    assert_true(c.candidates[1].shares[1] == 0 && c.candidates[1].shares[2] == 30);        /* the faster one first */
    probe_free(p);

    p = make_probe(3, (const double[]){20, 10, 30}, 100000); /* 0.1 s a message: one rank alone is fastest */
    c = choose(p, &s, NULL);
    assert_int_equal(c.candidates[c.best].n_used, 1);
    assert_true(c.candidates[c.best].shares[0] > 0);
    c = choose(p, &s, (const double[]){1, 1, 1}); /* shares given: all ranks, and stages talk least */
    assert_int_equal(c.n, 3);
    assert_int_equal(c.candidates[c.best].split, SPLIT_STAGES);

    for (int r = 0; r < 3; r++) /* too large for one, or for two: only all together hold it */
        p->ranks[r].memory_bytes = 150 << 20;
    c = choose(p, &s, NULL);
    assert_int_equal(c.candidates[c.best].n_used, 3);
    assert_true(c.candidates[c.best].cost.fits);
    probe_free(p);
}

static void one_slow_rank_is_left_out(void **state)
{
    (void)state;
    struct shapes s;
    make_shapes(&s);
    struct probe *p = make_probe(4, (const double[]){10, 10, 10, 10}, 5);
    for (int r = 0; r < 4; r++) /* rank 2 is behind a slow cable */
        if (r != 2)
            p->transports[0].links[4 * r + 2].us[0] = p->transports[0].links[8 + r].us[0] = 50000;
    struct choice c = choose(p, &s, NULL);
    assert_int_equal(c.candidates[c.best].n_used, 3);
    assert_true(c.candidates[c.best].shares[2] == 0);
    probe_free(p);
}

static void ranks_of_a_host_share_its_memory(void **state)
{
    (void)state;
    struct probe *p = make_probe(3, (const double[]){40, 40, 10}, 5);
    double gb_per_s[3];
    snprintf(p->ranks[1].host, sizeof p->ranks[1].host, "%s", p->ranks[0].host);
    p->ranks[0].shared_gb_per_s = p->ranks[1].shared_gb_per_s = 22;
    cost_bandwidths(p, (const bool[]){true, false, true}, gb_per_s);
    assert_true(gb_per_s[0] == 40 && gb_per_s[2] == 10);
    cost_bandwidths(p, (const bool[]){true, true, true}, gb_per_s);
    assert_true(gb_per_s[0] == 22 && gb_per_s[1] == 22 && gb_per_s[2] == 10);
    probe_free(p);
}

static void name_ranks(struct probe *p, int rank, const char *host, const char *boot_id)
{
    snprintf(p->ranks[rank].host, sizeof p->ranks[rank].host, "%s", host);
    snprintf(p->ranks[rank].boot_id, sizeof p->ranks[rank].boot_id, "%s", boot_id);
}

/* Two ranks of 40 GB/s, 22 while both read, each of which holds half of the model. */
static void assert_sharing(const char *const hosts[2], const char *const boots[2], bool bandwidth, bool memory)
{
    struct shapes s;
    make_shapes(&s);
    const struct cost_model m = {.model = &s.model, .residual = -1};
    struct probe *p = make_probe(2, (const double[]){40, 40}, 5);
    const double bytes = LAYERS * (4.0 * D * D * 4 + 3.0 * D * FF * 4) + 4.0 * VOCAB * D;
    double gb_per_s[2];
    for (int r = 0; r < 2; r++) {
        name_ranks(p, r, hosts[r], boots[r]);
        p->ranks[r].shared_gb_per_s = 22;
        p->ranks[r].memory_bytes = (uint64_t)(0.9 * bytes); /* for either, not for both */
    }
    cost_bandwidths(p, (const bool[]){true, true}, gb_per_s);
    assert_true(gb_per_s[0] == (bandwidth ? 22 : 40) && gb_per_s[1] == gb_per_s[0]);
    assert_int_equal(cost_of(p, &m, &s.plan_model, SPLIT_STAGES).fits, !memory);
    probe_free(p);
}

static void boot_ids_tell_machines_apart(void **state)
{
    (void)state;
    assert_sharing((const char *const[]){"debian", "debian"}, (const char *const[]){"1", "2"}, false, false);
    assert_sharing((const char *const[]){"debian", "debian"}, (const char *const[]){"1", "1"}, true, true);
    assert_sharing((const char *const[]){"host1", "host2"}, (const char *const[]){"1", "1"}, false, true);
    assert_sharing((const char *const[]){"a", "b"}, (const char *const[]){"1", "2"}, false, false);
    assert_sharing((const char *const[]){"a", "a"}, (const char *const[]){"1", ""}, true, true);
    assert_sharing((const char *const[]){"a", "b"}, (const char *const[]){"", ""}, false, false);
}

static void memory_that_runs_out_is_st_nomem(void **state)
{
    (void)state;
    for (int nth = 0;; nth++) {
        struct log_catcher quiet = {0};
        struct probe *p = NULL;
        log_catch(&quiet);
        alloc_fail_at(nth);
        status st = probe_parse(GOOD, strlen(GOOD), "text", &p);
        bool failed = alloc_failed();
        log_catch(NULL);
        if (!failed) {
            assert_int_equal(st, ST_OK);
            probe_free(p);
            return;
        }
        assert_int_equal(st, ST_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_probe_reads_back_the_same),
        cmocka_unit_test(gpus_read_back_the_same),
        cmocka_unit_test(impossible_ranks_are_found),
        cmocka_unit_test(wrong_texts_are_refused),
        cmocka_unit_test(cut_off_texts_are_refused),
        cmocka_unit_test(another_rank_count_is_a_mismatch),
        cmocka_unit_test(a_transport_is_found_by_name_or_speed),
        cmocka_unit_test(times_between_the_sizes_are_in_proportion),
        cmocka_unit_test(costs_are_bytes_over_bandwidth),
        cmocka_unit_test(devices_of_a_rank_cost_what_the_rank_does),
        cmocka_unit_test(one_rank_sends_nothing),
        cmocka_unit_test(slow_links_leave_ranks_out),
        cmocka_unit_test(one_slow_rank_is_left_out),
        cmocka_unit_test(ranks_of_a_host_share_its_memory),
        cmocka_unit_test(boot_ids_tell_machines_apart),
        cmocka_unit_test(memory_that_runs_out_is_st_nomem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
