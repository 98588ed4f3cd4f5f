/* Chats as the text that a model was trained on. Families of formats are built in, and some templates are known to be
 * theirs; all others are for Jinja (model/jinja/writer.h). Stateless and thread-safe. */
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
    const struct chat_family *family; /* NULL: the file's template is of none */
    struct gguf_string text;     /* the file's own template, in Jinja; empty: it has none */
    struct gguf_string bos, eos; /* the texts of the model's tokens; empty: it has none */
    bool named;                  /* the family was asked for by its name */
    bool begins;                 /* the family's chats begin with BOS, whether or not the file asks for one */
    bool no_system;              /* what begins with a system message, the file's template writes otherwise */
};

/* Whether there is a family of this name: "chatml", "llama2", "llama3", "mistral", "zephyr", ... ST_USAGE (logged with
 * all names) if not. */
status chat_family_check(const char *name);
/* The family of this name with the file's tokens or (`name` NULL) the file's own template, with its family if it is
 * known; `t` is the file's tokenizer. ST_UNSUPPORTED (the line names --chat-template and its values) if the file has no
 * template, ST_USAGE as above. */
status chat_template_of(const struct gguf *g, const struct tokenizer *t, const char *name, struct chat_template *out);
/* The family's name, or NULL. */
const char *chat_template_name(const struct chat_template *t);
/* Whether chat_format gives, character for character, what the template gives for this conversation: one of a system
 * message or none, then users and assistants in turn, to which a reply is due if and only if a user spoke last. Always
 * if the family was named. */
bool chat_template_writes(const struct chat_template *t, const struct chat_message *messages, size_t n, bool reply);

/* A chat as text, in pieces of two kinds: the template's words, which may hold control tokens, and contents, which
 * never do. */
struct chat_text {
    char *at; /* [n], NUL-terminated besides; malloc'ed, as is contents: chat_text_free */
    size_t n;
    struct text_span *contents; /* [n_contents] where the messages' contents lie: in order, none empty */
    size_t n_contents;
};

/* Formats n messages by the template's family. `reply`: ends with the opening of the assistant's turn. The text holds
 * the BOS and EOS that the template gives, and is for tokenizer_encode_chat. ST_NOMEM (logged). */
status chat_format(const struct chat_template *t, const struct chat_message *messages, size_t n, bool reply,
                   struct chat_text *out);
void chat_text_free(struct chat_text *text);

#endif
