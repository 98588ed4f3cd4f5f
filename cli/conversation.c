#include "cli/conversation.h"

#include <string.h>
#include "base/log.h"

static status no_memory(void)
{
    log_error("no memory for a message");
    return ST_NOMEM;
}

static bool set(json_t *message, const char *key, const char *text)
{
    return json_object_set_new(message, key, json_string_nocheck(text)) == 0;
}

status conversation_add(struct conversation *c, const char *role, const char *content, const char *thought)
{
    json_t *message = json_object();
    if (!c->messages)
        c->messages = json_array();
    if (set(message, "role", role) && set(message, "content", content) &&
        (!*thought || set(message, "reasoning_content", thought)) &&
        json_array_append(c->messages, message) == 0) {
        json_decref(message);
        return ST_OK;
    }
    json_decref(message);
    return no_memory();
}

static bool is_role(const struct conversation *c, size_t i, const char *role)
{
    const char *found = json_string_value(json_object_get(json_array_get(c->messages, i), "role"));
    return found && strcmp(found, role) == 0;
}

void conversation_drop_last(struct conversation *c)
{
    if (json_array_size(c->messages))
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
}

bool conversation_drop_oldest(struct conversation *c)
{
    size_t first = is_role(c, 0, "system");
    if (json_array_size(c->messages) < first + 2)
        return false;
    json_array_remove(c->messages, first);
    if (json_array_size(c->messages) > first + 1 && is_role(c, first, "assistant"))
        json_array_remove(c->messages, first);
    return true;
}

void conversation_clear(struct conversation *c)
{
    while (json_array_size(c->messages) > is_role(c, 0, "system"))
        conversation_drop_last(c);
}

void conversation_free(struct conversation *c)
{
    json_decref(c->messages);
    *c = (struct conversation){0};
}

status conversation_last(const struct conversation *c, json_t **out)
{
    const size_t n = json_array_size(c->messages);
    json_t *few = json_array();
    if ((n > 1 && is_role(c, 0, "system") && json_array_append(few, json_array_get(c->messages, 0)) != 0) ||
        json_array_append(few, json_array_get(c->messages, n - 1)) != 0) {
        json_decref(few);
        return no_memory();
    }
    *out = few;
    return ST_OK;
}
