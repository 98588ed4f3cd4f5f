/* A test of hearth bench: a prompt, or texts that decode side by side, and how long that takes. */
#ifndef HEARTH_CLI_BENCH_TEST_H
#define HEARTH_CLI_BENCH_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "cli/bench_devices.h"
#include "cli/progress.h"
#include "cli/time_split.h"
#include "node/cluster.h"

/* One test: `n` tokens, as a prompt or one by one; then of several sequences at once. */
struct test {
    char name[24];
    bool prompt;
    size_t n;
    size_t depth;        /* tokens of each text that have run before the clock starts */
    uint32_t sequences;
    int threads;
    double peak;         /* GB/s that this machine's memory gives to so many threads */
    /* What test_measure sets: */
    double mean, stddev; /* tokens per second, of all sequences together */
    uint64_t kv_bytes;   /* of KV memory at the end, on all ranks */
    struct time_split time;       /* of all runs together */
    double sent_bytes, messages;  /* of all runs, by all ranks */
    struct test_devices devices;  /* of all runs */
    double bytes_per_token, live; /* weight bytes read, counted; share of the neurons that were computed to the end */
};

/* Runs the test so many times on a cluster of at least its sequences, and a shorter one before, which is not counted:
 * it finds cold caches and sleeping threads. Errors of the session, logged; ST_NOMEM. */
status test_measure(struct cluster *c, struct test *t, int64_t runs, struct progress *p);

#endif
