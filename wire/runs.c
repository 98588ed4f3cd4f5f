/* Runs, changes, tokens: the records of a step. */
#include "wire/runs.h"

#include "base/log.h"
#include "wire/records.h"

_Static_assert(WIRE_SEQUENCES <= 64, "sequences are the bits of a word");

uint32_t wire_most_changes(const struct wire_limits *lim)
{
    const uint32_t most = wire_table(lim) + lim->n_batch / WIRE_PAGE + 2 * lim->n_sequences;
    return most < lim->n_pages ? most : lim->n_pages;
}

void wire_lay_copy(struct wire_copy *c, const struct wire_limits *lim, struct arena *a)
{
    c->runs = arena_alloc(a, lim->n_runs * sizeof *c->runs);
    c->changes = arena_alloc(a, wire_most_changes(lim) * sizeof *c->changes);
    c->begins = arena_alloc(a, lim->n_runs * sizeof *c->begins);
    c->tokens = arena_alloc(a, lim->n_batch * sizeof *c->tokens);
    c->text = arena_alloc(a, lim->n_ctx * sizeof *c->text);
    c->pages = arena_alloc(a, ((size_t)lim->n_pages + 63) / 64 * sizeof *c->pages);
    c->experts = arena_alloc(a, (size_t)lim->n_batch * lim->n_experts_used * sizeof *c->experts);
    c->weights = arena_alloc(a, (size_t)lim->n_batch * lim->n_weights * sizeof *c->weights);
    c->bias = arena_alloc(a, WIRE_BIASES * sizeof *c->bias);
    c->ops = arena_alloc(a, lim->n_grammar_ops * sizeof *c->ops);
}

void write_tokens(struct writer *w, const int32_t *tokens, uint32_t n)
{
    uint8_t *to = write_bytes(w, 4 * (uint64_t)n);
    if (to && n)
        memcpy(to, tokens, 4 * (size_t)n);
}

status read_tokens(int kind, struct reader *r, const struct wire_limits *lim, const char *what, uint32_t n,
                   int32_t *tokens)
{
    status st = ST_OK;
    wire_own(tokens, read_bytes(r, 4 * (uint64_t)n), 4 * (size_t)n);
    for (uint32_t i = 0; i < n && st == ST_OK; i++)
        st = wire_in_range(kind, what, tokens[i], 0, (int64_t)lim->n_vocab - 1);
    return st;
}

/* Where its tokens are. */
static status check_span(int kind, const struct wire_run *q, const struct wire_limits *lim)
{
    status st;
    if ((st = wire_in_range(kind, "a run's sequence", q->sequence, 0, (int64_t)lim->n_sequences - 1)) != ST_OK ||
        (st = wire_in_range(kind, "a run's n_tokens", q->n_tokens, 1, lim->n_batch)) != ST_OK)
        return st;
    return wire_in_range(kind, "a run's position", q->position, 0, (int64_t)lim->n_ctx - q->n_tokens);
}

static status check_states(int kind, const struct wire_run *q, const struct wire_limits *lim)
{
    const int64_t first = q->keep_as ? (int64_t)lim->n_sequences + 1 : 0;
    status st = wire_in_range(kind, "a run's begin_with", q->begin_with, 0, lim->n_states);
    return st ? st : wire_in_range(kind, "a run's keep_as", q->keep_as, first, lim->n_states);
}

static status check_want(int kind, const struct wire_run *q, const struct wire_limits *lim)
{
    const bool probs = q->want == WANT_LOG_PROBS, scores = q->want == WANT_SCORES || probs;
    const bool some = q->want == WANT_TOKENS || q->want == WANT_SUM;
    const int64_t last_from = scores ? q->n_tokens : some ? (int64_t)q->n_tokens - 1 : 0;
    const int64_t last_top = q->want != WANT_TOP && !probs ? 0 : lim->n_vocab < WIRE_TOP ? lim->n_vocab : WIRE_TOP;
    status st;
    if ((st = wire_in_range(kind, "a run's want", q->want, WANT_NOTHING, WANT_LOG_PROBS)) != ST_OK ||
        (st = wire_in_range(kind, "a run's from", q->from, 0, last_from)) != ST_OK ||
        (st = wire_in_range(kind, "a run's n_top", q->n_top, 0, last_top)) != ST_OK)
        return st;
    return wire_in_range(kind, "a run's next_token", q->next_token, probs ? 0 : -1,
                         scores ? (int64_t)lim->n_vocab - 1 : -1);
}

/* What holds of all runs together. */
static status check_runs(int kind, const struct wire_run *runs, uint32_t n, uint32_t n_tokens)
{
    uint64_t seen = 0, tokens = 0;
    uint32_t logits = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t bit = UINT64_C(1) << runs[i].sequence;
        if (seen & bit) {
            log_error("%s message: sequence %u has two runs, expected one", wire_name(kind), runs[i].sequence);
            return ST_FORMAT;
        }
        seen |= bit;
        tokens += runs[i].n_tokens;
        logits += runs[i].want == WANT_LOGITS;
    }
    status st = wire_in_range(kind, "runs that want logits", logits, 0, WIRE_LOGIT_RUNS);
    return st ? st : wire_in_range(kind, "the runs' n_tokens together", (int64_t)tokens, n_tokens, n_tokens);
}

