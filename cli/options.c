#include "cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "cli/end_job.h"
#include "cli/habits.h"
#include "node/planning.h"
#include "node/topology.h"
#include "placement/plan.h"

enum key { KEY_PLAN = 256, KEY_SPLIT, KEY_SHARES, KEY_RANKS, KEY_PROBE, KEY_RAM_BUDGET, KEY_KV_BUDGET, KEY_NO_VERIFY,
           KEY_KERNELS, KEY_SPARSE, KEY_PREDICTOR, KEY_SKIP, KEY_ACTIVATION, KEY_NEURONS, KEY_DOWN, KEY_RESIDUAL,
           KEY_SUMS, KEY_TRANSPORT, KEY_RDMA_DEVICE, KEY_RDMA_GID, KEY_RDMA_MTU, KEY_RDMA_SL, KEY_NO_ESCAPE,
           KEY_DEVICE, KEY_VRAM_BUDGET, KEY_PLUGIN_DIR, KEY_GPU_LAYERS, KEY_GPU_INDEX };

const struct cluster_options cluster_defaults = {.split = -1, .residual = -1, .ranks = 1, .n_batch = 256,
                                                  .device = DEVICES_AUTO, .gpu_layers = -1};

/* ---- --transport and how RDMA is used ---- */

static const struct argp_option network_options[] = {
    {NULL, 0, NULL, 0, "Network:", 5},
    {"transport", KEY_TRANSPORT, "NAME", 0,
     "under mpirun: verbs (RDMA: InfiniBand, RoCE), mpi, or auto: verbs if every rank can, else mpi (default)", 5},
    {"rdma-device", KEY_RDMA_DEVICE, "NAME[:PORT]", 0, "RDMA device, e.g. mlx5_0 (default: the first that can be used)",
     5},
    {"rdma-gid", KEY_RDMA_GID, "GID", 0,
     "RoCE: index of the GID, or its kind: ipv4, ipv6, local (default: the first of these; RoCE v2 before v1)", 5},
    {"rdma-mtu", KEY_RDMA_MTU, "BYTES", 0, "RDMA packets, 256 to 4096 (default: what the port has)", 5},
    {"rdma-sl", KEY_RDMA_SL, "LEVEL", 0, "RDMA service level, 0 to 15 (default 0)", 5},
    {0},
};

