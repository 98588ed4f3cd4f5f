#include "coordinator/schedule_parts.h"

#include <string.h>

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

void residence_queue(struct schedule *s, struct sequence *q)
{
    struct sequence **at = &s->queue;
    while (*at && (*at)->ticket < q->ticket)
        at = &(*at)->next;
    q->next = *at;
    *at = q;
    q->state = SEQUENCE_WAITING;
}

static void leave_queue(struct schedule *s, struct sequence *q)
{
    struct sequence **at = &s->queue;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
}

static void leave_running(struct schedule *s, struct sequence *q)
{
    uint32_t i = 0;
    while (s->running[i] != q)
        i++;
    s->n_running--;
    memmove(&s->running[i], &s->running[i + 1], (s->n_running - i) * sizeof *s->running);
}

void residence_stop(struct schedule *s, struct sequence *q)
{
    if (q->state == SEQUENCE_RUNNING)
        leave_running(s, q);
    else if (q->state == SEQUENCE_WAITING)
        leave_queue(s, q);
    q->state = SEQUENCE_IDLE;
}

/* q, of which no step is under way, gives back its slot and its pages. If it ran, it waits to begin anew. */
static void send_away(struct schedule *s, struct sequence *q)
{
    const bool ran = q->state == SEQUENCE_RUNNING;
    sequence_give_back(q, s->pages);
    s->slots[q->slot] = NULL;
    q->slot = PAGE_NONE;
    q->begun = q->leaving = false;
    if (ran) {
        residence_stop(s, q);
        residence_queue(s, q);
        s->n_sent_away++;
    }
}

void residence_settle(struct schedule *s, struct sequence *q)
{
    if (q->under_way)
        return;
    q->cut = false;
    if ((q->leaving || q->released) && q->slot != PAGE_NONE)
        send_away(s, q);
    if (q->released)
        sequence_free(q);
}

/* Who has to leave before whom: first who is idle, the longest before others; then who waits, and then who runs, the
 * youngest before others. */
static bool leaves_before(const struct sequence *a, const struct sequence *b)
{
    if (a->state != b->state)
        return a->state < b->state;
    return a->state == SEQUENCE_IDLE ? a->ticket < b->ticket : a->ticket > b->ticket;
}

/* Who has to leave for q; NULL: nobody. */
static struct sequence *first_to_leave(const struct schedule *s, const struct sequence *q)
{
    struct sequence *first = NULL;
    for (uint32_t i = 0; i < s->o.n_sequences; i++) {
        struct sequence *r = s->slots[i];
        if (!r || r == q || (r->state == SEQUENCE_RUNNING && r->ticket < q->ticket))
            continue;
        if (!first || leaves_before(r, first))
            first = r;
    }
    return first;
}

static bool somebody_leaves(const struct schedule *s)
{
    for (uint32_t i = 0; i < s->o.n_sequences; i++)
        if (s->slots[i] && s->slots[i]->leaving)
            return true;
    return false;
}

/* Sends one away for q. False: there is nobody, or its steps must come first. */
static bool make_room(struct schedule *s, const struct sequence *q)
{
    struct sequence *first = somebody_leaves(s) ? NULL : first_to_leave(s, q);
    if (!first)
        return false;
    if (first->under_way) {
        first->leaving = true;
        return false;
    }
    send_away(s, first);
    return true;
}

static bool is_alone(const struct schedule *s, const struct sequence *q)
{
    for (uint32_t i = 0; i < s->o.n_sequences; i++)
        if (s->slots[i] && s->slots[i] != q)
            return false;
    return true;
}

uint32_t residence_cover(struct schedule *s, struct sequence *q, uint32_t n)
{
    const uint32_t end = q->n_sent + n;
    while (sequence_covered(q, s->pages) < end)
        if (!sequence_extend(q, s->pages) && !make_room(s, q))
            break;
    const uint32_t covered = least(sequence_covered(q, s->pages), end);
    if (covered == q->n_sent && is_alone(s, q)) {
        sequence_limit_drafts(q, 0);
        residence_stop(s, q);
        s->exhausted = q;
    }
    return covered - q->n_sent;
}

static bool find_slot(struct schedule *s, struct sequence *q)
{
    do {
        for (uint32_t i = 0; i < s->o.n_sequences && q->slot == PAGE_NONE; i++) {
            if (!s->slots[i]) {
                s->slots[i] = q;
                q->slot = i;
            }
        }
    } while (q->slot == PAGE_NONE && make_room(s, q));
    return q->slot != PAGE_NONE;
}

