#include "coordinator/messages.h"

#include <math.h>
#include <stdlib.h>
#include "base/arena.h"
#include "base/log.h"

_Static_assert((int)WIRE_PAGE == (int)PAGE_POSITIONS, "pages are of one size");
_Static_assert((int)GRAMMAR_OPS <= UINT16_MAX, "grammars can be sent");
_Static_assert((int)WIRE_SEQUENCES == (int)SCHEDULE_SEQUENCES, "what is scheduled can be sent");

struct messages {
    struct wire_limits limits;
    struct arena arena;
    struct wire_run *runs;       /* [n_sequences] */
    struct wire_begin *begins;   /* [n_sequences] */
    struct wire_change *changes; /* [most changes] */
    struct wire_bias *bias;      /* [WIRE_BIASES] */
    struct wire_op *ops;         /* [n_grammar_ops] */
    struct wire_result_copy result;
};

struct schedule_options messages_schedule(const struct wire_limits *lim, uint32_t n_groups, uint32_t n_steps)
{
    return (struct schedule_options){.n_sequences = lim->n_sequences, .n_pages = lim->n_pages,
                                     .n_states = lim->n_states, .n_bias = WIRE_BIASES,
                                     .n_ops = lim->n_grammar_ops, .n_ctx = lim->n_ctx, .n_batch = lim->n_batch,
                                     .n_groups = n_groups, .n_steps = n_steps};
}

static void lay(struct messages *m, struct arena *a)
{
    const struct wire_limits *lim = &m->limits;
    m->runs = arena_alloc(a, lim->n_sequences * sizeof *m->runs);
    m->begins = arena_alloc(a, lim->n_sequences * sizeof *m->begins);
    m->changes = arena_alloc(a, wire_most_changes(lim) * sizeof *m->changes);
    m->bias = arena_alloc(a, WIRE_BIASES * sizeof *m->bias);
    m->ops = arena_alloc(a, lim->n_grammar_ops * sizeof *m->ops);
    wire_lay_result_copy(&m->result, lim, a);
}

status messages_create(const struct wire_limits *lim, struct messages **out)
{
    struct messages *m = calloc(1, sizeof *m);
    if (!m) {
        log_error("out of memory for messages");
        return ST_NOMEM;
    }
    struct arena dry;
    m->limits = *lim;
    arena_dry(&dry);
    lay(m, &dry);
    status st = arena_map(&m->arena, dry.used);
    if (st) {
        free(m);
        return st;
    }
    lay(m, &m->arena);
    *out = m;
    return ST_OK;
}

void messages_free(struct messages *m)
{
    if (m)
        arena_unmap(&m->arena);
    free(m);
}

bool messages_has_token(const struct messages *m, int32_t token)
{
    return token >= 0 && (uint32_t)token < m->limits.n_vocab;
}

static status check_wish(const struct messages *m, const struct wish *w)
{
    const uint32_t most_top = m->limits.n_vocab < WIRE_TOP ? m->limits.n_vocab : WIRE_TOP;
    if ((int)w->kind < WISH_NOTHING || w->kind > WISH_LOG_PROBS || w->kind == WISH_TOKENS)
        log_error("wish %d is none that a turn can have", (int)w->kind);
    else if ((w->kind == WISH_TOP || w->kind == WISH_LOG_PROBS) && w->n_top > most_top)
        log_error("the %u best tokens are wanted: at most %u", w->n_top, most_top);
    else if (wants_successors(w) && !messages_has_token(m, w->successor))
        log_error("the last token's successor is %d, the vocabulary has %u", w->successor, m->limits.n_vocab);
    else
        return ST_OK;
    return ST_USAGE;
}

static struct wire_sampling sampling_of(const struct sampler_params *p)
{
    return (struct wire_sampling){.temperature = p->temperature, .top_p = p->top_p, .min_p = p->min_p,
                                  .repeat_penalty = p->repeat_penalty, .presence_penalty = p->presence_penalty,
                                  .frequency_penalty = p->frequency_penalty, .top_k = p->top_k,
                                  .repeat_last = p->repeat_last, .seed = p->seed};
}

static status check_biases(const struct messages *m, const struct sampler_params *p)
{
    if (p->n_bias > WIRE_BIASES) {
        log_error("%u tokens have a bias: at most %d", p->n_bias, WIRE_BIASES);
        return ST_USAGE;
    }
    for (uint32_t i = 0; i < p->n_bias; i++) {
        if (messages_has_token(m, p->bias[i].token) && isfinite(p->bias[i].bias))
            continue;
        log_error("token %d has a bias of %g: the vocabulary has %u, and biases are finite", p->bias[i].token,
                  (double)p->bias[i].bias, m->limits.n_vocab);
        return ST_USAGE;
    }
    return ST_OK;
}

static status check_grammar(const struct messages *m, const struct sampler_params *p)
{
    const uint32_t most = m->limits.n_grammar_ops, n_ops = grammar_ops(p);
    if (n_ops > most)
        log_error(most ? "a grammar of %u ops: at most %u" : "a grammar of %u ops where there are none", n_ops, most);
    else if (p->grammar && p->grammar_from > m->limits.n_ctx)
        log_error("a grammar from position %u on: a text has %u", p->grammar_from, m->limits.n_ctx);
    else
        return p->grammar && grammar_check(p->grammar) ? ST_USAGE : ST_OK;
    return ST_USAGE;
}

