/* hearth prepare: measures a model's neurons on a text, fits what the sparse modes need, and says what each costs. */
#include "prepare/prepare.h"

#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/report_text.h"

enum { DEFAULT_WINDOW = 512 };
static const char default_text[] = "licences.txt";

struct preparing {
    struct prepare_options o;
    struct text_option text;
};

/* ---- the command line ---- */

enum key { KEY_CHUNKS = 512, KEY_LOSS, KEY_MISS, KEY_RECALL, KEY_ACCURACY, KEY_MLP_SIZE, KEY_EPOCHS, KEY_SAMPLES,
           KEY_REPORT, KEY_CURVE };

static const struct argp_option options[] = {
    {"file", 'f', "FILE", 0, "the text to learn from (-: standard input; default: one that came with hearth)", 0},
    {"prompt", 'p', "TEXT", 0, "the text itself; \\n, \\t, \\\\ and the like are read as escapes", 0},
    {"ctx-size", 'c', "N", 0, "window in tokens (default 512)", 0},
    {"chunks", KEY_CHUNKS, "N", 0, "only the first N windows (default: all)", 0},
    {"report", KEY_REPORT, "FILE", 0, "the report as HTML (default: MODEL.neurons.html, beside the neuron file)", 0},
    {NULL, 0, NULL, 0, "SiLU models (--skip: the share to skip, default 0.5):", 6},
    {"loss", KEY_LOSS, "PERCENT", 0, "find the largest share that costs at most so much perplexity", 6},
    {"curve", KEY_CURVE, NULL, 0, "measure every share from 10 to 90 %", 6},
    {NULL, 0, NULL, 0, "ReLU models:", 7},
    {"miss", KEY_MISS, "SHARE", 0, "of what fires, the share that the planes may miss (default 0.02)", 7},
    {"recall", KEY_RECALL, "SHARE", 0, "of what fires, the share that predictors should flag (default 0.95)", 7},
    {"accuracy", KEY_ACCURACY, "SHARE", 0, "of all, the share that they should decide rightly (default 0.95)", 7},
    {"mlp-size", KEY_MLP_SIZE, "PERCENT", 0, "most bytes of all MLPs, of the model's (default 8; 0: none)", 7},
    {"epochs", KEY_EPOCHS, "N", 0, "times that the MLPs see every sample", 7},
    {"samples", KEY_SAMPLES, "N", 0, "tokens of each layer to learn from (default 12000)", 7},
    {0},
};

static error_t check(struct argp_state *state, const struct preparing *p)
{
    if (p->text.prompt && p->text.file)
        return option_wrong(state, "-p and -f both give a text: give one");
    if (p->o.cluster.plan || p->o.cluster.split >= 0)
        return option_wrong(state, "prepare cuts the model into stages by itself (--shares says how large): no --plan, "
                                   "no --split");
    if (p->o.cluster.gpu_index)
        return option_wrong(state, "prepare counts which neurons fire, whatever a split file says: no --gpu-index");
    if (p->o.cluster.sparse != SPARSE_DENSE)
        return option_wrong(state, "prepare measures every mode that the model can run in: no --sparse");
    if (p->o.loss_percent > 0 && p->o.cluster.skip > 0)
        return option_wrong(state, "--loss finds the share to skip, --skip says it: give one");
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct preparing *p = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &p->o.cluster;
        return 0;
    case 'f':
        p->text.file = arg;
        return 0;
    case 'p':
        p->text.prompt = arg;
        return 0;
    case 'c':
        return option_context(state, arg, 4, &p->o.cluster);
    case KEY_CHUNKS:
        return option_int(state, "--chunks", arg, 1, INT32_MAX, &p->o.most_windows);
    case KEY_REPORT:
        p->o.report = arg;
        return 0;
    case KEY_LOSS:
        return option_float(state, "--loss", arg, 0.001, 1000, &p->o.loss_percent);
    case KEY_CURVE:
        p->o.curve = true;
        return 0;
    case KEY_MISS:
        return option_float(state, "--miss", arg, 0.0001, 0.5, &p->o.miss);
    case KEY_RECALL:
        return option_float(state, "--recall", arg, 0.5, 0.9999, &p->o.recall);
    case KEY_ACCURACY:
        return option_float(state, "--accuracy", arg, 0.1, 0.9999, &p->o.accuracy);
    case KEY_MLP_SIZE:
        return option_float(state, "--mlp-size", arg, 0, 100, &p->o.mlp_percent);
    case KEY_EPOCHS:
        return option_int(state, "--epochs", arg, 1, 10000, &p->o.epochs);
    case KEY_SAMPLES:
        return option_int(state, "--samples", arg, PREPARE_LEAST_SAMPLES, 1 << 24, &p->o.most_samples);
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

/* Rank 0 stops after the window at hand and tells the others, who do not listen to signals; a second signal ends it
 * at once. */
static void heed_signals(const struct launch *launch)
{
    struct sigaction a = {.sa_handler = launch->rank == 0 ? ask_to_stop : SIG_IGN, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

/* ---- the text ---- */

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

/* *text is malloc'ed, what p->o.text points to. */
static status read_text(struct preparing *p, char **text)
{
    struct text_option where = p->text;
    char *installed = NULL;
    if (!where.prompt && !where.file && !(where.file = installed = installed_text()))
        return ST_IO;
    status st = text_read(&where, true, text, &p->o.n_text);
    p->o.text = *text;
    p->o.text_name = where.prompt ? "the command line" : installed ? default_text : basename(where.file);
    free(installed);
    return st;
}

static status print_report(const struct report *r) { return report_text(stdout, r); }

status command_prepare(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_cluster, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children,
        .doc = "Measure on a text how often the model's neurons fire, fit what --sparse needs, and write both to "
               "MODEL.neurons.gguf (--neurons names another file). A report says what each mode costs."
               "\v"
               "It may be stopped at any time: the same command goes on from where it was."};
    struct preparing p = {.o = {.cluster = cluster_defaults, .miss = 0.02f, .recall = 0.95f, .accuracy = 0.95f,
                                .mlp_percent = 8, .stop = &stop_asked, .note = progress_note, .tell = print_report}};
    struct progress progress;
    char *text = NULL;
    p.o.cluster.n_ctx = DEFAULT_WINDOW;
    p.o.note_arg = &progress;
    status st = options_parse(&argp, launch, argc, argv, &p);
    if (st == ST_OK && launch->rank == 0)
        st = read_text(&p, &text);
    if (st != ST_OK)
        return st;
    st = options_settle(&p.o.cluster, launch, &progress);
    heed_signals(launch);
    if (st == ST_OK)
        st = prepare(&p.o, launch);
    free(text);
    return st;
}
