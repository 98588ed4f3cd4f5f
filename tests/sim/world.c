#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

enum {
    MOST_RANKS = 64,
    ENOUGH_VAIN = 2,        /* polls in vain after which a rank has looked for all that it waits for */
    MOST_VAIN = 100000,     /* polls in vain of all, while nothing can arrive: they wait for ever */
    MOST_CALLS = 20000000   /* of a run that gets nowhere, however busy */
};

void happened(struct world *w)
{
    w->n_vain = 0;
    for (int r = 0; r < w->n_ranks; r++) {
        w->ends[r].vain = 0;
        w->ends[r].looked_for = 0;
        w->ends[r].sending = NULL;
    }
}

void tell(struct world *w, struct parcel *p)
{
    atomic_store_explicit(&p->outer->done, true, memory_order_release);
    p->outer = NULL;
    happened(w);
}

/* Lets a message arrive if it is due and none is before it; notes when it will be. */
static void move_parcel(struct world *w, struct parcel *p)
{
    const int link = p->from * w->n_ranks + p->to, line = link * TRANSPORT_CHANNELS + w->channel[p->kind];
    const uint64_t due = p->due > w->link_still[link] ? p->due : w->link_still[link];
    struct transport *sender = w->ends[p->from].inner;
    if (w->blocked[line])
        return;
    if (due > w->tick) {
        w->blocked[line] = true;
        w->wake = due < w->wake ? due : w->wake;
    } else if (sender->ops->post(sender, p->to, p->kind, p->data, p->size, &p->inner) == ST_OK) {
        p->arrived = true;
        happened(w);
    }
}

static void drop(struct world *w, struct parcel **at)
{
    struct parcel *p = *at;
    *at = p->next;
    if (!p->next)
        w->last = at;
    free(p->copy);
    free(p);
}

static void move_parcels(struct world *w)
{
    struct parcel **at = &w->first;
    memset(w->blocked, 0, (size_t)w->n_ranks * (size_t)w->n_ranks * TRANSPORT_CHANNELS);
    w->wake = NEVER;
    w->stirred = false;
    while (*at) {
        struct parcel *p = *at;
        if (!p->arrived)
            move_parcel(w, p);
        const bool taken = p->arrived && atomic_load_explicit(&p->inner.done, memory_order_acquire);
        if (taken && p->told == NEVER)
            p->told = w->tick + up_to(w, w->d.sent);
        if (p->outer && p->told <= w->tick)
            tell(w, p);
        else if (p->outer && p->told < w->wake)
            w->wake = p->told;
        if (taken && !p->outer)
            drop(w, at);
        else
            at = &p->next;
    }
}

static bool is_still(const struct world *w, int rank) { return w->ends[rank].still_until > w->tick; }

static bool can_run(const struct world *w, int rank)
{
    const enum presence p = w->ends[rank].presence;
    return (p == PRESENT || p == LEAVING) && !is_still(w, rank);
}

static bool all_wait(const struct world *w)
{
    for (int r = 0; r < w->n_ranks; r++)
        if (can_run(w, r) && w->ends[r].vain < ENOUGH_VAIN)
            return false;
    return true;
}

/* Everyone waits: on to when a message moves or a rank wakes up. False: there is no such time. */
static bool skip_time(struct world *w)
{
    uint64_t next = w->wake;
    for (int r = 0; r < w->n_ranks; r++)
        if (is_still(w, r) && w->ends[r].presence < GONE && w->ends[r].still_until < next)
            next = w->ends[r].still_until;
    if (next != NEVER)
        w->tick = next > w->tick ? next : w->tick;
    move_parcels(w);
    return next != NEVER;
}

/* Who waits where, and what nobody has taken. */
static void describe_waits(const struct world *w, char *out, size_t cap)
{
    size_t n = (size_t)snprintf(out, cap, "nobody moves after %u polls;", w->n_calls);
    for (int r = 0; r < w->n_ranks && n < cap; r++) {
        const struct end *e = &w->ends[r];
        n += (size_t)snprintf(out + n, cap - n, " rank %d %s", r, e->presence >= GONE ? "has gone" : "waits for");
        for (int k = 0; k < WIRE_KINDS && n < cap; k++)
            if (e->looked_for >> k & 1)
                n += (size_t)snprintf(out + n, cap - n, " %s", wire_name(k));
        if (e->sending && n < cap)
            n += (size_t)snprintf(out + n, cap - n, " its %s to %d to go", wire_name(e->sending->kind), e->sending->to);
        n += n < cap ? (size_t)snprintf(out + n, cap - n, ";") : 0;
    }
    for (const struct parcel *p = w->first; p && n < cap; p = p->next)
        n += (size_t)snprintf(out + n, cap - n, " not taken: %s %d to %d;", wire_name(p->kind), p->from, p->to);
}

void set_free(struct world *w)
{
    w->free = true;
    for (int r = 0; r < w->n_ranks; r++)
        pthread_cond_signal(&w->ends[r].turn);
}

