#include "coordinator/lookup.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

/* A table for each length: open addressing, at most half full, of places in the text. A place is that of the token
 * behind the tokens that were found; 0 is none, as nothing is before it. Who comes to more than PROBES places in vain,
 * which only a text made for it brings about, is not kept. */
enum { CAPACITY_LEAST = 256, PROBES = 64 };

struct lookup {
    uint32_t n_ctx, n;       /* tokens that were taken */
    uint32_t capacity;       /* entries of each table that are in use, a power of two */
    uint32_t *tables[LOOKUP_LONGEST]; /* [capacity_of(n_ctx)] of 1, 2, 3 tokens */
};

/* Entries for a text of n tokens. */
static uint64_t capacity_of(uint32_t n)
{
    uint64_t c = CAPACITY_LEAST;
    while (c < 2 * (uint64_t)n)
        c *= 2;
    return c;
}

void lookup_free(struct lookup *l)
{
    for (int i = 0; l && i < LOOKUP_LONGEST; i++)
        free(l->tables[i]);
    free(l);
}

status lookup_create(uint32_t n_ctx, struct lookup **out)
{
    struct lookup *l = calloc(1, sizeof *l);
    bool made = l;
    for (int i = 0; made && i < LOOKUP_LONGEST; i++) {
        l->tables[i] = malloc(capacity_of(n_ctx) * sizeof *l->tables[i]);
        made = l->tables[i];
    }
    if (!made) {
        log_error("out of memory for looking up a text of %u tokens", n_ctx);
        lookup_free(l);
        return ST_NOMEM;
    }
    l->n_ctx = n_ctx;
    lookup_begin(l);
    *out = l;
    return ST_OK;
}

static void clear(struct lookup *l, uint32_t capacity)
{
    l->n = 0;
    l->capacity = capacity;
    for (int i = 0; i < LOOKUP_LONGEST; i++)
        memset(l->tables[i], 0, capacity * sizeof *l->tables[i]);
}

void lookup_begin(struct lookup *l) { clear(l, CAPACITY_LEAST); }

/* Where the `length` tokens before a place belong in their table. */
static uint32_t hash(const int32_t *text, uint32_t place, uint32_t length)
{
    uint64_t h = length;
    for (uint32_t i = place - length; i < place; i++) {
        h = (h ^ (uint32_t)text[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return (uint32_t)h;
}

/* The entry of the tokens before a place: where they are, or where they may be put. NULL: not to be had. */
static uint32_t *entry_of(const struct lookup *l, const int32_t *text, uint32_t place, uint32_t length)
{
    uint32_t *table = l->tables[length - 1], at = hash(text, place, length);
    for (int i = 0; i < PROBES; i++, at++) {
        uint32_t *e = &table[at & (l->capacity - 1)];
        if (*e == 0 || memcmp(text + *e - length, text + place - length, length * sizeof *text) == 0)
            return e;
    }
    return NULL;
}

/* All tokens up to a place are taken: what ends before the last of them has a follower now. */
static void take_up_to(struct lookup *l, const int32_t *text, uint32_t n)
{
    for (uint32_t place = l->n > 1 ? l->n : 1; place < n; place++) {
        for (uint32_t length = 1; length <= LOOKUP_LONGEST && length <= place; length++) {
            uint32_t *e = entry_of(l, text, place, length);
            if (e)
                *e = place;
        }
    }
    l->n = n;
}

void lookup_take(struct lookup *l, const int32_t *text, uint32_t n)
{
    n = n < l->n_ctx ? n : l->n_ctx;
    if (capacity_of(n) > l->capacity)
        clear(l, (uint32_t)capacity_of(n));
    take_up_to(l, text, n);
}

uint32_t lookup_guess(const struct lookup *l, const int32_t *text, uint32_t n, uint32_t most, int32_t *out,
                      uint32_t *length)
{
    const uint32_t *e = NULL;
    uint32_t k = n < LOOKUP_LONGEST ? n : LOOKUP_LONGEST;
    if (n != l->n)
        return 0;
    for (; k > 0; k--) {
        e = entry_of(l, text, n, k);
        if (e && *e)
            break;
    }
    if (k == 0 || most == 0)
        return 0;
    for (uint32_t i = 0; i < most; i++)
        out[i] = *e + i < n ? text[*e + i] : out[*e + i - n];
    *length = k;
    return most;
}
