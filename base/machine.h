/* The machine that this process runs on: which it is, and what the processes on it may use together. It is read from
 * /proc and from the cgroups above the process (both versions, inside containers too), afresh at each call. */
#ifndef HEARTH_BASE_MACHINE_H
#define HEARTH_BASE_MACHINE_H

#include <stdint.h>

enum { MACHINE_ID_BYTES = 37 };

struct machine {
    char boot_id[MACHINE_ID_BYTES]; /* a new one each time that a kernel starts, so machines of one name differ, and all
                                     * containers and network namespaces of a machine have the same; "": unknown */
    uint64_t id;           /* 64 bits of it, 0: unknown */
    uint64_t memory_bytes; /* RAM of the machine; UINT64_MAX: unknown */
    uint64_t limit_bytes;  /* what this process and those that share its limit may use of it, at most memory_bytes */
    uint64_t limit_id;     /* of the cgroup that sets this limit, among those of the machine; 0: none does */
    double cpus;           /* processors' worth of time that a cgroup's quota gives, 0: no quota */
};

/* `root` is put before every path: "" for this machine; a test gives a folder with files of another. What cannot be
 * read counts as unknown, or as no limit. Thread-safe. */
void machine_read(const char *root, struct machine *out);

/* Bytes of anonymous memory that this process holds, as the system counts; 0: unknown. Thread-safe. */
uint64_t machine_held(void);

#endif
