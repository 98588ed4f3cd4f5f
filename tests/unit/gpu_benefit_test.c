/* What goes to a GPU by the probe: simulated machines whose numbers say what must come first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "placement/gpu_benefit.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/shapes_model.h"
#include "base/log.h"

enum { LAYERS = 8, D = 1024, FF = 4096, VOCAB = 8192, UNIT = 128, UNITS = FF / UNIT, MIB = 1 << 20 };

/* f32 weights that nobody reads: attention 16 MiB, FFN 48, 1.5 a unit of neurons, the output 32. */
enum { ATTENTION = 16, FFN = 48, OUTPUT = 32, MODEL = LAYERS * (ATTENTION + FFN) + OUTPUT };

struct simulation {
    struct model model;
    struct layer_weights layers[LAYERS];
    struct bundle bundle;
    struct plan_model shape;
    struct cost_model m;
    int64_t fires[LAYERS][FF + 1];
    struct probe *p;
};

static void begin(struct simulation *s, int ranks, const double *cpu_gb_per_s)
{
    *s = (struct simulation){0};
    shapes_model(LAYERS, D, FF, VOCAB, s->layers, &s->bundle, &s->model);
    s->shape = (struct plan_model){.architecture = "llama", .n_layers = LAYERS, .n_vocab = VOCAB,
                                   .layer = {.d_ff = FF, .neuron_unit = UNIT, .n_kv_heads = 8, .head_unit = 1}};
    s->m = (struct cost_model){.model = &s->model, .residual = -1, .gpus = true};
    assert_int_equal(probe_create(ranks, ranks > 1, &s->p), ST_OK);
    s->p->n_sizes = 1;
    s->p->sizes[0] = 1 << 20;
    for (int r = 0; r < ranks; r++) {
        struct probe_rank *rank = &s->p->ranks[r];
        snprintf(rank->host, sizeof rank->host, "host%d", r);
        rank->cores = rank->threads = rank->n_curve = 1;
        rank->memory_bytes = UINT64_C(1) << 40;
        rank->curve[0] = rank->shared_gb_per_s = cpu_gb_per_s[r];
    }
    for (int i = 0; i < ranks * ranks && ranks > 1; i++)
        if (i / ranks != i % ranks)
            s->p->transports[0].links[i] = (struct probe_link){.us = {50}, .gb_per_s = 10};
}

static void has_gpu(struct simulation *s, int rank, double gb_per_s, double pcie_gb_per_s, double wait_us, int mib)
{
    struct probe_rank *r = &s->p->ranks[rank];
    struct probe_gpu *g = &r->gpus[r->n_gpus++];
    *g = (struct probe_gpu){.device = "cuda:0", .name = "GPU", .memory_bytes = (uint64_t)mib * MIB,
                            .read_gb_per_s = gb_per_s, .up_gb_per_s = pcie_gb_per_s, .down_gb_per_s = pcie_gb_per_s,
                            .launch_us = 1, .wait_us = wait_us};
    snprintf(g->id, sizeof g->id, "%d", rank);
}

/* The first units of every layer fire as often as `hot` says, the others as `cold`. */
static void fires(struct simulation *s, int hot_units, double hot, double cold)
{
    for (int l = 0; l < LAYERS; l++)
        for (int j = 0; j < FF; j++)
            s->fires[l][j + 1] = s->fires[l][j] + (int64_t)((j < hot_units * UNIT ? hot : cold) / COST_FIRES);
    s->m.fires = s->fires[0];
}

static struct plan *alone(const struct simulation *s)
{
    struct plan *p = NULL;
    assert_int_equal(plan_make(&s->shape, SPLIT_SHARDS, 1, NULL, &p), ST_OK);
    return p;
}

static struct plan *given(const struct simulation *s, double mib)
{
    struct plan *p = alone(s);
    assert_int_equal(gpu_benefit_give(s->p, &s->m, p, 0, "cuda:0", mib * MIB), ST_OK);
    return p;
}

static bool has_heads(const struct plan *p, int layer)
{
    int64_t begin, end;
    plan_heads(p, layer, 1, 8, &begin, &end);
    return begin < end;
}

static double ms_of(const struct simulation *s, const struct plan *p)
{
    const struct cost c = cost_of_plan(s->p, &s->m, p);
    return cost_ms(&c);
}

