/* Conversations as a model's tokens: by a family that is built in where it is known to give what the file's template
 * gives, and by that template itself, in a process that runs Jinja, everywhere else. One thread owns a writer. */
#ifndef HEARTH_MODEL_JINJA_WRITER_H
#define HEARTH_MODEL_JINJA_WRITER_H

#include <jansson.h>
#include <stdbool.h>
#include "base/status.h"
#include "model/chat.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

struct chat_writer;

/* For the file's template, or (`name` not NULL) a family's format. `g` and `t`, its tokenizer, must outlive the writer.
 * A template that is no family's is tried on a few words: ST_UNSUPPORTED (logged) if Jinja is not there or if what it
 * writes becomes other tokens than it would if all of it were the template's words, ST_BUDGET if it takes too long.
 * (With tools it is tried when tools first come, and beside a family when that first has no words.) What
 * chat_template_of returns; ST_NOMEM. */
status chat_writer_open(const struct gguf *g, const struct tokenizer *t, const char *name, struct chat_writer **out);
void chat_writer_close(struct chat_writer *w); /* NULL is fine */

/* ST_USAGE (logged) if this is no array of messages: objects with a role and, if they have a content, a string or an
 * array. */
status chat_messages_check(const json_t *messages, const char *where);

/* A conversation as text. `messages` are checked ones, `tools` an array or NULL; `reply`: it ends with the opening of
 * the assistant's turn. `variables`: more that the template may read ({"enable_thinking": false}), an object or NULL;
 * what it does not name changes nothing, as none does where the family was named. ST_USAGE (logged): the template
 * refuses it, or a family has no words for it. Else as chat_writer_open. After a failure the writer may be used
 * again. */
status chat_writer_text(struct chat_writer *w, const json_t *messages, const json_t *tools, const json_t *variables,
                        bool reply, struct chat_text *out);
/* The same as tokens: *ids [*n_ids], malloc'ed, caller frees. */
status chat_writer_encode(struct chat_writer *w, const json_t *messages, const json_t *tools, const json_t *variables,
                          bool reply, int32_t **ids, size_t *n_ids);

#endif
