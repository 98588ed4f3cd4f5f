/* How far long work has come, on stderr: a bar that is redrawn on a terminal, a plain line now and then otherwise.
 * One thread at a time. */
#ifndef HEARTH_CLI_PROGRESS_H
#define HEARTH_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool quiet, terminal;
    char what[48];     /* the work under way, "" if none */
    bool shown;        /* something of it has been printed */
    double started_s, printed_s;
    uint64_t started;  /* what was done already when it was first heard of */
};

void progress_init(struct progress *p, bool quiet);
/* `arg` is a struct progress. done == total ends the work. Prints ten times a second at most (terminal) or every ten
 * seconds (otherwise), and nothing about work that is over at once. Work of more than ten seconds is told with an
 * estimate of the time left. */
void progress_update(void *arg, const char *what, uint64_t done, uint64_t total);
/* A remark that belongs to the work under way, e.g. a running result; printed by the same rules. */
void progress_note(void *arg, const char *what, uint64_t done, uint64_t total, const char *note);

#endif
