#include "serve/engine_parts.h"

#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

void engine_show(struct engine *e)
{
    struct counts *c = e->o.counts;
    pthread_mutex_lock(&c->lock);
    c->running = e->n_turns;
    c->waiting = e->queue.n_waiting;
    pthread_mutex_unlock(&c->lock);
}

/* ---- The end of a job ---- */

static void count_job(struct counts *c, const struct job *j, enum job_end end)
{
    const struct job_usage *u = &j->usage;
    pthread_mutex_lock(&c->lock);
    c->ended[end]++;
    if (end == JOB_ANSWERED || end == JOB_LIMIT) {
        histogram_add(&c->whole_s, u->queued_s + u->prompt_s + u->decode_s);
        histogram_add(&c->queued_s, u->queued_s);
        histogram_add(&c->prompt_part_s, u->prompt_s);
        histogram_add(&c->prompt_length, u->prompt_tokens);
        if (j->kind == JOB_TEXT) {
            histogram_add(&c->decode_part_s, u->decode_s);
            histogram_add(&c->made_length, u->made_tokens);
        }
    }
    pthread_mutex_unlock(&c->lock);
}

void job_over(struct engine *e, struct job *j, enum job_end end, const char *why)
{
    struct job_usage *u = &j->usage;
    const double now = clock_s(), began = j->began_s > 0 ? j->began_s : now, first = j->first_s > 0 ? j->first_s : now;
    u->queued_s = began - j->submitted_s;
    u->prompt_s = first - began;
    u->decode_s = now - first;
    u->first_token_s = j->first_s > 0 ? j->first_s - j->submitted_s : 0;
    count_job(e->o.counts, j, end);
    if (j->ticket)
        queue_over(&e->queue, j->key, j->began_s > 0);
    pthread_mutex_lock(&e->lock); /* before the owner knows: there is room for the next */
    room_give(&e->room, j->key);
    pthread_mutex_unlock(&e->lock);
    j->over(j, end, u, end == JOB_FAILED ? why : NULL);
}

/* Text that the client has not got is no beginning of what he may send. */
static void keep(struct engine *e, struct sequence *q, uint32_t n)
{
    session_cut(e->o.session, q, n);
    kept_put(&e->kept, e->o.session, q);
}

/* Of a prompt that has not run all, its key pays for what did. */
static void pay_back(struct engine *e, const struct turn *t)
{
    const struct job *j = t->job;
    const struct sequence *q = t->sequence;
    const uint32_t cached = j->usage.cached_tokens, charged = j->n_prompt - cached; /* cached 0 until it is admitted */
    const uint32_t from = t->admitted ? cached : q->state == SEQUENCE_RUNNING ? q->n_shared : q->n_sent;
    const uint32_t ran = q->n_sent > from ? q->n_sent - from : 0;
    if (j->first_s == 0 && ran < charged)
        queue_charge(&e->queue, j->key, -(int64_t)(charged - ran));
}

void turn_over(struct engine *e, struct turn *t, enum job_end end, const char *why)
{
    struct job *j = t->job;
    pay_back(e, t);
    session_end(e->o.session, t->sequence);
    if (j->kind == JOB_TEXT && end != JOB_FAILED)
        keep(e, t->sequence, j->n_prompt + j->usage.made_tokens);
    else
        session_close(e->o.session, t->sequence);
    t->job = NULL;
    t->sequence = NULL;
    e->n_turns--;
    engine_show(e);
    job_over(e, j, end, why);
}

/* ---- Its beginning ---- */

static struct turn *turn_of_ticket(struct engine *e, uint64_t ticket)
{
    for (uint32_t i = 0; i < e->o.n_sequences; i++)
        if (e->turns[i].job && e->turns[i].job->ticket == ticket)
            return &e->turns[i];
    return NULL;
}

/* Whether something is wanted of every token of its prompt: then all of it runs, whatever others have. */
static bool reads(const struct job *j) { return j->kind == JOB_TEXT && j->log_probs && j->n_prompt > 1; }

/* Whether a beginning that others have need not run for it. */
static bool shares(const struct job *j) { return j->kind == JOB_TEXT ? !reads(j) : j->pool != POOL_MEAN; }

