#include "coordinator/sequence.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

status sequence_create(uint32_t n_ctx, struct states *states, struct sequence **out)
{
    struct sequence *q = calloc(1, sizeof *q);
    if (q) {
        *q = (struct sequence){.n_ctx = n_ctx, .states = states, .copy_from = PAGE_NONE, .slot = PAGE_NONE,
                               .sampling = sampler_greedy};
        q->tokens = malloc(n_ctx * sizeof *q->tokens);
        q->table = malloc(pages_of(n_ctx) * sizeof *q->table);
    }
    if (!q || !q->tokens || !q->table) {
        log_error("no memory for a text of %u tokens", n_ctx);
        sequence_free(q);
        return ST_NOMEM;
    }
    *out = q;
    return ST_OK;
}

void sequence_free(struct sequence *q)
{
    if (q) {
        free(q->tokens);
        free(q->table);
    }
    free(q);
}

status sequence_append(struct sequence *q, const int32_t *tokens, uint32_t n)
{
    if (n > q->n_ctx - q->n_tokens) {
        log_error("the context is full: it has room for %u tokens, %u are taken and %u more are wanted; -c sets it",
                  q->n_ctx, q->n_tokens, n);
        return ST_FULL;
    }
    memcpy(q->tokens + q->n_tokens, tokens, n * sizeof *tokens);
    q->n_tokens += n;
    return ST_OK;
}

/* The text's next run begins with this state; 0: with its own. */
static void begin_with(struct sequence *q, uint32_t state)
{
    states_read(q->states, state);
    states_was_read(q->states, q->begin_with);
    q->begin_with = state;
}

void sequence_rewind(struct sequence *q, struct pages *p, uint32_t n)
{
    if (n >= q->n_sent)
        return;
    if (q->states) {
        states_forget(q->states, q, n);
        begin_with(q, states_find(q->states, q, n, &n));
    }
    while (q->n_table > pages_of(n))
        pages_drop(p, q->table[--q->n_table]);
    q->n_told = least(q->n_told, q->n_table);
    q->n_sent = n;
    q->n_run = least(q->n_run, n);
    q->cut = q->under_way > 0;
}

void sequence_cut(struct sequence *q, struct pages *p, uint32_t n)
{
    sequence_limit_drafts(q, 0);
    q->n_tokens = least(q->n_tokens, n);
    sequence_rewind(q, p, q->n_tokens);
}

uint32_t sequence_propose(struct sequence *q, const int32_t *drafts, uint32_t n)
{
    n = least(n, q->n_ctx - q->n_tokens);
    memcpy(q->tokens + q->n_tokens, drafts, n * sizeof *drafts);
    q->n_tokens += n;
    q->n_drafts += n;
    return n;
}

void sequence_limit_drafts(struct sequence *q, uint32_t n)
{
    if (q->n_drafts > n) {
        q->n_tokens -= q->n_drafts - n;
        q->n_drafts = n;
    }
}

uint32_t sequence_accept(struct sequence *q, struct pages *p, const int32_t *picked)
{
    const uint32_t begin = q->n_tokens - q->n_drafts;
    uint32_t n = 0;
    while (n < q->n_drafts && q->tokens[begin + n] == picked[n])
        n++;
    q->n_drafts = 0;
    sequence_cut(q, p, begin + n);
    return n;
}

uint32_t sequence_common(const struct sequence *q, const struct sequence *other, uint32_t limit)
{
    uint32_t n = 0;
    limit = least(limit, least(q->n_tokens, other->n_tokens));
    while (n < limit && q->tokens[n] == other->tokens[n])
        n++;
    return n;
}

void sequence_share(struct sequence *q, struct pages *p, const struct sequence *other, uint32_t n, uint32_t state)
{
    const uint32_t n_full = n / PAGE_POSITIONS;
    for (q->n_table = 0; q->n_table < n_full; q->n_table++) {
        q->table[q->n_table] = other->table[q->n_table];
        pages_share(p, q->table[q->n_table]);
    }
    q->n_sent = n_full * PAGE_POSITIONS;
    if (n > q->n_sent && pages_take(p, &q->table[n_full])) {
        q->copy_from = other->table[n_full];
        q->n_table++;
        q->n_sent = n;
    }
    q->n_run = q->n_sent;
    if (q->states && q->n_sent == n)
        begin_with(q, state);
    else if (q->states)
        sequence_give_back(q, p);
}

/* Whether the next position lies in a page that others read too. */
static bool writes_shared(const struct sequence *q, const struct pages *p)
{
    return q->n_sent % PAGE_POSITIONS != 0 && pages_owners(p, q->table[q->n_sent / PAGE_POSITIONS]) > 1;
}

uint32_t sequence_covered(const struct sequence *q, const struct pages *p)
{
    return writes_shared(q, p) ? q->n_sent : q->n_table * PAGE_POSITIONS;
}

uint32_t sequence_lacks(const struct sequence *q, const struct pages *p, uint32_t end)
{
    const uint32_t n = pages_of(end);
    return (n > q->n_table ? n - q->n_table : 0) + (end > q->n_sent && writes_shared(q, p));
}

bool sequence_extend(struct sequence *q, struct pages *p)
{
    uint32_t page;
    if (!pages_take(p, &page))
        return false;
    if (writes_shared(q, p)) {
        q->n_told = --q->n_table;
        q->copy_from = q->table[q->n_table];
        pages_drop(p, q->copy_from);
    }
    q->table[q->n_table++] = page;
    return true;
}

uint32_t sequence_send(struct sequence *q, uint32_t n, struct change *out)
{
    const uint32_t first = q->n_sent / PAGE_POSITIONS; /* the entry that is written first: only this can be a copy */
    uint32_t n_changes = 0;
    for (uint32_t i = q->n_told; i < q->n_table; i++)
        out[n_changes++] = (struct change){q->slot, i, q->table[i], i == first ? q->copy_from : PAGE_NONE};
    q->copy_from = PAGE_NONE;
    q->n_told = q->n_table;
    q->n_sent += n;
    if (q->states)
        begin_with(q, 0);
    return n_changes;
}

void sequence_ran(struct sequence *q, uint32_t n)
{
    n = least(n, q->n_sent);
    q->n_run = n > q->n_run ? n : q->n_run;
}

void sequence_give_back(struct sequence *q, struct pages *p)
{
    sequence_limit_drafts(q, 0);
    sequence_rewind(q, p, 0);
    q->copy_from = PAGE_NONE;
}