void write_spans(struct writer *w, const struct wire_run *runs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        write_u32(w, runs[i].sequence);
        write_u32(w, runs[i].position);
        write_u32(w, runs[i].n_tokens);
        write_u32(w, runs[i].begin_with);
        write_u32(w, runs[i].keep_as);
    }
}

static struct wire_run read_span(struct reader *r)
{
    struct wire_run q = {.want = WANT_NOTHING, .next_token = -1};
    q.sequence = read_u32(r);
    q.position = read_u32(r);
    q.n_tokens = read_u32(r);
    q.begin_with = read_u32(r);
    q.keep_as = read_u32(r);
    return q;
}

status read_spans(int kind, struct reader *r, const struct wire_limits *lim, uint32_t n, uint32_t n_tokens,
                  struct wire_run *runs)
{
    for (uint32_t i = 0; i < n; i++) {
        runs[i] = read_span(r);
        status st = check_span(kind, &runs[i], lim);
        if (st != ST_OK || (st = check_states(kind, &runs[i], lim)) != ST_OK)
            return st;
    }
    return check_runs(kind, runs, n, n_tokens);
}

void write_runs(struct writer *w, const struct wire_run *runs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        write_spans(w, &runs[i], 1);
        write_u32(w, runs[i].want);
        write_u32(w, runs[i].from);
        write_u32(w, runs[i].n_top);
        write_u32(w, (uint32_t)runs[i].next_token);
        write_u32(w, 0);
    }
}

status read_runs(int kind, struct reader *r, const struct wire_limits *lim, uint32_t n, uint32_t n_tokens,
                 struct wire_run *runs)
{
    for (uint32_t i = 0; i < n; i++) {
        struct wire_run q = read_span(r);
        q.want = read_u32(r);
        q.from = read_u32(r);
        q.n_top = read_u32(r);
        q.next_token = (int32_t)read_u32(r);
        runs[i] = q;
        status st;
        if ((st = wire_in_range(kind, "a run's last word", read_u32(r), 0, 0)) != ST_OK ||
            (st = check_span(kind, &q, lim)) != ST_OK || (st = check_states(kind, &q, lim)) != ST_OK ||
            (st = check_want(kind, &q, lim)) != ST_OK)
            return st;
    }
    return check_runs(kind, runs, n, n_tokens);
}

void write_changes(struct writer *w, const struct wire_change *changes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        write_u32(w, changes[i].sequence);
        write_u32(w, changes[i].index);
        write_u32(w, changes[i].page);
        write_u32(w, changes[i].from_page);
    }
}

static status check_change(int kind, const struct wire_change *g, const struct wire_limits *lim)
{
    const int64_t last_page = (int64_t)lim->n_pages - 1;
    status st;
    if ((st = wire_in_range(kind, "a change's sequence", g->sequence, 0, (int64_t)lim->n_sequences - 1)) != ST_OK ||
        (st = wire_in_range(kind, "a change's index", g->index, 0, (int64_t)wire_table(lim) - 1)) != ST_OK ||
        (st = wire_in_range(kind, "a change's page", g->page, 0, last_page)) != ST_OK)
        return st;
    if (g->from_page == g->page) {
        log_error("%s message: page %u becomes a copy of itself", wire_name(kind), g->page);
        return ST_FORMAT;
    }
    if (g->from_page == WIRE_NO_PAGE)
        return ST_OK;
    return wire_in_range(kind, "a change's from_page", g->from_page, 0, last_page);
}

/* The changes before the first whose page has been among them; `pages` is 0 again afterwards. */
static uint32_t different_pages(const struct wire_change *changes, uint32_t n, uint64_t *pages)
{
    uint32_t i = 0;
    for (; i < n && !(pages[changes[i].page / 64] >> changes[i].page % 64 & 1); i++)
        pages[changes[i].page / 64] |= UINT64_C(1) << changes[i].page % 64;
    for (uint32_t k = 0; k < i; k++)
        pages[changes[k].page / 64] = 0;
    return i;
}

status read_changes(int kind, struct reader *r, const struct wire_limits *lim, uint32_t n, const struct wire_copy *c)
{
    for (uint32_t i = 0; i < n; i++) {
        struct wire_change g;
        g.sequence = read_u32(r);
        g.index = read_u32(r);
        g.page = read_u32(r);
        g.from_page = read_u32(r);
        c->changes[i] = g;
        status st = check_change(kind, &g, lim);
        if (st != ST_OK)
            return st;
    }
    const uint32_t i = different_pages(c->changes, n, c->pages);
    if (i == n)
        return ST_OK;
    log_error("%s message: page %u is in two changes, expected one", wire_name(kind), c->changes[i].page);
    return ST_FORMAT;
}
