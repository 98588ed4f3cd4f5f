/* The messages of a chat. */
#ifndef HEARTH_CLI_CONVERSATION_H
#define HEARTH_CLI_CONVERSATION_H

#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"
#include "model/chat.h"

struct conversation {
    struct chat_message *messages; /* owned, as is each content; roles are constants */
    size_t n, cap;
};

/* Appends a message, content copied. ST_NOMEM. */
status conversation_add(struct conversation *c, const char *role, const char *content);
/* Takes the last message away. */
void conversation_drop_last(struct conversation *c);
/* Takes the oldest question and its answer away, never the system message nor the last message. False if there is
 * none. */
bool conversation_drop_oldest(struct conversation *c);
/* Takes all away but the system message that it begins with. */
void conversation_clear(struct conversation *c);
void conversation_free(struct conversation *c);

#endif
