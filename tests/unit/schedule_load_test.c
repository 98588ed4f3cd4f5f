/* The schedule under random loads, in virtual time over a model of the ranks: whatever is shared, sent away, drafted,
 * cut back and cancelled, every sequence gets what it would get alone, pages are nobody's or somebody's, nobody starves
 * and the order is kept. HEARTH_LOADS=N plays N loads, HEARTH_LOAD=N number N alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "coordinator/schedule_parts.h"
#include "tests/unit/ranks_model.h"
#include "wire/runs.h"

enum { MOST_CLIENTS = 14, MOST_DRAFTS = 6 };

/* Somebody who has turns with a sequence. */
struct client {
    struct sequence *q;             /* NULL: gone, or not there yet */
    int32_t text[MOST_CTX];
    uint64_t held[MOST_CTX];        /* by each position of the text */
    uint32_t n;
    uint64_t seed, at;              /* when it does something next: begins a turn; or gives one up; UINT64_MAX: waits */
    uint32_t n_turns, to_make, family;
    uint32_t from;                  /* of scores, the next that must come */
    bool in_turn, ran;
    struct wish wish;
    struct grammar grammar;
    uint64_t ready_since;           /* step before which its next token was known */
};

static struct load {
    uint64_t number, random, now;
    struct schedule_options o;
    struct schedule *s;
    struct ranks ranks;
    struct client clients[MOST_CLIENTS];
    uint32_t n_clients;
    uint64_t last_begun; /* ticket of the turn that began last */
    bool drafts, chats;
} l;

/* What the loads together have had, so that none of it is missing unseen. */
static struct seen {
    uint64_t steps, runs, sent_away, shared, copies, drafts, accepted, given_up, under_way, exhausted, texts, turns,
        kept, from_kept, from_own; /* states: begun with one that was kept, or another's own */
} seen;

