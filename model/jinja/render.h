/* A conversation by the file's own template, rendered by the helper. */
#ifndef HEARTH_MODEL_JINJA_RENDER_H
#define HEARTH_MODEL_JINJA_RENDER_H

#include <jansson.h>
#include <stdbool.h>
#include <time.h>
#include "base/status.h"
#include "model/chat.h"
#include "model/jinja/process.h"

/* What is said and what is to be written of it. */
struct jinja_chat {
    const json_t *messages; /* an array of objects, in the words of OpenAI's API; strings may hold broken UTF-8 */
    const json_t *tools;    /* an array of objects; NULL: none */
    const json_t *variables; /* an object: what else the template may read; NULL: nothing */
    bool reply;             /* the text ends with the opening of the assistant's turn */
    struct tm now;          /* for templates that write the date */
};

/* Renders the template t->text. A line begins with `where`. ST_UNSUPPORTED: the template is no UTF-8; what
 * jinja_process_ask and jinja_answer_decode return; unless that is ST_OK or ST_USAGE, no helper runs any more. */
status jinja_render(struct jinja_process *p, const char *where, const struct chat_template *t,
                    const struct jinja_chat *chat, struct chat_text *out);

#endif
