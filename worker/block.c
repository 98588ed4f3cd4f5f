#include "worker/block.h"

#include <stdlib.h>

#include "base/log.h"
#include "worker/partials.h"

struct blocks {
    struct rank *r;
    struct owners *owners;
    struct partials *partials;
    struct multicast shared[STAGE_BUFFERS]; /* PARTIAL to all others that take part */
    int turn;
};

status blocks_new(struct rank *r, struct owners *owners, struct blocks **out)
{
    struct blocks *b = calloc(1, sizeof *b);
    if (!b) {
        log_error("out of memory for the blocks of a stage");
        return ST_NOMEM;
    }
    *b = (struct blocks){.r = r, .owners = owners};
    status st = partials_new(r, owners, &b->partials);
    for (int i = 0; i < STAGE_BUFFERS && !st; i++)
        st = multicast_new(&b->shared[i], r->n_ranks);
    if (st) {
        blocks_free(b);
        return st;
    }
    *out = b;
    return ST_OK;
}

void blocks_free(struct blocks *b)
{
    if (!b)
        return;
    partials_free(b->partials);
    for (int i = 0; i < STAGE_BUFFERS; i++)
        multicast_free(&b->shared[i]);
    free(b);
}

void blocks_lay(struct blocks *b)
{
    struct rank *r = b->r;
    bool shares = false;
    for (int i = 0; i < r->n_ranks; i++)
        shares |= r->o->plan->residual_all && largest_answer(r, i, r->rank);
    for (int i = 0; i < STAGE_BUFFERS && shares; i++)
        multicast_lay(&r->arena, &b->shared[i], wire_partial_max(&r->limits));
    partials_lay(b->partials);
}

/* home's sums[USE_OWN] = this rank's part of home's in[USE_OWN]. */
static status compute_own(struct blocks *b, const struct task *t)
{
    return devices_part(b->r->devices, &t->work, USE_OWN, exchange_serve, b->r->exchange);
}

/* x goes to the other owners; while they compute this rank does its own part, to which theirs are added as they
 * come. */
static status gather(struct blocks *b, const struct task *t)
{
    const bool active = t->work.part == DEVICE_FFN && plan_down_at_stage(b->r->o->plan, t->work.layer);
    status st = owners_ask(b->owners, t);
    if (!st)
        st = compute_own(b, t);
    if (st)
        return st;
    count_own(b->r);
    st = owners_await(b->owners, t, active ? WIRE_ACTIVE : WIRE_PARTIAL, active ? take_active : take_partial,
                      b->partials);
    count_own(b->r); /* what take_active has computed */
    return st;
}

/* Writes the own part for all others. Where it is rounded on its way all must add the same. */
static size_t write_own(struct blocks *b, const struct task *t, const struct wire_counts *counts, struct multicast *m)
{
    struct rank *r = b->r;
    struct wire_partial p = {.id = t->step->id, .part = t->work.part, .layer = (uint32_t)t->work.layer,
                             .n_tokens = t->work.n, .counts = *counts};
    const size_t size = partial_write(r, &p, USE_OWN, owners_begun(b->owners), m->buffer, m->capacity);
    if (r->o->sums_f16) {
        const struct sum_bytes rounded = partial_bytes(&p);
        r->home->ops->clear_sums(r->home, t->work.n, r->home->sums[USE_OWN]);
        r->home->ops->import_sums(r->home, t->work.n, &rounded, r->home->sums[USE_OWN]);
    }
    return size;
}

/* This rank's part to all others that take part, and theirs from them. Two messages take turns, so that this rank may
 * be a block ahead of who has not taken the one before. */
static status share(struct blocks *b, const struct task *t)
{
    struct rank *r = b->r;
    struct multicast *m = &b->shared[b->turn];
    status st = compute_own(b, t);
    if (st)
        return st;
    const struct wire_counts counts = count_own(r);
    /* If not, there is nobody to send it to, or nothing to send. */
    if (m->buffer && owns(r, t->work.part, t->work.layer, r->rank)) {
        b->turn = (b->turn + 1) % STAGE_BUFFERS;
        if ((st = multicast_wait(r->exchange, m)) != ST_OK)
            return st;
        const size_t size = write_own(b, t, &counts, m);
        st = devices_found(r->devices);
        for (int i = 0; i < r->n_ranks && !st; i++)
            if (i != r->rank && plan_takes_part(r->o->plan, i))
                st = multicast_send(r->exchange, m, i, WIRE_PARTIAL, size);
    }
    return st ? st : owners_await(b->owners, t, WIRE_PARTIAL, take_partial, b->partials);
}

status block_run(struct blocks *b, const struct task *t)
{
    struct device *home = b->r->home;
    owners_begin(b->owners);
    expect_tokens(b->r, t->work.n);
    status st = home->ops->norm(home, &t->work); /* in = norm(x) */
    if (!st)
        st = b->r->o->plan->residual_all ? share(b, t) : gather(b, t); /* sums = what all holders make of in */
    return st ? st : home->ops->add(home, &t->work); /* x += sums */
}

status blocks_settle(struct blocks *b)
{
    status st = ST_OK;
    for (int i = 0; i < STAGE_BUFFERS && !st; i++)
        st = multicast_wait(b->r->exchange, &b->shared[i]);
    return st;
}