#define CHECK(what) \
    do { \
        if (!(what)) { \
            print_error("load %llu, step %llu: %s\n", (unsigned long long)l.number, (unsigned long long)l.s->n_steps, \
                        #what); \
            fail(); \
        } \
    } while (0)

static uint64_t draw(uint64_t n) { return (l.random = mix(l.random)) % n; }

static uint32_t between(uint32_t least, uint32_t most) { return least + (uint32_t)draw(most - least + 1); }

/* ---- Clients ---- */

static void client_append(struct client *c, int32_t token)
{
    c->held[c->n] = held(c->n ? c->held[c->n - 1] : 0, token, c->n);
    c->text[c->n++] = token;
}

/* Of a family's text everybody has a beginning. */
static int32_t family_token(const struct client *c) { return (int32_t)(mix(c->family * 1000003u + c->n) % VOCABULARY); }

static void write_prompt(struct client *c, uint32_t most)
{
    const uint32_t n = between(1, most > 40 && draw(3) ? 40 : most), own = draw(3) ? (uint32_t)draw(n + 1) : 0;
    const uint32_t begin = c->n;
    for (uint32_t i = 0; i < n; i++)
        client_append(c, i < n - own ? family_token(c) : (int32_t)draw(VOCABULARY));
    CHECK(sequence_append(c->q, c->text + begin, n) == ST_OK);
}

static struct wish some_wish(const struct client *c)
{
    static const enum wish_kind kinds[] = {WISH_TOKEN,  WISH_TOKEN,  WISH_TOKEN, WISH_TOKEN,   WISH_NOTHING,
                                           WISH_SCORES, WISH_LOGITS, WISH_TOP,   WISH_STATES, WISH_SUM,
                                           WISH_LOG_PROBS};
    struct wish w = {.kind = kinds[draw(sizeof kinds / sizeof *kinds)], .successor = -1, .n_top = 3};
    if (wants_each(&w)) {
        w.from = (uint32_t)draw(c->n);
        w.successor = (int32_t)draw(VOCABULARY);
    }
    return w;
}

static void begin_turn(struct client *c)
{
    if (!c->q)
        CHECK(schedule_open(l.s, &c->q) == ST_OK);
    const uint32_t memory = l.o.n_pages * PAGE_POSITIONS, most = l.o.n_ctx < memory ? l.o.n_ctx : memory;
    if (c->n > most || (c->n && draw(2))) { /* an answer is not wanted, or a text is edited */
        c->n = (uint32_t)draw(most < c->n ? most : c->n + 1);
        schedule_cut(l.s, c->q, c->n);
    }
    const uint32_t room = most - c->n;
    if (room > 0 && (c->n == 0 || draw(4)))
        write_prompt(c, room);
    c->wish = some_wish(c);
    c->from = c->wish.from;
    c->to_make = between(1, draw(2) ? 12 : 90);
    c->seed = draw(5);
    c->in_turn = true;
    c->ran = false;
    c->grammar = (struct grammar){NULL, (uint32_t)draw(l.o.n_ops + 1)}; /* nobody looks into it */
    const struct sampler_params p = {.temperature = 1, .seed = c->seed, .n_bias = (uint32_t)draw(l.o.n_bias + 1),
                                     .grammar = draw(2) ? &c->grammar : NULL};
    CHECK(schedule_submit(l.s, c->q, &c->wish, &p) == ST_OK);
    c->at = draw(4) ? UINT64_MAX : l.now + draw(800);
    c->n_turns--;
    seen.turns++;
}

/* The turn is over: another follows, or the client goes. */
static void end_turn(struct client *c)
{
    c->in_turn = false;
    c->at = l.now + draw(100);
}

static void leave(struct client *c)
{
    seen.under_way += c->q->under_way > 0;
    schedule_release(l.s, c->q);
    c->q = NULL;
    c->at = UINT64_MAX;
    seen.texts++;
}

static void act(struct client *c)
{
    if (c->in_turn) {
        seen.given_up++;
        if (draw(2) || c->n_turns == 0) {
            leave(c); /* in the middle */
            c->n_turns = 0;
            return;
        }
        schedule_end(l.s, c->q);
        end_turn(c);
        c->at = l.now + draw(20); /* at times while its step is still under way */
    } else if (c->n_turns > 0) {
        begin_turn(c);
    } else {
        leave(c);
    }
}

static struct client *client_of(const struct sequence *q)
{
    for (uint32_t i = 0; i < l.n_clients; i++)
        if (l.clients[i].q == q)
            return &l.clients[i];
    return NULL;
}

/* ---- What comes back ---- */

static int32_t alone(const struct client *c) { return drawn(c->seed, c->held[c->n - 1]); }

static void take_token(struct client *c, int32_t token)
{
    CHECK(token == alone(c));
    if (--c->to_make == 0 || c->n == l.o.n_ctx) {
        schedule_end(l.s, c->q);
        end_turn(c);
        return;
    }
    client_append(c, token);
    CHECK(schedule_append(l.s, c->q, token) == ST_OK);
    c->ready_since = l.s->n_steps;
    if (l.drafts && c->wish.kind == WISH_TOKEN && draw(3)) {
        struct client guess = *c;
        int32_t drafts[MOST_DRAFTS];
        const uint32_t n = between(1, MOST_DRAFTS);
        for (uint32_t i = 0; i < n; i++) {
            drafts[i] = draw(4) ? alone(&guess) : (int32_t)draw(VOCABULARY);
            if (guess.n < MOST_CTX)
                client_append(&guess, drafts[i]);
        }
        schedule_propose(l.s, c->q, drafts, n);
    }
}

static void take_tokens(struct client *c, const struct model_run *m)
{
    int32_t picked[MOST_DRAFTS + 1];
    CHECK(m->n_values == c->q->n_drafts + 1);
    for (uint32_t i = 0; i < m->n_values; i++)
        picked[i] = (int32_t)m->values[i];
    const uint32_t n = schedule_accept(l.s, c->q, picked);
    seen.drafts += m->n_values - 1;
    seen.accepted += n;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(picked[i] == alone(c));
        client_append(c, picked[i]);
    }
    c->to_make = c->to_make > n ? c->to_make - n : 1;
    take_token(c, picked[n]);
}

