/* GPUs behind a plug-in, for which the CPU stands in: what they get, that the text is the same, and what is said where
 * there are none, too few or too small ones. */
#include "tests/engine/made_neurons.h"
#include "tests/engine/stand_in.h"

#include "base/log.h"
#include "cli/bench_test.h"
#include "kernels/kernels.h"
#include "node/gpus_measure.h"
#include "node/kv.h"
#include "node/member.h"
#include "node/offload.h"
#include "placement/gpu_benefit.h"

enum { PROMPT = 20, SPARE = 256 << 20, PLENTY = 1 << 30, SOME = (3 << 20) + (1 << 17) };

static char model[MADE_NAME];
static int32_t prompt[PROMPT];
static const struct job job = {prompt, PROMPT, 2, 3};

static void have(int gpus, long free_bytes, int capability)
{
    char text[32];
    snprintf(text, sizeof text, "%d", gpus);
    setenv("STAND_IN_GPUS", text, 1);
    snprintf(text, sizeof text, "%ld", free_bytes);
    setenv("STAND_IN_FREE", text, 1);
    snprintf(text, sizeof text, "%d", capability);
    setenv("STAND_IN_CAPABILITY", text, 1);
}

static struct cluster_options options(enum devices_wanted device, int gpu_layers)
{
    struct cluster_options o = plain_options(model);
    o.residual = -1;
    o.device = device;
    o.gpu_layers = gpu_layers;
    o.plugin_dir = STAND_IN_GPU;
    return o;
}

/* Of the same model, said to have ReLU. */
static struct cluster_options relu_options(enum devices_wanted device, int gpu_layers, const char *neurons)
{
    struct cluster_options o = options(device, gpu_layers);
    o.activation = "relu";
    o.neurons = neurons;
    return o;
}

/* Writes a neuron file of it. */
static void write_neurons(char path[MADE_NAME])
{
    struct made_recipe r = {.activation = ACT_RELU, .fc1 = DT_Q8_0, .fc2 = DT_Q8_0};
    made_neurons_write(model, &made_quantised, &r, path);
}

/* A model of 4 layers: how often its parts are computed there says how many of them there are. */
static void test_layers(void **state)
{
    (void)state;
    static const int layers[] = {0, 1, 3, 4, 5, 99, -1};
    struct trace expected = reference(model, &job);
    have(2, PLENTY, 90);
    for (int ranks = 1; ranks <= 3; ranks++) {
        unsigned all = 0;
        for (int i = 0; i < 7; i++) {
            struct cluster_options o = options(DEVICES_AUTO, layers[i]);
            o.ranks = ranks;
            o.split = ranks == 3 ? SPLIT_STAGES : -1;
            stand_in_parts();
            must_equal(&expected, &o, &job);
            const unsigned n = stand_in_parts();
            all = layers[i] == 1 ? n : all;
            if (ranks < 3) /* where stages are cut, ranks have one or two layers */
                assert_int_equal(n, all * (layers[i] < 0 || layers[i] > 4 ? 4 : (unsigned)layers[i]));
            assert_true((n > 0) == (layers[i] != 0));
        }
    }
    trace_free(&expected);
}

/* What fits is found without being told. */
static void test_budget(void **state)
{
    (void)state;
    struct trace expected = reference(model, &job);
    struct cluster_options o = options(DEVICES_CUDA, -1);
    have(1, PLENTY, 75);
    stand_in_parts();
    must_equal(&expected, &o, &job);
    const unsigned all = stand_in_parts();
    o.vram_budget = SOME;
    must_equal(&expected, &o, &job);
    const unsigned some = stand_in_parts();
    assert_true(some > 0 && some < all);
    have(1, SPARE + SOME, 75);
    o.vram_budget = 0;
    must_equal(&expected, &o, &job);
    assert_int_equal(stand_in_parts(), some);
    trace_free(&expected);
}

