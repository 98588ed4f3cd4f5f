/* hearth probe: measures every link between ranks, every host's memory and its GPUs, for planning. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/whole_file.h"
#include "cli/command.h"
#include "cli/end_job.h"
#include "cli/options.h"
#include "node/gpus_measure.h"
#include "node/topology.h"
#include "placement/cost.h"
#include "placement/measure/ranks.h"

enum { KEY_PLUGIN_DIR = 256 };

struct probing {
    const char *model, *file, *plugin_dir;
    enum table_format format;
    bool quiet;
    int64_t n_batch, threads;
    struct network_options network;
};

static const struct argp_option options[] = {
    {"model", 'm', "FILE", 0,
     "measure messages of the sizes that this model will send (default: 1, 8, 48 KB and 1 MB)", 0},
    {"batch-size", 'b', "N", 0, "prompt tokens that will run together (default 256)", 0},
    {"threads", 't', "N", 0, "threads of each rank, as it will run (default: the cores that it may use)", 0},
    {"file", 'f', "FILE", 0, "write what was measured to FILE (default hearth-probe.json)", 0},
    {"plugin-dir", KEY_PLUGIN_DIR, "DIR", 0,
     "folder of libhearth_cuda.so (default: the program's, or ../lib/hearth beside it)", 0},
    {"quiet", 'q', NULL, 0, "no progress", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct probing *p = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &p->format;
        state->child_inputs[1] = &p->network;
        return 0;
    case 'm':
        p->model = arg;
        return 0;
    case 'b':
        return option_int(state, "-b", arg, 1, 4096, &p->n_batch);
    case 't':
        return option_int(state, "-t", arg, 1, PROBE_MAX_CORES, &p->threads);
    case 'f':
        p->file = arg;
        return 0;
    case KEY_PLUGIN_DIR:
        p->plugin_dir = arg;
        return 0;
    case 'q':
        p->quiet = true;
        return 0;
    case ARGP_KEY_ARG:
        return option_model(state, arg, &p->model);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- sizes ---- */

/* Keeps them ascending and apart; what is larger than `most` tells no more than `most` does. */
static void add_size(struct probe_options *o, int64_t bytes)
{
    const int64_t most = 4 << 20;
    int at = o->n_sizes;
    bytes = bytes > most ? most : bytes;
    for (int i = 0; i < o->n_sizes; i++)
        if (o->sizes[i] == bytes)
            return;
    for (; at > 0 && o->sizes[at - 1] > bytes; at--)
        o->sizes[at] = o->sizes[at - 1];
    o->sizes[at] = bytes;
    o->n_sizes++;
}

/* x and partial sums, of a token and of a batch of a prompt. */
static status find_sizes(const struct probing *p, struct probe_options *o)
{
    static const int64_t usual[] = {1 << 10, 8 << 10, 48 << 10, 1 << 20};
    const int64_t tokens[] = {1, p->n_batch};
    struct model *m;
    if (!p->model) {
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
            add_size(o, usual[i]);
        return ST_OK;
    }
    status st = model_load(p->model, &m);
    if (st != ST_OK)
        return st;
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        add_size(o, tokens[i] * cost_x_bytes(m));
        add_size(o, tokens[i] * cost_sum_bytes(m));
    }
    model_free(m);
    return ST_OK;
}

/* ---- results ---- */

static status append(json_t *rows, json_t *row)
{
    if (json_array_append_new(rows, row) == 0)
        return ST_OK;
    log_error("no memory for the table");
    return ST_NOMEM;
}

/* A column for each number of threads would differ between ranks: one thread, and all. */
static status print_ranks(const struct probe *p, enum table_format format)
{
    json_t *rows = json_array();
    status st = ST_OK;
    for (int r = 0; r < p->n_ranks && st == ST_OK; r++) {
        const struct probe_rank *k = &p->ranks[r];
        char boot[9]; /* enough to tell machines apart that have one name */
        snprintf(boot, sizeof boot, "%.8s", k->boot_id);
        st = append(rows, json_pack("{si ss ss si sf si sf sf sf}", "rank", r, "host", k->host, "boot_id", boot,
                                    "cores", k->cores, "memory_gib", (double)k->memory_bytes / (1 << 30), "threads",
                                    k->threads, "one_thread_gb_per_s", k->curve[0], "read_gb_per_s",
                                    k->curve[k->n_curve - 1], "shared_gb_per_s", k->shared_gb_per_s));
    }
    if (st == ST_OK)
        st = table_print(stdout, rows, format);
    json_decref(rows);
    return st;
}