bool turn_may_begin(void *engine, struct job *j)
{
    struct engine *e = engine;
    const struct turn *before = j->behind ? turn_of_ticket(e, j->behind) : NULL;
    if (before && before->sequence->n_sent < j->behind_n)
        return false;
    j->behind = 0;
    for (uint32_t i = 0; i < e->o.n_sequences && !j->behind && shares(j); i++) {
        const struct turn *t = &e->turns[i];
        if (!t->job || t->sequence->n_sent >= t->job->n_prompt)
            continue;
        j->behind_n = tokens_in_common(t->job->prompt, j->prompt, least(t->job->n_prompt, j->n_prompt - 1));
        j->behind = j->behind_n >= t->sequence->n_sent + PAGE_POSITIONS ? t->job->ticket : 0;
    }
    return !j->behind;
}

/* The most tokens that the texts that run have in common with a prompt and have in their pages. */
static uint32_t common_with_running(const struct engine *e, const struct job *j)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < e->o.n_sequences; i++) {
        const struct sequence *q = e->turns[i].job ? e->turns[i].sequence : NULL;
        const uint32_t n = q ? tokens_in_common(q->tokens, j->prompt, least(q->n_sent, j->n_prompt)) : 0;
        most = n > most ? n : most;
    }
    return most;
}

/* Why the job cannot be; NULL: it can. */
static const char *why_not(const struct engine *e, const struct job *j, char *why, size_t n)
{
    const uint32_t room = e->o.n_ctx - (j->kind == JOB_TEXT); /* for the prompt: a token must be able to follow it */
    if (j->n_prompt > room)
        snprintf(why, n, "the prompt has %u tokens, the context room for %u", j->n_prompt, room);
    else if (pages_of(j->n_prompt) > e->limits.n_pages)
        snprintf(why, n, "the prompt has %u tokens, all KV memory together room for %u", j->n_prompt,
                 e->limits.n_pages * PAGE_POSITIONS);
    else
        return NULL;
    return why;
}

/* `reading`: before anything is made of it. */
static struct wish wish_of(const struct job *j, bool reading)
{
    const uint32_t n_top = j->n_top == UINT32_MAX ? 0 : j->n_top;
    if (j->kind == JOB_STATES)
        return (struct wish){.kind = j->pool == POOL_MEAN ? WISH_SUM : WISH_STATES};
    if (reading)
        return (struct wish){.kind = WISH_LOG_PROBS, .successor = j->prompt[j->n_prompt - 1], .n_top = n_top};
    if (j->n_top == UINT32_MAX)
        return (struct wish){.kind = WISH_TOKEN};
    return (struct wish){.kind = WISH_TOP, .n_top = j->n_top};
}

/* A turn of a sequence, whose text becomes the first n tokens of the prompt. */
static status submit_text(struct engine *e, struct job *j, struct sequence *q, uint32_t n)
{
    const struct wish w = wish_of(j, n < j->n_prompt);
    j->sampling.grammar_from = j->n_prompt;
    const status st = session_text(e->o.session, q, j->prompt + q->n_tokens, n - q->n_tokens);
    return st ? st : session_submit(e->o.session, q, &w, n < j->n_prompt ? NULL : &j->sampling);
}

/* A sequence with the prompt as its text, and the turn. The last token of one that is read is what the one before it is
 * asked for: it runs when something is made of it. */
static status submit(struct engine *e, struct job *j, struct sequence **out)
{
    struct session *s = e->o.session;
    struct sequence *q = NULL;
    if (j->kind == JOB_TEXT && !reads(j)) /* it is kept again when it is over */
        q = kept_take(&e->kept, s, j->prompt, j->n_prompt, common_with_running(e, j),
                      e->limits.n_sequences - e->n_turns);
    status st = q ? ST_OK : session_open(s, &q);
    if (st)
        return st;
    st = submit_text(e, j, q, j->n_prompt - reads(j));
    if (st)
        session_close(s, q);
    else
        *out = q;
    return st;
}

static struct turn *free_turn(struct engine *e)
{
    struct turn *t = e->turns;
    while (t->job)
        t++;
    return t;
}

static void start(struct engine *e, struct job *j, struct sequence *q)
{
    struct turn *t = free_turn(e);
    t->job = j;
    t->sequence = q;
    t->admitted = false;
    t->reads = reads(j);
    t->most = least(j->max_tokens, e->o.n_ctx - j->n_prompt);
    t->drafts = e->o.lookup && !e->limits.n_states && j->kind == JOB_TEXT && j->n_top == UINT32_MAX;
    drafter_begin(&t->drafter);
    memset(t->sum, 0, e->limits.d_model * sizeof *t->sum);
    if (e->n_turns++ == 0)
        e->step_s = j->began_s;
}

