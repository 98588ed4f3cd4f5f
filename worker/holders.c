#include "worker/holders.h"

#include <stdlib.h>

#include "base/log.h"

int holder_of(const struct plan *p, int rank, int device)
{
    (void)p;
    return device == 0 ? rank : -1;
}

bool holder_owns(const struct plan *p, const struct device_shape *s, enum device_part part, int layer, int holder)
{
    int64_t begin = 0, end = 0;
    switch (part) {
    case DEVICE_ATTENTION: plan_heads(p, layer, holder, s->n_kv_heads, &begin, &end); break;
    case DEVICE_FFN: end = plan_n_neurons(p, layer, holder); break;
    default: plan_rows(p, holder, s->n_vocab, &begin, &end);
    }
    return begin < end;
}

bool rank_owns(const struct plan *p, const struct device_shape *s, enum device_part part, int layer, int rank)
{
    for (int i = 0, h; (h = holder_of(p, rank, i)) >= 0; i++)
        if (holder_owns(p, s, part, layer, h))
            return true;
    return false;
}

int64_t rank_neurons(const struct plan *p, int layer, int rank)
{
    int64_t n = 0;
    for (int i = 0, h; (h = holder_of(p, rank, i)) >= 0; i++)
        n += plan_n_neurons(p, layer, h);
    return n;
}

int64_t rank_rows(const struct plan *p, const struct device_shape *s, int rank)
{
    int64_t n = 0;
    for (int i = 0, h; (h = holder_of(p, rank, i)) >= 0; i++) {
        int64_t begin, end;
        plan_rows(p, h, s->n_vocab, &begin, &end);
        n += end - begin;
    }
    return n;
}

bool rank_is_asked(const struct plan *p, const struct device_shape *s, int rank)
{
    bool asked = plan_last_stage(p) != rank && rank_owns(p, s, DEVICE_OUTPUT, 0, rank);
    for (int i = 0; i < s->n_layers && !asked; i++)
        asked = !p->residual_all && p->layers[i].stage != rank &&
                (rank_owns(p, s, DEVICE_ATTENTION, i, rank) || rank_owns(p, s, DEVICE_FFN, i, rank));
    return asked;
}

/* The rank that stands before `rank` among the stages, -1: none. */
static int stage_before(const struct plan *p, int rank)
{
    int before = -1;
    for (int r = plan_first_stage(p); r >= 0 && r != rank; r = plan_next_stage(p, r))
        before = r;
    return before;
}

struct stage_place stage_place(const struct plan *p, int rank)
{
    const int home = plan_first_stage(p);
    struct stage_place s = {.joins = p->residual_all && rank != home && plan_takes_part(p, rank)};
    plan_stage(p, s.joins ? home : rank, &s.first, &s.last);
    const bool is_stage = s.first < s.last;
    s.embeds = is_stage && rank == home;
    s.is_last = is_stage && rank == plan_last_stage(p);
    s.before = s.joins ? home : rank == home ? 0 : stage_before(p, rank); /* rank 0 is the coordinator */
    s.next = is_stage && !s.joins ? plan_next_stage(p, rank) : -1;
    return s;
}

/* ---- shards ---- */

/* A shard and what it points to. */
struct shard_memory {
    struct shard shard; /* first */
    struct shard_layer *layers;
    struct guest_neurons *guests;
    struct span *spans;
    size_t n_spans;
};

void shard_free(struct shard *s)
{
    struct shard_memory *m = (struct shard_memory *)s;
    if (!m)
        return;
    free(m->layers);
    free(m->guests);
    free(m->spans);
    free(m);
}

/* Whether a rank's neurons of a layer are guests of its stage `rank`. */
static bool is_guest(const struct plan *p, int rank, int layer, int other)
{
    return other != rank && p->layers[layer].stage == rank && plan_down_at_stage(p, layer);
}

/* A holder's neurons; counted alone while there is no memory for them. */
static struct neuron_list list_neurons(struct shard_memory *m, const struct plan *p, int layer, int holder)
{
    const struct neuron_range *ranges;
    const int n = plan_neurons(p, layer, holder, &ranges);
    const struct neuron_list list = {m->spans ? m->spans + m->n_spans : NULL, n};
    for (int i = 0; i < n && m->spans; i++)
        m->spans[m->n_spans + (size_t)i] = (struct span){ranges[i].begin, ranges[i].end};
    m->n_spans += (size_t)n;
    return list;
}

static void fill_layers(struct shard_memory *m, const struct plan *p, const struct device_shape *s, int rank, int holder)
{
    for (int i = 0; i < s->n_layers; i++) {
        struct shard_layer *l = &m->layers[i];
        plan_heads(p, i, holder, s->n_kv_heads, &l->head_begin, &l->head_end);
        l->neurons = list_neurons(m, p, i, holder);
        l->down = !plan_down_at_stage(p, i) || p->layers[i].stage == rank;
    }
}

static void fill_guests(struct shard_memory *m, const struct plan *p, int rank)
{
    for (int i = 0; i < m->shard.n_guests; i++) {
        struct guest_neurons *g = &m->guests[i];
        const int other = i % p->n_ranks;
        g->layer = m->shard.first + i / p->n_ranks;
        if (is_guest(p, rank, g->layer, other))
            g->neurons = list_neurons(m, p, g->layer, holder_of(p, other, 0));
    }
}

static bool has_guests(const struct plan *p, int first, int last)
{
    for (int i = first; i < last; i++)
        if (plan_down_at_stage(p, i))
            return true;
    return false;
}

/* What is at home on device 0. */
static void fill_home(struct shard *s, const struct plan *p, const struct stage_place *at)
{
    s->first = at->first;
    s->last = at->last;
    s->embeds = at->embeds;
    s->ends = at->first < at->last && at->next < 0;
    s->n_guests = has_guests(p, at->first, at->last) ? (at->last - at->first) * p->n_ranks : 0;
}

status shard_new(const struct plan *p, const struct device_shape *s, int rank, int device, struct shard **out)
{
    const int holder = holder_of(p, rank, device);
    const struct stage_place at = stage_place(p, rank);
    struct shard_memory *m = calloc(1, sizeof *m);
    if (m) {
        if (device == 0)
            fill_home(&m->shard, p, &at);
        m->shard.uses[USE_OWN] = at.first < at.last;
        m->shard.uses[USE_SERVED] = rank_is_asked(p, s, rank);
        plan_rows(p, holder, s->n_vocab, &m->shard.row_begin, &m->shard.row_end);
        m->layers = calloc((size_t)s->n_layers, sizeof *m->layers);
        m->guests = calloc((size_t)m->shard.n_guests + 1, sizeof *m->guests);
    }
    for (int pass = 0; m && m->layers && m->guests && pass < 2; pass++) { /* counted, then filled in */
        if (pass && !(m->spans = calloc(m->n_spans + 1, sizeof *m->spans)))
            break;
        m->n_spans = 0;
        fill_layers(m, p, s, rank, holder);
        fill_guests(m, p, rank);
    }
    if (!m || !m->spans) {
        log_error("out of memory for what a device holds");
        shard_free(m ? &m->shard : NULL);
        return ST_NOMEM;
    }
    m->shard.layers = m->layers;
    m->shard.guests = m->guests;
    *out = &m->shard;
    return ST_OK;
}
