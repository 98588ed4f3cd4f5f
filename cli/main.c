/* hearth: picks the subcommand and turns its status into the exit status. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "transport/transport.h"

enum { EXIT_WORK_FAILED = 1, EXIT_INPUT_WRONG = 2 };

static const struct {
    const char *name;
    command_fn *run;
} commands[] = {
    {"run", command_run},           {"chat", command_chat},             {"serve", command_serve},
    {"bench", command_bench},       {"perplexity", command_perplexity}, {"tokenize", command_tokenize},
    {"inspect", command_inspect},   {"plan", command_plan},             {"prepare", command_prepare},
    {"probe", command_probe},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

const char *argp_program_version = "hearth " HEARTH_VERSION;

static const char doc[] =
    "One language model over the PCs that are already in the house: every PC runs a rank under mpirun, each holds its "
    "part of the model in its own memory, and all compute every token together."
    "\n\n"
    "Commands:\n"
    "  run         continue a text\n"
    "  chat        hold a conversation\n"
    "  serve       serve a model to many, by OpenAI's and Anthropic's APIs\n"
    "  bench       measure tokens per second and memory bandwidth\n"
    "  perplexity  measure how well the model predicts a text\n"
    "  tokenize    show the tokens of a text\n"
    "  inspect     show what is in a model file\n"
    "  probe       measure the hosts' memory and the links between them\n"
    "  plan        show or check which rank holds what\n"
    "  prepare     measure a model's neurons and fit what --sparse needs\n"
    "\v"
    "'hearth COMMAND -h' shows a command's options. Every command works alone and under 'mpirun -np N'.\n"
    "Results go to standard output, everything else to standard error.\n"
    "\n"
    "Exit status: 0 done, 1 the work failed, 2 the command line or a file was wrong.";

static int exit_status(status st)
{
    switch (st) {
    case ST_OK:
        return EXIT_SUCCESS;
    case ST_USAGE:
    case ST_IO:
    case ST_FORMAT:
    case ST_UNSUPPORTED:
    case ST_MISMATCH:
    case ST_BUDGET:
        return EXIT_INPUT_WRONG;
    case ST_NOMEM:
    case ST_FULL:
    case ST_PEER:
    case ST_CANCELLED:
    case ST_NAN:
    case ST_INTERNAL:
        break;
    }
    return EXIT_WORK_FAILED;
}

/* Sees the arguments up to the command's name: what follows belongs to the command. */
static error_t parse(int key, char *arg, struct argp_state *state)
{
    int *command = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        for (int i = 0; i < N_COMMANDS; i++)
            if (strcmp(arg, commands[i].name) == 0)
                *command = i;
        if (*command < 0)
            argp_failure(state, argp_err_exit_status, 0, "error: there is no command '%s' (hearth --help lists them)",
                         arg);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_state_help(state, state->err_stream, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {.parser = parse, .args_doc = "COMMAND [OPTION...]", .doc = doc};
    struct launch launch = launch_read();
    argp_err_exit_status = EXIT_INPUT_WRONG;
    /* One voice: what a rank prints that all ranks would print alike, only rank 0 does. */
    if (launch.rank > 0 ? !freopen("/dev/null", "w", stdout) : output_open() != ST_OK)
        return EXIT_WORK_FAILED;

    /* `hearth help run` is `hearth run --help`. */
    char *asked[] = {argv[0], argc > 2 ? argv[2] : "--help", "--help", NULL};
    if (argc > 1 && strcmp(argv[1], "help") == 0) {
        argv = asked;
        argc = argc > 2 ? 3 : 2;
    }
    int command = -1, at = 1;
    while (at < argc && argv[at][0] == '-')
        at++;
    char name[64] = "hearth";
    int n_own = at < argc ? at + 1 : argc; /* options before the command are hearth's, the rest the command's */
    argv[0] = name;
    if (options_parse(&argp, &launch, n_own, argv, &command) != ST_OK || command < 0)
        return EXIT_INPUT_WRONG;

    snprintf(name, sizeof name, "hearth %s", commands[command].name);
    argv[at] = name;
    status st = commands[command].run(&launch, argc - at, argv + at);
    transport_mpi_finish();
    return exit_status(st);
}
