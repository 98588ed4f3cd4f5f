/* What a token costs under a plan, from a probe of the machines and the shapes of a model: a small model of decoding
 * one stream of text, good enough to tell which of several plans is faster and never meant as a forecast of tokens per
 * second (kernels do not always read as fast as memory goes, and what a prompt takes is left out).
 *
 * A rank reads its bytes at its measured bandwidth. An exchange of one block starts with x on its way to W owners; the
 * home rank computes its own part meanwhile, and goes on when the slowest sum is there:
 *
 *     time = max(own bytes / own bandwidth, wire + max over owners of bytes / bandwidth)
 *     wire = the slowest owner's x and sum as measured, and (W - 1) times both vectors' bytes / bandwidth of the link
 *
 * which is RTT + 2 W S / B: one network card sends and receives for all owners. Where all ranks have the residual
 * stream nothing is asked; when all have computed, the sums travel at once:
 *
 *     time = max over ranks of bytes / bandwidth + wire
 *     wire = the slowest sum as measured, and (W - 1) times a sum's bytes / bandwidth of the link
 *
 * A rank with a GPU reads both memories at the same time (gpu_benefit.h): the time of its part is the longer of both.
 *
 * Tokens that go through the ranks together read a matrix once for all of them, and of experts those that any of them
 * chooses: of E experts, of which each token chooses k as if they were all alike, E (1 - (1 - k / E)^n) on average.
 * Their x, sums, keys, values and states are n times those of one. A step is then at least so long, for of many tokens
 * kernels compute longer than they read.
 *
 * Hidden states travel once from stage to stage. Ranks of one host that compute together share its memory: their
 * bandwidth is then what they had when all of them read. */
#ifndef HEARTH_PLACEMENT_COST_H
#define HEARTH_PLACEMENT_COST_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "model/model.h"
#include "placement/plan.h"
#include "placement/probe.h"

#define COST_FIRES 0x1p-24 /* integers: what fires between two neurons is the same wherever they are */

struct cost {
    double compute_ms, wire_ms; /* of a step, on its way through all ranks; the sum is its time */
    bool fits;                  /* the weights fit into the memory of every machine */
};

/* What is being run. */
struct cost_model {
    const struct model *model;
    const int64_t *fires; /* [n_layers, d_ff + 1]: how many neurons before each of a layer fire at a token, on average,
                           * in units of COST_FIRES; NULL: all are read, of experts those of the chosen ones */
    const float *chosen;  /* [n_layers, n_experts] shares of tokens that choose each expert; NULL: all alike */
    double tokens;           /* of a step, of so many texts that decode together; 0: one */
    double kv_read, kv_held; /* tokens of the KV cache that a token reads, on average; that there is room for */
    double states;       /* of delta nets that there is room for; a token reads and writes one */
    uint64_t ram_budget; /* bytes that each rank may use, 0: what its host has */
    bool gpus;           /* choices give ranks' GPUs what gains most (gpu_benefit.h), */
    uint64_t vram_budget; /* of so many bytes at most, 0: what is free there */
    const char *transport; /* that will be used; NULL: the fastest that was measured */
    int residual;        /* where choices may have the residual stream: 0 home, 1 all, -1 either */
};

/* The plan, as the probe's ranks would run it: both are of as many ranks. */
struct cost cost_of_plan(const struct probe *p, const struct cost_model *m, const struct plan *plan);

/* The same, and for how long each holder computes: ms [n_holders], NULL: not asked. */
struct cost cost_of_holders(const struct probe *p, const struct cost_model *m, const struct plan *plan, double *ms);
/* What was measured of a rank's device; NULL: it is no GPU of the probe's. */
const struct probe_gpu *cost_gpu(const struct probe *p, int rank, const char *device);

/* A plan that could be made, and what it costs. */
struct candidate {
    enum plan_split split;
    bool heads_cut, residual_all;
    bool gpus;                     /* ranks' GPUs have something: estimated so, the plan is made for CPUs */
    int n_used;                    /* ranks that hold a part */
    double shares[PLAN_MAX_RANKS]; /* 0: left out */
    struct cost cost;
};

enum { COST_MAX_CANDIDATES = PLAN_MAX_RANKS + 2 };

struct choice {
    int n, best; /* best: index, the cheapest of those that fit, or of all if none does */
    struct candidate candidates[COST_MAX_CANDIDATES];
};

/* Estimates what is worth considering: shards over rank 0 alone, over rank 0 and the rank that then makes it fastest,
 * and so on up to all; stages and both over all. Of each it takes what is faster, heads cut or not, and the residual
 * stream at home or on all ranks. Shares are the bandwidths of the ranks' CPUs, or where GPUs take part the best of
 * enum cost_filling. `shares` (NULL: none) are the user's: then they stand, and only the splits over all ranks are
 * compared. Errors of plan_make. */
status cost_choose(const struct probe *p, const struct cost_model *m, const struct plan_model *shape,
                   const double *shares, struct choice *out);

/* How a model is spread over the ranks in use. GPUs count for what they can hold, beside the RAM that there is. */
enum cost_filling {
    FILL_BY_CPUS,    /* as their CPUs read, whatever GPUs they have */
    FILL_LEVEL,      /* all ranks read for as long, GPU and CPU of each at the same time */
    FILL_ONE_BY_ONE, /* the same, CPUs after GPUs: whole layers */
    FILL_FASTEST,    /* the fastest memory first: ranks that compute one after the other take least time so */
    COST_FILLINGS
};
/* shares [n_ranks] of the ranks in `used`. false: there is no GPU to fill. */
bool cost_shares(const struct probe *p, const struct cost_model *m, const bool *used, enum cost_filling how,
                 double *shares);

/* The candidate's plan for n_ranks. Errors of plan_make. */
status candidate_plan(const struct candidate *c, const struct plan_model *shape, int n_ranks, struct plan **out);

double cost_ms(const struct cost *c); /* of a step */
/* Bytes of weights that a step of so many tokens reads of a holder's part of a plan, if these compute all neurons that
 * they look at. */
double cost_read_bytes(const struct model *m, const struct plan *p, int holder, double tokens);

/* Bytes of x and of a partial sum of one token, as they travel. */
int64_t cost_x_bytes(const struct model *m);
int64_t cost_sum_bytes(const struct model *m);
/* Bytes of a token's keys and values, of all layers. */
double cost_kv_bytes(const struct model *m);
/* GB/s that each rank reads when the ranks in `used` compute together. */
void cost_bandwidths(const struct probe *p, const bool *used, double *gb_per_s /* [n_ranks] */);

#endif
