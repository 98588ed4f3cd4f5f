/* Where the answers of a chat come from. */
#ifndef HEARTH_CLI_CHAT_ANSWERS_H
#define HEARTH_CLI_CHAT_ANSWERS_H

#include "base/status.h"
#include "cli/conversation.h"

struct chat_answers {
    /* Writes an answer to the conversation's last message on standard output, and adds it to the conversation. ST_FULL,
     * ST_USAGE, ST_BUDGET (logged): there is none to this message, but may be one to the next. */
    status (*answer)(void *source, struct conversation *c);
    /* The conversation begins anew. May be NULL. */
    void (*clear)(void *source);
    /* What it took, in a line on stderr. */
    void (*report)(const void *source);
    void *source;
};

#endif
