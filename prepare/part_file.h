/* What the files of the checkpoint share (part.c: header and state; part_data.c: what lies behind them). */
#ifndef HEARTH_PREPARE_PART_FILE_H
#define HEARTH_PREPARE_PART_FILE_H

#include "prepare/part.h"

struct part {
    struct part_shape shape;
    const struct kernels *kernels;
    char *path;
    int fd;
    uint64_t generation;
    uint64_t worked;      /* as the header has it */
    double saved_s, saving_s; /* when the state was saved last, and how long that took */
    uint64_t end;         /* where the next fitted layer goes */
    uint8_t *bytes;       /* [state_bytes] the fixed fields, then the arrays */
    struct part_state state;
};

static inline uint64_t part_layers(const struct part_shape *s) { return (uint64_t)(s->last - s->first); }
/* Where the samples begin, behind the header and both states. */
uint64_t part_samples_at(const struct part_shape *s);

/* ST_IO; logs what failed, as errno has it. */
status part_io_failed(const struct part *p, const char *what);
/* ST_IO (logged). */
status part_write_at(const struct part *p, const void *bytes, size_t n, uint64_t at);
/* *whole false: the file ends before. ST_IO (logged). */
status part_read_at(const struct part *p, void *bytes, size_t n, uint64_t at, bool *whole);

#endif
