#include "sampling/machine.h"

#include <string.h>

/* A way to go on: a place and, above it, a stack. Never 0, as no stack is. */
enum { PLACE_BITS = 14, PLACE_MASK = GRAMMAR_OPS - 1 };
_Static_assert(1 << PLACE_BITS == GRAMMAR_OPS, "a place must fit");

enum {
    SEEN = 2 * GRAMMAR_WAYS,
    ROW_BYTES = 256 * sizeof(uint16_t)
};
/* What is kept when all else is forgotten, and what comes to it. */
_Static_assert(3 * GRAMMAR_WAYS <= MACHINE_WAYS, "two states' ways and a new one's");
_Static_assert(2 * GRAMMAR_STACKS + GRAMMAR_WAYS + STACK_EMPTY < STACKS, "two states' stacks and a new one's");

static uint32_t place_of(uint32_t way) { return way & PLACE_MASK; }
static uint32_t stack_of(uint32_t way) { return way >> PLACE_BITS; }

void machine_lay(struct machine *m, uint32_t max_ops, uint32_t most_states, struct arena *a)
{
    *m = (struct machine){.max_ops = max_ops, .most_states = most_states, .at = STATE_DEAD};
    m->ops = arena_alloc(a, max_ops * sizeof *m->ops);
    m->rows = arena_alloc(a, (size_t)most_states * ROW_BYTES);
    m->states = arena_alloc(a, most_states * sizeof *m->states);
    m->heads = arena_alloc(a, MACHINE_STATES * sizeof *m->heads);
    m->ways = arena_alloc(a, MACHINE_WAYS * sizeof *m->ways);
    m->found = arena_alloc(a, GRAMMAR_WAYS * sizeof *m->found);
    m->todo = arena_alloc(a, GRAMMAR_WAYS * sizeof *m->todo);
    m->seen = arena_alloc(a, SEEN * sizeof *m->seen);
    m->slots = arena_alloc(a, GRAMMAR_WAYS * sizeof *m->slots);
    stacks_lay(&m->stacks, a);
}

/* --- the grammar's copy, without jumps --- */

/* Where an op leads without a byte and without a choice. Jumps in a circle lead to a byte that there is not. */
static uint16_t follow(struct machine_op *ops, uint32_t first)
{
    uint32_t i = first, next;
    while (ops[i].kind == GRAMMAR_JUMP && !ops[i].b) {
        ops[i].b = 1; /* been here */
        i = ops[i].a;
    }
    const uint32_t end = i;
    if (ops[end].kind == GRAMMAR_JUMP)
        ops[end] = (struct machine_op){.kind = GRAMMAR_BYTE, .lo = 1};
    for (i = first; i != end; i = next) { /* the next time it is one jump */
        next = ops[i].a;
        ops[i].a = (uint16_t)end;
        ops[i].b = 0;
    }
    return (uint16_t)end;
}

static void copy_ops(struct machine *m, const struct grammar *g)
{
    struct machine_op *ops = m->ops;
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const struct grammar_op *op = &g->ops[i];
        ops[i] = (struct machine_op){op->kind, op->lo, op->hi, (uint16_t)op->a, (uint16_t)op->b};
        if (op->kind == GRAMMAR_JUMP)
            ops[i].b = 0;
    }
    for (uint32_t i = 0; i < g->n_ops; i++) {
        const uint8_t kind = ops[i].kind;
        if (kind == GRAMMAR_SPLIT || kind == GRAMMAR_CALL)
            ops[i].a = follow(ops, ops[i].a);
        if (kind == GRAMMAR_SPLIT)
            ops[i].b = follow(ops, ops[i].b);
        if (kind == GRAMMAR_CALL)
            ops[i].b = follow(ops, i + 1);
        if (kind == GRAMMAR_BYTE && ops[i].lo <= ops[i].hi)
            ops[i].a = follow(ops, i + 1);
    }
}

/* --- a state is made --- */

