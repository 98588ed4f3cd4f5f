/* Start it with -dict=tests/fuzz/plan.dict CORPUS tests/fuzz/corpus/plan.
 *
 * The plan reader: any text is refused or gives a plan whose every promise holds and which reads back the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(int holds)
{
    if (!holds)
        abort();
}

static void check_ascending(const struct neuron_range *ranges, int n)
{
    for (int i = 0; i < n; i++)
        require(ranges[i].begin >= 0 && ranges[i].begin < ranges[i].end && (!i || ranges[i - 1].end < ranges[i].begin));
}

/* Marks [begin, end) as someone's, whose it was not. */
static void take(uint8_t *taken, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        require(!taken[i]++);
}

/* Every neuron is in one set, and is the neuron of that set's holder. */
static void check_neurons(const struct plan *p, int layer)
{
    const int64_t n_neurons = plan_shape_neurons(&p->layers[layer].shape);
    const bool small = n_neurons <= 1 << 16; /* the others by their number alone */
    uint8_t *in_set = calloc(small ? (size_t)n_neurons : 1, 1), *held = calloc(small ? (size_t)n_neurons : 1, 1);
    int64_t all = 0, in_sets = 0;
    for (int h = 0; h < p->n_holders; h++) {
        const struct neuron_range *ranges;
        const int n = plan_neurons(p, layer, h, &ranges);
        check_ascending(ranges, n);
        all += plan_n_neurons(p, layer, h);
        for (int i = 0; i < n && small; i++)
            take(held, ranges[i].begin, ranges[i].end);
        for (int s = 0; s < plan_n_sets(p, layer, h); s++) {
            const int n_set = plan_set(p, layer, h, s, &ranges);
            require(n_set > 0);
            check_ascending(ranges, n_set);
            for (int i = 0; i < n_set; i++) {
                in_sets += ranges[i].end - ranges[i].begin;
                if (small)
                    take(in_set, ranges[i].begin, ranges[i].end);
                for (int64_t j = ranges[i].begin; j < ranges[i].end && small; j++)
                    require(held[j]);
            }
        }
    }
    require(all == n_neurons && in_sets == n_neurons);
    free(in_set);
    free(held);
}

/* Each holder's heads follow those of the holder before. */
static void check_heads(const struct plan *p, int layer)
{
    const int64_t n = p->layers[layer].shape.n_kv_heads;
    int64_t done = 0, begin, end;
    for (int h = 0; h < p->n_holders; h++) {
        plan_heads(p, layer, h, n, &begin, &end);
        require(begin <= end && (begin == end || begin == done));
        done += end - begin;
    }
    require(done == n);
}

static void check_rows(const struct plan *p)
{
    int64_t done = 0, begin, end;
    for (int h = 0; h < p->n_holders; h++) {
        plan_rows(p, h, p->model.n_vocab, &begin, &end);
        require(begin <= end && (begin == end || begin == done));
        done += end - begin;
    }
    require(done == p->model.n_vocab);
}

static void check_holders(const struct plan *p)
{
    require(p->n_ranks >= 1 && p->n_ranks <= PLAN_MAX_RANKS);
    require(p->n_holders >= p->n_ranks && p->n_holders <= PLAN_MAX_HOLDERS);
    for (int h = 0; h < p->n_holders; h++) {
        require(h >= p->n_ranks || (plan_holder_rank(p, h) == h && strcmp(plan_holder_device(p, h), "cpu") == 0));
        for (int i = 0; i < h; i++)
            require(plan_holder_rank(p, i) != plan_holder_rank(p, h) ||
                    strcmp(plan_holder_device(p, i), plan_holder_device(p, h)) != 0);
    }
}

static void check(const struct plan *p)
{
    const struct plan_model *m = &p->model;
    int stages = 0, layers = 0;
    require(m->n_layers >= 1 && m->n_layers <= PLAN_MAX_LAYERS);
    check_holders(p);
    check_rows(p);
    for (int l = 0; l < m->n_layers; l++) {
        if (l == 0 || p->layers[l].first_set != p->layers[l - 1].first_set) {
            check_neurons(p, l);
            check_heads(p, l);
        }
        require(p->layers[l].stage >= 0 && p->layers[l].stage < p->n_ranks);
    }
    for (int r = 0; r < p->n_ranks; r++) {
        int first, last;
        plan_stage(p, r, &first, &last);
        layers += last - first;
    }
    require(layers == m->n_layers && plan_takes_part(p, plan_first_stage(p)));
    require(!p->residual_all || !plan_residual_obstacle(p));
    for (int r = plan_first_stage(p); r >= 0; r = plan_next_stage(p, r))
        require(++stages <= p->n_ranks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct log_catcher quiet;
    struct plan *p = NULL, *again = NULL;
    log_catch(&quiet);
    if (plan_parse((const char *)data, n, "fuzz", &p) == ST_OK) {
        check(p);
        char *text = plan_format(p), *twice = NULL;
        require(text && plan_parse(text, strlen(text), "fuzz", &again) == ST_OK);
        require((twice = plan_format(again)) && strcmp(text, twice) == 0);
        free(twice);
        free(text);
        plan_free(again);
        plan_free(p);
    } else {
        require(quiet.first_error[0] != '\0' && !strpbrk(quiet.first_error, "\n\033"));
    }
    log_catch(NULL);
    return 0;
}
