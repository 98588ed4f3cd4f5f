#include "serve/engine_room.h"

#include <stdlib.h>
#include "base/log.h"

status room_create(struct room *r, uint32_t n_sequences, uint32_t max_queue)
{
    *r = (struct room){.n_sequences = n_sequences, .max_queue = max_queue};
    r->keys = calloc(n_sequences + 2 * (size_t)max_queue, sizeof *r->keys); /* each has a job */
    if (r->keys)
        return ST_OK;
    log_error("out of memory for the keys of %u jobs that wait", max_queue);
    return ST_NOMEM;
}

void room_free(struct room *r)
{
    free(r->keys);
    *r = (struct room){0};
}

/* r->keys[n_keys], which is not in use: it has no jobs. */
static uint32_t find(const struct room *r, uint32_t key)
{
    uint32_t i = 0;
    while (i < r->n_keys && r->keys[i].key != key)
        i++;
    return i;
}

status room_take(struct room *r, uint32_t key, uint32_t n)
{
    const uint64_t all = r->n_jobs + n, bound = (uint64_t)r->n_sequences + r->max_queue;
    const uint32_t i = find(r, key);
    const uint64_t of_key = n + (i < r->n_keys ? r->keys[i].n : 0);
    if (all > bound && (of_key > r->n_sequences || all > bound + r->max_queue))
        return ST_FULL;
    r->keys[i] = (struct key_jobs){key, (uint32_t)of_key};
    r->n_keys += i == r->n_keys;
    r->n_jobs = all;
    return ST_OK;
}

void room_give(struct room *r, uint32_t key)
{
    const uint32_t i = find(r, key);
    r->n_jobs--;
    if (--r->keys[i].n == 0)
        r->keys[i] = r->keys[--r->n_keys];
}
