/* Ranks of the verbs transport over the fake network, each a thread. */
#ifndef HEARTH_TESTS_VERBS_RANKS_H
#define HEARTH_TESTS_VERBS_RANKS_H

#include "base/log.h"
#include "tests/conformance/fake_verbs.h"
#include "tests/conformance/transport_conformance.h"
#include "transport/verbs.h"

struct verbs_rank {
    int rank, n_ranks;
    struct verbs_options options;
    struct fake_seat seat;
    struct transport *t;       /* NULL: not opened */
    status opened, connected;
    struct check check;
    struct log_catcher errors; /* of the whole life */
    void (*body)(struct verbs_rank *r);
};

/* On n threads: opens (with the options in ranks[r], whose calls are set here), connects, runs `body` (NULL: nothing)
 * where that went well, closes. Fills in ranks[n]. Nothing must be left open afterwards. */
void verbs_ranks_run(int n, struct verbs_rank *ranks, void (*body)(struct verbs_rank *r));

#endif