static double mib_on_gpu(const struct simulation *s, const struct plan *p)
{
    double mib = 0;
    int64_t begin, end;
    for (int l = 0; l < LAYERS; l++)
        mib += (has_heads(p, l) ? ATTENTION + s->m.kv_held * 4 * D / MIB : 0) +
               1.5 * (double)plan_n_neurons(p, l, 1) / UNIT;
    plan_rows(p, 1, VOCAB, &begin, &end);
    return mib + (begin < end ? OUTPUT : 0);
}

static void end(struct simulation *s, struct plan *p)
{
    plan_free(p);
    probe_free(s->p);
}

static void all_goes_where_it_fits(void **state)
{
    (void)state;
    struct simulation s;
    begin(&s, 1, (const double[]){50});
    has_gpu(&s, 0, 1000, 25, 10, 0);
    struct plan *p = given(&s, MODEL);
    assert_int_equal(plan_n_holders(p), 2);
    assert_int_equal(plan_home(p, 0), 1);
    assert_true(mib_on_gpu(&s, p) == MODEL);
    end(&s, p);
}

/* No file says which neurons fire: layers are whole, but for one that has what is left of the room. */
static void layers_are_whole_where_neurons_are_alike(void **state)
{
    (void)state;
    struct simulation s;
    begin(&s, 1, (const double[]){50});
    has_gpu(&s, 0, 1000, 25, 10, 0);
    for (int mib = 0; mib < MODEL; mib += 37) {
        struct plan *p = given(&s, mib);
        int whole = 0, cut = 0;
        for (int l = 0; l < LAYERS && plan_n_holders(p) > 1; l++) {
            whole += has_heads(p, l) && plan_n_neurons(p, l, 1) == FF;
            cut += has_heads(p, l) ? plan_n_neurons(p, l, 1) < FF : plan_n_neurons(p, l, 1) > 0;
        }
        assert_true(cut <= 1);
        assert_in_range(whole, (mib - (mib > OUTPUT ? OUTPUT : 0)) / (ATTENTION + FFN), mib / (ATTENTION + FFN));
        plan_free(p);
    }
    end(&s, NULL);
}

/* Whatever room there is, hardly less than a unit of neurons is left of it, be all neurons alike or not. */
static void the_room_is_used(void **state)
{
    (void)state;
    for (int alike = 0; alike < 2; alike++) {
        struct simulation s;
        begin(&s, 1, (const double[]){50});
        has_gpu(&s, 0, 1000, 25, 10, 0);
        if (!alike)
            fires(&s, UNITS, 0.3, 0.3);
        for (int mib = 10; mib < MODEL - LAYERS * 2; mib += 29) {
            struct plan *p = given(&s, mib);
            assert_int_equal(plan_n_holders(p), 2);
            if (mib_on_gpu(&s, p) < mib - 1.5)
                fail_msg("%g of %d MiB are used", mib_on_gpu(&s, p), mib);
            plan_free(p);
        }
        end(&s, NULL);
    }
}

/* PCIe so slow that a round over it costs more than the CPU's reading: nothing is split, and where not all fits nothing
 * goes there. */
static void slow_pcie_splits_nothing(void **state)
{
    (void)state;
    struct simulation s;
    begin(&s, 1, (const double[]){50});
    has_gpu(&s, 0, 1000, 0.001, 5000, 0);
    fires(&s, UNITS / 4, 0.9, 0.01);
    struct plan *p = given(&s, MODEL / 2);
    assert_int_equal(plan_n_holders(p), 1);
    plan_free(p);
    p = given(&s, MODEL);
    assert_true(mib_on_gpu(&s, p) == MODEL && plan_home(p, 0) == 1);
    end(&s, p);
}

/* A quarter of the neurons fires: they come before what hardly does; flat ones come after attention and the output. */
static void what_fires_comes_first(void **state)
{
    (void)state;
    struct simulation s;
    begin(&s, 1, (const double[]){50});
    has_gpu(&s, 0, 1000, 25, 10, 0);
    fires(&s, UNITS / 4, 0.9, 0.01);
    struct plan *p = given(&s, OUTPUT + LAYERS * (ATTENTION + FFN / 4));
    for (int l = 0; l < LAYERS; l++) {
        const struct neuron_range *ranges;
        assert_true(has_heads(p, l));
        assert_true(plan_neurons(p, l, 1, &ranges) > 0 && ranges[0].begin == 0 && ranges[0].end >= FF / 8);
    }
    plan_free(p);
    fires(&s, UNITS, 0.1, 0.1);
    p = given(&s, OUTPUT + LAYERS * ATTENTION);
    for (int l = 0; l < LAYERS; l++)
        assert_true(has_heads(p, l) && plan_n_neurons(p, l, 1) == 0);
    end(&s, p);
}

