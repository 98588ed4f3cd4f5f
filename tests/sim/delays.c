#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/world.h"

static struct end *end_of(struct transport *t) { return (struct end *)t; }

/* Enters a call of the transport: the turn is this rank's, and the lock held. False: neither, for a rank has failed. */
static bool enter(struct end *e)
{
    pthread_mutex_lock(&e->world->lock);
    if (take_turn(e))
        return true;
    pthread_mutex_unlock(&e->world->lock);
    return false;
}

static status leave(struct end *e, status st)
{
    pthread_mutex_unlock(&e->world->lock);
    return st;
}

/* What this rank has sent is its own again, for the inner transport has let go of it. */
static void take_back(struct end *e)
{
    struct world *w = e->world;
    pthread_mutex_lock(&w->lock);
    for (struct parcel *p = w->first; p; p = p->next)
        if (p->from == e->base.rank && p->outer)
            tell(w, p);
    pthread_mutex_unlock(&w->lock);
}

/* After a failure, of which the inner transport hears in a moment. */
static status fail(struct end *e)
{
    struct send none = {0};
    bool done;
    while (e->inner->ops->sent(e->inner, &none, &done) == ST_OK)
        sched_yield();
    take_back(e);
    return ST_PEER;
}

static status delays_connect(struct transport *t)
{
    struct end *e = end_of(t);
    struct world *w = e->world;
    status st = e->inner->ops->connect(e->inner);
    t->slot_bytes = e->inner->slot_bytes;
    pthread_mutex_lock(&w->lock);
    e->presence = PRESENT;
    if (++w->n_present == w->n_ranks) {
        w->turn = 0;
        pthread_cond_signal(&w->ends[0].turn);
    }
    while (!w->free && w->turn != t->rank)
        pthread_cond_wait(&e->turn, &w->lock);
    return leave(e, st);
}

static status delays_register(struct transport *t, void *memory, size_t bytes)
{
    struct transport *inner = end_of(t)->inner;
    return inner->ops->register_memory(inner, memory, bytes);
}

static status delays_lend(struct transport *t, int from, int channel, void *memory, size_t bytes)
{
    struct transport *inner = end_of(t)->inner;
    return inner->ops->lend(inner, from, channel, memory, bytes);
}

static uint64_t draw_due(struct world *w, int from, int to)
{
    const bool may_be_late = w->d.from < 0 || (w->d.from == from && w->d.to == to);
    uint64_t due = w->tick + up_to(w, w->d.each);
    return may_be_late && chance(w, w->d.late_one_in) ? due + up_to(w, w->d.late) : due;
}

static void *copy_of(const void *data, size_t size)
{
    void *copy = aligned_alloc(TRANSPORT_ALIGN, (size / TRANSPORT_ALIGN + 1) * TRANSPORT_ALIGN);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    return copy;
}

/* Changes a bit where most messages say what they are. */
static void spoil(struct world *w, void *data, size_t size)
{
    enum { HEADER = 40 };
    if (size)
        ((uint8_t *)data)[sim_below(&w->state, size < HEADER ? (uint32_t)size : HEADER)] ^=
            (uint8_t)(1u << sim_below(&w->state, 8));
}

static status delays_post(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    struct end *e = end_of(t);
    struct world *w = e->world;
    struct parcel *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    if (!enter(e)) {
        free(p);
        return fail(e);
    }
    const bool spoilt = ++w->n_posted == w->d.spoilt;
    const bool copied = w->buffers[t->rank * w->n_ranks + to] || spoilt;
    *p = (struct parcel){.outer = s, .data = data, .size = size, .from = t->rank, .to = to, .kind = kind};
    p->due = draw_due(w, t->rank, to);
    p->told = copied ? w->tick + up_to(w, w->d.sent) : NEVER;
    if (copied)
        p->data = p->copy = copy_of(data, size);
    if (spoilt)
        spoil(w, p->copy, size);
    atomic_store_explicit(&s->done, false, memory_order_relaxed);
    *w->last = p;
    w->last = &p->next;
    w->stirred = true;
    happened(w);
    return leave(e, ST_OK);
}

static const struct parcel *parcel_of(const struct world *w, const struct send *s)
{
    const struct parcel *p = w->first;
    while (p && p->outer != s)
        p = p->next;
    return p;
}

static status delays_sent(struct transport *t, struct send *s, bool *done)
{
    struct end *e = end_of(t);
    if (!enter(e))
        return fail(e);
    *done = atomic_load_explicit(&s->done, memory_order_acquire);
    e->vain = *done ? 0 : e->vain + 1;
    if (!*done)
        e->sending = parcel_of(e->world, s);
    return leave(e, ST_OK);
}