static void take_scores(struct client *c, const struct model_run *m, bool last)
{
    for (uint32_t i = 0; i < m->n_values; i++, c->from++)
        CHECK(m->values[i] == score(c->held[c->from], c->from + 1 < c->n ? c->text[c->from + 1] : c->wish.successor));
    CHECK(!last || c->from == c->n);
}

static void take_run(const struct step_run *r, const struct model_run *m)
{
    if (!r->live)
        return;
    struct client *c = client_of(r->sequence);
    CHECK(c && c->in_turn);
    if (wants_each(&c->wish))
        take_scores(c, m, r->last);
    if (!r->last)
        return;
    if (m->wish.kind == WISH_TOKENS) {
        take_tokens(c, m);
    } else if (c->wish.kind >= WISH_TOKEN && !wants_each(&c->wish)) {
        CHECK(m->n_values == 1);
        take_token(c, (int32_t)m->values[0]);
    } else {
        schedule_end(l.s, c->q);
        end_turn(c);
    }
}

static void take_result(const struct model_step *m)
{
    const struct step *step = schedule_oldest(l.s);
    CHECK(step && step->n_runs == m->n_runs);
    for (uint32_t i = 0; i < step->n_runs; i++)
        take_run(&step->runs[i], &m->runs[i]);
    schedule_returned(l.s);
}

/* ---- What must be so at all times ---- */

static void check_pages(void)
{
    uint32_t owners[MOST_PAGES] = {0}, n_free = 0;
    const struct sequence *const *slots = (const struct sequence *const *)l.s->slots;
    for (uint32_t i = 0; i < l.o.n_sequences; i++)
        for (uint32_t j = 0; slots[i] && j < slots[i]->n_table; j++)
            owners[slots[i]->table[j]]++;
    for (uint32_t i = 0; i < l.o.n_pages; i++) {
        CHECK(owners[i] == pages_owners(l.s->pages, i));
        n_free += owners[i] == 0;
    }
    CHECK(n_free == pages_n_free(l.s->pages));
    for (uint32_t i = 0; i < l.n_clients; i++)
        CHECK(!l.clients[i].q || l.clients[i].q->slot != PAGE_NONE || l.clients[i].q->n_table == 0);
}

static void check_order(void)
{
    for (const struct sequence *q = l.s->queue; q; q = q->next) {
        CHECK(!q->next || q->ticket < q->next->ticket);
        for (uint32_t i = 0; i < l.s->n_running; i++)
            CHECK(l.s->running[i]->ticket < q->ticket);
    }
}

/* The promises 2 and 4 of schedule.h. */
static void check_served(void)
{
    const uint64_t n = l.o.n_sequences, s = l.o.n_steps;
    const struct sequence *oldest = NULL;
    for (uint32_t i = 0; i < l.s->n_running; i++) {
        const struct sequence *q = l.s->running[i];
        const uint64_t waits = l.s->n_steps - client_of(q)->ready_since;
        if (q->n_sent + 1 + q->n_drafts == q->n_tokens && !q->under_way && !q->leaving &&
            sequence_covered(q, l.s->pages) > q->n_sent)
            CHECK(waits <= n);
        if (!oldest || q->ticket < oldest->ticket)
            oldest = q;
    }
    if (oldest && !oldest->under_way)
        CHECK(l.s->n_steps - client_of(oldest)->ready_since <= n * (s + 1));
}