/* A job of the queue that never had a turn. */
static void over_unrun(struct engine *e, struct job *j, enum job_end end, const char *why)
{
    queue_charge(&e->queue, j->key, -(int64_t)j->n_prompt);
    job_over(e, j, end, why);
}

void turn_begin(struct engine *e, struct job *j)
{
    struct log_catcher said;
    struct sequence *q;
    char line[128];
    j->began_s = clock_s();
    j->usage.prompt_tokens = j->n_prompt;
    const char *why = why_not(e, j, line, sizeof line);
    if (why || (j->kind == JOB_TEXT && j->max_tokens == 0 && !reads(j))) {
        over_unrun(e, j, why ? JOB_FAILED : JOB_LIMIT, why);
        return;
    }
    log_catch(&said);
    const status st = submit(e, j, &q);
    log_catch(NULL);
    if (st)
        over_unrun(e, j, JOB_FAILED, said.first_error);
    else
        start(e, j, q);
}

/* ---- What comes ---- */

static struct turn *turn_of(struct engine *e, const struct sequence *q)
{
    for (uint32_t i = 0; i < e->o.n_sequences; i++)
        if (e->turns[i].job && e->turns[i].sequence == q)
            return &e->turns[i];
    return NULL;
}

/* The first that comes of a step tells how long the step took. */
static void count_step(struct engine *e, const struct session_event *event)
{
    struct counts *c = e->o.counts;
    const struct schedule_counts s = session_schedule(e->o.session);
    const double now = clock_s(), seconds = now - e->step_s;
    bool prompts = false, answers = false;
    for (uint32_t i = 0; i < e->o.n_sequences; i++) {
        const struct job *j = e->turns[i].job;
        prompts |= j && j->first_s == 0;
        answers |= j && j->first_s > 0;
    }
    pace_add(&e->pace, event->step_tokens, seconds);
    pace_begin(&e->pace, e->n_drawn ? e->n_drawn : 1); /* texts that go on, as in the step before */
    pthread_mutex_lock(&c->lock);
    c->prompt_s += prompts ? seconds : 0;
    c->decode_s += answers ? seconds : 0;
    c->steps = s.steps;
    c->busy = s.runs;
    pthread_mutex_unlock(&c->lock);
    e->step = event->step;
    e->step_s = now;
    e->n_drawn = 0;
}

/* Its first run has come: whatever of it did not run is known. */
static void count_shared(struct engine *e, struct turn *t)
{
    struct job *j = t->job;
    j->usage.cached_tokens = least(t->sequence->n_shared, j->n_prompt);
    queue_charge(&e->queue, j->key, -(int64_t)j->usage.cached_tokens);
    t->admitted = true;
}

/* The prompt has run, and its job has what it waits for. */
static void count_prompt(struct engine *e, struct job *j)
{
    struct counts *c = e->o.counts;
    j->first_s = clock_s();
    pthread_mutex_lock(&c->lock);
    c->prompt_tokens += j->n_prompt;
    c->cached_tokens += j->usage.cached_tokens;
    if (j->kind == JOB_TEXT)
        histogram_add(&c->first_token_s, j->first_s - j->submitted_s);
    pthread_mutex_unlock(&c->lock);
}

/* n tokens came at once, of which so many were told of; `first`: the job's first is among them. */
static void count_tokens(struct engine *e, struct turn *t, uint32_t n, uint32_t told, bool first)
{
    struct counts *c = e->o.counts;
    struct job *j = t->job;
    const double now = clock_s();
    const uint32_t drafts = t->drafter.n_proposed;
    queue_charge(&e->queue, j->key, told);
    j->usage.drafts += drafts;
    j->usage.accepted += drafts ? n - 1 : 0;
    pthread_mutex_lock(&c->lock);
    c->drafts += drafts;
    c->accepted += drafts ? n - 1 : 0;
    c->draft_rounds += drafts > 0;
    c->made_tokens += told;
    const uint32_t text = j->n_prompt + j->usage.made_tokens;
    c->most_tokens = text > c->most_tokens ? text : c->most_tokens;
    for (uint32_t i = first; i < told; i++)
        histogram_add(&c->between_tokens_s, (now - t->token_s) / told);
    pthread_mutex_unlock(&c->lock);
    t->token_s = now;
}