/* A place with a stack is come to. */
static void come(struct machine *m, uint32_t place, uint32_t stack)
{
    const uint32_t way = stack << PLACE_BITS | place;
    uint32_t slot = way * UINT32_C(0x9e3779b1) >> 16 & (SEEN - 1);
    for (; m->seen[slot]; slot = (slot + 1) & (SEEN - 1))
        if (m->seen[slot] == way)
            return;
    if (m->n_found == GRAMMAR_WAYS)
        return;
    m->seen[slot] = way;
    m->slots[m->n_found] = (uint16_t)slot;
    m->found[m->n_found++] = way;
    if (m->ops[place].kind != GRAMMAR_BYTE) /* which waits */
        m->todo[m->n_todo++] = way;
}

static void go_on(struct machine *m, uint32_t place, uint32_t stack)
{
    const struct machine_op *op = &m->ops[place];
    uint32_t called;
    switch (op->kind) {
    case GRAMMAR_SPLIT:
        come(m, op->b, stack);
        come(m, op->a, stack);
        break;
    case GRAMMAR_CALL: /* what only returns need not be returned to */
        called = m->ops[op->b].kind == GRAMMAR_RETURN ? stack : stacks_push(&m->stacks, stack, op->b);
        if (called)
            come(m, op->a, called);
        break;
    case GRAMMAR_RETURN:
        if (stack == STACK_EMPTY)
            m->complete = true;
        else
            come(m, m->stacks.all[stack].place, m->stacks.all[stack].parent);
        break;
    default: /* a byte waits; a jump has nobody who leads to it */
        break;
    }
}

/* Finds a place with a stack, and all that it leads to without a byte, before anything else: where there is too much to
 * find, what is found first can be read to its end. */
static void find(struct machine *m, uint32_t place, uint32_t stack)
{
    come(m, place, stack);
    while (m->n_todo > 0) {
        const uint32_t way = m->todo[--m->n_todo];
        go_on(m, place_of(way), stack_of(way));
    }
}

/* Of all that has been found, the bytes: behind the ways of all states. Returns their number. */
static uint32_t found_ways(struct machine *m)
{
    uint32_t n = 0, n_stacks = 0;
    stacks_new_round(&m->stacks);
    for (uint32_t i = 0; i < m->n_found; i++) {
        const struct machine_op *op = &m->ops[place_of(m->found[i])];
        m->seen[m->slots[i]] = 0;
        if (op->kind != GRAMMAR_BYTE || op->lo > op->hi || n_stacks > GRAMMAR_STACKS)
            continue;
        n_stacks += stacks_mark(&m->stacks, stack_of(m->found[i]));
        if (n_stacks <= GRAMMAR_STACKS)
            m->ways[m->n_ways + n++] = m->found[i];
    }
    m->n_found = 0;
    return n;
}

static uint16_t *head_of(struct machine *m, const uint32_t *ways, uint32_t n, bool complete)
{
    uint32_t hash = n << 1 | complete;
    for (uint32_t i = 0; i < n; i++)
        hash = (hash ^ ways[i]) * UINT32_C(0x01000193);
    return &m->heads[(hash ^ hash >> 15) & (MACHINE_STATES - 1)];
}

/* The state of the ways [n] behind those of all states: one that there is, or a new one, for which there is room. */
static uint16_t state_of(struct machine *m, uint32_t n, bool complete)
{
    const uint32_t *ways = m->ways + m->n_ways;
    if (n == 0 && !complete)
        return STATE_DEAD;
    uint16_t *head = head_of(m, ways, n, complete);
    for (uint16_t i = *head; i; i = m->states[i].next) {
        const struct state *s = &m->states[i];
        if (s->n_ways == n && s->complete == complete && !memcmp(m->ways + s->way, ways, n * sizeof *ways))
            return i;
    }
    const uint16_t new = (uint16_t)m->n_states++;
    m->states[new] = (struct state){.way = m->n_ways, .n_ways = (uint16_t)n, .next = *head, .complete = complete};
    *head = new;
    m->n_ways += n;
    memset(m->rows[new], STATE_UNKNOWN, ROW_BYTES);
    return new;
}

