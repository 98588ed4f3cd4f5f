/* What each device of each rank did in a test of hearth bench. */
#ifndef HEARTH_CLI_BENCH_DEVICES_H
#define HEARTH_CLI_BENCH_DEVICES_H

#include <jansson.h>
#include "node/cluster.h"
#include "placement/probe.h"
#include "wire/wire.h"

/* Of a device, all runs of a test together. */
struct test_device {
    int rank;
    char device[PLAN_DEVICE_BYTES];    /* "cuda:0" */
    struct wire_device spent;
};

/* Those of all ranks that have done anything. */
struct test_devices {
    int n;
    struct test_device at[PLAN_MAX_HOLDERS];
};

/* Adds what went by between two moments (session_usage, of all ranks). */
void devices_add(const struct cluster *c, const struct wire_usage *before, const struct wire_usage *after,
                 struct test_devices *all);

/* GB/s that can be read at most. */
struct device_peaks {
    double cpu;                        /* by a rank's threads, while those of all ranks of this machine read */
    const struct probe *probe;         /* has the GPUs of all ranks; NULL: */
    const struct probe_rank *measured; /* those of this process, which are those of... */
    bool own_only;                     /* ... rank 0 alone: others are processes of their own */
};

/* Of all devices that have done anything together, as they may read at the same time. 0: of one it is not known. */
double devices_peak(const struct test_devices *d, const struct device_peaks *p);

/* An array: per token, of which there were so many in elapsed_s seconds. NULL: no memory (logged). */
json_t *devices_json(const struct test_devices *d, const struct device_peaks *p, double tokens, double elapsed_s);

#endif