/* So little that each block would go over PCIe if x were there: x stays with the CPU. */
static void a_small_gpu_is_no_home(void **state)
{
    (void)state;
    struct simulation s;
    begin(&s, 1, (const double[]){50});
    has_gpu(&s, 0, 1000, 25, 10, 0);
    fires(&s, 4, 1, 0.01);
    struct plan *p = given(&s, 6);
    assert_int_equal(plan_n_holders(p), 2);
    assert_int_equal(plan_home(p, 0), 0);
    end(&s, p);
}

/* A long context that is held and hardly read makes attention dear: neurons that always fire come first. */
static void keys_and_values_may_come_last(void **state)
{
    (void)state;
    struct simulation s;
    begin(&s, 1, (const double[]){50});
    has_gpu(&s, 0, 1000, 25, 10, 0);
    fires(&s, UNITS, 0.95, 0.95);
    s.m.kv_held = 100000; /* 390 MiB a layer, as for many texts at once */
    s.m.kv_read = 100;
    struct plan *p = given(&s, LAYERS * FFN + OUTPUT);
    for (int l = 0; l < LAYERS; l++)
        assert_true(!has_heads(p, l));
    assert_true(mib_on_gpu(&s, p) > LAYERS * FFN / 2);
    end(&s, p);
}

/* A GPU that is no faster than the CPU has part of each FFN: both take about as long. */
static void equal_devices_share(void **state)
{
    (void)state;
    struct simulation s;
    begin(&s, 1, (const double[]){50});
    has_gpu(&s, 0, 50, 25, 10, 0);
    fires(&s, UNITS, 0.5, 0.5);
    struct plan *p = given(&s, MODEL);
    for (int l = 0; l < LAYERS; l++)
        assert_in_range(plan_n_neurons(p, l, 1), FF / 3, 2 * FF / 3);
    end(&s, p);
}

static uint64_t random_state = 1;
static double drawn(double least, double most)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return least + (most - least) * (double)(random_state >> 40) / (double)(1 << 24);
}

/* The hot units of every layer, and then the cold ones, up to n. */
static void keep_hottest(struct plan *p, int hot_units, int n)
{
    bool stay[LAYERS * UNITS] = {false};
    for (int cold = 0; cold < 2; cold++)
        for (int i = 0; i < LAYERS * UNITS; i++)
            if ((i % UNITS >= hot_units) == cold && n-- > 0)
                stay[i] = true;
    assert_int_equal(plan_keep_units(p, 1, stay), ST_OK);
}

/* Never slower than without, nor than the first layers that fit, nor than attention and what fires most; and never more
 * than the budget. */
static void nothing_plainer_is_faster(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        struct simulation s;
        begin(&s, 1, (const double[]){drawn(10, 100)});
        has_gpu(&s, 0, drawn(5, 2000), drawn(0.05, 50), drawn(1, 400), 0);
        const int hot_units = 1 + (int)drawn(0, UNITS);
        if (i % 3)
            fires(&s, hot_units, drawn(0.3, 1), drawn(0, 0.3));
        s.m.kv_held = drawn(0, 10000);
        s.m.kv_read = s.m.kv_held / 2;
        const double mib = drawn(0, 1.2 * MODEL);
        struct plan *p = given(&s, mib), *plain = alone(&s);
        const double ms = ms_of(&s, p) * (1 - 1e-9);
        if (plan_n_holders(p) > 1)
            assert_true(mib_on_gpu(&s, p) <= mib + 1e-6);
        assert_true(ms <= ms_of(&s, plain));
        plan_free(plain);
        const double layer = ATTENTION + FFN + s.m.kv_held * 4 * D / MIB;
        if (mib >= layer) {
            const double n = mib / layer;
            plain = alone(&s);
            assert_int_equal(plan_offload(plain, 0, "cuda:0", n < LAYERS ? (int)n : LAYERS), ST_OK);
            assert_true(ms <= ms_of(&s, plain));
            plan_free(plain);
        }
        const double units = (mib - LAYERS * (layer - FFN) - OUTPUT) / 1.5;
        if (units >= 0 && units < LAYERS * UNITS && s.m.fires) {
            plain = alone(&s);
            assert_int_equal(plan_offload(plain, 0, "cuda:0", LAYERS + 1), ST_OK);
            keep_hottest(plain, hot_units, (int)units);
            assert_true(ms <= ms_of(&s, plain));
            plan_free(plain);
        }
        end(&s, p);
    }
}

