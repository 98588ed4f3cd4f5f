/* Anthropic's way of asking in OpenAI's words. Stateless and thread-safe. */
#ifndef HEARTH_SERVE_MESSAGES_READ_H
#define HEARTH_SERVE_MESSAGES_READ_H

#include <jansson.h>
#include <stdbool.h>
#include "serve/fields.h"
#include "serve/tools.h"

/* What chat templates and grammars are made of. */
struct messages_asked {
    json_t *messages, *tools, *variables; /* new ones: messages_asked_free. tools NULL: there are none */
    enum tool_choice choice;
    const char *name;                     /* of TOOLS_NAMED, in the request */
    bool parallel;
};

/* Reads "system", "messages", "tools", "tool_choice" and "thinking" of a request. After a refusal (false) there is
 * nothing to free. */
bool messages_read(const json_t *root, struct messages_asked *out, struct refusal *r);
void messages_asked_free(struct messages_asked *a);

#endif
