/* The engine: whoever has the session. One thread runs it (engine_run) and with it rank 0's part of every step; others
 * bring jobs, which it carries out together, in the order that is fair to all keys, and tells of every token. */
#ifndef HEARTH_SERVE_ENGINE_H
#define HEARTH_SERVE_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "coordinator/session.h"
#include "serve/counts.h"

struct engine;

struct engine_options {
    struct session *session;      /* borrowed, as is all else */
    uint32_t n_ctx, n_sequences;  /* tokens of a text; that run at once */
    uint32_t max_queue;           /* jobs that wait, at most */
    bool lookup;                  /* drafts from the text itself, where they pay */
    bool (*is_end)(const void *arg, int32_t token); /* ends an answer */
    const void *is_end_arg;
    struct counts *counts;        /* what /metrics tells */
};

enum job_kind { JOB_TEXT, JOB_STATES /* the model's states of the text, pooled */ };
enum job_pool { POOL_LAST, POOL_MEAN };
/* Why a job is over. */
enum job_end {
    JOB_ANSWERED, /* a token that ends the answer came, or the job's owner said so */
    JOB_LIMIT,    /* max_tokens are out, or the context is full */
    JOB_CANCELLED,
    JOB_FAILED    /* the session is broken, or the server stops; `why` says it */
};

struct job_usage {
    uint32_t prompt_tokens, cached_tokens; /* of the prompt, those that did not run for it */
    uint32_t made_tokens;                  /* told to the owner, the end not counted */
    uint32_t drafts, accepted;
    double queued_s, prompt_s, decode_s, first_token_s; /* first_token_s: from submission */
};

/* One text that is to be continued, or whose states are wanted. Its owner fills it in, submits it, and does not touch it
 * until `over` has been called, but for `cancelled`. */
struct job {
    enum job_kind kind;
    enum job_pool pool;
    int32_t *prompt;              /* [n_prompt], 1 or more; tokens of the vocabulary; owned by the owner */
    uint32_t n_prompt;
    struct sampler_params sampling; /* grammar_from is the engine's: n_prompt */
    uint32_t n_top;               /* best tokens and log probabilities wanted; UINT32_MAX: none, 0: the token's alone */
    uint32_t max_tokens;          /* UINT32_MAX: as many as there is room for */
    bool ignore_end;
    uint32_t key;                 /* whose it is: turns are fair between keys */
    atomic_bool cancelled;        /* by any thread: over as soon as the engine sees it */
    /* All by the engine's thread; they may not wait. */
    /* Chunks of the prompt: `done` of n_prompt. May be NULL. */
    void (*progress)(struct job *j, uint32_t done);
    /* A token that is part of the answer. False: the answer is over with it. tops [n_tops]: best first; log_p: its own (0
     * unless n_top says so). */
    bool (*token)(struct job *j, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops);
    /* JOB_STATES: [n] f32, before over. */
    void (*states)(struct job *j, const float *values, uint32_t n);
    /* The last call: the job is the owner's again. `why`: NULL unless JOB_FAILED. */
    void (*over)(struct job *j, enum job_end end, const struct job_usage *u, const char *why);
    void *owner;
    /* the engine's */
    struct job *next;
    struct sequence *sequence;
    struct job_usage usage;
    double submitted_s, began_s, first_s;
    uint32_t n_run;
};

/* ST_NOMEM (logged). */
status engine_create(const struct engine_options *o, struct engine **out);
void engine_free(struct engine *e); /* after engine_run; NULL is fine */

/* Any thread. All n jobs or none. ST_FULL (not logged): too many wait; ST_PEER: the session is broken, or the engine
 * stops. */
status engine_submit(struct engine *e, struct job *const *jobs, uint32_t n);
/* Until engine_stop, and then until all jobs are over; jobs that are not over drain_s seconds after it fail. ST_PEER
 * (logged): a rank died; all jobs have failed. */
status engine_run(struct engine *e);
/* Any thread, signal handlers too. New jobs are refused. */
void engine_stop(struct engine *e, double drain_s);

/* For pages and reports; any thread. Asks the ranks between steps at most once a second, so it may be as old as that. */
struct house {
    uint32_t n_ranks;
    struct wire_usage ranks[64];  /* since the start */
    struct schedule_counts schedule;
    double at_s;                  /* clock_s() when it was asked */
};
void engine_house(struct engine *e, struct house *out);

#endif
