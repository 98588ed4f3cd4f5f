#include "worker/holders.h"

#include <stdlib.h>

#include "base/log.h"

_Static_assert((int)DEVICE_ATTENTION == PLAN_HEADS && (int)DEVICE_FFN == PLAN_NEURONS &&
                   (int)DEVICE_OUTPUT == PLAN_ROWS, "parts have one number");

int holder_of(const struct plan *p, int rank, int device)
{
    if (device == 0)
        return rank;
    for (int h = p->n_ranks; h < p->n_holders; h++)
        if (plan_holder_rank(p, h) == rank && --device == 0)
            return h;
    return -1;
}

int home_of(const struct plan *p, int rank)
{
    int i = 0;
    while (holder_of(p, rank, i) != plan_home(p, rank))
        i++;
    return i;
}

bool holder_owns(const struct plan *p, const struct device_shape *s, enum device_part part, int layer, int holder)
{
    const struct neuron_range *ranges;
    int64_t begin = 0, end = 0;
    switch (part) {
    case DEVICE_ATTENTION: plan_heads(p, layer, holder, device_heads(s, layer), &begin, &end); break;
    case DEVICE_FFN: end = plan_neurons(p, layer, holder, &ranges); break; /* not counted: asked in every block */
    default: plan_rows(p, holder, s->n_vocab, &begin, &end);
    }
    return begin < end;
}

