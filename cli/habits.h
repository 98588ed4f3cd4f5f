/* What people type who come from llama.cpp, put into hearth's own words before argp reads it.
 *
 * argp alone would cut "-ngl 99" into -n with the value "gl", and take "--predict" for --predictor. Here a word of a
 * dash and several letters is one option, as there; a long option is one only when it is written out; an underscore in
 * its name is a dash. */
#ifndef HEARTH_CLI_HABITS_H
#define HEARTH_CLI_HABITS_H

#include <argp.h>
#include <stdbool.h>
#include "base/status.h"

enum habit_value { VALUE_NONE, VALUE_ONE, VALUE_MAYBE /* what looks like a switch's position: on, off, auto, 0, 1 */ };

enum habit_kind {
    HABIT_SAME,     /* another word for a hearth option */
    HABIT_NEEDLESS, /* it would change nothing here: accepted, and a line says so */
    HABIT_REFUSED   /* hearth has nothing like it */
};

/* One row of docs/from-llama.cpp.md. */
struct habit {
    const char *words;    /* its spellings, such as "-ngl --gpu-layers" */
    const char *commands; /* where this holds, such as "run chat"; NULL: wherever no row above it does */
    enum habit_value value;
    enum habit_kind kind;
    const char *text;     /* HABIT_SAME: hearth's option; else why it is needless, or what to use instead */
};

extern const struct habit habits[]; /* the end has no words */

/* argv in the words of `argp`, whose argv[0] is "hearth COMMAND" (or "hearth" for what stands before a command).
 * *out_argv [*out_argc + 1] is malloc'ed and ends with NULL; its strings are argv's own, whose underscores change, or
 * constant. A line on stderr for each option that is left out; ST_USAGE (logged) for one that hearth has not, by its
 * own name; `quiet` prints none of these. ST_NOMEM. */
status habits_apply(const struct argp *argp, int argc, char **argv, bool quiet, int *out_argc, char ***out_argv);

#endif
