/* Where the time of several ranks' steps went. */
#ifndef HEARTH_CLI_TIME_SPLIT_H
#define HEARTH_CLI_TIME_SPLIT_H

#include "wire/wire.h"

struct time_split {
    double compute_s, wire_s, wait_s; /* none negative; their sum is the elapsed time */
};

/* Splits the time of steps by what the ranks that ran them as stages say (wire.h, USAGE; the difference between two
 * moments). On the way of a step, what no stage accounts for is messages from one to the next: wire, if there were
 * messages at all. Where steps overlapped, stages account for more than went by: then all parts shrink alike. */
struct time_split split_time(double elapsed_s, const struct wire_usage *spent);

#endif
