#include "coordinator/schedule.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "coordinator/schedule_parts.h"

/* ---- How a step is made ----
 *
 * In three rounds, until it has n_batch tokens: a group of those that decode; chunks of the prompts of others that
 * run; newcomers from the queue, last, as they shall take from nobody. In every round who was served longest ago comes
 * first, which is the order of `running`. In one plan nobody is looked at twice (`tried`): who cannot run now, for want
 * of a page, is passed over. */

/* What is wanted of q's next n tokens as a run. Of scores, a part; of a token, nothing before the text's end; and with
 * drafts behind the text, a token after each of them too. */
static struct wish wish_of(const struct sequence *q, uint32_t n)
{
    const uint32_t end = q->n_sent + n;
    struct wish w = q->wish;
    if (wants_each(&w) && end > w.from) {
        w.from = w.from > q->n_sent ? w.from - q->n_sent : 0;
        w.successor = end < q->n_tokens ? q->tokens[end] : w.successor;
        return w;
    }
    if (wants_each(&w) || end < q->n_tokens)
        return (struct wish){.kind = WISH_NOTHING, .successor = -1};
    if (q->n_drafts)
        return (struct wish){.kind = WISH_TOKENS, .from = n - 1 - q->n_drafts, .successor = -1};
    return (struct wish){.kind = w.kind, .successor = -1, .n_top = w.n_top};
}

/* Whoever is served goes behind all others. */
static void go_to_end(struct schedule *s, struct sequence *q)
{
    uint32_t i = 0;
    while (s->running[i] != q)
        i++;
    memmove(&s->running[i], &s->running[i + 1], (s->n_running - 1 - i) * sizeof *s->running);
    s->running[s->n_running - 1] = q;
}

/* Whether what q has to run is more than a token, of which nothing is wanted before the end. */
static bool is_prompt(const struct sequence *q) { return q->n_tokens - q->n_sent > 1 && !wants_each(&q->wish); }

/* Of the next n tokens of q so many that a state can be kept at their end. */
static uint32_t whole_pages(const struct sequence *q, uint32_t n)
{
    const uint32_t last = (q->n_sent + n) / PAGE_POSITIONS * PAGE_POSITIONS;
    return q->states && is_prompt(q) && last > q->n_sent ? last - q->n_sent : n;
}

/* Puts q's next n tokens into the step, which have pages. */
static void add_run(struct schedule *s, struct step *step, struct sequence *q, uint32_t n)
{
    struct step_run r = {.sequence = q, .slot = q->slot, .position = q->n_sent, .first = step->n_tokens, .n_tokens = n,
                         .begin_with = q->begin_with, .wish = wish_of(q, n), .begins = !q->begun,
                         .last = q->n_sent + n == q->n_tokens, .live = true};
    const bool keeps = q->states && is_prompt(q) && (q->n_sent + n) % PAGE_POSITIONS == 0;
    step->logits = step->logits || r.wish.kind == WISH_LOGITS;
    if (r.begins) {
        step->n_text += r.position;
        step->n_bias += q->sampling.n_bias;
        step->n_ops += grammar_ops(&q->sampling);
    }
    memcpy(step->tokens + r.first, q->tokens + r.position, n * sizeof *step->tokens);
    step->n_tokens += n;
    step->n_changes += sequence_send(q, n, step->changes + step->n_changes);
    r.keep_as = keeps ? states_keep(q->states, q, q->n_sent) : 0;
    step->runs[step->n_runs++] = r;
    q->begun = true;
    q->under_way++;
    go_to_end(s, q);
}

/* Runs the next n tokens of q, or as many of them as there are pages for; drafts that do not fit are dropped. Only one
 * run of a step may bring logits: the last token of another waits. */
static void run_tokens(struct schedule *s, struct step *step, struct sequence *q, uint32_t n)
{
    q->tried = s->n_plans;
    if (q->wish.kind == WISH_LOGITS && step->logits && q->n_sent + n == q->n_tokens)
        n--;
    if (n > 0)
        n = whole_pages(q, residence_cover(s, q, n));
    if (n == 0)
        return;
    if (q->n_drafts)
        sequence_limit_drafts(q, n - 1);
    add_run(s, step, q, n);
}

