#include "cli/conversation.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"

status conversation_add(struct conversation *c, const char *role, const char *content)
{
    char *copy = strdup(content);
    struct chat_message *messages = c->messages;
    if (c->n == c->cap && copy) {
        messages = realloc(c->messages, (2 * c->cap + 8) * sizeof *messages);
        if (messages) {
            c->messages = messages;
            c->cap = 2 * c->cap + 8;
        }
    }
    if (!copy || !messages) {
        log_error("no memory for a message");
        free(copy);
        return ST_NOMEM;
    }
    c->messages[c->n++] = (struct chat_message){.role = role, .content = copy};
    return ST_OK;
}

/* Contents are this file's own copies; the const is for those who only read. */
static void remove_at(struct conversation *c, size_t i)
{
    free((char *)c->messages[i].content);
    memmove(&c->messages[i], &c->messages[i + 1], (c->n - i - 1) * sizeof *c->messages);
    c->n--;
}

void conversation_drop_last(struct conversation *c)
{
    if (c->n)
        remove_at(c, c->n - 1);
}

bool conversation_drop_oldest(struct conversation *c)
{
    size_t first = c->n && strcmp(c->messages[0].role, "system") == 0;
    if (c->n < first + 2)
        return false;
    remove_at(c, first);
    if (c->n > first + 1 && strcmp(c->messages[first].role, "assistant") == 0)
        remove_at(c, first);
    return true;
}

void conversation_clear(struct conversation *c)
{
    while (c->n > 1 || (c->n && strcmp(c->messages[0].role, "system") != 0))
        conversation_drop_last(c);
}

void conversation_free(struct conversation *c)
{
    while (c->n)
        conversation_drop_last(c);
    free(c->messages);
    *c = (struct conversation){0};
}