/* Where not all fit, parts of layers: neurons by how often they fire, or where all are computed as they come. */
static void test_hot(void **state)
{
    (void)state;
    char neurons[MADE_NAME];
    write_neurons(neurons);
    struct cluster_options o = relu_options(DEVICES_CPU, 0, neurons);
    o.sparse = SPARSE_EXACT;
    struct trace expected = run(&o, &job);
    o = relu_options(DEVICES_CUDA, -1, neurons);
    have(2, PLENTY, 75);
    for (int ranks = 1; ranks <= 2; ranks++) {
        o.ranks = ranks;
        o.sparse = SPARSE_EXACT;
        o.vram_budget = 0;
        stand_in_parts();
        must_equal(&expected, &o, &job);
        const unsigned all = stand_in_parts();
        o.vram_budget = SOME;
        must_equal(&expected, &o, &job);
        const unsigned hot = stand_in_parts();
        o.sparse = SPARSE_DENSE;
        must_equal(&expected, &o, &job);
        const unsigned some = stand_in_parts();
        if (ranks == 1)
            assert_true(hot > 0 && hot <= all && some > 0 && some <= all);
    }
    trace_free(&expected);
    unlink(neurons);
}

static void refused(const struct cluster_options *o, status expected, const char *says)
{
    struct cluster *c = NULL;
    struct log_catcher caught;
    log_catch(&caught);
    const status st = cluster_start(o, &c);
    log_catch(NULL);
    if (st != expected || !strstr(caught.first_error, says))
        fail_msg("%s: \"%s\" does not say \"%s\"", status_name(st), caught.first_error, says);
}

/* A split file: of layer l the neurons from begin[l] to end[l]. */
static void write_index(char path[MADE_NAME], int layers, const int *begin, const int *end)
{
    static int32_t marks[MADE_LAYERS][MADE_NEURONS];
    struct gguf_writer w;
    gguf_writer_begin(&w, "PWRI", 3);
    gguf_key_string(&w, "general.architecture", "generic.gpu_index");
    gguf_key_u32(&w, "generic.gpu_index.block_count", (uint32_t)layers);
    for (int l = 0; l < layers; l++) {
        char name[32];
        snprintf(name, sizeof name, "blk.%d.gpu_idx", l);
        for (int j = 0; j < MADE_NEURONS; j++)
            marks[l][j] = j >= begin[l] && j < end[l];
        gguf_add_tensor(&w, name, DT_I32, 1, (int64_t[]){MADE_NEURONS}, marks[l]);
    }
    gguf_writer_end(&w);
    made_file_of(w.bytes, w.n, path);
    gguf_writer_free(&w);
}

static const int marked_begin[MADE_LAYERS] = {0, 0, 256, 384}, marked_end[MADE_LAYERS] = {MADE_NEURONS, 0, 512, 512};

/* What a plan gives to GPUs of `ranks` ranks that all follow the file. */
static void must_give_what_is_marked(const struct cluster_options *o, int ranks)
{
    struct model *m;
    struct neurons *n;
    struct plan *p;
    struct plan_reasons why;
    enum predictor predictor;
    struct wire_gpus offers[2] = {{.n = 1, .at = {{.id = {1}}}}, {.n = 1, .at = {{.id = {2}}}}};
    assert_int_equal(model_of_options(o, 0, &m, &n, &predictor), ST_OK);
    assert_int_equal(plan_of_options(o, m, n, ranks, &p, &why), ST_OK);
    struct log_catcher caught;
    offers[0].at[0].marks = why.marks_hash ^ 2; /* another file */
    log_catch(&caught);
    assert_int_equal(offload_apply(p, offers, &why, true), ST_MISMATCH);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "what a split file marks, and here is another or none"));
    offers[0].at[0].marks = offers[1].at[0].marks = why.marks_hash;
    assert_int_equal(offload_apply(p, offers, &why, true), ST_OK);
    assert_int_equal(plan_n_holders(p), 2 * ranks);
    for (int l = 0; l < MADE_LAYERS; l++) {
        int64_t found = 0;
        for (int h = ranks; h < 2 * ranks; h++) {
            const struct neuron_range *ranges;
            for (int i = plan_neurons(p, l, h, &ranges); i > 0; i--)
                assert_true(ranges[i - 1].begin >= marked_begin[l] && ranges[i - 1].end <= marked_end[l]);
            found += plan_n_neurons(p, l, h);
        }
        assert_int_equal(found, marked_end[l] - marked_begin[l]);
    }
    plan_reasons_free(&why);
    plan_free(p);
    neurons_free(n);
    model_free(m);
}

