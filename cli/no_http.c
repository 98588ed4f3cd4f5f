/* In the place of what talks HTTP, in a program that is built without it. */
#include "base/log.h"
#include "cli/chat_url.h"
#include "cli/command.h"

static status no_http(const char *what)
{
    log_error("this hearth was built without HTTP (HEARTH_MPI=OFF), which %s needs", what);
    return ST_USAGE;
}

status command_serve(const struct launch *launch, int argc, char **argv)
{
    (void)launch, (void)argc, (void)argv;
    return no_http("serve");
}

status chat_url_open(const struct chat_url_options *o, struct chat_url **out)
{
    (void)o, (void)out;
    return no_http("--url");
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
