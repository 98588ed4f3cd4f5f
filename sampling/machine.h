/* The machine of a grammar, made deterministic as far as texts need it. A state is the set of all ways to go on, each a
 * BYTE op with a stack, in the order in which they are found; what a byte makes of it is found out when first asked
 * for, for all bytes that make the same of it, and kept in a row of 256. When memory is full, all states but two are
 * forgotten: the text's and the one that was asked about. What is of the grammar does not depend on that: what bounds a
 * state (GRAMMAR_DEPTH, GRAMMAR_WAYS, GRAMMAR_STACKS) is counted by the state alone.
 *
 * Memory comes from the caller's arena; nothing here fails or allocates. One thread at a time. */
#ifndef HEARTH_SAMPLING_MACHINE_H
#define HEARTH_SAMPLING_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"
#include "sampling/grammar.h"
#include "sampling/stacks.h"

/* States by number. */
enum {
    STATE_UNKNOWN = 0,    /* of a row: to be found out. Its own row is unknown throughout */
    STATE_DEAD = 1,       /* no way goes on, and the text may not end */
    STATES_FIRST = 2,
    MACHINE_STATES = 2048, /* as many as are worth while */
    MACHINE_STATES_MIN = STATES_FIRST + 3,
    MACHINE_WAYS = 1 << 17 /* of all states */
};

struct state {
    uint32_t way;    /* the first of its ways */
    uint16_t n_ways;
    uint16_t next;   /* of those that hash alike; 0: none */
    uint16_t chain;  /* the caller's own; 0 when new */
    bool complete;   /* the text may end here */
};

/* An op without jumps: `a` is where it goes on, and of SPLIT and CALL the first thing to do; `b` the second. */
struct machine_op {
    uint8_t kind, lo, hi;
    uint16_t a, b;
};

struct machine {
    struct machine_op *ops; /* [max_ops] */
    uint16_t (*rows)[256];  /* [most_states] */
    struct state *states;   /* [most_states] */
    uint16_t *heads;        /* [MACHINE_STATES] by hash; 0: none */
    uint32_t *ways;         /* [MACHINE_WAYS] stack and place (machine.c) of all states, one behind another */
    uint32_t *found;        /* [GRAMMAR_WAYS] what has been come to while a state is made */
    uint32_t *todo;         /* [GRAMMAR_WAYS] of that, what has not been followed */
    uint32_t *seen;         /* [2 GRAMMAR_WAYS] the same by hash; 0: none */
    uint16_t *slots;        /* [GRAMMAR_WAYS] of seen, that are not 0 */
    struct stacks stacks;
    uint32_t max_ops, most_states, n_states, n_ways, n_found, n_todo;
    bool complete;       /* of the state that is made */
    uint16_t at;         /* the text's state */
    uint32_t forgotten;  /* times: when it changes, all other numbers of states mean nothing any more */
};

/* Of at most MACHINE_STATES states, at least MACHINE_STATES_MIN. It is dead (no grammar). */
void machine_lay(struct machine *m, uint32_t max_ops, uint32_t most_states, struct arena *a);
/* A checked grammar of at most max_ops, which is copied; NULL: the one that it has. The text is empty. */
void machine_begin(struct machine *m, const struct grammar *g);
/* What a byte makes of a state, found out. `forgotten` may change: then the result and `at` are all that is valid. */
uint16_t machine_find(struct machine *m, uint16_t state, uint8_t byte);

/* What a byte makes of a state. As machine_find. */
static inline uint16_t machine_next(struct machine *m, uint16_t state, uint8_t byte)
{
    const uint16_t known = m->rows[state][byte];
    return known ? known : machine_find(m, state, byte);
}

#endif
