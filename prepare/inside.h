/* What the files of prepare/ share. Nobody else includes it. */
#ifndef HEARTH_PREPARE_INSIDE_H
#define HEARTH_PREPARE_INSIDE_H

#include "coordinator/scoring.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "prepare/link.h"
#include "prepare/part.h"
#include "prepare/prepare.h"
#include "sparsity/fit/fit.h"

struct prepare {
    const struct prepare_options *o;

    /* on every process */
    const struct launch *launch;
    struct model *model;       /* its activation is what was found out, once it was */
    const struct kernels *kernels;
    char *neurons, *part_path; /* files */
    int first, last;           /* layers of this process */
    struct part *part;
    uint64_t window_tokens, stride; /* tokens run of a window; every so many, one is a sample */
    struct link *link;         /* NULL without mpirun, and while the model runs */
    bool linked;               /* there is one between the runs */

    /* on rank 0 */
    struct tokenizer *tokenizer;
    struct windows windows;
    uint64_t counted;          /* windows that every process had counted at the start */
    double started_s, worked_s; /* worked: before this start, says the checkpoint */
};

/* Whether the user asked to stop. */
static inline bool prepare_stopped(const struct prepare *p) { return p->o->stop && *p->o->stop; }

/* ---- names.c ---- */

/* "X.gguf" -> "X" SUFFIX, of rank R > 0 "X" SUFFIX "-R"; malloc'ed. NULL (logged) without memory. */
char *name_beside(const char *path, const char *suffix, int rank);
/* Where the report goes; malloc'ed, NULL (logged) without memory. */
char *prepare_report_path(const struct prepare *p);

/* ---- checks.c: before the work begins ---- */

/* Whether the neuron file can be written to its place later, which is empty or an older one's. ST_USAGE, ST_IO;
 * logged. */
status prepare_check_place(const char *path);
/* The same for the report. */
status prepare_check_report(const struct prepare *p);
/* Whether MLPs are to be made; the activation is known. Experts get none: their router has said already which of a
 * layer's neurons may fire at all. */
bool prepare_makes_mlps(const struct prepare *p);
/* Whether they can be. ST_UNSUPPORTED, logged. */
status prepare_check_mlps(const struct prepare *p);
/* What a checkpoint must agree in; `to` is zeros. */
void prepare_settings(const struct prepare *p, uint64_t n_samples, struct part_setting to[PART_SETTINGS]);

/* ---- open.c: what every process works on ---- */

/* OpenBLAS if it will be needed, the model, the kernels, the files' names, and which layers are this process's. */
status prepare_open_model(struct prepare *p);
/* The checkpoint of this process. */
status prepare_open_part(struct prepare *p, const struct task_open *t);
/* Saves the checkpoint, the time worked included. */
status prepare_save(struct prepare *p);

/* ---- run.c: the model at work ---- */

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

/* ---- fit.c ---- */

/* Fits this process's layers that the checkpoint does not hold yet, and hands each to `done`, encoded. `progress`: the
 * layers done so far, a fraction too; false cancels. */
typedef status layer_done(void *arg, int layer, const uint8_t *bytes, size_t n);
status prepare_fit_own(struct prepare *p, const uint64_t *mlp_bytes /* [n_layers] */,
                       bool (*progress)(void *arg, float layers), layer_done *done, void *arg);
/* Rank 0: has all processes fit; layers [n_layers], zeroed, get what they fitted. */
status prepare_fit(struct prepare *p, struct fitted_layer *layers);

/* ---- lead.c, follow.c: rank 0's process, and every other, until it is over ---- */

status prepare_lead(struct prepare *p);
status prepare_follow(struct prepare *p);

#endif