/* A split file of PowerInfer's says which neurons GPUs get: those, the rest on the CPU, and the same text. */
static void test_marked(void **state)
{
    (void)state;
    static const int none[MADE_LAYERS], all[MADE_LAYERS] = {MADE_NEURONS, MADE_NEURONS, MADE_NEURONS, MADE_NEURONS};
    char some_file[MADE_NAME], all_file[MADE_NAME];
    struct cluster_options o = relu_options(DEVICES_CPU, 0, "");
    struct trace expected = run(&o, &job);
    write_index(some_file, MADE_LAYERS, marked_begin, marked_end);
    write_index(all_file, MADE_LAYERS, none, all);
    o = relu_options(DEVICES_CUDA, -1, "");
    o.sparse = SPARSE_EXACT;
    have(2, PLENTY, 75);
    for (o.ranks = 1; o.ranks <= 2; o.ranks++) {
        o.gpu_index = NULL;
        stand_in_parts();
        must_equal(&expected, &o, &job);
        const unsigned whole = stand_in_parts();
        o.gpu_index = all_file;
        must_equal(&expected, &o, &job);
        assert_int_equal(stand_in_parts(), whole);
        o.gpu_index = some_file;
        must_equal(&expected, &o, &job);
        const unsigned some = stand_in_parts();
        assert_true(some > 0 && some < whole);
        must_give_what_is_marked(&o, o.ranks);
    }
    trace_free(&expected);
    unlink(some_file);
    unlink(all_file);
}

/* What cannot be followed is refused in a line, also where it would not fit. */
static void test_marked_wrongly(void **state)
{
    (void)state;
    char index[MADE_NAME], few[MADE_NAME], text[MADE_NAME];
    struct cluster_options o = relu_options(DEVICES_AUTO, -1, "");
    write_index(index, MADE_LAYERS, marked_begin, marked_end);
    write_index(few, MADE_LAYERS - 1, marked_begin, marked_end);
    made_file_of("PWRI\3\0\0\0\377\377\377\377\377\377\377\177", 16, text);
    o.gpu_index = index;
    have(1, PLENTY, 75);
    refused(&o, ST_USAGE, "--sparse dense computes all neurons alike");
    o.sparse = SPARSE_EXACT;
    o.down_at_stage = true;
    refused(&o, ST_USAGE, "--down stage parts them");
    o.down_at_stage = false;
    o.gpu_index = few;
    refused(&o, ST_MISMATCH, "made for another model than ");
    o.gpu_index = model;
    refused(&o, ST_FORMAT, "expected a PowerInfer split file");
    o.gpu_index = text;
    refused(&o, ST_FORMAT, text);
    o.gpu_index = "/nowhere";
    refused(&o, ST_IO, "/nowhere");
    o.gpu_index = index;
    o.vram_budget = 3900 << 10;
    refused(&o, ST_BUDGET, "attention and the neurons of --gpu-index on cuda:0 (stand-in) need ");
    refused(&o, ST_BUDGET, "the budget is 3.8: -ngl ");
    unlink(index);
    unlink(few);
    unlink(text);
}

/* A probe of `ranks` ranks whose GPU reads so fast, over such a PCIe. */
static void write_probe(char path[MADE_NAME], int ranks, const char *gb_per_s, const char *wait_us)
{
    char text[2048];
    size_t n = (size_t)snprintf(text, sizeof text, "{\"hearth_probe\": 1, \"ranks\": [");
    for (int r = 0; r < ranks; r++)
        n += (size_t)snprintf(text + n, sizeof text - n,
            "%s{\"host\": \"h%d\", \"cores\": 1, \"threads\": 1, \"memory_bytes\": 1000000000, \"gb_per_s\": [20], "
            "\"shared_gb_per_s\": 20, \"gpus\": [{\"device\": \"cuda:0\", \"name\": \"x\", \"id\": \"%032d\", "
            "\"memory_bytes\": 100000000, \"read_gb_per_s\": %s, \"up_gb_per_s\": 20, \"down_gb_per_s\": 20, "
            "\"launch_us\": 0.01, \"wait_us\": %s}]}", r ? ", " : "", r, r, gb_per_s, wait_us);
    n += (size_t)snprintf(text + n, sizeof text - n, "], \"sizes\": [1024], \"transports\": [");
    if (ranks == 2)
        n += (size_t)snprintf(text + n, sizeof text - n, "{\"name\": \"mpi\", \"links\": [{\"from\": 0, \"to\": 1, "
            "\"us\": [0.1], \"gb_per_s\": 10}, {\"from\": 1, \"to\": 0, \"us\": [0.1], \"gb_per_s\": 10}]}");
    n += (size_t)snprintf(text + n, sizeof text - n, "]}");
    made_file_of(text, n, path);
}

