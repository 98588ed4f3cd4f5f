/* The mask of a state is a walk over the tree of all tokens, on which a byte that leads nowhere skips all tokens that
 * go on with it. What is written most is strings, where nearly nothing can be skipped: there all plain tokens
 * (token_tree.h) are allowed together if every character among theirs leads to one state, and so on from there, as many
 * times as they are long. Masks of the last states are kept, as a string comes back to its own with each token. */
#include "sampling/constraint.h"

#include <string.h>
#include "sampling/constraint_lay.h"
#include "sampling/machine.h"
#include "sampling/token_tree.h"

enum { MASKS = 8 };

struct constraint {
    const struct token_trie *trie;
    struct machine machine;
    uint64_t *masks[MASKS];  /* [n_words + 1] of `of`'s states; the last word is for what is no token */
    uint16_t of[MASKS];      /* 0: none */
    uint32_t forgotten;      /* the machine's, when these were states of it */
    uint32_t turn;           /* the mask that was made last */
    uint16_t path[TREE_DEPTH + 1]; /* where the walk is: the state before a byte of each depth; 0: forgotten */
};

struct constraint *constraint_lay_states(const struct token_trie *t, uint32_t max_ops, uint32_t most_states,
                                         struct arena *a)
{
    struct constraint scratch, *c = arena_alloc(a, sizeof *c);
    struct constraint *laid = c ? c : &scratch;
    *laid = (struct constraint){.trie = t};
    machine_lay(&laid->machine, max_ops, most_states, a);
    for (int i = 0; i < MASKS; i++)
        laid->masks[i] = arena_alloc(a, ((size_t)(token_trie_n_vocab(t) + 63) / 64 + 1) * sizeof *laid->masks[i]);
    return c;
}

struct constraint *constraint_lay(const struct token_trie *t, uint32_t max_ops, struct arena *a)
{
    return constraint_lay_states(t, max_ops, MACHINE_STATES, a);
}

void constraint_begin(struct constraint *c, const struct grammar *g) { machine_begin(&c->machine, g); }

/* --- the walk --- */

/* The states of the path below its first one mean nothing any more, which is where the text is. */
static void lose_path(struct constraint *c)
{
    memset(c->path, 0, sizeof c->path);
    c->path[0] = c->machine.at;
}

/* The state of the path at a depth becomes what a byte makes of the one before, which is not forgotten. */
static void step(struct constraint *c, uint32_t depth, uint8_t byte)
{
    const uint32_t forgotten = c->machine.forgotten;
    const uint16_t next = machine_next(&c->machine, c->path[depth], byte);
    if (c->machine.forgotten != forgotten)
        lose_path(c);
    c->path[depth + 1] = next;
}

/* The state after node i's byte, which no row has. */
static uint16_t find(struct constraint *c, const struct token_tree *tree, uint32_t i)
{
    const uint32_t depth = node_depth(tree->nodes[i]);
    if (!c->path[depth]) { /* from the text on; a node's parent is the last one before it that is less deep */
        uint8_t bytes[TREE_DEPTH + 1];
        uint32_t d = depth;
        for (uint32_t k = i; d > 0; k--)
            if (node_depth(tree->nodes[k - 1]) == d - 1)
                bytes[--d] = node_byte(tree->nodes[k - 1]);
        for (d = 0; d < depth; d++)
            step(c, d, bytes[d]);
    }
    step(c, depth, node_byte(tree->nodes[i]));
    return c->path[depth + 1];
}

static void walk(struct constraint *c, const struct token_tree *tree, uint64_t *mask)
{
    const uint16_t(*rows)[256] = (const uint16_t(*)[256])c->machine.rows;
    const uint64_t *nodes = tree->nodes;
    uint16_t *path = c->path;
    lose_path(c);
    for (uint32_t i = 0, n = tree->n; i < n;) {
        const uint64_t node = nodes[i];
        uint16_t next = rows[path[node_depth(node)]][node_byte(node)];
        if (next == STATE_UNKNOWN)
            next = find(c, tree, i);
        if (next == STATE_DEAD) {
            i += node_size(node);
            continue;
        }
        path[node_depth(node) + 1] = next;
        mask[node_token(node) / 64] |= UINT64_C(1) << node_token(node) % 64;
        i++;
    }
}

/* --- plain tokens --- */

/* The state to which all bytes of a range lead; dead: to several, or none, or states were forgotten. */
static uint16_t all_lead(struct machine *m, uint16_t state, uint8_t lo, uint8_t hi)
{
    const uint32_t forgotten = m->forgotten;
    const uint16_t to = machine_next(m, state, lo);
    for (uint32_t byte = lo + 1u; byte <= hi && m->forgotten == forgotten; byte++)
        if (machine_next(m, state, (uint8_t)byte) != to)
            return STATE_DEAD;
    return m->forgotten == forgotten ? to : STATE_DEAD;
}

