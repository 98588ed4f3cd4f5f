/* An answer on its way: a job for each of its choices, what they have said so far, and the client who reads it, at once
 * or as it comes. How it is written is a form of an API's own; all forms stand on the same jobs.
 *
 * A reply is made on the desk's thread, and from reply_submit on it is the engine's thread's; the watch (serve/watch.h)
 * looks at it meanwhile: cancels the jobs of a client that has left, and keeps a stream alive on which nothing moves.
 * */
#ifndef HEARTH_SERVE_REPLY_H
#define HEARTH_SERVE_REPLY_H

#include <pthread.h>
#include <time.h>
#include "serve/answer.h"
#include "serve/ask.h"
#include "serve/engine.h"
#include "serve/json_text.h"
#include "serve/watch.h"

struct reply;
struct choice;

/* How an API writes. All append to r->out, one at a time, mostly on the engine's thread. `open` to `keep_alive` are of
 * streams alone. */
struct reply_form {
    const char *prefix;     /* of ids: "chatcmpl-" */
    void (*open)(struct reply *r);                           /* before all else */
    void (*piece)(struct choice *c, const struct piece *p);
    void (*close)(struct choice *c);                         /* a choice is over, and did not fail */
    void (*done)(struct reply *r);                           /* all choices are */
    void (*fail)(struct reply *r, const char *message);      /* in place of all that would come */
    const char *keep_alive; /* what means nothing to a client */
    void (*whole)(struct reply *r);                          /* the body, of choices that are over */
};

/* A call of a tool in an answer that is no stream. */
struct said_call {
    char *name, *id;             /* malloc'ed */
    struct json_text arguments;  /* plain text: a JSON object */
};

/* A token with its log probability. */
struct token_mark {
    int32_t token;
    float log_p;                 /* NAN: of a prompt's first, before which there is nothing */
    uint32_t n_tops;
    struct wire_top tops[WIRE_TOP];
    uint64_t offset;             /* characters that the tokens before it print, those of a prompt with marks too */
};

struct choice {
    struct job job;              /* its owner is the choice */
    struct reply *reply;
    uint32_t index, prompt;      /* number among all; of its prompt */
    struct answer *answer;
    /* What was said; of streams nothing is kept. */
    struct json_text text, thought; /* plain */
    struct said_call *calls;     /* [n_calls] */
    uint32_t n_calls;
    uint64_t characters;         /* of the tokens in marks, so far */
    struct token_mark *marks;    /* [n_marks, of cap_marks] where log probabilities are wanted, of the prompt first if
                                  * its are; a form that has written them sets n_marks to 0 */
    uint32_t n_marks, cap_marks;
    /* When it is over. */
    enum job_end end;
    struct job_usage usage;
};

struct reply {
    struct api *api;
    struct http_exchange *x;
    const struct reply_form *form;
    char id[48];
    time_t created;
    struct ask ask;              /* what points into the request's JSON is gone by then */
    struct prompt *prompts;      /* [n_prompts] */
    uint32_t n_prompts;
    struct choice *choices;      /* [n_prompts * ask.n] those of a prompt side by side */
    uint32_t n_choices, n_over;
    char failure[256];           /* why it failed, "": it did not */
    struct json_text head;       /* of streams: for the form, what all its chunks begin with */
    struct json_text out;        /* what is to be written now */
    void *form_state;            /* the form's own, malloc'ed; NULL at first */
    /* Its own. */
    bool opened;                 /* the form has written its beginning */
    struct watched watched;
    pthread_mutex_t lock;        /* of all that changes after reply_submit: the watch writes too */
    bool begun, ended;           /* HTTP's answer */
    double wrote_s;              /* clock_s() of the last thing written */
};

/* Takes the exchange, the ask and the prompts [n_prompts] (malloc'ed; n_prompts * ask->n is ASK_TEXTS at most), all of
 * which it frees or ends, also if it fails: then NULL, and the client has been told. */
struct reply *reply_create(struct api *api, struct http_exchange *x, const struct reply_form *form, struct ask *ask,
                           struct prompt *prompts, uint32_t n_prompts);
/* What a request with one prompt asks for, and that; after a refusal (false) there is nothing to free. */
typedef bool reply_reader(struct api *api, const json_t *root, struct ask *a, struct prompt *p, struct refusal *r);
/* All of a desk's work for such a request: its reply is begun, or the client has been told why not. */
void reply_begin(struct api *api, struct http_exchange *x, const json_t *root, reply_reader *read,
                 const struct reply_form *form);
/* Brings the jobs to the engine. Too many wait: 429; there are more than could ever wait: 400. The reply is no longer
 * the caller's. */
void reply_submit(struct reply *r);

/* For forms. "stop", "length" or "tool_calls". */
const char *choice_finish(const struct choice *c);
/* Of all choices, and of each prompt once. */
struct reply_usage {
    uint64_t prompt_tokens, cached_tokens, made_tokens;
};
struct reply_usage reply_usage(const struct reply *r);
/* llama.cpp's object "timings" of a choice, appended. */
void reply_timings(struct json_text *t, const struct choice *c);

#endif