static void check_step(const struct step *step)
{
    const struct wire_limits lim = {.n_batch = l.o.n_batch, .n_ctx = l.o.n_ctx, .n_sequences = l.o.n_sequences,
                                    .n_pages = l.o.n_pages};
    CHECK(step->n_tokens <= l.o.n_batch && step->n_changes <= schedule_most_changes(&l.o));
    CHECK(step->n_changes <= wire_most_changes(&lim)); /* and so it can be sent */
    CHECK(step->n_text <= l.o.n_ctx);
    uint32_t n_logits = 0, n_bias = 0, n_ops = 0;
    uint64_t slots = 0, pages = 0;
    for (uint32_t i = 0; i < step->n_runs; i++) {
        const struct step_run *r = &step->runs[i];
        struct client *c = client_of(r->sequence);
        CHECK(c && r->n_tokens > 0 && r->position + r->n_tokens <= l.o.n_ctx && !(slots >> r->slot & 1));
        slots |= UINT64_C(1) << r->slot;
        n_logits += r->wish.kind == WISH_LOGITS;
        n_bias += r->begins ? r->sequence->sampling.n_bias : 0;
        n_ops += r->begins ? grammar_ops(&r->sequence->sampling) : 0;
        if (!c->ran) { /* turns begin in the order of their submission */
            CHECK(r->sequence->ticket > l.last_begun);
            l.last_begun = r->sequence->ticket;
            c->ran = true;
        }
        c->ready_since = l.s->n_steps;
        seen.shared += r->begins && r->position > 0;
        CHECK(r->begin_with <= l.o.n_states && r->keep_as <= l.o.n_states);
        CHECK(r->begin_with != r->slot + 1 && (!r->keep_as || r->keep_as > l.o.n_sequences));
        seen.kept += r->keep_as > 0;
        seen.from_kept += r->begin_with > l.o.n_sequences;
        seen.from_own += r->begin_with && r->begin_with <= l.o.n_sequences;
    }
    for (uint32_t i = 0; i < step->n_changes; i++) {
        CHECK(!(pages >> step->changes[i].page & 1));
        pages |= UINT64_C(1) << step->changes[i].page;
        seen.copies += step->changes[i].from != PAGE_NONE;
    }
    CHECK(n_logits <= 1);
    CHECK(n_bias == step->n_bias && n_bias <= l.o.n_bias && n_ops == step->n_ops && n_ops <= l.o.n_ops);
    seen.steps++;
    seen.runs += step->n_runs;
}

/* ---- A load ---- */

static void end_exhausted(void)
{
    struct sequence *q = schedule_exhausted(l.s);
    struct client *c = q ? client_of(q) : NULL;
    if (!q)
        return;
    CHECK(c && c->in_turn && q->n_tokens == c->n && pages_of(c->n) > l.o.n_pages);
    end_turn(c);
    seen.exhausted++;
}

static void plan(void)
{
    const struct step *step;
    while ((step = schedule_next(l.s)) || schedule_exhausted(l.s)) {
        end_exhausted();
        if (step) {
            check_step(step);
            ranks_send(&l.ranks, step, l.now);
        }
        check_served();
    }
    check_pages();
    check_order();
}

/* What happens next. False: nothing. */
static bool happen(void)
{
    struct client *next = NULL;
    uint64_t when;
    struct model_step *m = ranks_next(&l.ranks, &when);
    for (uint32_t i = 0; i < l.n_clients; i++) {
        if (l.clients[i].at < when) {
            next = &l.clients[i];
            when = next->at;
        }
    }
    if (when == UINT64_MAX)
        return false;
    l.now = when;
    if (next) {
        act(next);
    } else {
        const struct model_step *done = ranks_run(&l.ranks, m);
        CHECK(l.ranks.wrong == 0);
        if (done)
            take_result(done);
    }
    return true;
}

