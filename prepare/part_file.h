/* The checkpoint's file: where what lies in it, and reading and writing there. What part.c (header and state) and
 * part_data.c (what lies behind them) stand on; nobody else includes it. */
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

enum { PART_PAGE = 4096 }; /* of the header; then two states follow */

/* In front of each of the two states. */
struct state_header {
    uint64_t generation; /* the higher one is the newer */
    uint64_t hash;       /* of the state's bytes and the generation */
};

/* Bytes of a state: the fixed fields, then its arrays; and of what is kept for it in the file. */
uint64_t part_state_bytes(const struct part_shape *s);
uint64_t part_slot_bytes(const struct part_shape *s);

/* Rows of a kind, of all layers' samples: where the first begins, and bytes of one. */
struct part_rows {
    uint64_t at, bytes;
};
struct part_rows part_x_rows(const struct part_shape *s);
struct part_rows part_expert_rows(const struct part_shape *s);
struct part_rows part_weight_rows(const struct part_shape *s);
uint64_t part_row_at(const struct part_shape *s, struct part_rows r, int layer, uint64_t slot);

/* ST_IO; logs what failed, as errno has it. */
status part_io_failed(const struct part *p, const char *what);
/* ST_IO (logged). */
status part_write_at(const struct part *p, const void *bytes, size_t n, uint64_t at);
/* *whole false: the file ends before. ST_IO (logged). */
status part_read_at(const struct part *p, void *bytes, size_t n, uint64_t at, bool *whole);

#endif
