/* What run and chat share: a prompt goes in, tokens come out as text, and the time it took. */
#ifndef HEARTH_CLI_GENERATE_H
#define HEARTH_CLI_GENERATE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "cli/text.h"
#include "cli/thoughts.h"
#include "node/cluster.h"
#include "sampling/sampler.h"

/* Times and counts, summed over the turns of a chat. */
struct meter {
    size_t prompt_tokens, decoded_tokens; /* tokens evaluated in each way */
    double prompt_s, decode_s;
    double decode_bytes; /* weight bytes that the decoded tokens read, on all ranks */
    double first_token_s; /* from the program's start to the first token; 0: none yet, < 0: nobody asks */
};

/* The closing line, on stderr. */
void meter_print(const struct meter *m);
/* Seconds since this process started. */
double process_age_s(void);

/* dialogue_sampling. Unless quiet, or where nothing is left to chance, the seed is told: with it the text can be made
 * again. */
status sampling_begin(struct cluster *c, const struct sampler_params *p, bool quiet);

/* The tokens that a dialogue holds, kept to know what of the next prompt is already there. */
struct token_list {
    int32_t *at; /* malloc'ed; token_list_free */
    size_t n, cap;
};

status token_list_append(struct token_list *l, const int32_t *tokens, size_t n);
void token_list_free(struct token_list *l);

enum end_reason {
    END_ANSWER, /* a token that ends the answer came */
    END_LIMIT,  /* max_tokens are out */
    END_FULL,   /* the context is full */
    END_STOPPED /* *stop was set */
};

struct generation {
    struct cluster *cluster;
    int64_t max_tokens;          /* < 0: no limit */
    bool ignore_end;             /* a token that ends the answer is one like any other */
    bool special;                /* print control tokens too */
    struct thoughts *thoughts;   /* takes the answer in two parts, and was begun; NULL: nobody asks */
    volatile sig_atomic_t *stop; /* may be NULL */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
    struct meter *meter;
};

/* Appends prompt[n] to the dialogue, then prints the answer to `out` as it comes. `held` mirrors its tokens;
 * `answer` collects the text, unless g->thoughts does. ST_FULL (logged) if the prompt does not fit; ST_INTERNAL once
 * `out` cannot be written; errors of the dialogue otherwise. */
status generate(const struct generation *g, const int32_t *prompt, size_t n, FILE *out, struct token_list *held,
                struct text *answer, size_t *n_made, enum end_reason *why);

#endif