static char warned[LOG_LINE_MAX];

static void hear_warnings(enum log_kind kind, const char *line)
{
    if (kind == LOG_WARN)
        snprintf(warned, sizeof warned, "%s", line);
}

/* What is asked for is obeyed where it is slower, and it is said what would be faster. */
static void is_obeyed_and_warned_of(struct cluster_options o, const struct trace *expected)
{
    o.gpu_layers = 99;
    warned[0] = '\0';
    stand_in_parts();
    log_redirect(hear_warnings);
    must_equal(expected, &o, &job);
    log_redirect(NULL);
    assert_true(stand_in_parts() > 0);
    assert_non_null(strstr(warned, "this plan is estimated at "));
    assert_non_null(strstr(warned, " with CPUs alone at "));
}

/* By a probe: what gains most, of whole layers or neurons; nothing where it would be slower, unless it is asked for. */
static void test_speeds(void **state)
{
    (void)state;
    char neurons[MADE_NAME], probe[MADE_NAME];
    write_neurons(neurons);
    struct cluster_options o = relu_options(DEVICES_CPU, 0, neurons);
    o.sparse = SPARSE_EXACT;
    struct trace expected = run(&o, &job);
    for (int ranks = 1; ranks <= 2; ranks++) {
        have(2, PLENTY, 75);
        o.ranks = ranks;
        o.probe = probe;
        o.device = DEVICES_AUTO;
        o.gpu_layers = -1;
        for (int budget = 0; budget < 2; budget++) {
            o.vram_budget = budget ? SOME : 0;
            for (int dense = 0; dense < 2; dense++) {
                o.sparse = dense ? SPARSE_DENSE : SPARSE_EXACT;
                write_probe(probe, ranks, "1000", "0.01");
                stand_in_parts();
                must_equal(&expected, &o, &job);
                assert_true(stand_in_parts() > 0);
                unlink(probe);
            }
        }
        o.vram_budget = 0;
        have(1, PLENTY, 75); /* another would not be measured */
        write_probe(probe, ranks, "1000", "0.01");
        o.vram_budget = 1000;
        refused(&o, ST_BUDGET, "the budget is 0.0");
        o.vram_budget = 0;
        unlink(probe);
        write_probe(probe, ranks, "1", "1000");
        for (int budget = 0; budget < 2; budget++) { /* that has room for much */
            o.vram_budget = budget ? SOME : 0;
            must_equal(&expected, &o, &job);
            assert_int_equal(stand_in_parts(), 0);
        }
        o.vram_budget = 0;
        have(2, PLENTY, 75);
        is_obeyed_and_warned_of(o, &expected);
        if (ranks == 1) {
            o.device = DEVICES_CUDA;
            must_equal(&expected, &o, &job);
            assert_true(stand_in_parts() > 0);
        }
        unlink(probe);
    }
    trace_free(&expected);
    unlink(neurons);
}

