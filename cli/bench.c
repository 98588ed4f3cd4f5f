/* hearth bench: tokens per second of prompts and of decoding, of one text or of several at once, beside the memory
 * bandwidth that bounds decoding. Of lists of lengths, of threads and of numbers of texts each makes a test. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "cli/bench_test.h"
#include "cli/command.h"
#include "cli/options.h"
#include "node/gpus_measure.h"
#include "node/planning.h"
#include "placement/measure/bandwidth.h"
#include "wire/runs.h"

enum { RUNS_MAX = 1000, KEY_SEQUENCES = 256 };

struct bench {
    struct cluster_options cluster;
    enum table_format format;
    struct number_list n_prompt, n_decode, threads, sequences;
    int64_t runs, depth;
    /* while it runs */
    struct progress progress;
    struct test *tests;
    int n_tests;
    struct probe_rank gpus; /* of this process, measured before the first test, */
    struct probe *probe;    /* unless it is this that knows them, of all ranks */
    int ranks;
    char transport[16], devices[128];
};

static const struct argp_option options[] = {
    {"n-prompt", 'p', "N", 0, "tokens of the prompt tests, as in 128,512; 0: none (default 512)", 0},
    {"n-gen", 'n', "N", 0, "tokens of the decoding tests; 0: none (default 128)", 0},
    {"n-depth", 'd', "N", 0, "tokens that are in the KV cache already when a test begins (default 0)", 0},
    {"sequences", KEY_SEQUENCES, "N", 0, "texts that decode at once, as in 1,8,32 (default 1)", 0},
    {"ctx-size", 'c', "N", 0, "context of each text in tokens (default: what the tests need)", 0},
    {"repetitions", 'r', "N", 0, "how often each test runs (default 5)", 0},
    {0},
};

static int64_t largest(const struct number_list *l)
{
    int64_t most = 0;
    for (int i = 0; i < l->n; i++)
        most = l->at[i] > most ? l->at[i] : most;
    return most;
}

/* Of a test; without those before it. */
static int64_t most_tokens(const struct bench *b)
{
    const int64_t prompt = largest(&b->n_prompt), decode = largest(&b->n_decode);
    return prompt > decode ? prompt : decode;
}

static int64_t longest_text(const struct bench *b) { return b->depth + most_tokens(b); }

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct bench *b = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &b->cluster;
        state->child_inputs[1] = &b->format;
        return 0;
    case 'p':
        return option_list(state, "-p", arg, 0, 1 << 20, &b->n_prompt);
    case 'n':
        return option_list(state, "-n", arg, 0, 1 << 20, &b->n_decode);
    case KEY_SEQUENCES:
        return option_list(state, "--sequences", arg, 1, WIRE_SEQUENCES, &b->sequences);
    case 'c':
        return option_context(state, arg, 1, &b->cluster);
    case 'd':
        return option_int(state, "-d", arg, 0, 1 << 20, &b->depth);
    case 'r':
        return option_int(state, "-r", arg, 1, RUNS_MAX, &b->runs);
    case ARGP_KEY_END:
        if (most_tokens(b) == 0)
            return option_wrong(state, "-p 0 -n 0 leaves nothing to measure");
        if (b->cluster.n_ctx && longest_text(b) > b->cluster.n_ctx)
            return option_wrong(state, "a test of %lld tokens does not fit into the context of %u (-c sets it)",
                                (long long)longest_text(b), b->cluster.n_ctx);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static json_t *row_of(const struct bench *b, const struct test *t, double peak)
{
    const double tokens = (double)b->runs * (double)t->n * t->sequences;
    json_t *known = peak > 0 ? json_real(peak) : json_null();
    return json_pack("{ss sI si sf sf sf sI si si ss ss ss sf sf sf sf sI sf sI sf so}", "test", t->name, "depth",
                     (json_int_t)t->depth, "sequences", (int)t->sequences, "tokens_per_s", t->mean,
                     "sequence_tokens_per_s", t->mean / t->sequences, "stddev", t->stddev, "kv_bytes",
                     (json_int_t)t->kv_bytes, "threads", t->threads, "ranks", b->ranks, "transport", b->transport,
                     "device", b->devices, "sparse", sparse_mode_name(b->cluster.sparse), "live", t->live, "compute_ms",
                     t->time.compute_s * 1e3 / tokens, "wire_ms", t->time.wire_s * 1e3 / tokens, "wait_ms",
                     t->time.wait_s * 1e3 / tokens, "sent_bytes_per_token",
                     (json_int_t)llround(t->sent_bytes / tokens), "messages_per_token", t->messages / tokens,
                     "bytes_per_token", (json_int_t)llround(t->bytes_per_token), "read_gb_per_s",
                     t->mean * t->bytes_per_token / 1e9, "peak_read_gb_per_s", known);
}

