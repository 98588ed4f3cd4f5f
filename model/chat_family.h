/* What model/chat.c formats by: each family is a table of what stands around a message of each role. Private to
 * model/chat.c and chat_families.c. */
#ifndef HEARTH_MODEL_CHAT_FAMILY_H
#define HEARTH_MODEL_CHAT_FAMILY_H

#include <stdbool.h>
#include <stddef.h>
#include "model/gguf.h"

/* In the tables: the model's tokens, whatever their texts. */
#define BOS "\001"
#define EOS "\002"

/* What stands around a content. */
struct wrap {
    const char *before, *after;
};

/* How a system message gets into the text. */
enum system_place {
    SYSTEM_OWN,    /* a message of its own */
    SYSTEM_INSIDE, /* within the user's message that follows, before its content */
};

enum trimming {
    TRIM_NOTHING,
    TRIM_CONTENTS, /* contents lose white space at both ends */
    TRIM_TURNS,    /* the same, but what a system message stands before keeps its beginning */
    TRIM_REPLIES,  /* only the assistant's contents */
};

struct chat_family {
    const char *name;
    bool begins; /* with BOS */
    struct wrap system, user, assistant;
    const char *reply;          /* opens the assistant's turn; NULL: nothing does */
    const char *default_system; /* said when the conversation does not begin with a system message; NULL: nothing */
    const char *system_prefix;  /* begins a first system message; NULL: nothing */
    const char *turn;           /* before each user message but the conversation's first; NULL: nothing */
    enum system_place place;
    enum trimming trim;
};

/* The family of this name, or NULL. */
const struct chat_family *chat_family_find(const char *name);
/* All names, ", " between them. */
void chat_family_names(char *out, size_t n);
/* The family that writes plain conversations as this template does, or NULL. *no_system: but not those that
 * begin with a system message. */
const struct chat_family *chat_family_of(struct gguf_string template, bool *no_system);

#endif
