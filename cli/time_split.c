#include "cli/time_split.h"

struct time_split split_time(double elapsed_s, const struct wire_usage *spent)
{
    const double run_s = (double)spent->run_ns * 1e-9, shrink = run_s > elapsed_s ? elapsed_s / run_s : 1;
    struct time_split t = {.wire_s = (double)spent->wire_ns * 1e-9 * shrink,
                           .wait_s = (double)spent->wait_ns * 1e-9 * shrink};
    if (spent->messages > 0 && run_s < elapsed_s)
        t.wire_s += elapsed_s - run_s;
    t.compute_s = elapsed_s - t.wire_s - t.wait_s;
    t.compute_s = t.compute_s > 0 ? t.compute_s : 0; /* rounding */
    return t;
}
