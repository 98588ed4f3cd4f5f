#include "worker/stage.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/block.h"
#include "worker/passage.h"

struct stage {
    struct rank *r;
    struct stage_place at;
    struct blocks *blocks;
    struct head *head;
    struct batches *batches;
    struct wire_copy copy;           /* the step under way */
    struct passage *passage;         /* from the stage before, to the next one */
    struct multicast step;           /* HIDDEN, from the home to all others that take part */
};

status stage_new(struct rank *r, struct owners *owners, struct head *head, struct batches *batches,
                 struct stage **out)
{
    struct stage *s = calloc(1, sizeof *s);
    if (!s) {
        log_error("out of memory for a stage");
        return ST_NOMEM;
    }
    *s = (struct stage){.r = r, .at = stage_place(r->o->plan, r->rank), .head = head, .batches = batches};
    status st = blocks_new(r, owners, &s->blocks);
    st = st ? st : passage_new(r, &s->passage);
    st = st ? st : multicast_new(&s->step, r->n_ranks);
    if (st) {
        stage_free(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

void stage_free(struct stage *s)
{
    if (!s)
        return;
    blocks_free(s->blocks);
    passage_free(s->passage);
    multicast_free(&s->step);
    free(s);
}

status stage_lay(struct stage *s)
{
    struct rank *r = s->r;
    bool passes_on = false;
    if (s->at.first == s->at.last)
        return ST_OK;
    wire_lay_copy(&s->copy, &r->limits, &r->arena);
    status st = passage_lay(s->passage);
    for (int i = 0; i < r->n_ranks; i++)
        passes_on |= r->o->plan->residual_all && s->at.is_last && i != r->rank && plan_takes_part(r->o->plan, i);
    if (passes_on)
        multicast_lay(&r->arena, &s->step, wire_hidden_max(&r->limits));
    blocks_lay(s->blocks);
    return st;
}

status stage_open(struct stage *s) { return passage_open(s->passage); }

static status run_layers(struct stage *s, const struct wire_step *step, const struct batch *b)
{
    struct task t = {.step = step, .work = {.n = b->n_tokens, .batch = b}};
    status st = ST_OK;
    s->r->counts = step->counts;
    for (int i = s->at.first; i < s->at.last && !st; i++) {
        devices_copy_pages(s->r->devices, i, step->changes, step->n_changes);
        t.work.layer = i;
        t.work.part = DEVICE_ATTENTION;
        st = block_run(s->blocks, &t);
        t.work.part = DEVICE_FFN;
        st = st ? st : block_run(s->blocks, &t);
    }
    return st;
}

/* Where all ranks have the residual stream, the home gives it to the others as it begins. */
static status share_step(struct stage *s, const struct wire_step *step)
{
    struct rank *r = s->r;
    struct multicast *m = &s->step;
    status st = m->buffer ? multicast_wait(r->exchange, m) : ST_OK;
    if (st || !m->buffer)
        return st;
    const size_t size = passage_write(r, step, m->buffer, m->capacity);
    st = devices_found(r->devices);
    for (int i = 0; i < r->n_ranks && !st; i++)
        if (i != r->rank && plan_takes_part(r->o->plan, i))
            st = multicast_send(r->exchange, m, i, WIRE_HIDDEN, size);
    return st;
}

static status pass_on(struct stage *s, const struct wire_step *step)
{
    struct wire_step passed = *step;
    passed.counts = s->r->counts;
    return passage_send(s->passage, &passed);
}

/* x of the tokens as they came. */
static status begin_states(struct stage *s, const struct wire_step *step, const struct batch *b, const float *hidden)
{
    struct device *home = s->r->home;
    return s->at.embeds ? home->ops->embed(home, b, step->tokens) : passage_take(s->passage, b, hidden);
}

/* Reads the step that `a` brings into *step, its runs into *b, and its tokens' states into x. The message is released:
 * the next one may come while this step runs. */
static status take_step(struct stage *s, struct arrival *a, struct wire_step *step, struct batch *b)
{
    struct rank *r = s->r;
    const float *hidden = NULL;
    const bool is_hidden = passage_is_hidden(s->passage);
    bool expected = s->at.first < s->at.last && (a->kind == WIRE_HIDDEN) == is_hidden && a->from == s->at.before;
    if (!expected) {
        log_error("%s of %zu bytes from rank %d, which the plan does not foresee", wire_name(a->kind), a->size,
                  a->from);
        return ST_FORMAT;
    }
    log_sender(a->from);
    status st = is_hidden ? wire_hidden_decode(a->data, a->size, &r->limits, &s->copy, step, &hidden)
                          : wire_step_decode(a->data, a->size, &r->limits, &s->copy, step);
    st = st ? st : batches_take(s->batches, USE_OWN, step, b);
    st = st ? st : head_begin(s->head, step);
    log_sender(-1);
    if (st || (st = begin_states(s, step, b, hidden)) != ST_OK || (st = share_step(s, step)) != ST_OK)
        return st;
    return exchange_release(r->exchange, a);
}

status stage_ready(struct stage *s, bool *ready)
{
    *ready = s->r->rank != 0 || (s->at.next < 0 && !head_owes_result(s->head));
    return *ready || s->at.next < 0 ? ST_OK : passage_ready(s->passage, ready);
}

status stage_run(struct stage *s, struct arrival *a)
{
    const uint64_t start_ns = clock_ns();
    struct wire_step step;
    struct batch b;
    status st = take_step(s, a, &step, &b);
    if (!st)
        st = run_layers(s, &step, &b);
    if (!st)
        st = s->at.next < 0 ? head_run(s->head, &step, &b) : pass_on(s, &step);
    s->r->usage.run_ns += clock_ns() - start_ns;
    return st;
}

status stage_settle(struct stage *s)
{
    status st = multicast_wait(s->r->exchange, &s->step);
    return st ? st : blocks_settle(s->blocks);
}