/* What each device did in a test. */
static json_t *devices_of(const struct bench *b, const struct test *t, const struct device_peaks *peaks)
{
    const double elapsed_s = t->time.compute_s + t->time.wire_s + t->time.wait_s;
    return devices_json(&t->devices, peaks, (double)b->runs * (double)t->n * t->sequences, elapsed_s);
}

/* Of JSON a row has its devices. People get a table of their own for them, unless it is a CPU alone. */
static status add_rows(const struct bench *b, const struct test *t, int local_ranks, json_t *rows, json_t *devices)
{
    const struct device_peaks peaks = {.cpu = t->peak / (b->cluster.ranks * local_ranks), .probe = b->probe,
                                       .measured = &b->gpus, .own_only = b->cluster.mpi};
    json_t *row = row_of(b, t, devices_peak(&t->devices, &peaks)), *of = devices_of(b, t, &peaks), *v;
    size_t i;
    int failed = json_array_append_new(rows, row) || !of;
    json_array_foreach(of, i, v) {
        json_t *named = json_pack("{ss sI si si}", "test", t->name, "depth", (json_int_t)t->depth, "sequences",
                                  (int)t->sequences, "threads", t->threads);
        failed |= json_object_update(named, v);
        failed |= json_array_append_new(devices, named);
    }
    if (!failed && b->format == TABLE_JSON)
        failed = json_object_set(row, "devices", of);
    json_decref(of);
    if (!failed)
        return ST_OK;
    log_error("no memory for the table");
    return ST_NOMEM;
}

static bool cpu_alone(const struct bench *b)
{
    bool alone = true;
    for (int i = 0; i < b->n_tests; i++) {
        const struct test_devices *d = &b->tests[i].devices;
        alone &= d->n == 1 && strcmp(d->at[0].device, "cpu") == 0;
    }
    return alone;
}

static status print_rows(const struct bench *b, int local_ranks)
{
    json_t *rows = json_array(), *devices = json_array();
    status st = ST_OK;
    for (int i = 0; i < b->n_tests && st == ST_OK; i++)
        st = add_rows(b, &b->tests[i], local_ranks, rows, devices);
    if (st == ST_OK)
        st = table_print(stdout, rows, b->format);
    if (st == ST_OK && b->format == TABLE_MD && !cpu_alone(b)) {
        putchar('\n');
        st = table_print(stdout, devices, b->format);
    }
    json_decref(rows);
    json_decref(devices);
    return st;
}

/* The tests of one kind, one after the other. */
static status measure_lengths(struct bench *b, struct cluster *c, bool prompt, const struct number_list *lengths,
                              uint32_t sequences)
{
    status st = ST_OK;
    for (int i = 0; i < lengths->n && st == ST_OK; i++) {
        struct test *t = &b->tests[b->n_tests];
        if (lengths->at[i] == 0)
            continue;
        *t = (struct test){.prompt = prompt, .n = (size_t)lengths->at[i], .depth = (size_t)b->depth,
                           .sequences = sequences, .threads = b->cluster.threads};
        snprintf(t->name, sizeof t->name, "%s%zu", prompt ? "pp" : "tg", t->n);
        st = test_measure(c, t, b->runs, &b->progress);
        b->n_tests++;
    }
    return st;
}

static status measure_sequences(struct bench *b, struct cluster *c)
{
    status st = ST_OK;
    for (int i = 0; i < b->sequences.n && st == ST_OK; i++)
        st = measure_lengths(b, c, false, &b->n_decode, (uint32_t)b->sequences.at[i]);
    return st;
}