static void draw_load(uint64_t number)
{
    l.number = number;
    l.random = mix(number);
    l.now = l.last_begun = 0;
    const uint32_t n_ctx = between(1, draw(2) ? MOST_CTX : 100), least = pages_of(n_ctx);
    l.o = (struct schedule_options){.n_sequences = between(1, MOST_SLOTS), .n_ctx = n_ctx,
                                    .n_batch = between(1, draw(4) ? MOST_BATCH : 8),
                                    .n_groups = draw(2) ? 1 : between(2, MOST_STAGES)};
    l.o.n_steps = between(l.o.n_groups, MOST_STEPS);
    l.o.n_pages = draw(8) ? between(least, draw(3) ? MOST_PAGES : least + 3) : between(1, least);
    l.n_clients = between(1, MOST_CLIENTS);
    l.drafts = draw(2);
    l.chats = draw(2);
    l.o.n_bias = (uint32_t)draw(20);
    l.o.n_ops = draw(2) ? (uint32_t)draw(100) : 0;
    l.o.n_states = draw(2) ? between(l.o.n_sequences, 2 * l.o.n_sequences) : 0;
    const uint64_t spread = draw(2) ? draw(1000) : 0;
    const uint32_t families = between(1, 3);
    for (uint32_t i = 0; i < l.n_clients; i++)
        l.clients[i] = (struct client){.at = draw(spread + 1), .n_turns = l.chats ? between(1, 3) : 1,
                                       .family = (uint32_t)draw(families)};
}

/* Nobody will read a state any more: each can be had. */
static void check_states(void)
{
    uint64_t had = 0;
    for (uint32_t i = l.o.n_sequences; i < l.o.n_states; i++)
        had |= UINT64_C(1) << states_keep(l.s->states, NULL, i);
    for (uint32_t i = l.o.n_sequences; i < l.o.n_states; i++)
        CHECK(had >> (i + 1) & 1);
}

static void play(uint64_t number)
{
    draw_load(number);
    assert_int_equal(schedule_create(&l.o, &l.s), ST_OK);
    ranks_reset(&l.ranks, l.o.n_groups, between(1, 3));
    l.ranks.nets = l.o.n_states > 0;
    do
        plan();
    while (happen());
    for (uint32_t i = 0; i < l.n_clients; i++)
        CHECK(!l.clients[i].q && l.clients[i].n_turns == 0); /* nobody waits for ever */
    CHECK(l.s->n_under_way == 0 && l.s->n_running == 0 && !l.s->queue);
    CHECK(pages_n_free(l.s->pages) == l.o.n_pages);
    check_states();
    seen.sent_away += schedule_counts(l.s).sent_away;
    schedule_free(l.s);
}

static void random_loads_are_served_as_if_alone(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    uint64_t n = 3000;
#else
    uint64_t n = 10000;
#endif
    const char *loads = getenv("HEARTH_LOADS"), *one = getenv("HEARTH_LOAD");
    if (one && *one) {
        play(strtoull(one, NULL, 10));
        return;
    }
    n = loads && *loads ? strtoull(loads, NULL, 10) : n;
    for (uint64_t i = 0; i < n; i++)
        play(i);
    print_message("%llu loads, %llu turns of %llu texts, %llu steps, %llu runs; %llu sent away, %llu begun with pages, "
                  "%llu copies, %llu drafts (%llu right), %llu given up (%llu with a step under way), %llu exhausted; "
                  "%llu states kept, %llu begun with one, %llu with another's own\n",
                  (unsigned long long)n, (unsigned long long)seen.turns, (unsigned long long)seen.texts,
                  (unsigned long long)seen.steps, (unsigned long long)seen.runs, (unsigned long long)seen.sent_away,
                  (unsigned long long)seen.shared, (unsigned long long)seen.copies, (unsigned long long)seen.drafts,
                  (unsigned long long)seen.accepted, (unsigned long long)seen.given_up,
                  (unsigned long long)seen.under_way, (unsigned long long)seen.exhausted, (unsigned long long)seen.kept,
                  (unsigned long long)seen.from_kept, (unsigned long long)seen.from_own);
    if (n >= 600)
        assert_true(seen.sent_away && seen.shared && seen.copies && seen.accepted && seen.under_way && seen.exhausted &&
                    seen.kept && seen.from_kept && seen.from_own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_loads_are_served_as_if_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
