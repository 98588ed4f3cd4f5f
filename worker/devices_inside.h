/* What devices.c, which opens a rank's devices, and devices_parts.c, which computes with them, share. */
#ifndef HEARTH_WORKER_DEVICES_INSIDE_H
#define HEARTH_WORKER_DEVICES_INSIDE_H

#include "base/arena.h"
#include "worker/devices.h"
#include "worker/watch.h"

struct one {
    const struct device_ops *ops;
    struct device_options options;
    struct shard *shard;
    struct device *device;
    int holder;
    bool async;                      /* a GPU: it returns before its part is done, so it begins before the others */
    struct watch watch;
};

struct devices {
    const struct worker_options *o;
    struct device_shape shape;
    int n;
    struct one *one;                 /* [n], the CPU first */
    struct one *home;                /* of x */
    /* Where a part goes from device to device; NULL where there is one device. In main memory, with the CPU's. */
    struct arena arena;
    struct input_bytes in[DEVICE_USES];
    struct sum_bytes out;
    uint64_t done, total, shown;     /* bytes of weights that are loaded */
    uint64_t now_ns;                 /* the last look at the clock */
};

#endif
