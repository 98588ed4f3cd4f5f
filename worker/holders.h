/* The plan as a rank sees it: who holds what, on which of its devices. Pure. */
#ifndef HEARTH_WORKER_HOLDERS_H
#define HEARTH_WORKER_HOLDERS_H

#include "device/device.h"
#include "placement/plan.h"

/* The holder that is a rank's device, of which device 0 is its CPU; -1: it has no such device. */
int holder_of(const struct plan *p, int rank, int device);
/* Which of its devices is the home of x. */
int home_of(const struct plan *p, int rank);

/* Whether a holder has anything of a part. */
bool holder_owns(const struct plan *p, const struct device_shape *s, enum device_part part, int layer, int holder);
/* Whether any device of the rank does. */
bool rank_owns(const struct plan *p, enum device_part part, int layer, int rank);
/* Neurons of a layer that a rank has, and rows of the output matrix, on all its devices. */
int64_t rank_neurons(const struct plan *p, int layer, int rank);
int64_t rank_rows(const struct plan *p, const struct device_shape *s, int rank);

/* Whether anybody asks a rank for a part. */
bool rank_is_asked(const struct plan *p, int rank);

/* The layers whose residual stream a rank has. Where the plan has it on all ranks, each that takes part runs all
 * layers; the first and last stage is then the home, which gets the steps and passes them on. */
struct stage_place {
    int first, last;      /* layers [first, last); equal: none */
    bool embeds, is_last; /* its steps are tokens, not hidden states; it samples */
    bool joins;           /* it has another rank's stream */
    int before, next;     /* ranks that its steps come from and go to; next -1: they end here */
};
struct stage_place stage_place(const struct plan *p, int rank);

enum { STAGE_BUFFERS = 2 }; /* hidden states on their way to the next stage; parts on their way to all others */
/* x of how many steps may lie in the memory of a rank's GPU, if that is the home of x, on its way from stage to stage:
 * STAGE_BUFFERS out, then one in. What other ranks have does not matter: a plan for one of them alone is made first. */
uint32_t states_passing(const struct plan *p, int rank);

/* What a rank's device keeps, made from the plan: the arrays are the heap's. ST_NOMEM; ST_UNSUPPORTED for a plan that
 * no rank runs; logged. */
status shard_new(const struct plan *p, const struct device_shape *s, int rank, int device, struct shard **out);
void shard_free(struct shard *s); /* NULL is fine */
/* The guest that a rank's neurons of a layer are on its stage (struct shard). */
static inline int guest_of(const struct shard *s, int layer, int n_ranks, int rank)
{
    return (layer - s->first) * n_ranks + rank;
}

#endif