/* What gains most fills the budget, by a probe or without: a step more would not fit. */
static void budget_is_used(bool measured)
{
    enum { STEP = 1 << 16 };
    char neurons[MADE_NAME], probe[MADE_NAME];
    const struct device_ops *devices[2] = {member_devices[0]};
    struct worker_options w = {.devices = devices, .n_devices = 2, .n_threads = 1, .sparse = SPARSE_EXACT};
    struct cluster_options o = relu_options(DEVICES_AUTO, -1, neurons);
    struct plan_reasons why;
    struct gpus gpus;
    struct model *m;
    struct neurons *n;
    struct plan *p;
    write_neurons(neurons);
    write_probe(probe, 1, "1000", "0.01");
    o.sparse = SPARSE_EXACT;
    o.probe = measured ? probe : NULL;
    o.n_batch = 128; /* work space is much of it */
    have(1, PLENTY, 75);
    gpus_find(o.plugin_dir, &gpus);
    devices[1] = gpus.plugin->ops;
    assert_int_equal(model_of_options(&o, 0, &m, &n, &w.predictor), ST_OK);
    assert_int_equal(plan_of_options(&o, m, n, 1, &p, &why), ST_OK);
    assert_int_equal(kernels_select(o.kernels, &w.kernels), ST_OK);
    w.model = m;
    w.neurons = n;
    w.plan = p;
    assert_int_equal(kv_settle(&o, &w, NULL), ST_OK);
    for (o.vram_budget = 2700000; o.vram_budget < 3300000; o.vram_budget += 50000) { /* all of it takes 3069568 */
        struct wire_gpus offers;
        struct worker_options more = w;
        struct worker_memory need;
        struct plan *trial = plan_copy(p);
        assert_int_equal(offload_offer(&o, &w, 0, &gpus, &why, &offers), ST_OK);
        assert_true(offers.at[0].bytes > 0 || (!measured && offers.at[0].layers == MADE_LAYERS + 1));
        const uint64_t bytes = (offers.at[0].bytes ? offers.at[0].bytes : o.vram_budget) + STEP;
        assert_int_equal(gpu_benefit_give(why.probe, &why.model, trial, 0, "cuda:0", (double)bytes), ST_OK);
        more.plan = trial;
        assert_int_equal(worker_memory(&more, 1, &need), ST_OK);
        assert_true(bytes > o.vram_budget || need.total > o.vram_budget);
        plan_free(trial);
    }
    plan_reasons_free(&why);
    plan_free(p);
    neurons_free(n);
    model_free(m);
    unlink(probe);
    unlink(neurons);
}

static void test_budget_is_used(void **state)
{
    (void)state;
    budget_is_used(true);
    budget_is_used(false);
}

/* Tokens of the KV cache that plans are weighed by, and that there are pages for. */
static void kv_tokens(const struct cluster_options *o, double *weighed, double *pages)
{
    struct worker_options w = {.devices = member_devices, .n_devices = 1, .n_threads = 1};
    struct plan_reasons why;
    struct model *m;
    struct neurons *n;
    struct plan *p;
    assert_int_equal(model_of_options(o, 0, &m, &n, &w.predictor), ST_OK);
    assert_int_equal(plan_of_options(o, m, n, o->ranks, &p, &why), ST_OK);
    assert_int_equal(kernels_select(o->kernels, &w.kernels), ST_OK);
    w.model = m;
    w.neurons = n;
    w.plan = p;
    assert_int_equal(kv_settle(o, &w, NULL), ST_OK);
    *weighed = why.model.kv_held;
    *pages = (double)w.n_pages * WIRE_PAGE;
    plan_reasons_free(&why);
    plan_free(p);
    neurons_free(n);
    model_free(m);
}

/* What GPUs could hold depends on how much of the KV cache there will be: by the texts, or by its budget. */
static void test_kv_budget(void **state)
{
    (void)state;
    struct cluster_options o = options(DEVICES_AUTO, -1);
    double weighed, pages;
    o.n_ctx = 4 * WIRE_PAGE;
    o.n_sequences = 8;
    for (o.ranks = 1; o.ranks <= 2; o.ranks++) {
        o.kv_budget = 0;
        kv_tokens(&o, &weighed, &pages);
        assert_true(weighed == 8.0 * o.n_ctx && weighed == pages);
        const uint64_t token = 4ull * made_quantised.layers * made_quantised.kv_heads * made_quantised.head_dim;
        const uint64_t text = token * o.n_ctx / (uint64_t)o.ranks; /* on each rank */
        for (uint64_t texts = 1; texts <= 9; texts += 2) {
            o.kv_budget = texts * text;
            kv_tokens(&o, &weighed, &pages);
            assert_true(weighed == (double)(texts < 8 ? texts : 8) * o.n_ctx && weighed == pages);
        }
    }
}

