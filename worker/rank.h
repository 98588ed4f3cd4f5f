/* What the objects of a rank share. Each is of a file of its own, with a header of its own. */
#ifndef HEARTH_WORKER_RANK_H
#define HEARTH_WORKER_RANK_H

#include "base/arena.h"
#include "wire/runs.h"
#include "worker/devices.h"
#include "worker/exchange.h"
#include "worker/worker.h"

struct rank {
    const struct worker_options *o;
    int rank, n_ranks;
    struct wire_limits limits;
    struct device_shape shape;
    struct arena arena;        /* of messages and what they are made from; dry: it counts */
    struct devices *devices;
    struct device *home;       /* of x; NULL on a dry run */
    struct exchange *exchange;
    struct wire_counts counts; /* of the step under way, on all ranks so far */
    struct wire_usage usage;   /* since the start; the transport knows what was sent */
};

/* A part of a step: what is asked for and answered. */
struct task {
    const struct wire_step *step;
    struct work work;
};

_Static_assert((int)DEVICE_ATTENTION == PART_ATTENTION && (int)DEVICE_FFN == PART_FFN &&
                   (int)DEVICE_OUTPUT == PART_OUTPUT && (int)DEVICE_PARTS == WIRE_PARTS, "parts have one number");

static inline bool owns(const struct rank *r, enum device_part part, int layer, int rank)
{
    return rank_owns(r->o->plan, part, layer, rank);
}

/* What this rank's devices have done since they were asked, added to the step's; returned too. */
static inline struct wire_counts count_own(struct rank *r)
{
    const struct wire_counts counts = devices_counts(r->devices);
    wire_counts_add(&r->counts, &counts);
    return counts;
}

/* What follows has messages of so many tokens, of which sums are the longest (keep_moving). */
static inline void expect_tokens(struct rank *r, uint32_t n)
{
    keep_moving(r->exchange, (size_t)n * r->limits.d_model * sizeof(double));
}

/* An answer must be of this task. ST_FORMAT (logged, naming the rank) if not. */
status check_answer(int from, const char *what, uint64_t step, const struct work *found, const struct task *t);

/* Bytes of the largest answer of blocks that `owner` gives `to`, asked or not; 0: none. */
size_t largest_answer(const struct rank *r, int to, int owner);
/* Bytes of the logits that `owner` gives a stage; 0: none. */
size_t largest_logits(const struct rank *r, int stage_rank, int owner);

#endif
