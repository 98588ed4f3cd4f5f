/* Two plain readers of a grammar's ops, for tests: whether a text is of it, by all ways at once, and texts of it by
 * chance. They share nothing with sampling/constraint.c. */
#ifndef HEARTH_TESTS_SCHEMA_WALK_H
#define HEARTH_TESTS_SCHEMA_WALK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "sampling/grammar.h"

/* --- whether a text is of a grammar --- */

enum { WALK_SLOTS = 1 << 16, WALK_WAYS = 1 << 15 /* at once; one with more is accepted by nobody */ };

struct walk_stack {
    uint32_t place, parent; /* to return to; what is below */
};

struct walk {
    const struct grammar *g;
    struct walk_stack stacks[WALK_SLOTS]; /* by hash; 0: the empty one */
    uint64_t now[WALK_WAYS], next[WALK_WAYS], seen[WALK_SLOTS];
    uint32_t slots[WALK_SLOTS]; /* of seen, that are not 0 */
    uint32_t used[WALK_SLOTS]; /* slots of stacks that hold one */
    uint32_t n_now, n_next, n_seen, n_used;
    bool complete;
};

static inline uint32_t walk_hash(uint64_t key)
{
    return (uint32_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 48) & (WALK_SLOTS - 1);
}

static inline uint32_t walk_push(struct walk *w, uint32_t place, uint32_t parent)
{
    uint32_t slot = walk_hash((uint64_t)parent << 32 | place);
    for (;; slot = (slot + 1) & (WALK_SLOTS - 1)) {
        if (slot == 0)
            continue;
        if (!w->stacks[slot].place) {
            w->stacks[slot] = (struct walk_stack){place, parent};
            w->used[w->n_used++] = slot;
        }
        if (w->stacks[slot].place == place && w->stacks[slot].parent == parent)
            return slot;
    }
}

/* Comes to a place with a stack: to all bytes that may be read from there. */
static inline void walk_come(struct walk *w, uint32_t place, uint32_t stack)
{
    const uint64_t key = ((uint64_t)stack << 32 | place) + 1;
    const struct grammar_op *op = &w->g->ops[place];
    uint32_t slot = walk_hash(key);
    if (w->n_seen == WALK_WAYS || w->n_used > WALK_SLOTS / 2)
        return;
    for (; w->seen[slot]; slot = (slot + 1) & (WALK_SLOTS - 1))
        if (w->seen[slot] == key)
            return;
    w->seen[slot] = key;
    w->slots[w->n_seen++] = slot;
    switch (op->kind) {
    case GRAMMAR_BYTE: w->next[w->n_next++] = (uint64_t)stack << 32 | place; break;
    case GRAMMAR_SPLIT:
        walk_come(w, op->a, stack);
        walk_come(w, op->b, stack);
        break;
    case GRAMMAR_JUMP: walk_come(w, op->a, stack); break;
    case GRAMMAR_CALL: walk_come(w, op->a, walk_push(w, place + 1, stack)); break;
    default:
        if (stack)
            walk_come(w, w->stacks[stack].place, w->stacks[stack].parent);
        else
            w->complete = true;
    }
}

static inline void walk_step(struct walk *w)
{
    memcpy(w->now, w->next, w->n_next * sizeof *w->now);
    w->n_now = w->n_next;
    w->n_next = 0;
    w->complete = false;
    while (w->n_seen > 0)
        w->seen[w->slots[--w->n_seen]] = 0;
}

/* One thread: its memory is kept from call to call. */
static inline bool walk_accepts(const struct grammar *g, const char *text, size_t n)
{
    static struct walk kept;
    struct walk *w = &kept;
    w->g = g;
    walk_step(w);
    w->n_next = 0;
    walk_come(w, 0, 0);
    for (size_t i = 0; i < n; i++) {
        const uint8_t byte = (uint8_t)text[i];
        walk_step(w);
        for (uint32_t k = 0; k < w->n_now; k++) {
            const uint32_t place = (uint32_t)w->now[k];
            if (g->ops[place].lo <= byte && byte <= g->ops[place].hi)
                walk_come(w, place + 1, (uint32_t)(w->now[k] >> 32));
        }
    }
    while (w->n_used > 0)
        w->stacks[w->used[--w->n_used]] = (struct walk_stack){0};
    return w->complete;
}

/* --- texts by chance --- */

enum { WALK_FAR = 1 << 24, WALK_LONG = 120, WALK_TEXT = 1 << 16, WALK_DEEP = 40, WALK_STACK = 512 };

/* The least number of bytes from each op to its RETURN, malloc'ed. */
static inline uint32_t *walk_costs(const struct grammar *g)
{
    uint32_t *cost = malloc(g->n_ops * sizeof *cost);
    for (uint32_t i = 0; i < g->n_ops; i++)
        cost[i] = WALK_FAR;
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = g->n_ops; i-- > 0;) {
            const struct grammar_op *op = &g->ops[i];
            uint32_t c = 0;
            if (op->kind == GRAMMAR_BYTE)
                c = 1 + cost[i + 1];
            else if (op->kind == GRAMMAR_SPLIT)
                c = cost[op->a] < cost[op->b] ? cost[op->a] : cost[op->b];
            else if (op->kind == GRAMMAR_JUMP)
                c = cost[op->a];
            else if (op->kind == GRAMMAR_CALL)
                c = cost[op->a] + cost[i + 1];
            if (c < cost[i]) {
                cost[i] = c;
                more = true;
            }
        }
    }
    return cost;
}

static inline uint64_t walk_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Writes a text [WALK_TEXT] by chance; its size; 0: it got too long. After WALK_LONG bytes it goes the shortest way. */
static inline size_t walk_text(const struct grammar *g, const uint32_t *cost, uint64_t seed, char *text)
{
    uint32_t stack[WALK_STACK], depth = 0, place = 0;
    const uint64_t to_a = 10 + walk_random(&seed) % 81; /* in 100: so that late alternatives come up too */
    size_t n = 0;
    while (n < WALK_TEXT && depth < WALK_STACK) {
        const struct grammar_op *op = &g->ops[place++];
        if (op->kind == GRAMMAR_BYTE) {
            text[n++] = (char)(op->lo + walk_random(&seed) % (op->hi - op->lo + 1u));
        } else if (op->kind == GRAMMAR_SPLIT) {
            const bool hurry = n > WALK_LONG || depth > WALK_DEEP;
            const bool a = hurry ? cost[op->a] <= cost[op->b] : walk_random(&seed) % 100 < to_a;
            place = a ? op->a : op->b;
        } else if (op->kind == GRAMMAR_JUMP) {
            place = op->a;
        } else if (op->kind == GRAMMAR_CALL) {
            stack[depth++] = place;
            place = op->a;
        } else if (depth == 0) {
            return n;
        } else {
            place = stack[--depth];
        }
    }
    return 0;
}

#endif
