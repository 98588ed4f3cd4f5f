/* In the place of what talks HTTP, in a program that is built without it. */
#include "base/log.h"
#include "cli/chat_url.h"

status chat_url_open(const struct chat_url_options *o, struct chat_url **out)
{
    (void)out;
    log_error("this hearth was built without HTTP (HEARTH_MPI=OFF), which '%s' needs", o->url);
    return ST_USAGE;
}

struct chat_answers chat_url_answers(struct chat_url *u)
{
    (void)u;
    return (struct chat_answers){0};
}

void chat_url_close(struct chat_url *u)
{
    (void)u;
}
