/* From a command line's options to a plan. */
#ifndef HEARTH_NODE_PLANNING_H
#define HEARTH_NODE_PLANNING_H

#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"
#include "model/model.h"
#include "node/cluster.h"
#include "placement/cost.h"
#include "placement/plan.h"
#include "sparsity/gpuidx.h"

/* What a plan for this model must agree with. */
void plan_model_of(const struct model *m, struct plan_model *out);

/* Opens the model and the neuron file that options name, or else the one beside the model if it is there (*neurons is
 * NULL if not), and settles the activation (in *model), whether the model can run in the mode, and which predictor is
 * used. A file beside the model that was made for another one counts as none where the run needs none; rank 0 (`rank`:
 * whose run it is) then warns in a line. Errors of model.h, neurons.h and mode.h, logged. */
status model_of_options(const struct cluster_options *o, int rank, struct model **model, struct neurons **neurons,
                        enum predictor *predictor);

/* "3,1,..." into shares[at most max]; *n is how many. ST_USAGE (logged) unless all are positive numbers. */
status plan_shares(const char *text, double *shares /* [max] */, int max, int *n);

/* Why a plan is as it is, where o->probe says how fast the machines are, and what is to be on GPUs. */
struct plan_reasons {
    struct probe *probe;     /* NULL: none; owned, */
    int64_t *fires;          /* as what model.fires points to */
    float *chosen;           /* as what model.chosen points to */
    struct cost_model model; /* what is run, with a probe or without; borrows the model and the neuron file */
    struct choice choice;    /* choice.n 0: no probe */
    struct gpuidx *index;    /* o->gpu_index, which says what GPUs get; NULL: none; owned, */
    const int32_t **marks;   /* as what points into it, [n_layers] of [d_ff] */
    uint64_t marks_hash;     /* of them; 0: none */
    struct cost cost;        /* of the plan, and for how long each of its holders computes */
    double ms[PLAN_MAX_HOLDERS];
};
void plan_reasons_free(struct plan_reasons *r); /* what it owns; all zero is fine */
/* Estimates anew, for a plan that has changed. Without a probe nothing. */
void plan_reasons_settle(struct plan_reasons *r, const struct plan *p);

/* Reads o->plan, or makes a plan from o->split (unset: shards), o->shares and o->down_at_stage, and checks it against
 * the model and the number of ranks. With o->probe, what is unset is chosen by it; *reasons says what was found.
 * `neurons` (NULL: none) says how often neurons fire, which SPLIT_HOT needs. ST_USAGE if the shares are not as many as
 * the ranks, o->device leaves no GPUs and the plan names some, or the other way round, or o->gpu_index says nothing for
 * such a run; errors of plan.h, probe.h and gpuidx.h. All are logged. */
status plan_of_options(const struct cluster_options *o, const struct model *m, const struct neurons *neurons,
                       int n_ranks, struct plan **out, struct plan_reasons *reasons);

/* Tells people in a line if ranks are left out, or another split is taken than the usual one, or what they asked for
 * is slower than what could be had. */
void plan_reasons_log(const struct plan_reasons *r, const struct plan *p, bool quiet);
/* "0, 2, 3": the ranks that a candidate uses, or those that it leaves out; cut short where they do not fit. */
void plan_reasons_ranks(const struct candidate *c, int n_ranks, bool used, char *out, size_t n);
const char *plan_split_name(enum plan_split split); /* "stages", "shards", "both", "hot" */

/* Whether a run with these options gives GPUs something, where no plan says what. */
bool plan_may_use_gpus(const struct cluster_options *o);
/* Warns in a line if GPUs are asked for, and nothing on them. */
void plan_gpus_warn(const struct cluster_options *o);

/* Tokens of context: o->n_ctx, or unless it is set what the model was trained for, at most 4096. */
uint32_t plan_context(const struct cluster_options *o, const struct model *m);
/* Warns in a line if a context of n_ctx tokens is more than what the model was trained for. */
void plan_context_warn(const struct model *m, uint32_t n_ctx);

#endif
