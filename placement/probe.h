/* What `hearth probe` has measured: how fast each rank reads its memory, how fast its GPUs are, and how fast messages
 * travel between every two ranks. Planning reads it. Pure data, as a plan is. */
#ifndef HEARTH_PLACEMENT_PROBE_H
#define HEARTH_PLACEMENT_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/machine.h"
#include "base/status.h"
#include "placement/plan.h"

enum { PROBE_MAX_SIZES = 8, PROBE_MAX_TRANSPORTS = 4, PROBE_MAX_CORES = 1024, PROBE_MAX_CURVE = 11, PROBE_MAX_GPUS = 16,
       PROBE_MOST = 1000000 /* GB/s, and us of a GPU: far beyond any, so that arithmetic stays finite */ };

/* A GPU that a rank can use, measured while all else on its host was quiet. GB/s are 10^9 bytes a second. */
struct probe_gpu {
    char device[PLAN_DEVICE_BYTES]; /* "cuda:0", as plans name it */
    char name[64];                  /* "NVIDIA GeForce RTX 4090" */
    char id[33];                    /* of the card, in hex: two ranks of a host that have the same one share it */
    uint64_t memory_bytes;          /* that were free for a run */
    double read_gb_per_s;           /* of its own memory, by kernels */
    double up_gb_per_s, down_gb_per_s; /* from the host's pinned memory to it, and back */
    double launch_us;               /* what a kernel of a graph takes that does nothing */
    double wait_us;                 /* from the start of such a kernel until the host has what it made */
};

struct probe_rank {
    char host[64];
    char boot_id[MACHINE_ID_BYTES]; /* of its machine; "": unknown */
    int cores, threads;        /* physical cores it may use; threads that it was measured with, as runs have them */
    uint64_t memory_bytes;     /* that the ranks of its machine may use together */
    double curve[PROBE_MAX_CURVE]; /* memory bandwidth, GB/s (10^9 bytes), with 1, 2, 4, ... and all of its threads, */
    int n_curve;               /* while all else on the host is quiet; probe_curve_points(threads) */
    double shared_gb_per_s;    /* the same with all its threads while every rank of its host reads too */
    int n_gpus;
    struct probe_gpu gpus[PROBE_MAX_GPUS]; /* each device once */
};

/* From one rank to another. */
struct probe_link {
    double us[PROBE_MAX_SIZES]; /* microseconds until a message of each size is there */
    double gb_per_s;            /* of many large messages one after the other */
};

struct probe_transport {
    char name[16];
    struct probe_link *links;  /* [n_ranks, n_ranks]: from, to; those of a rank to itself are zero */
};

struct probe {
    int n_ranks;
    struct probe_rank *ranks;  /* [n_ranks] */
    int n_sizes;
    int64_t sizes[PROBE_MAX_SIZES]; /* bytes of a message, ascending */
    int n_transports;          /* 0 where there is one rank */
    struct probe_transport transports[PROBE_MAX_TRANSPORTS];
};

/* An empty one of n_ranks ranks with room for n_transports transports' links; the caller fills it in. ST_NOMEM
 * (logged). */
status probe_create(int n_ranks, int n_transports, struct probe **out);
void probe_free(struct probe *p); /* NULL is fine */

/* How many thread counts bandwidth is measured with, 1, 2, 4, ... and `threads`; the i-th of them. */
int probe_curve_points(int threads);
int probe_curve_threads(int threads, int i);

/* Whether cores, threads, n_curve, n_gpus and what was measured of the GPUs can be those of a rank, for one that
 * another process describes: curve can be read up to n_curve then, gpus up to n_gpus. */
bool probe_rank_possible(const struct probe_rank *r);

/* Reads a probe from JSON text (n bytes, not NUL-terminated) and checks it completely: every rank, and every link of
 * two ranks once, each number positive and within reason. `where` names the text in error lines. ST_FORMAT, ST_NOMEM;
 * probe_load also ST_IO. Bytes are hostile: no input crashes. The format: docs/plans.md. */
status probe_parse(const char *text, size_t n, const char *where, struct probe **out);
status probe_load(const char *path, struct probe **out);

/* The probe as JSON text, NUL-terminated, malloc'ed (caller frees); NULL if out of memory. probe_parse reads it. */
char *probe_format(const struct probe *p);

/* Whether two ranks are on one machine, so that what they hold adds up. PCs made from one image may have the same name:
 * the boot id decides, where it is known. */
bool probe_same_machine(const struct probe_rank *a, const struct probe_rank *b);
/* Whether they are on one host of it too, so that they share its memory's bandwidth: network namespaces play hosts on
 * one machine, each with a name, and are not meant to. */
bool probe_same_host(const struct probe_rank *a, const struct probe_rank *b);

/* Whether the probe is of so many ranks. ST_MISMATCH (logged) if not. */
status probe_check(const struct probe *p, const char *where, int n_ranks);

/* The transport of this name; if there is none, or name is NULL, the one whose small messages are fastest over the
 * slowest link. -1: there is none at all. */
int probe_transport(const struct probe *p, const char *name);

/* Microseconds of a message of `bytes`: between the measured sizes in proportion, beyond them at the bandwidth. */
double probe_message_us(const struct probe *p, int transport, int from, int to, int64_t bytes);

#endif
