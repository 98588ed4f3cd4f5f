/* Writing a plan as JSON; the format: plan_json.h. */
#include "placement/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "placement/fields.h"

static void print_model(FILE *f, const struct plan_model *m)
{
    fprintf(f, "  \"model\": {\"architecture\": \"%s\", \"layers\": %d", m->architecture, m->n_layers);
    if (m->file_bytes)
        fprintf(f, ", \"file_bytes\": %" PRIu64, m->file_bytes);
    if (m->file_hash)
        fprintf(f, ", \"file_hash\": \"%016" PRIx64 "\"", m->file_hash);
    fputs("},\n", f);
}

static void print_holders(FILE *f, const struct plan *p)
{
    enum { HOLDERS_A_LINE = 3 };
    fprintf(f, "  \"ranks\": %d,\n  \"holders\": [", p->n_ranks);
    for (int h = 0; h < p->n_holders; h++)
        fprintf(f, "%s{\"rank\": %d, \"device\": \"%s\"}", !h ? "" : h % HOLDERS_A_LINE ? ", " : ",\n              ",
                p->holders[h].rank, p->holders[h].device);
    fputs("],\n", f);
}

/* Of ranks whose home is not their CPU. */
static void print_stages(FILE *f, const struct plan *p)
{
    const char *before = "  \"stages\": [";
    for (int r = 0; r < p->n_ranks; r++) {
        if (!p->homes[r])
            continue;
        fprintf(f, "%s{\"rank\": %d, \"device\": \"%s\"}", before, r, p->holders[p->homes[r]].device);
        before = ",\n             ";
    }
    if (before[0] == ',')
        fputs("],\n", f);
}

static bool sets_equal(const struct plan *p, const struct plan_set *a, const struct plan_set *b)
{
    return a->holder == b->holder && a->ranges.n == b->ranges.n &&
           memcmp(p->ranges + a->ranges.first, p->ranges + b->ranges.first,
                  (size_t)a->ranges.n * sizeof *p->ranges) == 0;
}

static bool layers_equal(const struct plan *p, int a, int b)
{
    const struct plan_layer *x = &p->layers[a], *y = &p->layers[b];
    if (x->stage != y->stage || x->splits_units != y->splits_units || x->down_at_stage != y->down_at_stage ||
        memcmp(&x->shape, &y->shape, sizeof x->shape) != 0 || x->n_sets != y->n_sets ||
        x->heads_cut != y->heads_cut || (x->heads_cut && memcmp(x->heads, y->heads, sizeof x->heads) != 0))
        return false;
    for (size_t i = 0; i < x->n_sets; i++)
        if (!sets_equal(p, &p->sets[x->first_set + i], &p->sets[y->first_set + i]))
            return false;
    return true;
}

static void print_shape(FILE *f, const struct plan_shape *s)
{
    fprintf(f, "     \"d_ff\": %" PRId64, s->d_ff);
    if (s->neuron_unit)
        fprintf(f, ", \"neuron_unit\": %" PRId64, s->neuron_unit);
    if (s->n_kv_heads)
        fprintf(f, ", \"kv_heads\": %" PRId64, s->n_kv_heads);
    if (s->head_unit)
        fprintf(f, ", \"head_unit\": %" PRId64, s->head_unit);
    fprintf(f, ", \"experts\": %" PRId64, s->n_experts);
    if (s->n_experts)
        fprintf(f, ", \"experts_used\": %" PRId64, s->n_experts_used);
    if (s->d_shared)
        fprintf(f, ", \"d_shared\": %" PRId64, s->d_shared);
    fputs(",\n", f);
}

static void print_heads(FILE *f, const struct plan *p, const struct plan_layer *layer)
{
    for (int h = 0; layer->heads_cut && h <= p->n_holders; h++)
        fprintf(f, "%s%d%s", h ? ", " : "     \"heads\": [", layer->heads[h], h == p->n_holders ? "],\n" : "");
}

/* A line for each set, more if it has many ranges. */
static void print_sets(FILE *f, const struct plan *p, const struct plan_layer *layer)
{
    enum { RANGES_A_LINE = 6 };
    for (size_t i = 0; i < layer->n_sets; i++) {
        const struct plan_set *set = &p->sets[layer->first_set + i];
        const struct neuron_range *ranges = p->ranges + set->ranges.first;
        fprintf(f, "%s{\"holder\": %d, \"neurons\": [", i ? ",\n              " : "     \"sets\": [", set->holder);
        for (int j = 0; j < set->ranges.n; j++)
            fprintf(f, "%s[%d, %d]", !j ? "" : j % RANGES_A_LINE ? ", " : ",\n               ", ranges[j].begin,
                    ranges[j].end);
        fputs("]}", f);
    }
    fputs("]", f);
}

static void print_run(FILE *f, const struct plan *p, int from, int to)
{
    const struct plan_layer *layer = &p->layers[from];
    fprintf(f, "    {\"from\": %d, \"to\": %d, \"stage\": %d%s%s,\n", from, to, layer->stage,
            layer->down_at_stage ? ", \"down\": \"stage\"" : "", layer->splits_units ? ", \"units\": \"split\"" : "");
    print_shape(f, &layer->shape);
    print_heads(f, p, layer);
    print_sets(f, p, layer);
    fprintf(f, "}%s\n", to < p->model.n_layers ? "," : "");
}

static void print_rows(FILE *f, const struct plan *p)
{
    if (!p->rows_cut)
        return;
    fputs(",\n  \"rows\": [", f);
    for (int h = 0; h <= p->n_holders; h++)
        fprintf(f, "%s%" PRId64, h ? ", " : "", p->rows[h]);
    fputs("]", f);
}

char *plan_format(const struct plan *p)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return NULL;
    fprintf(f, "{\n  \"hearth_plan\": %d,\n", PLAN_VERSION);
    print_model(f, &p->model);
    print_holders(f, p);
    print_stages(f, p);
    fputs("  \"layers\": [\n", f);
    for (int from = 0, to; from < p->model.n_layers; from = to) {
        for (to = from + 1; to < p->model.n_layers && layers_equal(p, from, to); to++)
            ;
        print_run(f, p, from, to);
    }
    fputs("  ]", f);
    print_rows(f, p);
    if (p->residual_all)
        fputs(",\n  \"residual\": \"all\"", f);
    fputs("\n}\n", f);
    bool failed = ferror(f);
    if (fclose(f) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
