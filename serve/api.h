/* What the paths mean. A handler of HTTP's thread takes a request to the desk (serve/desk.h), a thread that reads its
 * JSON, writes it as tokens, and submits the jobs; the engine's thread turns tokens into what the client reads. */
#ifndef HEARTH_SERVE_API_H
#define HEARTH_SERVE_API_H

#include <jansson.h>
#include <stdatomic.h>
#include <time.h>
#include "model/jinja/writer.h"
#include "serve/engine.h"
#include "serve/http.h"
#include "serve/serve.h"
#include "serve/tools.h"

/* All that handlers share; immutable once `ready`, but for what locks itself. */
struct api {
    const struct serve_options *o;
    atomic_bool ready;               /* the model is loaded: what follows may be read */
    atomic_bool stopping;            /* nothing new is begun */
    _Atomic(const char *) abandoned; /* why the watch ends what is open, as the engine does not; NULL: it need not */
    struct serve_house house;
    const char *name;                /* the model's, for clients */
    time_t created;
    struct engine *engine;
    struct desk *desk;
    struct chat_writer *writer;      /* the desk's thread alone; NULL: the file has no template */
    struct chat_template chat;       /* the file's, or that of --chat-template */
    const struct tool_format *tools; /* of its calls */
    struct counts *counts;
    struct watch *watch;
    uint64_t n_asked;                /* requests that named no seed; the desk's */
};

extern const struct http_route api_routes[]; /* of struct api: serve/routes.c */
extern const size_t api_n_routes;

/* What went wrong, as a status and a body in the form that the path's API has (OpenAI's, or Anthropic's of /v1/messages).
 * `code` and `param` may be NULL. Ends the exchange. */
void api_refuse(struct http_exchange *x, int status, const char *code, const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* 503: there is no memory to begin with. */
void api_refuse_memory(struct http_exchange *x);
struct refusal; /* serve/fields.h */
void api_refuse_as(struct http_exchange *x, const struct refusal *r);
/* http_options.error_body. */
char *api_error_body(void *arg, const char *path, int status, const char *message, size_t *n);
/* A JSON value as the whole answer, which takes the reference. NULL: no memory for it. */
void api_answer(struct http_exchange *x, int status, json_t *body);
/* False while the model is loading: then the client has been told (503). */
bool api_is_ready(struct api *api, struct http_exchange *x);

#endif