static void test_too_small(void **state)
{
    (void)state;
    struct cluster_options o = options(DEVICES_AUTO, 99);
    have(1, SPARE + SOME, 75);
    refused(&o, ST_BUDGET, "5 layers on cuda:0 (stand-in) need ");
    refused(&o, ST_BUDGET, " fits");
    o.gpu_layers = -1;
    o.vram_budget = 1000;
    refused(&o, ST_BUDGET, "1 layers on cuda:0 (stand-in) need ");
    refused(&o, ST_BUDGET, "the budget is 0.0");
}

/* A GPU that nobody can have: auto goes on without, and says nothing. */
static void test_none(void **state)
{
    (void)state;
    struct trace expected = reference(model, &job);
    struct cluster_options o = options(DEVICES_CUDA, -1);
    have(0, PLENTY, 75);
    refused(&o, ST_USAGE, "--device cuda: there is nothing to stand in for");
    have(1, PLENTY, 61);
    refused(&o, ST_USAGE, "--device cuda: cuda:0 is of capability 61");
    have(1, PLENTY, 75);
    o.plugin_dir = "/nowhere";
    refused(&o, ST_USAGE, "libhearth_cuda.so, is not there: expected in /nowhere");
    o.device = DEVICES_AUTO;
    must_equal(&expected, &o, &job);
    o.plugin_dir = STAND_IN_GPU;
    o.ranks = 2; /* of which the second finds the only GPU taken */
    stand_in_parts();
    must_equal(&expected, &o, &job);
    assert_true(stand_in_parts() > 0);
    o.device = DEVICES_CUDA;
    refused(&o, ST_USAGE, "every GPU of rank 1 is another rank's on the same host");
    trace_free(&expected);
}

/* A plug-in of another build is never used, be it of the same release. */
static void test_other_build(void **state)
{
    (void)state;
    static const char *const says[] = {
        "libhearth_cuda.so is of another hearth than this program (layout ",
        "libhearth_cuda.so is of hearth 9.9.9, this is " HEARTH_VERSION ": install both of one release",
        "libhearth_cuda.so was built from other files than this program (0123456789abcdef, expected ",
    };
    struct trace expected = reference(model, &job);
    have(1, PLENTY, 75);
    for (int i = 0; i < 3; i++) {
        struct cluster_options o = options(DEVICES_CUDA, -1);
        setenv("STAND_IN_OTHER", (const char[]){(char)('1' + i), '\0'}, 1);
        refused(&o, ST_USAGE, says[i]);
        o.device = DEVICES_AUTO;
        stand_in_parts();
        must_equal(&expected, &o, &job);
        assert_int_equal(stand_in_parts(), 0);
    }
    unsetenv("STAND_IN_OTHER");
    trace_free(&expected);
}

static void write_plan(char path[MADE_NAME], const char *holders)
{
    char text[1024];
    const int n = snprintf(text, sizeof text,
        "{\"hearth_plan\": 2, \"model\": {\"architecture\": \"llama\", \"layers\": 4}, \"ranks\": 2, \"holders\": "
        "[{\"rank\": 0, \"device\": \"cpu\"}, {\"rank\": 1, \"device\": \"cpu\"}, %s], \"layers\": [{\"from\": 0, "
        "\"to\": 4, \"stage\": 0, \"d_ff\": 672, \"kv_heads\": 2, \"heads\": [0, 0, 0, 1, 2], \"sets\": [{\"holder\": "
        "2, \"neurons\": [[0, 256]]}, {\"holder\": 3, \"neurons\": [[256, 672]]}]}]}", holders);
    made_file_of(text, (size_t)n, path);
}