static error_t parse_network(int key, char *arg, struct argp_state *state)
{
    struct network_options *o = state->input;
    int64_t v = 0;
    error_t e = 0;
    switch (key) {
    case KEY_TRANSPORT:
        if (!network_kind_of(arg, &o->kind))
            return option_wrong(state, "--transport takes auto, mpi or verbs, not '%s'", arg);
        break;
    case KEY_RDMA_DEVICE:
        o->verbs.device = arg;
        break;
    case KEY_RDMA_GID:
        o->verbs.gid = arg;
        break;
    case KEY_RDMA_MTU:
        e = option_int(state, "--rdma-mtu", arg, 256, 4096, &v);
        o->verbs.mtu = (int)v;
        break;
    case KEY_RDMA_SL:
        e = option_int(state, "--rdma-sl", arg, 0, 15, &v);
        o->verbs.service_level = (int)v;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return e;
}

const struct argp argp_network = {.options = network_options, .parser = parse_network};

/* ---- -m and what else makes a cluster ---- */

static const struct argp_option cluster_options[] = {
    {"model", 'm', "FILE", 0, "model file (GGUF; of a split model its first part)", 1},
    {"threads", 't', "N", 0, "threads of each rank (default: the cores that it may use)", 1},
    {"batch-size", 'b', "N", 0, "prompt tokens that run together (default 256)", 1},
    {"kernels", KEY_KERNELS, "NAME", 0, "scalar, avx2 or avx512 (default: the fastest here)", 1},
    {"quiet", 'q', NULL, 0, "no progress and no closing line", 1},
    {NULL, 0, NULL, 0, "Neurons:", 2},
    {"sparse", KEY_SPARSE, "MODE", 0,
     "dense: all neurons (default); exact: those that fire, with the same result (ReLU models); predicted: those that "
     "a predictor expects to fire (ReLU models); threshold: the strong ones (SiLU models). The last two are lossy and "
     "need `hearth prepare`", 2},
    {"predictor", KEY_PREDICTOR, "NAME", 0, "mlp or planes (default: mlp if there is one)", 2},
    {"skip", KEY_SKIP, "SHARE", 0, "share of neurons that threshold skips, 0.1 to 0.9 (default: the neuron file's)", 2},
    {"activation", KEY_ACTIVATION, "NAME", 0,
     "silu, relu, relu2 or drelu (default: what the neuron file or the model says)", 2},
    {"neurons", KEY_NEURONS, "FILE", 0,
     "neuron file (default: MODEL.neurons.gguf beside the model, if it is there)", 2},
    {NULL, 0, NULL, 0, "GPUs:", 3},
    {"device", KEY_DEVICE, "NAME", 0,
     "auto: the GPU of each rank that has one, and its CPU for what does not fit (default); cuda: refuse to start "
     "without a GPU; cpu: no GPU", 3},
    {"gpu-layers", KEY_GPU_LAYERS, "N", 0,
     "also -ngl: give the GPU of each rank the first N of its layers, and the output matrix if N is more than there "
     "are (default: as many as fit; 0: none)", 3},
    {"gpu-index", KEY_GPU_INDEX, "FILE", 0,
     "give the GPU of each rank the neurons that PowerInfer's solver put there (MODEL.generated.gpuidx), in units of "
     "128, and all but neurons (needs --sparse)", 3},
    {"vram-budget", KEY_VRAM_BUDGET, "SIZE", 0,
     "GPU memory that each rank may use, e.g. 6G (default: what is free)", 3},
    {"plugin-dir", KEY_PLUGIN_DIR, "DIR", 0,
     "folder of libhearth_cuda.so (default: the program's, or ../lib/hearth beside it)", 3},
    {NULL, 0, NULL, 0, "Ranks:", 4},
    {"ranks", KEY_RANKS, "N", 0, "without mpirun: run N ranks in this process", 4},
    {"split", KEY_SPLIT, "HOW", 0,
     "stages: whole layers on each rank; shards: every layer's heads and neurons over all ranks; both; hot: both, "
     "with the neurons that fire often on their layer's stage (default: shards)", 4},
    {"shares", KEY_SHARES, "A,B,...", 0, "how much each rank takes, e.g. 3,1 (default: all the same)", 4},
    {"down", KEY_DOWN, "WHERE", 0,
     "down projections: owners, with the other rows of their neurons (default), or all on their layer's stage", 4},
    {"residual", KEY_RESIDUAL, "WHERE", 0,
     "residual stream: all ranks have it and send each other their parts, or its home asks for them (default: all, "
     "where one rank is the stage of all layers)", 4},
    {"sums", KEY_SUMS, "FORM", 0,
     "how partial sums travel: exact (default; the same text under every plan) or f16 (half the bytes, lossy)", 4},
    {"plan", KEY_PLAN, "FILE", 0,
     "obey this plan instead of --split, --shares, --down, --residual, --gpu-layers, --gpu-index and --vram-budget", 4},
    {"probe", KEY_PROBE, "FILE", 0,
     "plan by what `hearth probe` has measured: shares by memory bandwidth, the split that is fastest, and no rank "
     "that would only slow the others", 4},
    {"ram-budget", KEY_RAM_BUDGET, "SIZE", 0, "refuse to start if a rank needs more memory, e.g. 8G", 4},
    {"kv-budget", KEY_KV_BUDGET, "SIZE", 0,
     "memory for keys and values of all texts on each rank, e.g. 2G (default: what they take when all are as long as "
     "-c lets them be; of serve's, --parallel says how many)", 4},
    {"no-verify", KEY_NO_VERIFY, NULL, 0,
     "under mpirun: do not compare all that the ranks load of their copies of the model (the first time that reads the "
     "whole file; hashes are then remembered in ~/.cache/hearth)", 4},
    {0},
};

static error_t parse_split(struct argp_state *state, const char *arg, int *split)
{
    for (int i = SPLIT_STAGES; i <= SPLIT_HOT; i++) {
        if (strcmp(arg, plan_split_name((enum plan_split)i)) == 0) {
            *split = i;
            return 0;
        }
    }
    return option_wrong(state, "--split takes stages, shards, both or hot, not '%s'", arg);
}

static error_t parse_device(struct argp_state *state, const char *arg, enum devices_wanted *device)
{
    static const char *const names[] = {[DEVICES_AUTO] = "auto", [DEVICES_CPU] = "cpu", [DEVICES_CUDA] = "cuda"};
    if (strcmp(arg, "none") == 0) /* what llama.cpp calls the CPU */
        arg = "cpu";
    for (int i = DEVICES_AUTO; i <= DEVICES_CUDA; i++) {
        if (strcmp(arg, names[i]) == 0) {
            *device = (enum devices_wanted)i;
            return 0;
        }
    }
    return option_wrong(state, "--device takes auto, cpu or cuda, not '%s'", arg);
}

static error_t check_cluster(struct argp_state *state, const struct cluster_options *o)
{
    if (!o->model && !o->elsewhere)
        return option_wrong(state, "no model given (-m FILE)");
    if (o->plan && (o->split >= 0 || o->shares || o->down_at_stage || o->residual >= 0))
        return option_wrong(state, "--plan stands instead of --split, --shares, --down and --residual: give one or the "
                                   "other");
    const bool gpus = o->gpu_layers > 0 || o->gpu_index || o->vram_budget;
    if (o->plan && (o->gpu_layers >= 0 || o->gpu_index || o->vram_budget))
        return option_wrong(state, "--plan says what GPUs get: leave out --gpu-layers, --gpu-index and --vram-budget");
    if (o->device == DEVICES_CPU && gpus)
        return option_wrong(state, "--device cpu leaves nothing for --gpu-layers, --gpu-index and --vram-budget: give "
                                   "one or the other");
    if (o->gpu_index && o->gpu_layers >= 0)
        return option_wrong(state, "--gpu-index and --gpu-layers both say what GPUs get: give one");
    return 0;
}

/* Where an option that is a text belongs; NULL: it is none. */
static const char **text_of(struct cluster_options *o, int key)
{
    switch (key) {
    case 'm': return &o->model;
    case KEY_KERNELS: return &o->kernels;
    case KEY_ACTIVATION: return &o->activation;
    case KEY_NEURONS: return &o->neurons;
    case KEY_SHARES: return &o->shares;
    case KEY_PLAN: return &o->plan;
    case KEY_PROBE: return &o->probe;
    case KEY_GPU_INDEX: return &o->gpu_index;
    case KEY_PLUGIN_DIR: return &o->plugin_dir;
    default: return NULL;
    }
}

/* One of two words: *second tells which. */
static error_t parse_either(struct argp_state *state, const char *name, const char *arg, const char *const words[2],
                            bool *second)
{
    *second = strcmp(arg, words[1]) == 0;
    if (*second || strcmp(arg, words[0]) == 0)
        return 0;
    return option_wrong(state, "%s takes %s or %s, not '%s'", name, words[0], words[1], arg);
}

static error_t parse_choice(int key, const char *arg, struct argp_state *state, struct cluster_options *o)
{
    bool all;
    error_t e = 0;
    switch (key) {
    case KEY_SPARSE:
        if (!sparse_mode_of(arg, &o->sparse))
            e = option_wrong(state, "--sparse takes dense, exact, threshold or predicted, not '%s'", arg);
        return e;
    case KEY_PREDICTOR:
        if (!predictor_of(arg, &o->predictor))
            e = option_wrong(state, "--predictor takes mlp, planes or auto, not '%s'", arg);
        return e;
    case KEY_SPLIT:
        return parse_split(state, arg, &o->split);
    case KEY_DEVICE:
        return parse_device(state, arg, &o->device);
    case KEY_DOWN:
        return parse_either(state, "--down", arg, (const char *const[]){"owners", "stage"}, &o->down_at_stage);
    case KEY_SUMS:
        return parse_either(state, "--sums", arg, (const char *const[]){"exact", "f16"}, &o->sums_f16);
    case KEY_RESIDUAL:
        e = parse_either(state, "--residual", arg, (const char *const[]){"home", "all"}, &all);
        o->residual = all;
        return e;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_number(int key, const char *arg, struct argp_state *state, struct cluster_options *o)
{
    int64_t v = 0;
    error_t e = 0;
    switch (key) {
    case 't':
        if (o->thread_list)
            return option_list(state, "-t", arg, 1, 1024, o->thread_list);
        e = option_int(state, "-t", arg, 1, 1024, &v);
        o->threads = (int)v;
        return e;
    case 'b':
        e = option_int(state, "-b", arg, 1, 4096, &v);
        o->n_batch = (uint32_t)v;
        return e;
    case KEY_RANKS:
        e = option_int(state, "--ranks", arg, 1, PLAN_MAX_RANKS, &v);
        o->ranks = (int)v;
        return e;
    case KEY_GPU_LAYERS:
        e = option_int(state, "--gpu-layers", arg, 0, 100000, &v);
        o->gpu_layers = (int)v;
        return e;
    case KEY_SKIP:
        return option_float(state, "--skip", arg, 0.1, 0.9, &o->skip);
    case KEY_VRAM_BUDGET:
        return option_bytes(state, "--vram-budget", arg, &o->vram_budget);
    case KEY_RAM_BUDGET:
        return option_bytes(state, "--ram-budget", arg, &o->ram_budget);
    case KEY_KV_BUDGET:
        return option_bytes(state, "--kv-budget", arg, &o->kv_budget);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_cluster(int key, char *arg, struct argp_state *state)
{
    struct cluster_options *o = state->input;
    const char **text = text_of(o, key);
    if (text) {
        *text = arg;
        return 0;
    }
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->network;
        return 0;
    case ARGP_KEY_ARG:
        return option_model(state, arg, &o->model);
    case 'q':
        o->quiet = true;
        return 0;
    case KEY_NO_VERIFY:
        o->no_verify = true;
        return 0;
    case ARGP_KEY_END:
        return check_cluster(state, o);
    default:
        break;
    }
    const error_t e = parse_choice(key, arg, state, o);
    return e == ARGP_ERR_UNKNOWN ? parse_number(key, arg, state, o) : e;
}

static const struct argp_child cluster_children[] = {{&argp_network, 0, NULL, 4}, {0}};
const struct argp argp_cluster = {
    .options = cluster_options, .parser = parse_cluster, .args_doc = "[MODEL]", .children = cluster_children};

/* ---- -c ---- */

static const struct argp_option context_options[] = {
    {"ctx-size", 'c', "N", 0, "context in tokens (default: what the model was trained for, at most 4096)", 1},
    {0},
};

static error_t parse_context(int key, char *arg, struct argp_state *state)
{
    return key == 'c' ? option_context(state, arg, 0, state->input) : ARGP_ERR_UNKNOWN;
}

const struct argp argp_context = {.options = context_options, .parser = parse_context};

/* ---- a text ---- */

static const struct argp_option text_options[] = {
    {"prompt", 'p', "TEXT", 0, "the text; \\n, \\t, \\\\ and the like are read as escapes", 0},
    {"no-escape", KEY_NO_ESCAPE, NULL, 0, "a backslash in TEXT is one", 0},
    {"file", 'f', "FILE", 0, "read the text from FILE (-: standard input)", 0},
    {0},
};

static error_t parse_text(int key, char *arg, struct argp_state *state)
{
    struct text_option *t = state->input;
    switch (key) {
    case 'p':
        t->prompt = arg;
        return 0;
    case 'f':
        t->file = arg;
        return 0;
    case KEY_NO_ESCAPE:
        t->no_escape = true;
        return 0;
    case ARGP_KEY_END:
        if (t->elsewhere)
            return t->prompt || t->file ? option_wrong(state, "-p, -f and --chat give what to read: give one") : 0;
        if (t->prompt && t->file)
            return option_wrong(state, "-p and -f both give a text: give one");
        if (!t->prompt && !t->file)
            return option_wrong(state, "no text given (-p TEXT, or -f FILE)");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp argp_text = {.options = text_options, .parser = parse_text};

/* ---- -o ---- */

static const struct argp_option output_options[] = {
    {"output", 'o', "FORMAT", 0, "md, csv or json (default md)", 0},
    {0},
};

static error_t parse_output(int key, char *arg, struct argp_state *state)
{
    enum table_format *format = state->input;
    if (key != 'o')
        return ARGP_ERR_UNKNOWN;
    if (!table_format_of(arg, format))
        return option_wrong(state, "-o takes md, csv or json, not '%s'", arg);
    return 0;
}

const struct argp argp_output = {.options = output_options, .parser = parse_output};

/* ---- all together ---- */

/* The rank > 0 that parses; NULL when none does, or it has said what there is to say. */
static const struct launch *parsing;

/* argp ends the program itself where a value is wrong, and after --help. */
static void end_other_rank(int exit_status, void *arg)
{
    const struct launch *l = parsing;
    (void)arg;
    parsing = NULL;
    if (!l || exit_status == EXIT_SUCCESS)
        return;
    launch_wait_for_rank_0(l);
    log_error("the options of rank %d are wrong, those of rank 0 are not: the same command without mpirun says what is",
              l->rank);
}

static status parse_words(const struct argp *argp, const struct launch *launch, int argc, char **argv, void *input)
{
    char **own;
    status st = habits_apply(argp, argc, argv, launch->rank > 0, &argc, &own);
    if (st != ST_OK)
        return st;
    st = argp_parse(argp, argc, own, 0, NULL, input) == 0 ? ST_OK : ST_USAGE;
    free(own);
    return st;
}

status options_parse(const struct argp *argp, const struct launch *launch, int argc, char **argv, void *input)
{
    if (launch->rank == 0)
        return parse_words(argp, launch, argc, argv, input);
    FILE *heard = stderr, *unheard = fopen("/dev/null", "w");
    parsing = launch;
    on_exit(end_other_rank, NULL);
    stderr = unheard ? unheard : heard;
    status st = parse_words(argp, launch, argc, argv, input);
    stderr = heard;
    if (unheard)
        fclose(unheard);
    end_other_rank(st == ST_OK ? EXIT_SUCCESS : EXIT_FAILURE, NULL);
    return st;
}

status options_settle(struct cluster_options *o, const struct launch *launch, struct progress *p)
{
    o->mpi = launch->mpi;
    if (launch->mpi && o->ranks > 1) {
        if (launch->rank == 0)
            log_warn("--ranks %d has no effect: %s has started %d", o->ranks, launch->launcher, launch->n_ranks);
        o->ranks = 1;
    }
    topology_settle(launch, o->ranks, &o->threads);
    if (launch->rank > 0)
        o->quiet = true;
    progress_init(p, o->quiet);
    o->end_job = end_job;
    o->progress = progress_update;
    o->progress_arg = p;
    return launch_meet(launch);
}
