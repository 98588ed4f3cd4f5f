/* Stacks of places to return to, as a tree that grows from the empty stack: a stack is a node, what was pushed before
 * it its parent. The same stack is always the same node, so stacks are compared by number. Memory comes from the
 * caller's arena. One thread at a time. */
#ifndef HEARTH_SAMPLING_STACKS_H
#define HEARTH_SAMPLING_STACKS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"

enum {
    STACKS = 1 << 14, /* that are kept at once, at most */
    STACK_EMPTY = 1   /* 0 is none */
};

struct stack {
    uint16_t place;  /* on top */
    uint16_t parent; /* what is below it */
    uint16_t next;   /* of those that hash alike; 0: none */
    uint8_t depth;
    uint32_t mark; /* the last round in which it was marked */
};

struct stacks {
    struct stack *all; /* [STACKS] a parent comes before its children; 0 is not used */
    uint16_t *heads;   /* [STACKS] by hash; 0: none */
    uint16_t *moved;   /* [STACKS] scratch of stacks_keep_marked */
    uint32_t n, round;
};

void stacks_lay(struct stacks *s, struct arena *a);
/* Only the empty one. */
void stacks_clear(struct stacks *s);
/* The stack with a place on top; 0: it would be deeper than GRAMMAR_DEPTH. There is room for it (s->n < STACKS). */
uint32_t stacks_push(struct stacks *s, uint32_t stack, uint16_t place);

/* Marks are for who counts, or keeps, what some stacks consist of: a new round, in which nothing is marked; a stack and
 * all below it (how many of them were not marked in this round). */
void stacks_new_round(struct stacks *s);
uint32_t stacks_mark(struct stacks *s, uint32_t stack);
/* All but what is marked is gone; s->moved[stack] is a kept one's number from now on. */
void stacks_keep_marked(struct stacks *s);

#endif