/* A plan may give one GPU to two ranks where it is large enough for both. */
static void test_planned(void **state)
{
    (void)state;
    char plan[MADE_NAME];
    struct trace expected = reference(model, &job);
    struct cluster_options o = options(DEVICES_AUTO, -1);
    write_plan(plan, "{\"rank\": 0, \"device\": \"cuda:0\"}, {\"rank\": 1, \"device\": \"cuda:0\"}");
    o.plan = plan;
    o.ranks = 2;
    have(1, PLENTY, 75);
    must_equal(&expected, &o, &job);
    have(1, 3 << 20, 75);
    refused(&o, ST_BUDGET, "MiB for all ranks that the plan gives it to");
    have(1, 1 << 10, 75);
    refused(&o, ST_BUDGET, "cuda:0 of rank 0 (stand-in) needs ");
    unlink(plan);
    write_plan(plan, "{\"rank\": 0, \"device\": \"cuda:0\"}, {\"rank\": 1, \"device\": \"cuda:1\"}");
    have(1, PLENTY, 75);
    refused(&o, ST_MISMATCH,
            "rank 1: the plan's holders[3] is cuda:1 of rank 1, which has no such device: it has other GPUs");
    have(2, PLENTY, 75);
    must_equal(&expected, &o, &job);
    o.device = DEVICES_CPU;
    refused(&o, ST_USAGE, "--device cpu: the plan's holders[2] is cuda:0 of rank 0: leave out --device");
    unlink(plan);
    write_plan(plan, "{\"rank\": 0, \"device\": \"cpu:1\"}, {\"rank\": 1, \"device\": \"cpu:1\"}");
    must_equal(&expected, &o, &job);
    o.device = DEVICES_CUDA;
    refused(&o, ST_USAGE, "--device cuda: the plan gives no GPU anything");
    unlink(plan);
    trace_free(&expected);
}

/* What the devices of all ranks have read for some tokens, in turn; checked: each was busy, and waited for no
 * longer. */
