#include "sampling/ways.h"

#include "base/arena.h"
#include "base/log.h"
#include "sampling/machine.h"

enum {
    TEXT = 256,  /* bytes of a text */
    STEPS = 640, /* of all texts, after which there may be so many states, and ways of theirs */
    MOST_STATES = MACHINE_STATES - 256,
    MOST_WAYS = 20000 /* an object of 500 properties, of which none must be there, has 18000 */
};

/* Of the states to which some bytes in a row lead any one, or rather one of many ways: where they are hidden behind a
 * word, few texts find it. Dead: there is none, or states were forgotten. */
static uint16_t any_next(struct machine *m, uint16_t state, bool of_many, uint64_t *random)
{
    const uint32_t forgotten = m->forgotten;
    uint16_t chosen = STATE_DEAD, before = STATE_DEAD;
    uint32_t sum = 0;
    for (int byte = 0; byte < 256; byte++) {
        const uint16_t to = machine_next(m, state, (uint8_t)byte);
        if (m->forgotten != forgotten)
            return STATE_DEAD;
        if (to != before && to != STATE_DEAD) {
            const uint32_t weight = of_many ? 1u + m->states[to].n_ways : 1;
            *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            sum += weight;
            chosen = (uint32_t)(*random >> 33) % sum < weight ? to : chosen;
        }
        before = to;
    }
    return chosen;
}

/* Whether its states, or their ways, are too many to be made for a mask. */
static bool are_many(struct machine *m, const struct grammar *g)
{
    uint64_t random = 1, asked[MACHINE_STATES / 64] = {0};
    uint32_t n_asked = 0;
    machine_begin(m, g);
    const uint32_t forgotten = m->forgotten;
    const uint16_t first = m->at;
    uint16_t state = first;
    for (int step = 0; step < STEPS; step++) {
        const uint16_t from = step % TEXT == 0 || state == STATE_DEAD ? first : state;
        n_asked += !(asked[from / 64] >> from % 64 & 1);
        asked[from / 64] |= UINT64_C(1) << from % 64;
        state = any_next(m, from, step >= 2 * TEXT, &random);
        if (m->forgotten != forgotten || m->n_states > MOST_STATES || m->n_ways > MOST_WAYS)
            return true;
        if (n_asked == m->n_states - STATES_FIRST) /* these are all */
            return false;
    }
    return false;
}

status grammar_check_ways(const struct grammar *g)
{
    struct machine m;
    struct arena a;
    arena_dry(&a);
    machine_lay(&m, g->n_ops, MACHINE_STATES, &a);
    status st = arena_map(&a, a.used);
    if (st != ST_OK)
        return st;
    machine_lay(&m, g->n_ops, MACHINE_STATES, &a);
    if (are_many(&m, g)) {
        log_error("grammar: its texts can be read in too many ways at once: fewer alternatives may begin alike");
        st = ST_FULL;
    }
    arena_unmap(&a);
    return st;
}