static status delays_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    struct end *e = end_of(t);
    if (!enter(e))
        return kinds ? fail(e) : ST_PEER; /* who only lets others move may be reading what a failure gives back */
    status st = e->inner->ops->poll(e->inner, kinds, a, found);
    if (st || *found) {
        happened(e->world);
    } else {
        e->vain++;
        e->looked_for |= kinds;
    }
    return leave(e, st);
}

static status delays_release(struct transport *t, struct arrival *a)
{
    struct end *e = end_of(t);
    if (!enter(e))
        return fail(e);
    status st = e->inner->ops->release(e->inner, a);
    e->world->stirred = true;
    happened(e->world);
    return leave(e, st);
}

static void delays_idle(struct transport *t)
{
    struct end *e = end_of(t);
    if (!enter(e))
        return;
    e->vain++;
    leave(e, ST_OK);
}

static void delays_abandon(struct transport *t, const char *why)
{
    struct end *e = end_of(t);
    pthread_mutex_lock(&e->world->lock);
    set_free(e->world);
    pthread_mutex_unlock(&e->world->lock);
    e->inner->ops->abandon(e->inner, why);
    take_back(e);
}

/* Whether the network still has something of this rank for one that is there to take it. */
static bool has_buffered(const struct end *e)
{
    const struct world *w = e->world;
    for (const struct parcel *p = w->first; p; p = p->next)
        if (p->from == e->base.rank && p->copy && w->ends[p->to].presence == PRESENT &&
            !(p->arrived && atomic_load_explicit(&p->inner.done, memory_order_acquire)))
            return true;
    return false;
}

/* Leaves the others to themselves, when what the network keeps for them has been taken. */
static void go(struct end *e)
{
    struct world *w = e->world;
    pthread_mutex_lock(&w->lock);
    e->presence = LEAVING;
    while (!w->free && has_buffered(e) && take_turn(e)) {
        struct arrival a;
        bool found = false;
        e->vain++;
        while (e->inner->ops->poll(e->inner, ~0u, &a, &found) == ST_OK && found) { /* nobody reads it any more */
            (void)e->inner->ops->release(e->inner, &a);
            w->stirred = true;
            happened(w);
        }
    }
    e->presence = GONE;
    w->n_present--;
    lose(w, e->base.rank, -1);
    lose(w, -1, e->base.rank);
    if (!w->free)
        pass_turn(e);
    pthread_mutex_unlock(&w->lock);
}

static void delays_close(struct transport *t)
{
    struct end *e = end_of(t);
    struct world *w = e->world;
    if (e->presence == PRESENT)
        go(e);
    e->inner->ops->close(e->inner);
    take_back(e);
    pthread_mutex_lock(&w->lock);
    e->presence = CLOSED;
    w->stirred = true; /* what was on its way here is done now */
    const bool last = --w->n_open == 0;
    pthread_mutex_unlock(&w->lock);
    if (last)
        world_free(w);
}

static const struct transport_ops delays_ops = {
    .name = "delays",
    .connect = delays_connect,
    .register_memory = delays_register,
    .lend = delays_lend,
    .post = delays_post,
    .sent = delays_sent,
    .poll = delays_poll,
    .release = delays_release,
    .idle = delays_idle,
    .abandon = delays_abandon,
    .close = delays_close,
};

struct delays delays_draw(uint64_t seed, int n_ranks)
{
    static const uint32_t each[] = {0, 3, 30, 300}, late[] = {100, 3000, 100000}, one_in[] = {0, 10, 50, 300};
    static const uint32_t still_one_in[] = {0, 30, 300, 3000};
    uint64_t state = seed;
    struct delays d = {.seed = seed, .slow = -1, .from = -1, .to = -1};
    d.each = each[sim_below(&state, 4)];
    d.late_one_in = one_in[sim_below(&state, 4)];
    d.late = late[sim_below(&state, 3)];
    d.sent = each[sim_below(&state, 4)];
    d.rank_one_in = still_one_in[sim_below(&state, 4)];
    d.rank_still = late[sim_below(&state, 3)];
    d.link_one_in = still_one_in[sim_below(&state, 4)];
    d.link_still = late[sim_below(&state, 3)];
    d.buffered_one_in = sim_below(&state, 4);
    d.slow = (int)sim_below(&state, 2 * (uint32_t)n_ranks);
    return d;
}

status delays_open(const struct transport_config *c, int n_ranks, const struct delays *d, struct transport **out)
{
    status st = __real_transport_inproc_open(c, n_ranks, out);
    if (st)
        return st;
    struct world *w = world_create(c, n_ranks, d);
    for (int r = 0; r < n_ranks; r++) {
        struct end *e = &w->ends[r];
        *e = (struct end){.base = {.ops = &delays_ops, .rank = r, .n_ranks = n_ranks}, .world = w, .inner = out[r]};
        pthread_cond_init(&e->turn, NULL);
        out[r] = &e->base;
    }
    return ST_OK;
}