/* Has one token to run and then waits for what is drawn, or does so now; drafts do not count. */
static bool decodes(const struct sequence *q) { return q->n_tokens - q->n_drafts <= q->n_sent + 1; }

/* Can be part of the step that is being planned. The last token of a prompt need not wait for the chunks before it. */
static bool is_ready(const struct schedule *s, const struct sequence *q)
{
    return q->n_sent < q->n_tokens && q->tried != s->n_plans && !q->leaving;
}

/* Of those that decode, or of those with more to run than a token, who has waited longest; NULL: none is ready. */
static struct sequence *next_ready(const struct schedule *s, bool decoding)
{
    for (uint32_t i = 0; i < s->n_running; i++)
        if (decodes(s->running[i]) == decoding && is_ready(s, s->running[i]))
            return s->running[i];
    return NULL;
}

/* Those that decode are parted into groups, so that every stage has one to work at; a step serves one of them. Each has
 * its token, and drafts as far as all together take no more than half of the step. */
static void run_decoding(struct schedule *s, struct step *step)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_running; i++)
        n += decodes(s->running[i]);
    const uint32_t group = (n + s->o.n_groups - 1) / s->o.n_groups;
    const uint32_t share = group && s->o.n_batch / 2 > group ? s->o.n_batch / 2 / group : 1;
    struct sequence *q;
    while (step->n_runs < group && (q = next_ready(s, true))) {
        const uint32_t ahead = q->n_tokens - q->n_sent;
        run_tokens(s, step, q, ahead < share ? ahead : share);
    }
}

/* A chunk of a prompt takes what is left of the step. */
static void run_chunk(struct schedule *s, struct step *step, struct sequence *q)
{
    const uint32_t room = s->o.n_batch - step->n_tokens, ahead = q->n_tokens - q->n_sent;
    run_tokens(s, step, q, ahead < room ? ahead : room);
}

static void run_prompts(struct schedule *s, struct step *step)
{
    struct sequence *q;
    while (step->n_tokens < s->o.n_batch && (q = next_ready(s, false)))
        run_chunk(s, step, q);
}

/* Last: so whoever begins takes from nobody. */
static void run_newcomers(struct schedule *s, struct step *step)
{
    struct sequence *q;
    while (step->n_tokens < s->o.n_batch && (q = residence_admit(s, step)))
        run_chunk(s, step, q);
}

/* While somebody's token is on its way, no step is planned that it would find before it. */
static uint32_t most_under_way(const struct schedule *s)
{
    for (uint32_t i = 0; i < s->n_running; i++)
        if (s->running[i]->n_sent == s->running[i]->n_tokens)
            return s->o.n_groups;
    return s->o.n_steps;
}

const struct step *schedule_next(struct schedule *s)
{
    struct step *step = &s->steps[(s->oldest + s->n_under_way) % s->o.n_steps];
    s->exhausted = NULL;
    if (s->n_under_way >= most_under_way(s))
        return NULL;
    *step = (struct step){.runs = step->runs, .tokens = step->tokens, .changes = step->changes};
    s->n_plans++;
    run_decoding(s, step);
    run_prompts(s, step);
    run_newcomers(s, step);
    if (step->n_runs == 0)
        return NULL;
    step->id = ++s->n_steps;
    s->n_runs += step->n_runs;
    s->n_under_way++;
    return step;
}

const struct step *schedule_oldest(const struct schedule *s)
{
    return s->n_under_way ? &s->steps[s->oldest] : NULL;
}

void schedule_returned(struct schedule *s)
{
    const struct step *step = &s->steps[s->oldest];
    s->oldest = (s->oldest + 1) % s->o.n_steps;
    s->n_under_way--;
    for (uint32_t i = 0; i < step->n_runs; i++) {
        const struct step_run *r = &step->runs[i];
        struct sequence *q = r->sequence;
        q->under_way--;
        if (r->live) {
            sequence_ran(q, r->position + r->n_tokens);
            if (q->wish.from < q->n_run)
                q->wish.from = q->n_run; /* if it must begin anew, no score comes twice */
        }
        residence_settle(s, q);
    }
}

