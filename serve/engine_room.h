/* How many jobs there are, of all and of each key, and whether there is room for more. Beyond the bound it is for keys
 * with few: a crowd of one key's shuts nobody else out. The engine's lock is around it. */
#ifndef HEARTH_SERVE_ENGINE_ROOM_H
#define HEARTH_SERVE_ENGINE_ROOM_H

#include <stdint.h>
#include "base/status.h"

/* A key that has jobs. */
struct key_jobs {
    uint32_t key, n;
};

struct room {
    uint32_t n_sequences, max_queue; /* jobs that run, and that wait */
    uint64_t n_jobs;
    struct key_jobs *keys;           /* [n_keys] malloc'ed, with a place for all that there can be */
    uint32_t n_keys;
};

status room_create(struct room *r, uint32_t n_sequences, uint32_t max_queue); /* ST_NOMEM (logged) */
void room_free(struct room *r);
/* n jobs of a key come, 1 or more, all or none. There is room for n_sequences + max_queue of all keys, and for
 * max_queue more where a key has n_sequences at most. ST_FULL (not logged). */
status room_take(struct room *r, uint32_t key, uint32_t n);
/* One of them is over. */
void room_give(struct room *r, uint32_t key);

#endif
