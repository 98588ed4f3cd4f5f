/* hearth prepare: measures a model's neurons on a text, fits what the sparse modes need, and says what each costs. */
#include "cli/prepare.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/whole_file.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/report.h"
#include "node/planning.h"
#include "sparsity/fit/linear.h"
#include "sparsity/fit/neurons_save.h"
#include "transport/transport.h"

enum { DEFAULT_WINDOW = 512, DEFAULT_SAMPLES = 12000, LEAST_SAMPLES = 512 };
static const char default_text[] = "licences.txt";
static const double sample_bytes_most = 4e9; /* of disk, all layers, unless --samples asks for more */

/* ---- the command line ---- */

enum key { KEY_CHUNKS = 512, KEY_LOSS, KEY_MISS, KEY_RECALL, KEY_ACCURACY, KEY_MLP_SIZE, KEY_EPOCHS, KEY_SAMPLES,
           KEY_REPORT, KEY_CURVE };

static const struct argp_option options[] = {
    {"file", 'f', "FILE", 0, "the text to learn from (-: standard input; default: one that came with hearth)", 0},
    {"prompt", 'p', "TEXT", 0, "the text itself; \\n, \\t, \\\\ and the like are read as escapes", 0},
    {"ctx-size", 'c', "N", 0, "window in tokens (default 512)", 0},
    {"chunks", KEY_CHUNKS, "N", 0, "only the first N windows (default: all)", 0},
    {"report", KEY_REPORT, "FILE", 0, "the report as HTML (default: MODEL.neurons.html, beside the neuron file)", 0},
    {NULL, 0, NULL, 0, "SiLU models (--skip: the share to skip, default 0.5):", 4},
    {"loss", KEY_LOSS, "PERCENT", 0, "find the largest share that costs at most so much perplexity", 4},
    {"curve", KEY_CURVE, NULL, 0, "measure every share from 10 to 90 %", 4},
    {NULL, 0, NULL, 0, "ReLU models:", 5},
    {"miss", KEY_MISS, "SHARE", 0, "of what fires, the share that the planes may miss (default 0.02)", 5},
    {"recall", KEY_RECALL, "SHARE", 0, "of what fires, the share that predictors should flag (default 0.95)", 5},
    {"accuracy", KEY_ACCURACY, "SHARE", 0, "of all, the share that they should decide rightly (default 0.95)", 5},
    {"mlp-size", KEY_MLP_SIZE, "PERCENT", 0, "most bytes of all MLPs, of the model's (default 8; 0: none)", 5},
    {"epochs", KEY_EPOCHS, "N", 0, "times that the MLPs see every sample", 5},
    {"samples", KEY_SAMPLES, "N", 0, "tokens of each layer to learn from (default 12000)", 5},
    {0},
};

static error_t check(struct argp_state *state, const struct prepare *p)
{
    if (p->text.prompt && p->text.file)
        return option_wrong(state, "-p and -f both give a text: give one");
    if (p->cluster.plan || p->cluster.split >= 0)
        return option_wrong(state, "prepare cuts the model into stages by itself (--shares says how large): no --plan, "
                                   "no --split");
    if (p->cluster.sparse != SPARSE_DENSE)
        return option_wrong(state, "prepare measures every mode that the model can run in: no --sparse");
    if (p->loss_percent > 0 && p->cluster.skip > 0)
        return option_wrong(state, "--loss finds the share to skip, --skip says it: give one");
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct prepare *p = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &p->cluster;
        return 0;
    case 'f':
        p->text.file = arg;
        return 0;
    case 'p':
        p->text.prompt = arg;
        return 0;
    case 'c':
        return option_context(state, arg, 4, &p->cluster);
    case KEY_CHUNKS:
        return option_int(state, "--chunks", arg, 1, INT32_MAX, &p->most_windows);
    case KEY_REPORT:
        p->report = arg;
        return 0;
    case KEY_LOSS:
        return option_float(state, "--loss", arg, 0.001, 1000, &p->loss_percent);
    case KEY_CURVE:
        p->curve = true;
        return 0;
    case KEY_MISS:
        return option_float(state, "--miss", arg, 0.0001, 0.5, &p->miss);
    case KEY_RECALL:
        return option_float(state, "--recall", arg, 0.5, 0.9999, &p->recall);
    case KEY_ACCURACY:
        return option_float(state, "--accuracy", arg, 0.1, 0.9999, &p->accuracy);
    case KEY_MLP_SIZE:
        return option_float(state, "--mlp-size", arg, 0, 100, &p->mlp_percent);
    case KEY_EPOCHS:
        return option_int(state, "--epochs", arg, 1, 10000, &p->epochs);
    case KEY_SAMPLES:
        return option_int(state, "--samples", arg, LEAST_SAMPLES, 1 << 24, &p->most_samples);
    case ARGP_KEY_END:
        return check(state, p);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- stopping ---- */

/* What a signal handler can reach is global. */
static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int signal)
{
    (void)signal;
    stop_asked = 1;
}

