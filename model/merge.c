/* The merging loop that both kinds of BPE share: a heap of neighbouring pairs over a linked list of symbols. */
#include "model/tokenizer_internal.h"

#include <stdlib.h>

struct candidate {
    uint64_t key; /* order, then the left symbol's index: the leftmost among equals comes first */
    uint32_t size; /* bytes of it and the next; a symbol that grew since makes the candidate stale */
    int32_t merged;
};

status reserve(void **buffer, size_t *cap, size_t n, size_t size)
{
    if (n <= *cap)
        return ST_OK;
    size_t more = *cap < SIZE_MAX / 4 ? *cap * 2 : *cap;
    if (more < n)
        more = n;
    if (more < 64)
        more = 64;
    if (more > SIZE_MAX / size)
        return ST_NOMEM;
    void *p = realloc(*buffer, more * size);
    if (!p)
        return ST_NOMEM;
    *buffer = p;
    *cap = more;
    return ST_OK;
}

status ids_push(struct ids *v, int32_t id)
{
    if (v->n == v->most)
        return ST_FULL;
    if (v->n == v->cap) {
        status s = reserve((void **)&v->at, &v->cap, v->n + 1, sizeof *v->at);
        if (s != ST_OK)
            return s;
    }
    v->at[v->n++] = id;
    return ST_OK;
}

status merge_reserve(struct merge_work *w, size_t n)
{
    status s = reserve((void **)&w->symbols, &w->cap_symbols, n, sizeof *w->symbols);
    /* n - 1 pairs at first, and each of at most n - 1 merges takes one and adds two. */
    return s != ST_OK ? s : reserve((void **)&w->heap, &w->cap_heap, 2 * n, sizeof *w->heap);
}

void merge_append(struct merge_work *w, uint32_t begin, uint32_t n, int32_t piece)
{
    int32_t i = (int32_t)w->n_symbols++;
    w->symbols[i] = (struct symbol){.prev = i - 1, .next = -1, .begin = begin, .n = n, .piece = piece};
    if (i)
        w->symbols[i - 1].next = i;
}

static void heap_push(struct merge_work *w, struct candidate c)
{
    size_t i = w->n_heap++;
    while (i) {
        size_t up = (i - 1) / 2;
        if (w->heap[up].key <= c.key)
            break;
        w->heap[i] = w->heap[up];
        i = up;
    }
    w->heap[i] = c;
}

static struct candidate heap_pop(struct merge_work *w)
{
    struct candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t down = 2 * i + 1;
        if (down >= w->n_heap)
            break;
        if (down + 1 < w->n_heap && w->heap[down + 1].key < w->heap[down].key)
            down++;
        if (last.key <= w->heap[down].key)
            break;
        w->heap[i] = w->heap[down];
        i = down;
    }
    w->heap[i] = last;
    return top;
}

/* A symbol, if it is one, and the next, if there is one. */
static void consider(const struct tokenizer *t, struct merge_work *w, const char *text, pair_fn *pair, int32_t left)
{
    uint32_t order;
    int32_t merged, right = left < 0 ? -1 : w->symbols[left].next;
    if (right < 0 || !pair(t, text, &w->symbols[left], &w->symbols[right], &order, &merged))
        return;
    heap_push(w, (struct candidate){.key = (uint64_t)order << 32 | (uint32_t)left,
                                    .size = w->symbols[left].n + w->symbols[right].n,
                                    .merged = merged});
}

void merge_all(const struct tokenizer *t, struct merge_work *w, const char *text, pair_fn *pair)
{
    w->n_heap = 0;
    for (size_t i = 1; i < w->n_symbols; i++)
        consider(t, w, text, pair, (int32_t)i - 1);
    while (w->n_heap) {
        struct candidate c = heap_pop(w);
        int32_t l = (int32_t)(uint32_t)c.key;
        struct symbol *left = &w->symbols[l];
        if (!left->n || left->next < 0)
            continue;
        struct symbol *right = &w->symbols[left->next]; /* the one that it was, as both only grow */
        if (left->n + right->n != c.size)
            continue;
        left->n += right->n;
        left->piece = c.merged;
        left->next = right->next;
        right->n = 0;
        if (left->next >= 0)
            w->symbols[left->next].prev = l;
        consider(t, w, text, pair, left->prev);
        consider(t, w, text, pair, l);
    }
}

void merge_free(struct merge_work *w)
{
    free(w->symbols);
    free(w->heap);
}
