/* Chat templates: messages to the text that a model was trained on. The families are recognised from the file's
 * tokenizer.chat_template; no template language is interpreted. Stateless and thread-safe. */
#ifndef HEARTH_MODEL_CHAT_H
#define HEARTH_MODEL_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

struct chat_message {
    const char *role;    /* "system", "user", "assistant" */
    const char *content;
};

struct chat_family; /* a constant */

/* How a model wants its chats written. It points into the file; copies are as good. */
struct chat_template {
    const struct chat_family *family;
    struct gguf_string bos, eos; /* the texts of the model's tokens; empty: it has none */
    bool begins;                 /* the chat begins with BOS, whether or not the file asks for BOS around texts */
};

/* Whether there is a family of this name: "chatml", "llama2", "llama3", "mistral", "zephyr", ... ST_USAGE (logged with
 * all names) if not. */
status chat_family_check(const char *name);
/* The file's own template (`name` NULL) or the family of this name with the file's tokens; `t` is the file's tokenizer.
 * ST_UNSUPPORTED (the line names --chat-template and its values) if the file has no template or an unknown one,
 * ST_USAGE as above. */
status chat_template_of(const struct gguf *g, const struct tokenizer *t, const char *name, struct chat_template *out);
const char *chat_template_name(const struct chat_template *t);

/* A chat as text, in pieces of two kinds: the template's words, which may hold control tokens, and contents, which
 * never do. */
struct chat_text {
    char *at; /* [n], NUL-terminated besides; malloc'ed, as is contents: chat_text_free */
    size_t n;
    struct text_span *contents; /* [n_contents] where the messages' contents lie: in order, none empty */
    size_t n_contents;
};

/* Formats a conversation of n messages. `reply`: ends with the opening of the assistant's turn. The text holds the BOS
 * and EOS that the template gives, and is for tokenizer_encode_chat. ST_NOMEM (logged). */
status chat_format(const struct chat_template *t, const struct chat_message *messages, size_t n, bool reply,
                   struct chat_text *out);
void chat_text_free(struct chat_text *text);

/* The tokens of a conversation: chat_format, then tokenizer_encode_chat. *ids is malloc'ed, caller frees. */
status chat_encode(const struct chat_template *t, const struct tokenizer *tokenizer,
                   const struct chat_message *messages, size_t n, bool reply, int32_t **ids, size_t *n_ids);

#endif