bool rank_owns(const struct plan *p, enum device_part part, int layer, int rank)
{
    return plan_rank_holds(p, (enum plan_part)part, layer, rank);
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

bool rank_is_asked(const struct plan *p, int rank)
{
    bool asked = plan_last_stage(p) != rank && rank_owns(p, DEVICE_OUTPUT, 0, rank);
    for (int i = 0; i < p->model.n_layers && !asked; i++)
        asked = !p->residual_all && p->layers[i].stage != rank &&
                (rank_owns(p, DEVICE_ATTENTION, i, rank) || rank_owns(p, DEVICE_FFN, i, rank));
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

uint32_t states_passing(const struct plan *p, int rank)
{
    const struct stage_place at = stage_place(p, rank);
    const bool comes = at.first < at.last && !at.embeds && !at.joins;
    return (at.next >= 0 ? STAGE_BUFFERS : 0) + (comes ? 1 : 0);
}

/* ---- shards ---- */

/* A shard and what it points to. */
struct shard_memory {
    struct shard shard; /* first */
    struct shard_layer *layers;
    struct guest_neurons *guests;
    struct neuron_list *sets;
    struct span *spans;
    size_t n_sets, n_spans; /* filled in; counted while there is no memory for them */
};

void shard_free(struct shard *s)
{
    struct shard_memory *m = (struct shard_memory *)s;
    if (!m)
        return;
    free(m->layers);
    free(m->guests);
    free(m->sets);
    free(m->spans);
    free(m);
}

/* Neurons that are rounded together, as the plan has them: numbers of the layer. */
struct planned {
    const struct neuron_range *ranges;
    int n;
};

/* Counted while there is no memory for it. */
static void add_span(struct shard_memory *m, int32_t begin, int32_t end)
{
    if (m->spans)
        m->spans[m->n_spans] = (struct span){begin, end};
    m->n_spans++;
}

/* How many sets a holder computes by themselves. Those of whole units change no bit, and are one. */
static int count_sets(const struct plan *p, int layer, int holder)
{
    return p->layers[layer].splits_units ? plan_n_sets(p, layer, holder) : plan_n_neurons(p, layer, holder) > 0;
}

static struct planned set_of(const struct plan *p, int layer, int holder, int i)
{
    struct planned set;
    set.n = p->layers[layer].splits_units ? plan_set(p, layer, holder, i, &set.ranges)
                                          : plan_neurons(p, layer, holder, &set.ranges);
    return set;
}

static void add_set(struct shard_memory *m, int bundle)
{
    if (m->sets)
        m->sets[m->n_sets] = (struct neuron_list){.spans = m->spans + m->n_spans, .bundle = bundle};
    m->n_sets++;
}

/* One of the plan's sets: one for every bundle that it has neurons of, by their number in that. */
static void part_set(struct shard_memory *m, const struct plan_shape *shape, const struct planned *set)
{
    int last = -1;
    for (int i = 0; i < set->n; i++) {
        const struct neuron_range range = set->ranges[i];
        for (int32_t begin = range.begin, end; begin < range.end; begin = end) {
            const int bundle = plan_bundle_of(shape, begin);
            const struct neuron_range b = plan_bundle(shape, bundle);
            end = b.end < range.end ? b.end : range.end;
            if (bundle != last)
                add_set(m, bundle);
            add_span(m, begin - b.begin, end - b.begin);
            if (m->sets)
                m->sets[m->n_sets - 1].n_spans++;
            last = bundle;
        }
    }
}

static void fill_layer(struct shard_memory *m, const struct plan *p, int layer, int holder)
{
    struct shard_layer *l = &m->layers[layer];
    const size_t first = m->n_sets;
    l->sets = m->sets ? m->sets + first : NULL;
    for (int i = 0; i < count_sets(p, layer, holder); i++) {
        const struct planned set = set_of(p, layer, holder, i);
        part_set(m, &p->layers[layer].shape, &set);
    }
    l->n_sets = (int)(m->n_sets - first);
}

static void fill_layers(struct shard_memory *m, const struct plan *p, const struct device_shape *s, int rank,
                        int holder)
{
    for (int i = 0; i < s->n_layers; i++) {
        struct shard_layer *l = &m->layers[i];
        plan_heads(p, i, holder, device_heads(s, i), &l->head_begin, &l->head_end);
        fill_layer(m, p, i, holder);
        l->down = !plan_down_at_stage(p, i) || p->layers[i].stage == rank;
    }
}

/* A rank's neurons of a layer are guests of its stage: one set on one device, of a layer without experts
 * (check_active). */
static void fill_guests(struct shard_memory *m, const struct plan *p, int rank)
{
    for (int i = 0; i < m->shard.n_guests; i++) {
        struct guest_neurons *g = &m->guests[i];
        const int other = i % p->n_ranks;
        g->layer = m->shard.first + i / p->n_ranks;
        for (int k = 0, h; other != rank && plan_down_at_stage(p, g->layer) && (h = holder_of(p, other, k)) >= 0; k++) {
            if (!plan_n_neurons(p, g->layer, h))
                continue;
            const struct planned set = set_of(p, g->layer, h, 0);
            g->neurons = (struct neuron_list){.spans = m->spans ? m->spans + m->n_spans : NULL, .n_spans = set.n};
            for (int j = 0; j < set.n; j++)
                add_span(m, set.ranges[j].begin, set.ranges[j].end);
        }
    }
}

static bool has_guests(const struct plan *p, int first, int last)
{
    for (int i = first; i < last; i++)
        if (plan_down_at_stage(p, i))
            return true;
    return false;
}

/* Live activations are numbered within a set. */
static status check_active(const struct plan *p)
{
    for (int l = 0; l < p->model.n_layers; l++) {
        if (plan_down_at_stage(p, l) && p->layers[l].shape.n_experts) {
            log_error("layer %d: its stage has the down projections of experts, which stay with their neurons "
                      "(\"down\": \"owners\", --down owners)", l);
            return ST_UNSUPPORTED;
        }
        for (int r = 0; r < p->n_ranks; r++) {
            int n = 0;
            for (int i = 0, h; (h = holder_of(p, r, i)) >= 0; i++)
                n += count_sets(p, l, h);
            if (n > 1 && plan_down_at_stage(p, l) && p->layers[l].stage != r) {
                log_error("layer %d: its stage has the down projection, and rank %d %d sets of its neurons on its "
                          "devices: one set can run so (\"down\": \"owners\")", l, r, n);
                return ST_UNSUPPORTED;
            }
        }
    }
    return ST_OK;
}

/* What lies on the home of x. */
static void fill_home(struct shard *s, const struct plan *p, const struct stage_place *at)
{
    s->first = at->first;
    s->last = at->last;
    s->embeds = at->embeds;
    s->ends = at->first < at->last && at->next < 0;
    s->n_guests = has_guests(p, at->first, at->last) ? (at->last - at->first) * p->n_ranks : 0;
}

/* Counts what there is of sets and spans, then fills them in. */
static status fill_shard(struct shard_memory *m, const struct plan *p, const struct device_shape *s, int rank,
                         int holder)
{
    for (int pass = 0; pass < 2; pass++) {
        if (pass) {
            m->sets = calloc(m->n_sets + 1, sizeof *m->sets);
            m->spans = calloc(m->n_spans + 1, sizeof *m->spans);
            if (!m->sets || !m->spans)
                return ST_NOMEM;
        }
        m->n_sets = m->n_spans = 0;
        fill_layers(m, p, s, rank, holder);
        fill_guests(m, p, rank);
    }
    m->shard.layers = m->layers;
    m->shard.guests = m->guests;
    return ST_OK;
}

status shard_new(const struct plan *p, const struct device_shape *s, int rank, int device, struct shard **out)
{
    const int holder = holder_of(p, rank, device);
    const struct stage_place at = stage_place(p, rank);
    status st = check_active(p);
    if (st)
        return st;
    struct shard_memory *m = calloc(1, sizeof *m);
    if (m) {
        if (holder == plan_home(p, rank))
            fill_home(&m->shard, p, &at);
        m->shard.uses[USE_OWN] = at.first < at.last;
        m->shard.uses[USE_SERVED] = rank_is_asked(p, rank);
        plan_rows(p, holder, s->n_vocab, &m->shard.row_begin, &m->shard.row_end);
        m->layers = calloc((size_t)s->n_layers, sizeof *m->layers);
        m->guests = calloc((size_t)m->shard.n_guests + 1, sizeof *m->guests);
    }
    if (!m || !m->layers || !m->guests || fill_shard(m, p, s, rank, holder)) {
        log_error("out of memory for what a device holds");
        shard_free(m ? &m->shard : NULL);
        return ST_NOMEM;
    }
    *out = &m->shard;
    return ST_OK;
}
