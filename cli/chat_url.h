/* Answers from a server that speaks OpenAI's API: hearth's own, or any other. */
#ifndef HEARTH_CLI_CHAT_URL_H
#define HEARTH_CLI_CHAT_URL_H

#include <signal.h>
#include <stdbool.h>
#include "cli/chat_answers.h"
#include "sampling/sampler.h"

struct chat_url_options {
    const char *url;     /* "http://pc:8080", with or without "/v1" behind it */
    const char *api_key; /* NULL: none is sent */
    const char *model;   /* NULL: the server's */
    const struct sampler_params *sampling; /* what is not as `unset` says is sent, and the seed */
    const struct sampler_params *unset;
    int64_t n_predict;   /* < 0: no limit */
    bool dimmed;         /* thoughts are written, in a terminal's faint letters */
    volatile sig_atomic_t *stop; /* ends an answer */
};

struct chat_url;

/* ST_USAGE (logged): the URL is none, or this hearth was built without HTTP; ST_NOMEM. What `o` points to is
 * borrowed. */
status chat_url_open(const struct chat_url_options *o, struct chat_url **out);
/* To be called with out's `source`. Oldest turns are forgotten where the server says that the context is too short. */
struct chat_answers chat_url_answers(struct chat_url *u);
void chat_url_close(struct chat_url *u); /* NULL is fine */

#endif
