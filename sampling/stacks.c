#include "sampling/stacks.h"

#include <string.h>
#include "sampling/grammar.h"

void stacks_lay(struct stacks *s, struct arena *a)
{
    *s = (struct stacks){0};
    s->all = arena_alloc(a, STACKS * sizeof *s->all);
    s->heads = arena_alloc(a, STACKS * sizeof *s->heads);
    s->moved = arena_alloc(a, STACKS * sizeof *s->moved);
}

void stacks_clear(struct stacks *s)
{
    memset(s->heads, 0, STACKS * sizeof *s->heads);
    s->all[STACK_EMPTY] = (struct stack){0};
    s->n = STACK_EMPTY + 1;
    s->round = 0;
}

static uint16_t *head_of(struct stacks *s, uint32_t parent, uint16_t place)
{
    const uint32_t hash = (parent << 14 ^ place) * UINT32_C(0x9e3779b1);
    return &s->heads[hash >> 18 & (STACKS - 1)];
}

uint32_t stacks_push(struct stacks *s, uint32_t stack, uint16_t place)
{
    uint16_t *head = head_of(s, stack, place);
    for (uint32_t i = *head; i; i = s->all[i].next)
        if (s->all[i].place == place && s->all[i].parent == stack)
            return i;
    if (s->all[stack].depth >= GRAMMAR_DEPTH)
        return 0;
    s->all[s->n] = (struct stack){.place = place, .parent = (uint16_t)stack, .next = *head,
                                  .depth = (uint8_t)(s->all[stack].depth + 1)};
    *head = (uint16_t)s->n;
    return s->n++;
}

void stacks_new_round(struct stacks *s)
{
    if (++s->round == 0) { /* old marks would look new */
        for (uint32_t i = 0; i < s->n; i++)
            s->all[i].mark = 0;
        s->round = 1;
    }
}

uint32_t stacks_mark(struct stacks *s, uint32_t stack)
{
    uint32_t n = 0;
    for (; stack != STACK_EMPTY && s->all[stack].mark != s->round; stack = s->all[stack].parent, n++)
        s->all[stack].mark = s->round;
    return n;
}

void stacks_keep_marked(struct stacks *s)
{
    const uint32_t n = s->n, round = s->round;
    stacks_clear(s);
    s->moved[STACK_EMPTY] = STACK_EMPTY;
    for (uint32_t i = STACK_EMPTY + 1; i < n; i++) { /* what is moved goes down, and never onto what is still to come */
        const struct stack old = s->all[i];
        if (old.mark == round)
            s->moved[i] = (uint16_t)stacks_push(s, s->moved[old.parent], old.place);
    }
}
