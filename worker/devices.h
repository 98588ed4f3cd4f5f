/* The devices of a rank, seen as one. One of them, the CPU unless the plan says otherwise, is the home of x; any other
 * gets x as the bytes of a message and gives its sums so, exactly as another rank would. */
#ifndef HEARTH_WORKER_DEVICES_H
#define HEARTH_WORKER_DEVICES_H

#include "wire/runs.h"
#include "worker/holders.h"
#include "worker/worker.h"

struct devices;

/* Serves others while one is at work; NULL: nobody is. */
typedef status serve_meanwhile(void *arg);

/* What they are opened with, and what each holds. Memory is not taken yet. ST_NOMEM, ST_UNSUPPORTED (shard_new);
 * logged. */
status devices_new(const struct worker_options *o, int rank, struct devices **out);
void devices_free(struct devices *d); /* NULL is fine */
/* Whether the rank has them. ST_UNSUPPORTED (logged) if not. */
status devices_check(const struct devices *d);
/* What open will take of one of the rank's holders; one that it does not have: as its CPU would. Errors of the device's
 * `need`. */
status devices_need(struct devices *d, int holder, struct device_memory *out);
/* Errors of devices_check, and of the devices' `open`. */
status devices_open(struct devices *d, struct pool *pool);
/* Loads all of them; says how far it is (worker_options.progress). */
status devices_load(struct devices *d);
/* The home of x; its options and what it holds. NULL on a dry run. */
struct device *devices_home(const struct devices *d);
const struct device_options *devices_options(const struct devices *d);
const struct shard *devices_shard(const struct devices *d);

/* Before a layer's attention: copies the pages that begin as others' copies, in all devices that have heads of it. */
void devices_copy_pages(struct devices *d, int layer, const struct wire_change *changes, uint32_t n);
/* home's sums[use] = the part of all of this rank's devices of home's in[use]. */
status devices_part(struct devices *d, const struct work *w, enum device_use use, serve_meanwhile *serve, void *arg);
/* This rank's own neurons of a layer whose down projections are elsewhere: they are one set, on one device. As the
 * device's `fire` and `live`. */
uint32_t devices_fire(struct devices *d, const struct work *w, enum device_use use);
void devices_live(struct devices *d, const struct work *w, const struct live *to);
/* home's sums[USE_OWN] += the down projection of a guest's live neurons, as the device's `project`. */
void devices_project(struct devices *d, const struct work *w, int guest, const struct live *from);
/* This rank's rows of the output matrix times home's in[use]: row r into logits[t * stride + r]; or, packed, one after
 * the other, device by device. */
void devices_logits(struct devices *d, const struct work *w, enum device_use use, bool packed, float *logits,
                    int64_t stride);
/* What any of them has found late (device.h): nothing of this step may leave the rank then. */
status devices_found(struct devices *d);
/* Since the last call, all together. */
struct wire_counts devices_counts(struct devices *d);
/* Since the start, device by device, the CPU first; returns how many there are. Of a plan that gives a rank more than
 * can be told, the first. */
uint32_t devices_spent(const struct devices *d, struct wire_device spent[WIRE_DEVICES_MOST]);
/* Until now the rank waited for others: it waits for no device since before that. */
void devices_idle_until(struct devices *d, uint64_t now_ns);

#endif