/* Tells of the tokens, as far as the answer goes. False: it goes no further, *end. */
static bool tell_tokens(struct engine *e, struct turn *t, const struct session_answer *a, enum job_end *end)
{
    struct job *j = t->job;
    const float log_p = a->n_values ? a->values[0] : 0;
    for (uint32_t i = 0; i < a->n_tokens; i++) {
        *end = JOB_ANSWERED;
        if (!j->ignore_end && e->o.is_end(e->o.is_end_arg, a->tokens[i]))
            return false;
        j->usage.made_tokens++;
        if (!j->token(j, a->tokens[i], log_p, a->tops, a->n_tops))
            return false;
        *end = JOB_LIMIT;
        if (j->usage.made_tokens == t->most)
            return false;
    }
    return true;
}

static void propose(struct engine *e, struct turn *t)
{
    const struct sequence *q = t->sequence;
    const uint32_t n = drafter_propose(&t->drafter, &e->pace, q->tokens, q->n_tokens,
                                       t->most - t->job->usage.made_tokens - 1); /* one comes without */
    if (n)
        session_propose(e->o.session, t->sequence, t->drafter.guess, n);
}

static void take_tokens(struct engine *e, struct turn *t, const struct session_answer *a)
{
    struct job *j = t->job;
    const bool first = j->first_s == 0;
    const uint32_t before = j->usage.made_tokens;
    enum job_end end;
    if (first)
        count_prompt(e, j);
    e->n_drawn++;
    const bool more = tell_tokens(e, t, a, &end);
    count_tokens(e, t, a->n_tokens, j->usage.made_tokens - before, first);
    drafter_judge(&t->drafter, a->tokens, a->n_tokens);
    if (!more) {
        turn_over(e, t, end, NULL);
        return;
    }
    if (session_append(e->o.session, t->sequence, a->tokens[a->n_tokens - 1])) /* it has room: t->most */
        turn_over(e, t, JOB_FAILED, "the text cannot go on");
    else if (t->drafts)
        propose(e, t);
}

/* What a run says of the prompt's tokens; after the last an answer is begun, if one is wanted. */
static void take_log_probs(struct engine *e, struct turn *t, const struct session_event *event)
{
    const struct session_answer *a = &event->answer;
    struct job *j = t->job;
    if (a->n_values)
        j->log_probs(j, event->n_run - a->n_values + 1, a->n_values, a->values, a->tops, a->n_tops / a->n_values);
    if (!event->over)
        return;
    t->reads = false;
    if (j->max_tokens == 0) {
        count_prompt(e, j);
        turn_over(e, t, JOB_LIMIT, NULL);
    } else if (submit_text(e, j, t->sequence, j->n_prompt)) {
        turn_over(e, t, JOB_FAILED, "the text cannot go on");
    }
}

static void take_states(struct engine *e, struct turn *t, const struct session_answer *a)
{
    struct job *j = t->job;
    const float *states = a->values;
    count_prompt(e, j);
    if (j->pool == POOL_MEAN) {
        wire_sum_mean(t->sum, e->limits.d_model, j->n_prompt, e->mean);
        states = e->mean;
    }
    j->states(j, states, e->limits.d_model);
    turn_over(e, t, JOB_ANSWERED, NULL);
}

void turn_event(struct engine *e, const struct session_event *event)
{
    struct turn *t = turn_of(e, event->sequence);
    if (!t)
        return;
    if (event->st) {
        turn_over(e, t, t->job->usage.made_tokens ? JOB_LIMIT : JOB_FAILED, "all KV memory is too small for the text");
        return;
    }
    if (event->step != e->step)
        count_step(e, event);
    if (!t->admitted)
        count_shared(e, t);
    if (event->kind == WISH_SUM)
        wire_sum_add(t->sum, event->answer.values, e->limits.d_model);
    if (t->reads)
        take_log_probs(e, t, event);
    else if (event->answer.n_tokens)
        take_tokens(e, t, &event->answer);
    else if (event->over)
        take_states(e, t, &event->answer);
    else if (t->job->progress && t->job->first_s == 0) /* else it runs again what its pages were taken of */
        t->job->progress(t->job, least(event->n_run, t->job->n_prompt));
}
