/* What the files of the engine share: engine_turns.c carries jobs out, engine.c brings them and runs the session. All
 * but what is under the lock is the engine's thread's. */
#ifndef HEARTH_SERVE_ENGINE_PARTS_H
#define HEARTH_SERVE_ENGINE_PARTS_H

#include <pthread.h>
#include "serve/engine.h"
#include "serve/engine_drafts.h"
#include "serve/engine_kept.h"
#include "serve/engine_queue.h"
#include "serve/engine_room.h"

/* A job that runs. */
struct turn {
    struct job *job;          /* NULL: there is none */
    struct sequence *sequence;
    uint32_t most;            /* tokens that may be made */
    bool admitted;            /* a run of it has come: what it shares is known */
    bool drafts;              /* may have some */
    bool reads;               /* the log probabilities of its prompt come first */
    double token_s;           /* when its last token came */
    struct drafter drafter;
    int64_t *sum;             /* [d_model] of the states so far, for POOL_MEAN */
};

struct engine {
    struct engine_options o;
    struct wire_limits limits;
    int wake;                 /* an eventfd: there is something to do */
    _Atomic int64_t stop_ns;  /* when jobs fail (clock_s, in ns); INT64_MAX: go on */
    _Atomic int64_t heard_ns; /* when something came of the ranks, or nothing was to come */
    _Atomic int64_t longest_ns; /* between two such moments so far */
    atomic_bool doubted;      /* the ranks are to be asked although nothing is to be learned */

    pthread_mutex_t lock;
    struct job *inbox, *inbox_last; /* not in the queue yet */
    struct room room;         /* for jobs: in the inbox, in the queue and running */
    bool closed;              /* nobody looks into the inbox any more */
    struct house house;

    struct job_queue queue;
    struct kept kept;
    struct pace pace;
    struct turn *turns;       /* [n_sequences] */
    float *mean;              /* [d_model] of states, when it is told */
    uint32_t n_turns;
    /* The step of which something came last. */
    uint64_t step;
    double step_s;            /* when it came */
    uint32_t n_drawn;         /* texts of it that have a token so far */
    /* Looking after things. */
    double looked_s, asked_s; /* when waiting jobs were looked at, when the ranks were asked */
    uint64_t asked_step;      /* steps at that time; UINT64_MAX: they were never asked */
    bool asking;
};

/* Whether a job's beginning is not on its way to be run for another; else it is better begun when that has run. */
bool turn_may_begin(void *engine, struct job *j);
/* Begins a job of the queue; one that cannot be is over. There is a turn for it. */
void turn_begin(struct engine *e, struct job *j);
/* What the session tells. */
void turn_event(struct engine *e, const struct session_event *event);
/* The turn is over, and so is its job; its text is kept unless the job failed. */
void turn_over(struct engine *e, struct turn *t, enum job_end end, const char *why);
/* A job that was taken out of the queue, or (j->ticket 0) never came there, is over. */
void job_over(struct engine *e, struct job *j, enum job_end end, const char *why);
/* Says how many jobs run and wait. */
void engine_show(struct engine *e);

#endif
