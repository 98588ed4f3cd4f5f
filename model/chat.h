/* Chat templates: messages to the text that a model was trained on. The families are recognised from the file's
 * tokenizer.chat_template; no template language is interpreted. Stateless and thread-safe. */
#ifndef HEARTH_MODEL_CHAT_H
#define HEARTH_MODEL_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"
#include "model/gguf.h"

struct chat_message {
    const char *role;    /* "system", "user", "assistant" */
    const char *content;
};

struct chat_template; /* constant; never freed */

/* By name: "chatml", "llama2", "llama3", "mistral", "zephyr", ... ST_USAGE (logged with all names) if unknown. */
status chat_template_by_name(const char *name, const struct chat_template **out);
/* From the file. ST_UNSUPPORTED (the line names --chat-template and its values) if it has none or an unknown one. */
status chat_template_of(const struct gguf *g, const struct chat_template **out);
const char *chat_template_name(const struct chat_template *t);

/* Formats messages[first, n) of a conversation of n messages; formatting piece by piece gives the same text as all at
 * once. `reply`: ends with the opening of the assistant's turn. The text (NUL-terminated, malloc'ed, caller frees) is
 * to be encoded with parse_special; without the BOS that the tokenizer adds. ST_NOMEM. */
status chat_format(const struct chat_template *t, const struct chat_message *messages, size_t first, size_t n,
                   bool reply, char **text);

#endif
