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

/* Each rank's ranges ascend apart from each other, and merged they are all neurons. */
static void check_neurons(const struct plan *p, int layer)
{
    const struct neuron_range *ranges;
    int next[PLAN_MAX_RANKS] = {0};
    int64_t sum = 0, done = 0;
    for (int r = 0; r < p->n_ranks; r++) {
        int n = plan_neurons(p, layer, r, &ranges);
        sum += plan_n_neurons(p, layer, r);
        for (int i = 0; i < n; i++)
            require(ranges[i].begin < ranges[i].end && (!i || ranges[i - 1].end < ranges[i].begin));
    }
    require(sum == p->model.d_ff);
    while (done < sum) {
        const int64_t before = done;
        for (int r = 0; r < p->n_ranks; r++) {
            if (next[r] < plan_neurons(p, layer, r, &ranges) && ranges[next[r]].begin == done)
                done = ranges[next[r]++].end;
        }
        require(done > before);
    }
}

/* Each rank's heads follow those of the rank before. */
static void check_heads(const struct plan *p, int layer)
{
    int64_t done = 0, begin, end;
    for (int r = 0; r < p->n_ranks; r++) {
        plan_heads(p, layer, r, p->model.n_kv_heads, &begin, &end);
        require(begin <= end && (begin == end || begin == done));
        done += end - begin;
    }
    require(done == p->model.n_kv_heads);
}

static void check(const struct plan *p)
{
    const struct plan_model *m = &p->model;
    int stages = 0, layers = 0;
    require(p->n_ranks >= 1 && p->n_ranks <= PLAN_MAX_RANKS && m->n_layers >= 1 && m->n_layers <= PLAN_MAX_LAYERS);
    for (int l = 0; l < m->n_layers; l++) {
        check_neurons(p, l);
        check_heads(p, l);
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