/* What nobody has measured is taken to be as usual: hardly slower than by a probe, on any machine, with any room. */
static void no_probe_is_nearly_as_good(void **state)
{
    (void)state;
    static const double machines[][3] = {/* CPU, GPU, PCIe */
                                         {20, 200, 10}, {50, 450, 12}, {60, 1000, 25}, {127, 3030, 55}};
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        for (int alike = 0; alike < 2; alike++) {
            struct simulation s;
            begin(&s, 1, &machines[i][0]);
            has_gpu(&s, 0, machines[i][1], machines[i][2], 10, 0);
            if (!alike)
                fires(&s, UNITS / 4, 0.3, 0.03);
            for (int mib = MODEL / 8; mib < MODEL; mib += MODEL / 8) {
                struct plan *measured = given(&s, mib), *p = alone(&s);
                assert_int_equal(gpu_benefit_give(NULL, &s.m, p, 0, "cuda:0", (double)mib * MIB), ST_OK);
                if (ms_of(&s, p) > 1.1 * ms_of(&s, measured))
                    fail_msg("machine %zu, %d MiB: %g ms, %g by the probe", i, mib, ms_of(&s, p), ms_of(&s, measured));
                plan_free(measured);
                plan_free(p);
            }
            end(&s, NULL);
        }
    }
}

/* Of two PCs the one with a GPU gets more, as much as it can hold, and nothing of it is slower than without. */
static void a_rank_with_a_gpu_gets_more(void **state)
{
    (void)state;
    for (int with = 0; with < 2; with++) {
        struct simulation s;
        struct choice c;
        begin(&s, 2, (const double[]){40, 40});
        for (int r = 0; r < 2; r++) /* neither has room for all */
            s.p->ranks[r].memory_bytes = (uint64_t)(MODEL * 3 / 4) * MIB;
        assert_int_equal(cost_choose(s.p, &s.m, &s.shape, NULL, &c), ST_OK);
        const double without = cost_ms(&c.candidates[c.best].cost);
        has_gpu(&s, with, 800, 25, 10, 256 + MODEL / 2);
        assert_int_equal(cost_choose(s.p, &s.m, &s.shape, NULL, &c), ST_OK);
        const struct candidate *best = &c.candidates[c.best];
        assert_true(best->gpus && best->cost.fits);
        assert_true(best->shares[with] > best->shares[1 - with]);
        assert_true(cost_ms(&best->cost) < without);
        end(&s, NULL);
    }
}

/* Ranks of one host that see the same card have it once. */
static void a_card_is_one_ranks(void **state)
{
    (void)state;
    struct simulation s;
    begin(&s, 2, (const double[]){40, 40});
    has_gpu(&s, 0, 800, 25, 10, 1000);
    has_gpu(&s, 1, 800, 25, 10, 1000);
    assert_non_null(gpu_benefit_gpu(s.p, 1));
    snprintf(s.p->ranks[1].gpus[0].id, sizeof s.p->ranks[1].gpus[0].id, "0");
    assert_non_null(gpu_benefit_gpu(s.p, 0));
    assert_null(gpu_benefit_gpu(s.p, 1));
    end(&s, NULL);
}

static void memory_that_runs_out_is_said(void **state)
{
    (void)state;
    struct simulation s;
    begin(&s, 1, (const double[]){50});
    has_gpu(&s, 0, 1000, 25, 10, 0);
    for (int n = 0;; n++) {
        struct log_catcher quiet = {0};
        struct plan *p = alone(&s);
        log_catch(&quiet);
        alloc_fail_at(n);
        const status st = gpu_benefit_give(s.p, &s.m, p, 0, "cuda:0", MODEL / 2.0 * MIB);
        const bool failed = alloc_failed();
        log_catch(NULL);
        plan_free(p);
        assert_int_equal(st, failed ? ST_NOMEM : ST_OK);
        if (!failed)
            break;
    }
    end(&s, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_goes_where_it_fits),        cmocka_unit_test(layers_are_whole_where_neurons_are_alike),
        cmocka_unit_test(slow_pcie_splits_nothing),      cmocka_unit_test(what_fires_comes_first),
        cmocka_unit_test(keys_and_values_may_come_last), cmocka_unit_test(equal_devices_share),
        cmocka_unit_test(nothing_plainer_is_faster),     cmocka_unit_test(a_rank_with_a_gpu_gets_more),
        cmocka_unit_test(a_card_is_one_ranks),           cmocka_unit_test(memory_that_runs_out_is_said),
        cmocka_unit_test(a_small_gpu_is_no_home),        cmocka_unit_test(the_room_is_used),
        cmocka_unit_test(no_probe_is_nearly_as_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