/* The state to which every plain character leads. */
static uint16_t after_character(struct machine *m, uint16_t state)
{
    static const struct {
        uint8_t n, first[2], second[2]; /* bytes; ranges of the first two */
    } characters[] = {
        {1, {' ', '!'}, {0}},            {1, {'#', '['}, {0}},            {1, {']', '~'}, {0}},
        {2, {0xC2, 0xDF}, {0x80, 0xBF}}, {3, {0xE0, 0xE0}, {0xA0, 0xBF}}, {3, {0xE1, 0xEC}, {0x80, 0xBF}},
        {3, {0xED, 0xED}, {0x80, 0x9F}}, {3, {0xEE, 0xEF}, {0x80, 0xBF}}, {4, {0xF0, 0xF0}, {0x90, 0xBF}},
        {4, {0xF1, 0xF3}, {0x80, 0xBF}}, {4, {0xF4, 0xF4}, {0x80, 0x8F}},
    };
    uint16_t all = STATE_UNKNOWN;
    for (size_t i = 0; i < sizeof characters / sizeof *characters; i++) {
        uint16_t to = all_lead(m, state, characters[i].first[0], characters[i].first[1]);
        if (characters[i].n > 1)
            to = all_lead(m, to, characters[i].second[0], characters[i].second[1]);
        for (uint8_t k = 2; k < characters[i].n; k++)
            to = all_lead(m, to, 0x80, 0xBF);
        if (to == STATE_DEAD || (all != STATE_UNKNOWN && to != all))
            return STATE_DEAD;
        all = to;
    }
    return all;
}

/* Whether the text may go on with any plain token. */
static bool takes_plain(struct machine *m)
{
    uint16_t state = m->at;
    for (int i = 0; i < PLAIN_CHARACTERS && state != STATE_DEAD; i++) {
        const uint16_t before = state;
        const uint32_t forgotten = m->forgotten;
        state = m->states[state].chain;
        if (state == STATE_UNKNOWN) {
            state = after_character(m, before);
            if (m->forgotten != forgotten)
                return false;
            m->states[before].chain = state;
        }
        if (state == before)
            break;
    }
    return state != STATE_DEAD;
}

/* --- masks --- */

static void allow(uint64_t *mask, int32_t token) { mask[token / 64] |= UINT64_C(1) << token % 64; }
static bool allows(const uint64_t *mask, int32_t token) { return mask[token / 64] >> token % 64 & 1; }

static void make_mask(struct constraint *c, uint64_t *mask)
{
    const struct token_trie *t = c->trie;
    const size_t n_words = t->no_token / 64;
    uint64_t any = 0;
    memset(mask, 0, (n_words + 1) * sizeof *mask);
    if (takes_plain(&c->machine))
        memcpy(mask, t->plain_mask, n_words * sizeof *mask);
    else
        walk(c, &t->plain, mask);
    walk(c, &t->rest, mask);
    for (uint32_t i = 0; i < t->n_twins; i++)
        if (allows(mask, t->twins[i].first))
            allow(mask, t->twins[i].again);
    for (size_t i = 0; i < n_words; i++)
        any |= mask[i];
    for (uint32_t i = 0; (!any || constraint_complete(c)) && i < t->n_ends; i++)
        allow(mask, t->ends[i]);
}

const uint64_t *constraint_mask(struct constraint *c)
{
    struct machine *m = &c->machine;
    for (int i = 0; i < MASKS && c->forgotten == m->forgotten; i++)
        if (c->of[i] == m->at)
            return c->masks[i];
    const uint32_t turn = c->turn = (c->turn + 1) % MASKS;
    make_mask(c, c->masks[turn]);
    if (c->forgotten != m->forgotten)
        memset(c->of, 0, sizeof c->of);
    c->forgotten = m->forgotten;
    c->of[turn] = m->at;
    return c->masks[turn];
}

bool constraint_complete(struct constraint *c) { return c->machine.states[c->machine.at].complete; }

static bool ends_answer(const struct token_trie *t, int32_t token)
{
    for (uint32_t i = 0; i < t->n_ends; i++)
        if (t->ends[i] == token)
            return true;
    return false;
}

void constraint_accept(struct constraint *c, int32_t token)
{
    const struct token_trie *t = c->trie;
    struct machine *m = &c->machine;
    if (token < 0 || token >= t->n_vocab || t->starts[token] == t->starts[token + 1]) {
        m->at = ends_answer(t, token) ? m->at : STATE_DEAD;
        return;
    }
    for (size_t i = t->starts[token]; i < t->starts[token + 1]; i++)
        m->at = machine_next(m, m->at, t->bytes[i]);
}