/* Before weights are in their memory. */
static void measure_gpus(struct bench *b)
{
    struct gpus gpus;
    if (b->n_tests > 0 || b->cluster.probe || !plan_may_use_gpus(&b->cluster))
        return;
    gpus_find(b->cluster.plugin_dir, &gpus);
    gpus_measure(&gpus, &b->gpus);
}

/* All tests with so many threads. On ranks > 0 it serves. */
static status measure_all(struct bench *b, const struct launch *launch, int threads)
{
    struct cluster *c = NULL;
    b->cluster.threads = threads;
    status st = options_settle(&b->cluster, launch, &b->progress);
    if (st == ST_OK && launch->rank == 0)
        measure_gpus(b);
    if (st == ST_OK)
        st = cluster_start(&b->cluster, &c);
    if (st != ST_OK || !c)
        return st;
    b->ranks = cluster_ranks(c);
    snprintf(b->transport, sizeof b->transport, "%s", cluster_transport(c));
    snprintf(b->devices, sizeof b->devices, "%s", cluster_devices(c));
    if (b->n_tests == 0)
        plan_context_warn(cluster_model(c), cluster_context(c));
    st = measure_lengths(b, c, true, &b->n_prompt, 1);
    if (st == ST_OK)
        st = measure_sequences(b, c);
    cluster_stop(c);
    return st;
}

/* The ranks' waiting would disturb it: the memory is measured when they are gone. */
static status measure_memory(struct bench *b, int local_ranks)
{
    status st = ST_OK;
    for (int i = 0; i < b->n_tests && st == ST_OK; i++) {
        struct test *t = &b->tests[i];
        if (i > 0 && t->threads == t[-1].threads)
            t->peak = t[-1].peak;
        else
            st = bandwidth_read_peak(t->threads * b->cluster.ranks * local_ranks, &t->peak);
    }
    return st;
}

status command_bench(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_cluster, 0, NULL, 0}, {&argp_output, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children,
        .doc = "Measure tokens per second, of a prompt until a token follows it (pp) and of decoding (tg), and how "
               "fast that reads the weights beside how fast the devices that compute can read their memory, all "
               "together (CPUs: this machine's, by as many threads). With several ranks: how a token's time splits "
               "into computing, messages (wire) and waiting for a rank that computes longer, and what all ranks send "
               "for it. --sequences decodes several texts at once: tokens_per_s is what all of them get together. -o "
               "json says of every device of every rank, and a second table unless that is one CPU, what it read for a "
               "token and how fast while it was busy, beside the most that it can read, and for which share of the "
               "time its rank waited for it (for a CPU: computed). Lists, as in -t 1,2 -p 128,512, give a row for "
               "each."};
    struct bench b = {.cluster = cluster_defaults, .n_prompt = {{512}, 1}, .n_decode = {{128}, 1},
                      .threads = {{0}, 1}, .sequences = {{1}, 1}, .runs = 5};
    b.cluster.thread_list = &b.threads;
    status st = options_parse(&argp, launch, argc, argv, &b);
    if (st != ST_OK)
        return st;
    if (b.cluster.n_ctx == 0)
        b.cluster.n_ctx = (uint32_t)longest_text(&b);
    b.cluster.n_sequences = (uint32_t)largest(&b.sequences);
    b.tests = calloc((size_t)(b.threads.n * (b.n_prompt.n + b.n_decode.n * b.sequences.n)), sizeof *b.tests);
    if (!b.tests) {
        log_error("no memory for so many tests");
        st = ST_NOMEM;
    }
    for (int i = 0; i < b.threads.n && st == ST_OK; i++)
        st = measure_all(&b, launch, (int)b.threads.at[i]);
    if (st == ST_OK && b.n_tests > 0)
        st = measure_memory(&b, launch->local_ranks);
    if (st == ST_OK && b.n_tests > 0 && b.cluster.probe)
        st = probe_load(b.cluster.probe, &b.probe);
    if (st == ST_OK && b.n_tests > 0)
        st = print_rows(&b, launch->local_ranks);
    probe_free(b.probe);
    free(b.tests);
    return st;
}