status prepare_asked_to_stop(void) { return stop_asked ? ST_CANCELLED : ST_OK; }

/* Rank 0 stops after the window at hand and tells the others, who do not listen to signals; a second signal ends it
 * at once. */
static void heed_signals(const struct launch *launch)
{
    struct sigaction a = {.sa_handler = launch->rank == 0 ? ask_to_stop : SIG_IGN, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

status prepare_save(struct prepare *p)
{
    part_state(p->part)->seconds = p->worked_s + clock_s() - p->started_s;
    return part_save(p->part);
}

/* ---- files ---- */

/* "X.gguf" -> "X" SUFFIX, of rank R "X" SUFFIX "-R"; malloc'ed. */
static char *beside(const char *path, const char *suffix, int rank)
{
    const char *end = strstr(path, ".gguf");
    size_t n = strlen(path);
    char *out, number[16] = "";
    n = end && !end[5] ? (size_t)(end - path) : n;
    if (rank > 0)
        snprintf(number, sizeof number, "-%d", rank);
    return asprintf(&out, "%.*s%s%s", (int)n, path, suffix, number) < 0 ? NULL : out;
}

char *prepare_report_path(const struct prepare *p)
{
    char *path = p->report ? strdup(p->report) : beside(p->neurons, ".html", 0);
    if (!path)
        log_error("no memory for the report's name");
    return path;
}

static const char *name_in(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The text that is installed with the program, found from where the program lies: PREFIX/bin/hearth, or a build folder.
 * malloc'ed; NULL (logged) if it is not there. */
static char *installed_text(void)
{
    static const char *const where[] = {"../share/hearth/", "share/hearth/"};
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash)
        *slash = '\0';
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        char *path;
        if (asprintf(&path, "%s/%s%s", exe, where[i], default_text) < 0)
            break;
        if (access(path, R_OK) == 0)
            return path;
        free(path);
    }
    log_error("the text that is installed with hearth (share/hearth/%s) is not there: -f FILE names another",
              default_text);
    return NULL;
}

static status own_layers(struct prepare *p)
{
    struct cluster_options o = p->cluster;
    struct plan_reasons reasons;
    struct plan *plan;
    p->last = p->model->hp.n_layers;
    if (!p->link)
        return ST_OK;
    o.split = SPLIT_STAGES;
    status st = plan_of_options(&o, p->model, NULL, link_ranks(p->link), &plan, &reasons);
    if (!st) {
        plan_stage(plan, link_rank(p->link), &p->first, &p->last);
        plan_free(plan);
    }
    return st;
}

status prepare_open_model(struct prepare *p)
{
    status st = p->mlp_percent > 0 ? linear_open() : ST_OK; /* not after hours of counting */
    if (!st)
        st = kernels_select(p->cluster.kernels, &p->kernels);
    if (!st)
        st = model_load(p->cluster.model, &p->model);
    if (st)
        return st;
    p->neurons = p->cluster.neurons && *p->cluster.neurons ? strdup(p->cluster.neurons)
                                                           : neurons_path(p->cluster.model);
    p->part_path = p->neurons ? beside(p->neurons, ".part", p->launch->rank) : NULL;
    if (!p->part_path) {
        log_error("no memory for the name of the neuron file");
        return ST_NOMEM;
    }
    st = prepare_check_place(p->neurons);
    return st ? st : own_layers(p);
}

/* ---- rank 0 ---- */

static status read_text(struct prepare *p)
{
    struct text_option where = p->text;
    char *own = NULL, *text = NULL;
    size_t n = 0;
    if (!where.prompt && !where.file && !(where.file = own = installed_text()))
        return ST_IO;
    plan_context_warn(p->model, p->cluster.n_ctx);
    status st = text_read(&where, true, &text, &n);
    if (!st)
        st = tokenizer_create(p->model->file, &p->tokenizer);
    if (!st)
        st = windows_cut(p->tokenizer, text, n, p->cluster.n_ctx, PREPARE_LEAST_TOKENS, (size_t)p->most_windows,
                         &p->windows);
    if (!st && p->windows.n * p->windows.size < PREPARE_LEAST_TOKENS) {
        log_error("%zu windows of %zu tokens are too few to learn from: at least %d tokens are needed (--chunks)",
                  p->windows.n, p->windows.size, PREPARE_LEAST_TOKENS);
        st = ST_USAGE;
    }
    p->text_name = where.prompt ? "the command line" : own ? default_text : name_in(where.file);
    free(text);
    free(own);
    return st;
}

static struct task_open checkpoint_task(const struct prepare *p)
{
    const struct hparams *hp = &p->model->hp;
    const uint64_t window_tokens = p->windows.size - 1; /* the last token is only a successor */
    const uint64_t total = p->windows.n * window_tokens;
    uint64_t most = (uint64_t)(sample_bytes_most / 2 / (double)hp->d_model / hp->n_layers);
    most = p->most_samples ? (uint64_t)p->most_samples : most < DEFAULT_SAMPLES ? most : DEFAULT_SAMPLES;
    most = most > LEAST_SAMPLES ? most : LEAST_SAMPLES;
    const uint64_t stride = (total + most - 1) / most, n_samples = (total + stride - 1) / stride;
    struct task_open t = {.n_windows = p->windows.n, .window_tokens = window_tokens, .n_samples = n_samples,
                          .stride = stride};
    prepare_settings(p, n_samples, t.settings);
    return t;
}

/* Every process's checkpoint; p->counted is what all of them hold. */
static status open_parts(struct prepare *p)
{
    const struct task_open t = checkpoint_task(p);
    status st = link_send_all(p->link, TASK_OPEN, &t, sizeof t);
    if (!st)
        st = prepare_open_part(p, &t);
    if (st)
        return st;
    p->counted = part_state(p->part)->windows;
    for (int r = 1; p->link && r < link_ranks(p->link); r++) {
        struct blob b;
        uint64_t windows;
        if ((st = link_receive_only(p->link, ANSWER_OPEN, sizeof windows, &b)))
            return st;
        memcpy(&windows, b.bytes, sizeof windows);
        p->counted = windows < p->counted ? windows : p->counted;
        free(b.bytes);
    }
    if (p->counted > 0 && !p->cluster.quiet)
        log_info("going on from a checkpoint: %llu of %zu windows counted", (unsigned long long)p->counted,
                 p->windows.n);
    return ST_OK;
}

/* The file as fitted; perplexities come later. n->layers is malloc'ed and borrows from `fitted`. */
static status assemble(const struct prepare *p, const struct fitted_layer *fitted, struct neurons *n)
{
    const struct hparams *hp = &p->model->hp;
    *n = (struct neurons){.activation = hp->activation, .n_layers = hp->n_layers, .d_model = hp->d_model,
                          .d_ff = hp->d_ff, .model_hash = gguf_hash(p->model->file),
                          .n_tokens = p->windows.n * p->window_tokens};
    n->skip_share = roundf((p->cluster.skip > 0 ? p->cluster.skip : 0.5f) * 10) / 10;
    snprintf(n->text, sizeof n->text, "%s", p->text_name);
    n->layers = calloc((size_t)n->n_layers, sizeof *n->layers);
    if (!n->layers) {
        log_error("no memory for %d layers", n->n_layers);
        return ST_NOMEM;
    }
    for (int i = 0; i < n->n_layers; i++)
        n->layers[i] = fitted[i].layer;
    return ST_OK;
}

static uint64_t file_bytes(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

static int by_mode(const void *a, const void *b)
{
    const struct part_measure *x = a, *y = b;
    int modes = x->sparse - y->sparse, skips = (x->skip_share > y->skip_share) - (x->skip_share < y->skip_share);
    return modes ? modes : skips ? skips : y->predictor - x->predictor;
}

static status write_report(struct prepare *p, const struct neurons *n)
{
    struct part_measure measures[PART_MEASURES];
    struct report r = {.model = name_in(p->cluster.model), .text = p->text_name, .neurons_path = p->neurons,
                       .neurons = n, .model_bytes = gguf_file_bytes(p->model->file),
                       .neurons_bytes = file_bytes(p->neurons), .n_windows = p->windows.n, .window = p->windows.size,
                       .dense = prepare_dense_score(p), .measures = measures,
                       .seconds = p->worked_s + clock_s() - p->started_s};
    for (int i = 0; i < PART_MEASURES; i++) {
        const struct part_measure *m = &part_state(p->part)->measures[i];
        if (m->used && m->score.windows == p->windows.n)
            measures[r.n_measures++] = *m;
    }
    qsort(measures, (size_t)r.n_measures, sizeof *measures, by_mode);
    char *path = prepare_report_path(p), *html = NULL;
    size_t size = 0;
    FILE *page = open_memstream(&html, &size);
    status st = ST_NOMEM;
    if (!page)
        log_error("no memory for the report");
    else if (path)
        st = report_html(page, &r);
    if (page && fclose(page) != 0 && !st) {
        log_error("no memory for the report");
        st = ST_NOMEM;
    }
    if (!st)
        st = whole_file_write(path, html, size);
    if (!st)
        st = report_text(stdout, &r);
    if (!st && !p->cluster.quiet)
        log_info("wrote %s and %s", p->neurons, path);
    free(html);
    free(path);
    return st;
}

/* Saves the file and sees to it that every host has it. */
static status save(struct prepare *p, const struct neurons *n)
{
    status st = neurons_save(n, p->neurons);
    return st ? st : prepare_share_file(p);
}

static status finish(struct prepare *p, const struct fitted_layer *fitted)
{
    struct neurons n;
    status st = assemble(p, fitted, &n);
    if (st)
        return st;
    st = save(p, &n); /* the modes read it */
    if (!st)
        st = prepare_measure(p, &n);
    if (!st)
        st = save(p, &n);
    if (!st)
        st = write_report(p, &n);
    free(n.layers);
    return st;
}

static status lead(struct prepare *p)
{
    struct fitted_layer *fitted = NULL;
    status st = prepare_open_model(p);
    if (!st)
        st = read_text(p);
    if (!st)
        st = prepare_check_report(p);
    if (!st)
        st = open_parts(p);
    if (!st)
        st = prepare_activation(p);
    if (!st)
        st = prepare_check_mlps(p);
    if (!st)
        st = prepare_count(p);
    if (!st && !(fitted = calloc((size_t)p->model->hp.n_layers, sizeof *fitted))) {
        log_error("no memory for %d layers", p->model->hp.n_layers);
        st = ST_NOMEM;
    }
    if (!st)
        st = prepare_fit(p, fitted);
    if (!st)
        st = finish(p, fitted);
    for (int i = 0; fitted && i < p->model->hp.n_layers; i++)
        fitted_layer_free(&fitted[i]);
    free(fitted);
    if (st == ST_CANCELLED)
        log_info("stopped; the same command goes on from here");
    return st;
}

/* Rank 0's part, and the end of everybody's. */
static status lead_and_end(struct prepare *p)
{
    status st = lead(p);
    const uint64_t forget = st == ST_OK;
    if (p->link)
        link_send_all(p->link, TASK_END, &forget, sizeof forget);
    (forget ? part_remove : part_close)(p->part);
    windows_free(&p->windows);
    tokenizer_free(p->tokenizer);
    return st;
}

status command_prepare(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_cluster, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children,
        .doc = "Measure on a text how often the model's neurons fire, fit what --sparse needs, and write both to "
               "MODEL.neurons.gguf (--neurons names another file). A report says what each mode costs."
               "\v"
               "It may be stopped at any time: the same command goes on from where it was."};
    struct prepare p = {.cluster = cluster_defaults, .launch = launch, .miss = 0.02f, .recall = 0.95f,
                        .accuracy = 0.95f, .mlp_percent = 8, .linked = launch->mpi,
                        .started_s = clock_s()};
    p.cluster.n_ctx = DEFAULT_WINDOW;
    status st = options_parse(&argp, launch, argc, argv, &p);
    if (st != ST_OK)
        return st;
    st = options_settle(&p.cluster, launch, &p.progress);
    heed_signals(launch);
    if (!st && p.linked)
        st = link_open(&p.link);
    if (!st)
        st = launch->rank == 0 ? lead_and_end(&p) : prepare_follow(&p);
    link_close(p.link);
    free(p.part_path);
    free(p.neurons);
    model_free(p.model);
    return st;
}
