/* The messages of a chat. */
#ifndef HEARTH_CLI_CONVERSATION_H
#define HEARTH_CLI_CONVERSATION_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"

struct conversation {
    json_t *messages; /* an array of objects, owned; NULL: none was added yet */
};

/* Appends a message, texts copied, whatever bytes they are. `thought`: what the model thought before it said that, ""
 * for nothing. ST_NOMEM. */
status conversation_add(struct conversation *c, const char *role, const char *content, const char *thought);
/* Takes the last message away. */
void conversation_drop_last(struct conversation *c);
/* Takes the oldest question and its answer away, never the system message nor the last message. False if there is
 * none. */
bool conversation_drop_oldest(struct conversation *c);
/* Takes all away but the system message that it begins with. */
void conversation_clear(struct conversation *c);
void conversation_free(struct conversation *c);

/* The last message alone, with the system message before it if there is one: an array, to be freed with json_decref.
 * ST_NOMEM. */
status conversation_last(const struct conversation *c, json_t **out);

#endif