static status print_gpus(const struct probe *p, enum table_format format)
{
    json_t *rows = json_array();
    status st = ST_OK;
    for (int r = 0; r < p->n_ranks && st == ST_OK; r++)
        for (int i = 0; i < p->ranks[r].n_gpus && st == ST_OK; i++) {
            const struct probe_gpu *g = &p->ranks[r].gpus[i];
            st = append(rows, json_pack("{si ss ss sf sf sf sf sf sf}", "rank", r, "device", g->device, "name", g->name,
                                        "free_gib", (double)g->memory_bytes / (1 << 30), "read_gb_per_s",
                                        g->read_gb_per_s, "up_gb_per_s", g->up_gb_per_s, "down_gb_per_s",
                                        g->down_gb_per_s, "launch_us", g->launch_us, "wait_us", g->wait_us));
        }
    if (st == ST_OK && json_array_size(rows) > 0) {
        putchar('\n');
        st = table_print(stdout, rows, format);
    }
    json_decref(rows);
    return st;
}

static status print_links(const struct probe *p, enum table_format format)
{
    json_t *rows = json_array();
    status st = ST_OK;
    for (int i = 0; i < p->n_transports * p->n_ranks * p->n_ranks && st == ST_OK; i++) {
        const struct probe_transport *t = &p->transports[i / (p->n_ranks * p->n_ranks)];
        const int pair = i % (p->n_ranks * p->n_ranks), from = pair / p->n_ranks, to = pair % p->n_ranks;
        if (from == to)
            continue;
        json_t *row = json_pack("{ss si si}", "transport", t->name, "from", from, "to", to);
        for (int s = 0; s < p->n_sizes; s++) {
            char name[32];
            snprintf(name, sizeof name, "us_of_%lld", (long long)p->sizes[s]);
            json_object_set_new(row, name, json_real(t->links[pair].us[s]));
        }
        json_object_set_new(row, "gb_per_s", json_real(t->links[pair].gb_per_s));
        st = append(rows, row);
    }
    if (st == ST_OK)
        st = table_print(stdout, rows, format);
    json_decref(rows);
    return st;
}

static status report(const struct probing *o, const struct probe *p)
{
    char *text = probe_format(p);
    if (!text) {
        log_error("no memory for the probe's text");
        return ST_NOMEM;
    }
    status st = whole_file_write(o->file, text, strlen(text));
    if (st == ST_OK && o->format == TABLE_JSON) {
        fputs(text, stdout);
    } else if (st == ST_OK) {
        st = print_ranks(p, o->format);
        st = st ? st : print_gpus(p, o->format);
        if (st == ST_OK && p->n_transports > 0) {
            putchar('\n');
            st = print_links(p, o->format);
        }
    }
    if (st == ST_OK && !o->quiet)
        log_info("%s: hearth plan, run, chat and bench take it with --probe", o->file);
    free(text);
    return st;
}

/* Looked for when it is this rank's turn; nothing of them is on the GPU before. */
static void measure_gpus(struct probe_rank *r, void *arg)
{
    const struct probing *p = arg;
    struct gpus gpus;
    gpus_find(p->plugin_dir, &gpus);
    gpus_measure(&gpus, r);
}

static int cores_here(void)
{
    struct topology *t;
    if (topology_open(NULL, &t) != ST_OK)
        return 1;
    int cores = topology_cores(t);
    topology_close(t);
    return cores;
}

status command_probe(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_output, 0, NULL, 0}, {&argp_network, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children, .args_doc = "[MODEL]",
        .doc = "Measure how long messages take between every two ranks and how fast every host reads its memory, and "
               "what its GPUs can do, and write that to a file which --probe of other commands reads. All else should "
               "be quiet meanwhile.\v"
               "Example: mpirun -np 2 --hostfile hosts --bind-to none hearth probe -m model.gguf"};
    struct probing p = {.file = "hearth-probe.json", .n_batch = 256};
    struct probe_options o = {0};
    struct progress progress;
    struct probe *probe = NULL;
    status st = options_parse(&argp, launch, argc, argv, &p);
    if (st == ST_OK)
        st = launch_meet(launch);
    if (st != ST_OK)
        return st;
    progress_init(&progress, p.quiet || launch->rank > 0);
    o.mpi = launch->mpi;
    o.end_job = end_job;
    o.measure_gpus = measure_gpus;
    o.gpus_arg = &p;
    o.progress = progress_update;
    o.progress_arg = &progress;
    o.network = p.network;
    o.threads = (int)p.threads;
    o.cores = cores_here();
    topology_settle(launch, 1, &o.threads);
    status ready = launch->rank == 0 ? find_sizes(&p, &o) : ST_OK;
    st = probe_ranks(&o, ready == ST_OK, &probe);
    st = ready != ST_OK ? ready : st;
    if (st == ST_OK && probe)
        st = report(&p, probe);
    probe_free(probe);
    return st;
}