status messages_check(const struct messages *m, const struct wish *w, const struct sampler_params *p)
{
    status st = check_wish(m, w);
    if (st || !p)
        return st;
    const struct wire_sampling sampling = sampling_of(p);
    if (!wire_sampling_finite(&sampling)) {
        log_error("a sampling parameter is not finite");
        return ST_USAGE;
    }
    st = check_biases(m, p);
    return st ? st : check_grammar(m, p);
}

static struct wire_run run_of(const struct step_run *r)
{
    static const enum wire_want want[] = {
        [WISH_NOTHING] = WANT_NOTHING, [WISH_TOKEN] = WANT_TOKEN, [WISH_TOKENS] = WANT_TOKENS,
        [WISH_SCORES] = WANT_SCORES,   [WISH_LOGITS] = WANT_LOGITS, [WISH_TOP] = WANT_TOP,
        [WISH_STATES] = WANT_STATES,   [WISH_SUM] = WANT_SUM,       [WISH_LOG_PROBS] = WANT_LOG_PROBS};
    const bool places = wants_each(&r->wish) || r->wish.kind == WISH_TOKENS;
    const bool tops = r->wish.kind == WISH_TOP || r->wish.kind == WISH_LOG_PROBS;
    return (struct wire_run){.sequence = r->slot, .position = r->position, .n_tokens = r->n_tokens,
                             .begin_with = r->begin_with, .keep_as = r->keep_as, .want = want[r->wish.kind],
                             .from = places ? r->wish.from : 0,
                             .n_top = tops ? r->wish.n_top : 0,
                             .next_token = wants_successors(&r->wish) ? r->wish.successor : -1};
}

/* Puts biases and grammar behind those of the step's begins before. */
static struct wire_begin begin_of(struct messages *m, const struct step_run *r, struct wire_step *s)
{
    const struct sampler_params *p = &r->sequence->sampling;
    struct wire_bias *bias = m->bias + s->n_bias;
    struct wire_op *ops = m->ops + s->n_ops;
    const uint32_t n_ops = grammar_ops(p);
    for (uint32_t i = 0; i < p->n_bias; i++)
        bias[i] = (struct wire_bias){p->bias[i].token, p->bias[i].bias};
    for (uint32_t i = 0; i < n_ops; i++) {
        const struct grammar_op *op = &p->grammar->ops[i];
        ops[i] = (struct wire_op){op->kind, op->lo, op->hi, op->a, op->b};
    }
    s->n_bias += p->n_bias;
    s->n_ops += n_ops;
    return (struct wire_begin){.sequence = r->slot,
                               .n_text = r->position,
                               .text = r->sequence->tokens,
                               .sampling = sampling_of(p),
                               .n_bias = p->n_bias,
                               .bias = bias,
                               .n_ops = n_ops,
                               .ops = ops,
                               .grammar_from = n_ops ? p->grammar_from : 0};
}

/* The step's runs as they are sent; its other parts are for who sends it. */
static struct wire_step step_of(struct messages *m, const struct step *step)
{
    for (uint32_t i = 0; i < step->n_runs; i++)
        m->runs[i] = run_of(&step->runs[i]);
    return (struct wire_step){.id = step->id, .n_runs = step->n_runs, .n_tokens = step->n_tokens, .runs = m->runs,
                              .tokens = step->tokens};
}

size_t messages_encode(struct messages *m, const struct step *step, uint8_t *out, size_t cap)
{
    struct wire_step s = step_of(m, step);
    for (uint32_t i = 0; i < step->n_changes; i++) {
        const struct change *c = &step->changes[i];
        m->changes[i] = (struct wire_change){c->slot, c->index, c->page, c->from == PAGE_NONE ? WIRE_NO_PAGE : c->from};
    }
    for (uint32_t i = 0; i < step->n_runs; i++)
        if (step->runs[i].begins)
            m->begins[s.n_begins++] = begin_of(m, &step->runs[i], &s);
    s.n_changes = step->n_changes;
    s.n_text = step->n_text;
    s.changes = m->changes;
    s.begins = m->begins;
    return wire_step_encode(&s, out, cap);
}

status messages_decode(struct messages *m, uint8_t *in, size_t n, const struct step *step,
                       struct session_answer *answers, struct wire_counts *counts)
{
    const struct wire_step s = step_of(m, step);
    struct wire_result r;
    status st = wire_result_decode(in, n, &m->limits, &m->result, &r);
    if (!st)
        st = wire_result_answers(&r, &s, &m->limits);
    if (st)
        return st;
    const int32_t *tokens = r.tokens;
    const struct wire_top *tops = r.tops;
    const float *values = r.values;
    for (uint32_t i = 0; i < r.n_runs; i++) {
        const struct wire_answer *a = &r.answers[i];
        answers[i] = (struct session_answer){a->n_tokens, a->n_top, a->n_values, tokens, tops, values};
        tokens += a->n_tokens;
        tops += a->n_top;
        values += a->n_values;
    }
    *counts = r.counts;
    return ST_OK;
}
