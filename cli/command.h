/* The subcommands: one file each. main.c only picks one. */
#ifndef HEARTH_CLI_COMMAND_H
#define HEARTH_CLI_COMMAND_H

#include "base/status.h"
#include "node/launch.h"

/* Runs the command with its own arguments (argv[0] is "hearth NAME"). Results go to stdout, everything else to stderr;
 * what goes wrong has been logged when it returns. May exit with status 2 on a wrong command line, as argp does. */
typedef status command_fn(const struct launch *launch, int argc, char **argv);

command_fn command_run, command_chat, command_bench, command_perplexity, command_tokenize, command_inspect,
    command_plan, command_prepare, command_probe, command_serve;

#endif