/* NULL: the step has none of q. */
static const struct step_run *run_of(const struct step *step, const struct sequence *q)
{
    for (uint32_t i = 0; i < step->n_runs; i++)
        if (step->runs[i].sequence == q)
            return &step->runs[i];
    return NULL;
}

/* Positions of q that lie in its pages since before this step; what the step itself computes may not be read yet. */
static uint32_t settled(const struct step *step, const struct sequence *q)
{
    const struct step_run *run = run_of(step, q);
    return run ? run->position : q->n_sent;
}

/* Fewer positions are run again rather than copied. */
enum { WORTH_A_COPY = 16 };

/* Of the first n tokens of r, in which another agrees, those that it can begin with: all, or where there are states as
 * many as one is of; r's own is if r has run that far and no further. */
static uint32_t shareable(const struct step *step, const struct sequence *r, uint32_t n, uint32_t *state)
{
    *state = 0;
    if (!r->states || n == 0)
        return n;
    if (n == r->n_sent && !run_of(step, r) && !r->begin_with)
        *state = states_own(r->slot);
    else
        *state = states_find(r->states, r, n, &n);
    return n;
}

/* Begins q, which has no pages, with those of whom it has the most in common with. False: the step has one that does
 * so already. */
static bool begin_with_others(struct schedule *s, struct step *step, struct sequence *q)
{
    const uint32_t limit = wants_each(&q->wish) ? q->wish.from : q->n_tokens - 1; /* the others must run */
    const struct sequence *best = NULL;
    uint32_t n = 0, state = 0;
    for (uint32_t i = 0; i < s->o.n_sequences; i++) {
        const struct sequence *r = s->slots[i];
        const uint32_t common = r && r != q ? sequence_common(q, r, least(limit, settled(step, r))) : 0;
        uint32_t with, shared = common ? shareable(step, r, common, &with) : 0;
        if (shared > n) {
            n = shared;
            state = with;
            best = r;
        }
    }
    if (!s->states && n % PAGE_POSITIONS < WORTH_A_COPY)
        n -= n % PAGE_POSITIONS;
    if (n == 0)
        return true;
    if (step->shares)
        return false;
    sequence_share(q, s->pages, best, n, state);
    return true;
}

/* Pages that q must take for the whole text and a token more. */
static uint32_t lacks(const struct schedule *s, const struct sequence *q)
{
    return sequence_lacks(q, s->pages, least(q->n_tokens + 1, least(q->n_ctx, s->o.n_pages * PAGE_POSITIONS)));
}

/* Whether there are so many beside those that others, who run, have still to take. */
static bool find_pages(struct schedule *s, struct sequence *q)
{
    uint32_t others = 0;
    for (uint32_t i = 0; i < s->n_running; i++)
        others += lacks(s, s->running[i]);
    while (lacks(s, q) + others > pages_n_free(s->pages))
        if (!make_room(s, q))
            return false;
    return true;
}

/* Whoever is admitted has a run in the same step, or the ranks would learn of its pages in a later one. */
static bool can_begin(const struct schedule *s, const struct step *step, const struct sequence *q)
{
    const bool begin_fits = q->begun || (q->n_sent <= s->o.n_ctx - step->n_text &&
                                         q->sampling.n_bias <= s->o.n_bias - step->n_bias &&
                                         grammar_ops(&q->sampling) <= s->o.n_ops - step->n_ops);
    return begin_fits && !(step->logits && q->wish.kind == WISH_LOGITS && q->n_tokens == q->n_sent + 1);
}

struct sequence *residence_admit(struct schedule *s, struct step *step)
{
    struct sequence *q = s->queue;
    if (!q || q->cut || somebody_leaves(s) || s->n_running == least(s->o.n_sequences, s->o.n_batch) ||
        !find_slot(s, q))
        return NULL;
    const bool empty = q->n_sent == 0;
    if ((empty && !begin_with_others(s, step, q)) || !find_pages(s, q) || !can_begin(s, step, q)) {
        if (empty)
            send_away(s, q);
        return NULL;
    }
    step->shares = step->shares || (empty && q->n_sent > 0);
    q->n_shared = q->n_sent;
    leave_queue(s, q);
    q->state = SEQUENCE_RUNNING;
    s->running[s->n_running++] = q;
    return q;
}
