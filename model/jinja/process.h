/* The helper: a process that renders templates (helper.py), started when it is needed and kept, without files, network
 * or environment, and with limits. One thread owns it. */
#ifndef HEARTH_MODEL_JINJA_PROCESS_H
#define HEARTH_MODEL_JINJA_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/status.h"

/* The helper's program, NUL-terminated: helper.py as it was when hearth was built. */
extern const char jinja_helper_text[];

struct jinja_limits {
    const char *python;  /* the interpreter's path */
    uint32_t wait_ms;    /* for an answer */
    uint32_t cpu_s;      /* of processor time; the helper ends when half of it is gone */
    uint64_t memory;     /* bytes of addresses */
    uint32_t output;     /* bytes of an answer */
};

struct jinja_process {
    struct jinja_limits limits;
    pid_t pid; /* 0: none runs */
    int socket;
};

/* Sends a request [n bytes] and awaits its answer, *answer [*n_answer], malloc'ed. Starts the helper if none runs. A
 * line begins with `where`. ST_UNSUPPORTED: the interpreter is not there; ST_BUDGET: the answer took too long, or the
 * helper ended of it; ST_FORMAT: it is too long; ST_NOMEM; ST_INTERNAL: no process can be started. After a failure no
 * helper runs. */
status jinja_process_ask(struct jinja_process *p, const char *where, const char *request, size_t n, uint8_t **answer,
                         size_t *n_answer);
/* Ends the helper, if one runs. */
void jinja_process_end(struct jinja_process *p);

#endif
