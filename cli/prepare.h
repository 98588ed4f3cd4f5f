/* The parts of `hearth prepare`, shared by its files. Rank 0 leads; under mpirun the other processes follow what it
 * tells them (prepare_link.h). The model runs several times: to find out its activation, to count its neurons, and in
 * every mode to measure what the mode costs. */
#ifndef HEARTH_CLI_PREPARE_H
#define HEARTH_CLI_PREPARE_H

#include "cli/prepare_link.h"
#include "cli/prepare_part.h"
#include "cli/progress.h"
#include "cli/text.h"
#include "coordinator/scoring.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "node/cluster.h"
#include "node/launch.h"
#include "sparsity/fit/fit.h"

enum { PREPARE_LEAST_TOKENS = 2048 };

struct prepare {
    /* from the command line */
    struct cluster_options cluster;
    struct text_option text;
    const char *report;        /* NULL: beside the neuron file */
    float miss, recall, accuracy, loss_percent, mlp_percent; /* loss: 0 unless asked for */
    int64_t most_windows, most_samples, epochs;
    bool curve;                /* measure every share that `threshold` can skip */

    /* on every process */
    const struct launch *launch;
    struct progress progress;
    struct model *model;       /* its activation is what was found out, once it was */
    const struct kernels *kernels;
    char *neurons, *part_path; /* files */
    int first, last;           /* layers of this process */
    struct part *part;
    uint64_t window_tokens, stride; /* tokens run of a window; every so many, one is a sample */
    struct link *link;         /* NULL without mpirun, and while the model runs */
    bool linked;               /* there is one between the runs */

    /* on rank 0 */
    const char *text_name;
    struct tokenizer *tokenizer;
    struct windows windows;
    uint64_t counted;          /* windows that every process had counted at the start */
    double started_s, worked_s; /* worked: before this start, says the checkpoint */
};

/* ---- prepare_run.c: the model at work ---- */

typedef status use_cluster(void *arg, struct cluster *c);
/* Starts the cluster, lets `use` work with it (rank 0 only) and stops it; rank 0 tells the others to do the same. */
status prepare_run(struct prepare *p, const struct task_run *how, use_cluster *use, void *arg);
/* Settles p->model's activation: told, known from the file, or found out. */
status prepare_activation(struct prepare *p);
/* Counts the neurons over all windows, and scores them dense. */
status prepare_count(struct prepare *p);
/* Measures the modes that the neuron file offers, and chooses the share that `threshold` skips if a loss was asked for:
 * sets n's perplexities and skip_share. */
status prepare_measure(struct prepare *p, struct neurons *n);
struct score prepare_dense_score(struct prepare *p);

/* ---- prepare_fit.c ---- */

/* The checkpoint of this process. */
status prepare_open_part(struct prepare *p, const struct task_open *t);
/* Fits this process's layers that the checkpoint does not hold yet, and hands each to `done`, encoded. `progress`: the
 * layers done so far, a fraction too; false cancels. */
typedef status layer_done(void *arg, int layer, const uint8_t *bytes, size_t n);
status prepare_fit_own(struct prepare *p, const uint64_t *mlp_bytes /* [n_layers] */,
                       bool (*progress)(void *arg, float layers), layer_done *done, void *arg);
/* Rank 0: has all processes fit; layers [n_layers], zeroed, get what they fitted. */
status prepare_fit(struct prepare *p, struct fitted_layer *layers);
/* Rank 0: sees to it that every host has the neuron file. */
status prepare_share_file(struct prepare *p);

/* ---- prepare_checks.c: before the work begins ---- */

/* Whether the neuron file can be written to its place later, which is empty or an older one's. ST_USAGE, ST_IO;
 * logged. */
status prepare_check_place(const char *path);
/* The same for the report. */
status prepare_check_report(const struct prepare *p);
/* Whether the MLPs that are asked for can be made; the activation is known. ST_UNSUPPORTED, logged. */
status prepare_check_mlps(const struct prepare *p);
/* What a checkpoint must agree in; `to` is zeros. */
void prepare_settings(const struct prepare *p, uint64_t n_samples, struct part_setting to[PART_SETTINGS]);

/* ---- prepare_follow.c ---- */

/* A process other than rank 0's, until it is told that it is over. */
status prepare_follow(struct prepare *p);

/* ---- prepare.c ---- */

/* OpenBLAS if it will be needed, the model, the kernels, the files' names, and which layers are this process's. */
status prepare_open_model(struct prepare *p);

/* Where the report goes; malloc'ed, NULL (logged) without memory. */
char *prepare_report_path(const struct prepare *p);
/* Saves the checkpoint, the time worked included. */
status prepare_save(struct prepare *p);
/* ST_CANCELLED if the user asked to stop. */
status prepare_asked_to_stop(void);

#endif
