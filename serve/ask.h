/* What requests of all APIs ask for alike: how to sample, where to stop, what is allowed, how much is wanted. */
#ifndef HEARTH_SERVE_ASK_H
#define HEARTH_SERVE_ASK_H

#include <jansson.h>
#include <stdbool.h>
#include "sampling/grammar.h"
#include "sampling/sampler.h"
#include "serve/api.h"
#include "serve/fields.h"
#include "serve/tools.h"

enum {
    ASK_STOPS = 16,   /* stop strings */
    ASK_CHOICES = 16, /* n */
    ASK_TEXTS = 128   /* prompts times n */
};

struct ask {
    struct sampler_params sampling; /* its bias and grammar are the reply's to set, of what follows */
    struct token_bias *bias;        /* [sampling.n_bias] malloc'ed, as are the grammar's ops: ask_free */
    struct grammar grammar;         /* ops NULL: anything may be said */
    const char *stops[ASK_STOPS];   /* [n_stops] in the request's JSON */
    size_t n_stops;
    uint32_t n;                     /* choices of each prompt */
    uint32_t n_top;                 /* of struct job */
    bool prompt_log_probs;          /* the prompts' tokens have marks too */
    uint32_t max_tokens;            /* UINT32_MAX: as many as there is room for */
    bool stream, include_usage, ignore_end;
    const struct tool_format *tools; /* calls are read; NULL: they are text */
    json_t *called;                 /* the request's tools, whose reference ask_free gives back; NULL: none */
    bool thoughts;                  /* are told apart from the answer */
};

/* A prompt as tokens. */
struct prompt {
    int32_t *ids; /* [n] malloc'ed */
    uint32_t n;
};

/* Reads what has the same name everywhere: temperature, top_p, top_k, min_p, the penalties, seed, logit_bias, n,
 * stream, stream_options, ignore_eos. Sets all of *a; after a refusal there is nothing to free. */
bool ask_read(struct api *api, const json_t *root, struct ask *a, struct refusal *r);
/* A string or an array of them, none of them longer than 1 KiB; empty ones are refused. `name`: "stop". */
bool ask_stops(const json_t *root, const char *name, struct ask *a, struct refusal *r);
/* A number of tokens, `least` (0 or 1) or more; -1: no limit. */
bool ask_max_tokens(const json_t *root, const char *name, int least, struct ask *a, struct refusal *r);
/* Calls of tools: the grammar, and that they are read. A grammar that is there already is of a text in place of calls,
 * if there is to be one. `tools`: OpenAI's, checked here; NULL: none. */
bool ask_tools(const struct api *api, const json_t *tools, enum tool_choice choice, const char *name, bool parallel,
               struct ask *a, struct refusal *r);
/* What a grammar is of comes behind thoughts: those that a prompt has opened, and (a->thoughts) that the model
 * opens. */
bool ask_behind_thoughts(const struct api *api, const struct prompt *p, struct ask *a, struct refusal *r);
void ask_free(struct ask *a);

/* OpenAI's messages as tokens: checked (roles, kinds of parts), parts of text joined, arguments of calls as objects;
 * then by the desk's writer, with an answer due. kwargs: chat_template_kwargs, an object or NULL. Refuses what does not
 * fit into the context. ids: caller frees. */
bool ask_conversation(struct api *api, const json_t *messages, const json_t *tools, const json_t *kwargs,
                      struct prompt *out, struct refusal *r);
/* What became of encoding a text within api->house.n_ctx tokens (tokenizer_encode_within): context_length_exceeded if
 * it has more. */
bool ask_encoded(const struct api *api, status st, const char *param, struct refusal *r);
/* context_length_exceeded unless a prompt of n tokens leaves room for one more. */
bool ask_fits(const struct api *api, size_t n, struct refusal *r);

#endif
