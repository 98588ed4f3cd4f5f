/* The engine: whoever has the session. One thread runs it (engine_run) and with it rank 0's part of every step; others
 * bring jobs, which it carries out together, in the order that is fair to all keys, and tells of every token. */
#ifndef HEARTH_SERVE_ENGINE_H
#define HEARTH_SERVE_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "coordinator/session.h"
#include "placement/plan.h"
#include "serve/counts.h"

struct engine;

struct engine_options {
    struct session *session;      /* borrowed, as is all else */
    uint32_t n_ctx, n_sequences;  /* tokens of a text; that run at once, those of the session at most. What the session
                                   * has room for beyond that keeps beginnings */
    uint32_t max_queue;           /* jobs that wait, at most; as many more of keys with n_sequences jobs or fewer */
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
    JOB_LIMIT,    /* max_tokens are out; or the context, or all KV memory, is full and some tokens were made */
    JOB_CANCELLED,
    JOB_FAILED    /* `why` says it: the session is broken, the server stops, the prompt does not fit into the context or
                   * into KV memory, or what is wanted cannot be had */
};

struct job_usage {
    uint32_t prompt_tokens, cached_tokens; /* of the prompt, those that did not run for it */
    uint32_t made_tokens;                  /* told to the owner, the end not counted */
    uint32_t drafts, accepted;             /* tokens that were guessed, and guessed right */
    double queued_s, prompt_s, decode_s, first_token_s; /* first_token_s: from submission */
};

/* One text that is to be continued, or whose states are wanted. Its owner fills it in, submits it, and does not touch
 * it until `over` has been called, but for `cancelled`. */
struct job {
    enum job_kind kind;
    enum job_pool pool;
    int32_t *prompt;              /* [n_prompt], 1 or more; tokens of the vocabulary; owned by the owner */
    uint32_t n_prompt;
    struct sampler_params sampling; /* grammar_from is the engine's: n_prompt */
    uint32_t n_top;               /* best tokens and log probabilities wanted; UINT32_MAX: none, 0: the token's alone */
    /* JOB_TEXT: log_p[n] of the prompt's tokens from `first` on, each by what is before it, and tops [n * n_top], as of
     * tokens that are made; all but the prompt's first come, in order, before any of these. NULL: not wanted. By the
     * engine's thread, as what follows. */
    void (*log_probs)(struct job *j, uint32_t first, uint32_t n, const float *log_p, const struct wire_top *tops,
                      uint32_t n_top);
    uint32_t max_tokens;          /* UINT32_MAX: as many as there is room for: prompt and answer are n_ctx at most. 0:
                                   * it is over when the prompt has run, where that is to run at all */
    bool ignore_end;
    uint32_t key;                 /* whose it is: keys have the same number of tokens, prompts too, as far as they
                                   * want */
    atomic_bool cancelled;        /* by any thread: over as soon as the engine sees it */
    /* All by the engine's thread; they may not wait. */
    /* A chunk of the prompt has run: `done` of n_prompt are. May be NULL. */
    void (*progress)(struct job *j, uint32_t done);
    /* A token that is part of the answer. False: the answer is over with it. tops [n_tops]: best first; log_p: its own
     * (0 unless n_top says so). */
    bool (*token)(struct job *j, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops);
    /* JOB_STATES: [n] f32, before over. */
    void (*states)(struct job *j, const float *values, uint32_t n);
    /* The last call: the job is the owner's again. `why`: NULL unless JOB_FAILED. */
    void (*over)(struct job *j, enum job_end end, const struct job_usage *u, const char *why);
    void *owner;
    /* the engine's */
    struct job *next;
    uint64_t ticket, behind;      /* order of arrival; ticket of the one whose beginning it waits for, 0: of none */
    uint32_t behind_n;            /* that beginning, in tokens */
    struct job_usage usage;
    double submitted_s, began_s, first_s;
};

/* ST_NOMEM, ST_INTERNAL: no eventfd (logged). */
status engine_create(const struct engine_options *o, struct engine **out);
void engine_free(struct engine *e); /* after engine_run; NULL is fine */

/* Any thread, callbacks too. All n jobs, of one key, or none. ST_FULL (not logged): too many wait; ST_PEER: the session
 * is broken, or the engine stops. */
status engine_submit(struct engine *e, struct job *const *jobs, uint32_t n);
/* Until engine_stop, and then until all jobs are over; jobs that are not over drain_s seconds after it fail. Errors
 * (logged) are the session's, which is broken: a rank died (ST_PEER), its answer is none (ST_FORMAT); all jobs, those
 * that waited too, have failed. No sequence is left in the session. */
status engine_run(struct engine *e);
/* Any thread, signal handlers too. New jobs are refused. Of several the earliest end counts. */
void engine_stop(struct engine *e, double drain_s);

/* How long nothing has come of the ranks that something is to come of (0: nothing is), and the longest that it took so
 * far. Any thread. */
struct engine_silence {
    double now_s, longest_s;
};
struct engine_silence engine_silence(struct engine *e);
/* Asks the ranks something as soon as it can, so that who is gone is silent. Any thread. */
void engine_doubt(struct engine *e);

/* For pages and reports; any thread; may not wait. The ranks are asked once a second while there are steps and once
 * more behind the last, without a step waiting for it: so it is about a second old. */
struct house {
    uint32_t n_ranks;
    struct wire_usage ranks[PLAN_MAX_RANKS]; /* since the start */
    double read_gb_per_s[PLAN_MAX_RANKS];    /* of late: between the last two times; 0: there are no steps */
    struct schedule_counts schedule;
    double at_s;                  /* clock_s() when the ranks had all answered; 0: they have not yet */
};
void engine_house(struct engine *e, struct house *out);

#endif
