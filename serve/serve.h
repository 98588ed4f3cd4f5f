/* The server: HTTP (serve/http.h), what its paths mean (serve/api.h), and the engine (serve/engine.h), from start to
 * stop. */
#ifndef HEARTH_SERVE_SERVE_H
#define HEARTH_SERVE_SERVE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "coordinator/session.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "sampling/sampler.h"

struct serve_options {
    const char *host;
    uint16_t port;                   /* 0: the system chooses; said in the line that tells where the server listens */
    const char *tls_cert, *tls_key, *cors_origin;
    const char *key, *key_file;      /* --api-key KEY; a file of keys, reread at SIGHUP; NULL: nobody needs one */
    const char *alias;               /* the model's name for clients; NULL: the file's, without folder and .gguf */
    const char *chat_template;       /* of chat_writer_open */
    uint32_t max_queue;              /* requests that wait, at most; more are 429 */
    double drain_s;
    bool lookup;                     /* drafts by looking up the text itself */
    struct sampler_params sampling;  /* of requests that say nothing */
    bool quiet;
    void (*end_job)(void);           /* ends the process, which cannot end in order when a rank is gone without a word;
                                      * NULL: no rank can be gone */
};

/* What a server stands on, once it is loaded. Borrowed. */
struct serve_house {
    const struct model *model;
    const struct tokenizer *tokenizer;
    struct session *session;
    uint32_t n_ctx, n_sequences;
    int n_ranks;
    const char *transport;
    const char *(*device)(void *arg, int rank, int i); /* "cuda:0"; NULL: it has no i-th */
    const char *(*host)(void *arg, int rank); /* the name of the machine that it runs on */
    void *arg;                       /* of both */
    const struct plan *plan;         /* which rank has which layers, for the page; may be NULL */
};

struct server;

/* Listens at once: whoever asks is told that the model is loading (503). ST_USAGE, ST_NOMEM, ST_INTERNAL (logged). */
status serve_open(const struct serve_options *o, struct server **out);
/* With the model, until serve_stop. ST_PEER (logged): a rank died; every open request has its error. */
status serve_run(struct server *s, const struct serve_house *h);
/* From signal handlers too: no new requests; those that run go on for drain_s. */
void serve_stop(struct server *s);
void serve_reload(struct server *s); /* the keys; likewise */
void serve_doubt(struct server *s);  /* a rank may be gone: if nothing comes of them any more, ends the job; likewise */
void serve_close(struct server *s);  /* NULL is fine */

#endif
