#include "coordinator/states.h"

#include <stdlib.h>
#include "base/log.h"

struct kept {
    const struct sequence *of; /* NULL: nobody's */
    uint32_t n;                /* its first tokens */
    uint32_t readers;          /* with any, no other may be put here */
    uint64_t used;
};

struct states {
    uint32_t n_own, n_kept;
    uint64_t uses;
    struct kept kept[];
};

status states_create(uint32_t n_sequences, uint32_t n_kept, struct states **out)
{
    struct states *s = calloc(1, sizeof *s + n_kept * sizeof *s->kept);
    if (!s) {
        log_error("no memory for the list of %u states", n_kept);
        return ST_NOMEM;
    }
    s->n_own = n_sequences;
    s->n_kept = n_kept;
    *out = s;
    return ST_OK;
}

void states_free(struct states *s) { free(s); }

static uint32_t number_of(const struct states *s, const struct kept *k)
{
    return s->n_own + 1 + (uint32_t)(k - s->kept);
}

/* NULL: it is a sequence's own, or none. */
static struct kept *kept_at(struct states *s, uint32_t state)
{
    return state > s->n_own ? &s->kept[state - s->n_own - 1] : NULL;
}

uint32_t states_find(const struct states *s, const struct sequence *q, uint32_t n, uint32_t *found)
{
    const struct kept *best = NULL;
    for (const struct kept *k = s->kept; k < s->kept + s->n_kept; k++)
        if (k->of == q && k->n <= n && (!best || k->n > best->n))
            best = k;
    *found = best ? best->n : 0;
    return best ? number_of(s, best) : 0;
}

/* Whether a should be given up before b. */
static bool goes_before(const struct kept *a, const struct kept *b)
{
    return !a->of != !b->of ? !a->of : a->used < b->used;
}

uint32_t states_keep(struct states *s, const struct sequence *q, uint32_t n)
{
    struct kept *place = NULL;
    for (struct kept *k = s->kept; k < s->kept + s->n_kept; k++)
        if (!k->readers && (!place || goes_before(k, place)))
            place = k;
    if (!place)
        return 0;
    *place = (struct kept){.of = q, .n = n, .used = ++s->uses};
    return number_of(s, place);
}

void states_forget(struct states *s, const struct sequence *q, uint32_t n)
{
    for (struct kept *k = s->kept; k < s->kept + s->n_kept; k++)
        if (k->of == q && k->n > n)
            k->of = NULL;
}

void states_read(struct states *s, uint32_t state)
{
    struct kept *k = kept_at(s, state);
    if (k) {
        k->readers++;
        k->used = ++s->uses;
    }
}

void states_was_read(struct states *s, uint32_t state)
{
    struct kept *k = kept_at(s, state);
    if (k)
        k->readers--;
}