static uint64_t spent_bytes(struct cluster *c, uint64_t bytes[2][2])
{
    struct wire_usage sum, before[2], after[2];
    uint64_t all = 0;
    int32_t next = 1;
    session_reset_counts(cluster_session(c));
    assert_int_equal(session_usage(cluster_session(c), &sum, before), ST_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(dialogue_next(cluster_dialogue(c), next, &next), ST_OK);
    assert_int_equal(session_usage(cluster_session(c), &sum, after), ST_OK);
    for (int r = 0; r < cluster_ranks(c); r++) {
        for (uint32_t i = 0; i < after[r].n_devices; i++) {
            const struct wire_device *b = &before[r].devices[i], *a = &after[r].devices[i];
            bytes[r][i] = a->bytes - b->bytes;
            assert_int_equal(bytes[r][i] > 0, a->busy_ns > b->busy_ns);
            assert_true(a->wait_ns - b->wait_ns <= a->busy_ns - b->busy_ns);
            all += bytes[r][i];
        }
    }
    return all;
}

/* Of every device it is known what it read: together as much as the session has counted. */
static void test_spent(void **state)
{
    (void)state;
    static const int layers[] = {0, 2, 99}; /* of 4 */
    have(2, PLENTY, 75);
    for (int ranks = 1; ranks <= 2; ranks++) {
        for (int residual = 0; residual < 2; residual++) {
            for (int i = 0; i < 3; i++) {
                struct cluster_options o = options(DEVICES_AUTO, layers[i]);
                o.ranks = ranks;
                o.residual = residual;
                struct cluster *c = start(&o);
                uint64_t bytes[2][2] = {{0}};
                const uint64_t all = spent_bytes(c, bytes);
                assert_int_equal(all, session_counts(cluster_session(c)).bytes);
                for (int r = 0; r < ranks; r++) {
                    assert_int_equal(bytes[r][0] > 0, layers[i] < 99);
                    assert_int_equal(bytes[r][1] > 0, layers[i] > 0);
                }
                cluster_stop(c);
            }
        }
    }
}

/* A row of hearth bench for a device: as it must be, its peak known or not. */
static double bench_row(const json_t *rows, size_t i, int rank, const char *device, double peak)
{
    const json_t *row = json_array_get(rows, i);
    assert_int_equal(json_integer_value(json_object_get(row, "rank")), rank);
    assert_string_equal(json_string_value(json_object_get(row, "device")), device);
    assert_true(json_number_value(json_object_get(row, "peak_read_gb_per_s")) == peak); /* null: 0 */
    assert_int_equal(json_is_null(json_object_get(row, "share_of_peak")), peak == 0);
    assert_true(json_number_value(json_object_get(row, "busy_ms")) > 0);
    assert_true(json_number_value(json_object_get(row, "share_of_wait")) >= 0);
    return json_number_value(json_object_get(row, "bytes_per_token"));
}

/* A probe of two ranks, each of which has these GPUs. */
static struct probe *probe_of_both(const struct probe_rank *gpus)
{
    struct probe *p;
    assert_int_equal(probe_create(2, 0, &p), ST_OK);
    p->ranks[0] = p->ranks[1] = *gpus;
    return p;
}

/* hearth bench has a row for each device, with the peak of that one. Of GPUs of other processes it knows none, unless a
 * probe does. */
static void test_bench(void **state)
{
    (void)state;
    struct probe_rank gpus;
    struct gpus found;
    have(2, PLENTY, 75);
    gpus_find(STAND_IN_GPU, &found);
    gpus_measure(&found, &gpus);
    struct probe *probe = probe_of_both(&gpus);
    for (int i = 0; i < 3; i++) {
        const struct device_peaks peaks = {.cpu = 7, .measured = &gpus, .own_only = i > 0,
                                           .probe = i > 1 ? probe : NULL};
        const bool unknown = i == 1;
        struct cluster_options o = options(DEVICES_AUTO, 2);
        o.ranks = 2;
        struct cluster *c = start(&o);
        struct test t = {.name = "tg4", .n = 4, .sequences = 1, .threads = 1};
        struct progress p = {0};
        assert_int_equal(test_measure(c, &t, 2, &p), ST_OK);
        const double elapsed_s = t.time.compute_s + t.time.wire_s + t.time.wait_s;
        json_t *rows = devices_json(&t.devices, &peaks, 2 * 4, elapsed_s);
        assert_int_equal(json_array_size(rows), 4);
        const double bytes = bench_row(rows, 0, 0, "cpu", 7) + bench_row(rows, 1, 0, "cuda:0", 1000) +
                             bench_row(rows, 2, 1, "cpu", 7) +
                             bench_row(rows, 3, 1, "cuda:1", unknown ? 0 : 1001);
        assert_true(devices_peak(&t.devices, &peaks) == (unknown ? 0 : 7 + 1000 + 7 + 1001));
        assert_true(bytes > t.bytes_per_token - 4 && bytes < t.bytes_per_token + 4); /* rounded */
        json_decref(rows);
        cluster_stop(c);
    }
    probe_free(probe);
}

static void measured(int expected, const char *first, double read_gb_per_s)
{
    struct probe_rank r = {.n_gpus = -1};
    struct gpus gpus;
    gpus_find(STAND_IN_GPU, &gpus);
    gpus_measure(&gpus, &r);
    assert_int_equal(r.n_gpus, expected);
    if (expected) {
        assert_string_equal(r.gpus[0].device, first);
        assert_string_equal(r.gpus[0].name, "stand-in");
        assert_true(r.gpus[0].read_gb_per_s == read_gb_per_s && r.gpus[0].memory_bytes == PLENTY);
        assert_true(r.gpus[0].down_gb_per_s == 20 && r.gpus[0].launch_us == 1.5 && r.gpus[0].wait_us == 10);
    }
}

/* Each GPU by itself; one that cannot be measured is left out, and so are all that are too old. */
static void test_measured(void **state)
{
    (void)state;
    have(2, PLENTY, 75);
    measured(2, "cuda:0", 1000);
    setenv("STAND_IN_BROKEN", "1", 1);
    measured(1, "cuda:1", 1001);
    unsetenv("STAND_IN_BROKEN");
    have(1, PLENTY, 61);
    measured(0, NULL, 0);
    have(0, PLENTY, 75);
    measured(0, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers), cmocka_unit_test(test_budget),    cmocka_unit_test(test_hot),
        cmocka_unit_test(test_none),   cmocka_unit_test(test_too_small), cmocka_unit_test(test_planned),
        cmocka_unit_test(test_speeds), cmocka_unit_test(test_measured),  cmocka_unit_test(test_spent),
        cmocka_unit_test(test_marked), cmocka_unit_test(test_marked_wrongly), cmocka_unit_test(test_bench),
        cmocka_unit_test(test_other_build), cmocka_unit_test(test_budget_is_used), cmocka_unit_test(test_kv_budget),
    };
    made_model_write(&made_quantised, model);
    fill_prompt(prompt, PROMPT);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(model);
    return failed;
}