/* Ends a run that would never end. The lock is given up meanwhile. */
static void give_up(struct end *e)
{
    struct world *w = e->world;
    char line[512];
    describe_waits(w, line, sizeof line);
    fprintf(stderr, "%s\n", line);
    if (w->d.stuck)
        *w->d.stuck = true;
    set_free(w);
    pthread_mutex_unlock(&w->lock);
    e->inner->ops->abandon(e->inner, line);
    pthread_mutex_lock(&w->lock);
}

static void stand_still(struct world *w)
{
    if (chance(w, w->d.rank_one_in))
        w->ends[sim_below(&w->state, (uint32_t)w->n_ranks)].still_until = w->tick + up_to(w, w->d.rank_still);
    if (chance(w, w->d.link_one_in))
        w->link_still[sim_below(&w->state, (uint32_t)(w->n_ranks * w->n_ranks))] = w->tick + up_to(w, w->d.link_still);
}

/* Who runs next, of those who may find something: often who ran. */
static int choose(struct world *w, const struct end *e)
{
    int runs[MOST_RANKS], n = 0;
    if (can_run(w, e->base.rank) && e->vain < ENOUGH_VAIN && !chance(w, 4))
        return e->base.rank;
    for (int r = 0; r < w->n_ranks; r++)
        if (can_run(w, r) && w->ends[r].vain < ENOUGH_VAIN && (r != w->d.slow || chance(w, 16)))
            runs[n++] = r;
    const bool any = n == 0;
    for (int r = 0; r < w->n_ranks && any; r++)
        if (can_run(w, r))
            runs[n++] = r;
    return n ? runs[sim_below(&w->state, (uint32_t)n)] : -1;
}

static bool any_can_run(const struct world *w)
{
    for (int r = 0; r < w->n_ranks; r++)
        if (can_run(w, r))
            return true;
    return false;
}

/* Nobody moves. Who is closing its inner endpoint is on no one's turn: it is given a moment of real time. */
static void count_vain(struct world *w)
{
    bool closing = false;
    for (int r = 0; r < w->n_ranks; r++)
        closing |= w->ends[r].presence == GONE;
    if (closing)
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    w->n_vain++;
}

/* Time passes; who runs next? -1: nobody is left, or the run was given up. */
static int pass_time(struct end *e)
{
    struct world *w = e->world;
    bool moves = true;
    w->tick++;
    w->n_calls++;
    stand_still(w);
    if (w->stirred || w->tick >= w->wake)
        move_parcels(w);
    while (moves && all_wait(w)) {
        moves = skip_time(w);
        if (moves && any_can_run(w))
            break;
    }
    if (!moves)
        count_vain(w);
    if (w->n_present && (w->n_vain > MOST_VAIN || w->n_calls > MOST_CALLS))
        give_up(e);
    return w->free ? -1 : choose(w, e);
}

void pass_turn(struct end *e)
{
    struct world *w = e->world;
    w->turn = pass_time(e);
    if (w->turn >= 0 && w->turn != e->base.rank)
        pthread_cond_signal(&w->ends[w->turn].turn);
}

bool take_turn(struct end *e)
{
    struct world *w = e->world;
    if (!w->free)
        pass_turn(e);
    while (!w->free && w->turn != e->base.rank)
        pthread_cond_wait(&e->turn, &w->lock);
    return !w->free;
}

void lose(struct world *w, int from, int to)
{
    struct parcel **at = &w->first;
    while (*at) {
        struct parcel *p = *at;
        const bool lost = !p->arrived && (from < 0 || p->from == from) && (to < 0 || p->to == to);
        if (lost && p->outer)
            tell(w, p);
        if (lost)
            drop(w, at);
        else
            at = &p->next;
    }
}

void world_free(struct world *w)
{
    while (w->first)
        drop(w, &w->first);
    for (int r = 0; r < w->n_ranks; r++)
        pthread_cond_destroy(&w->ends[r].turn);
    pthread_mutex_destroy(&w->lock);
    free(w->link_still);
    free(w->buffers);
    free(w->blocked);
    free(w);
}

struct world *world_create(const struct transport_config *c, int n_ranks, const struct delays *d)
{
    const size_t n = (size_t)n_ranks, links = n * n;
    struct world *w = calloc(1, sizeof *w + n * sizeof w->ends[0]);
    if (!w || !(w->link_still = calloc(links, sizeof *w->link_still)) ||
        !(w->buffers = calloc(links, sizeof *w->buffers)) ||
        !(w->blocked = calloc(links * TRANSPORT_CHANNELS, sizeof *w->blocked)))
        abort();
    pthread_mutex_init(&w->lock, NULL);
    w->d = *d;
    w->state = d->seed ^ 0x5eed;
    w->wake = NEVER;
    w->n_ranks = w->n_open = n_ranks;
    w->turn = -1;
    w->last = &w->first;
    memcpy(w->channel, c->channel, sizeof w->channel);
    for (size_t i = 0; i < links; i++)
        w->buffers[i] = chance(w, d->buffered_one_in);
    return w;
}