/* --- what is forgotten --- */

static void clear_states(struct machine *m)
{
    memset(m->heads, 0, MACHINE_STATES * sizeof *m->heads);
    memset(m->rows[STATE_UNKNOWN], STATE_UNKNOWN, ROW_BYTES);
    for (int i = 0; i < 256; i++)
        m->rows[STATE_DEAD][i] = STATE_DEAD;
    m->states[STATE_DEAD] = (struct state){.chain = STATE_DEAD};
    m->n_states = STATES_FIRST;
    m->n_ways = 0;
}

static void mark(struct machine *m, uint16_t state)
{
    const struct state *s = &m->states[state];
    for (uint32_t i = 0; i < s->n_ways; i++)
        stacks_mark(&m->stacks, stack_of(m->ways[s->way + i]));
}

/* A state of before, whose ways lie behind all that are kept already, is kept. Returns its new number. */
static uint16_t keep(struct machine *m, struct state old)
{
    for (uint32_t i = 0; i < old.n_ways; i++) {
        const uint32_t way = m->ways[old.way + i];
        m->ways[m->n_ways + i] = (uint32_t)m->stacks.moved[stack_of(way)] << PLACE_BITS | place_of(way);
    }
    return state_of(m, old.n_ways, old.complete);
}

/* All but the text's state and another; returns the other's new number. */
static uint16_t forget(struct machine *m, uint16_t other)
{
    const struct state old[2] = {m->states[m->at], m->states[other]};
    const bool at_first = m->at <= other; /* states' ways lie in the order of their numbers */
    stacks_new_round(&m->stacks);
    mark(m, m->at);
    mark(m, other);
    stacks_keep_marked(&m->stacks);
    clear_states(m);
    const uint16_t first = keep(m, old[!at_first]);
    const uint16_t second = m->at == other ? first : keep(m, old[at_first]);
    m->at = at_first ? first : second;
    m->forgotten++;
    return at_first ? second : first;
}

static bool full(const struct machine *m)
{
    return m->n_states == m->most_states || m->n_ways > MACHINE_WAYS - GRAMMAR_WAYS ||
           m->stacks.n > STACKS - GRAMMAR_WAYS;
}

/* --- */

void machine_begin(struct machine *m, const struct grammar *g)
{
    if (g) {
        copy_ops(m, g);
        stacks_clear(&m->stacks);
        clear_states(m);
        m->forgotten++;
    } else if (full(m)) {
        forget(m, m->at);
    }
    m->complete = false;
    find(m, follow(m->ops, 0), STACK_EMPTY);
    const uint32_t n = found_ways(m);
    m->at = state_of(m, n, m->complete);
}

uint16_t machine_find(struct machine *m, uint16_t state, uint8_t byte)
{
    uint32_t lo = 0, hi = 255; /* the bytes that make the same of it */
    if (full(m))
        state = forget(m, state);
    m->complete = false;
    const struct state s = m->states[state];
    for (uint32_t i = 0; i < s.n_ways; i++) {
        const uint32_t way = m->ways[s.way + i];
        const struct machine_op *op = &m->ops[place_of(way)];
        if (byte < op->lo) {
            hi = op->lo <= hi ? op->lo - 1u : hi;
        } else if (byte > op->hi) {
            lo = op->hi >= lo ? op->hi + 1u : lo;
        } else {
            lo = op->lo > lo ? op->lo : lo;
            hi = op->hi < hi ? op->hi : hi;
            find(m, op->a, stack_of(way));
        }
    }
    const uint32_t n = found_ways(m);
    const uint16_t next = state_of(m, n, m->complete);
    for (uint32_t i = lo; i <= hi; i++)
        m->rows[state][i] = next;
    return next;
}