/* ---- Turns ---- */

static status refuse(const struct schedule *s, const struct sequence *q, const struct wish *w,
                     const struct sampler_params *p)
{
    if (q->n_tokens == 0 || (wants_each(w) && w->from >= q->n_tokens)) {
        log_error("a text of %u tokens, wanted from %u on: nothing to run", q->n_tokens, wants_each(w) ? w->from : 0);
        return ST_USAGE;
    }
    if (p->n_bias > s->o.n_bias || grammar_ops(p) > s->o.n_ops) {
        log_error("%u biases and a grammar of %u ops: at most %u and %u", p->n_bias, grammar_ops(p), s->o.n_bias,
                  s->o.n_ops);
        return ST_USAGE;
    }
    if (pages_of(q->n_tokens) > s->o.n_pages) {
        log_error("the text has %u tokens, all KV memory together room for %u", q->n_tokens,
                  s->o.n_pages * PAGE_POSITIONS);
        return ST_FULL;
    }
    return ST_OK;
}

status schedule_submit(struct schedule *s, struct sequence *q, const struct wish *w, const struct sampler_params *p)
{
    status st = refuse(s, q, w, p ? p : &q->sampling);
    if (st)
        return st;
    q->wish = *w;
    if (p) {
        q->sampling = *p;
        q->begun = false;
    }
    sequence_rewind(q, s->pages, wants_each(w) ? w->from : q->n_tokens - 1);
    q->ticket = ++s->n_tickets;
    residence_queue(s, q);
    return ST_OK;
}

status schedule_append(struct schedule *s, struct sequence *q, int32_t token)
{
    (void)s;
    return sequence_append(q, &token, 1);
}

void schedule_propose(struct schedule *s, struct sequence *q, const int32_t *drafts, uint32_t n)
{
    if (!s->states && q->wish.kind == WISH_TOKEN && q->n_tokens == q->n_sent + 1)
        sequence_propose(q, drafts, n);
}

uint32_t schedule_accept(struct schedule *s, struct sequence *q, const int32_t *picked)
{
    return sequence_accept(q, s->pages, picked);
}

void schedule_cut(struct schedule *s, struct sequence *q, uint32_t n) { sequence_cut(q, s->pages, n); }

/* Nobody waits for the runs of q that are under way. */
static void forget_runs(struct schedule *s, const struct sequence *q)
{
    for (uint32_t i = 0; i < s->n_under_way; i++) {
        struct step *step = &s->steps[(s->oldest + i) % s->o.n_steps];
        for (uint32_t j = 0; j < step->n_runs; j++)
            if (step->runs[j].sequence == q)
                step->runs[j].live = false;
    }
}

void schedule_end(struct schedule *s, struct sequence *q)
{
    residence_stop(s, q);
    forget_runs(s, q);
    sequence_cut(q, s->pages, q->n_tokens - q->n_drafts);
    q->ticket = ++s->n_tickets;
}

void schedule_release(struct schedule *s, struct sequence *q)
{
    schedule_end(s, q);
    if (s->exhausted == q)
        s->exhausted = NULL;
    q->released = true;
    residence_settle(s, q);
}

struct sequence *schedule_exhausted(const struct schedule *s) { return s->exhausted; }

uint64_t schedule_n_steps(const struct schedule *s) { return s->n_steps; }

struct schedule_counts schedule_counts(const struct schedule *s)
{
    struct schedule_counts c = {.running = s->n_running, .pages = pages_count(s->pages),
                                .free_pages = pages_n_free(s->pages), .sent_away = s->n_sent_away,
                                .steps = s->n_steps, .runs = s->n_runs};
    for (const struct sequence *q = s->queue; q; q = q->next)
        c.waiting++;
    for (uint32_t i = 0; i < s->o.n_sequences; i++)
        c.idle += s->slots[i] && s->slots[i]->state == SEQUENCE_IDLE;
    return c;
}
