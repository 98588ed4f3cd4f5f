/* Writing a plan as JSON; the format: plan_json_read.c. */
#include "placement/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "placement/fields.h"

static void print_model(FILE *f, const struct plan_model *m)
{
    fprintf(f, "  \"model\": {\"architecture\": \"%s\", \"layers\": %d, \"d_ff\": %" PRId64, m->architecture,
            m->n_layers, m->d_ff);
    if (m->neuron_unit)
        fprintf(f, ", \"neuron_unit\": %" PRId64, m->neuron_unit);
    if (m->n_kv_heads)
        fprintf(f, ", \"kv_heads\": %" PRId64, m->n_kv_heads);
    if (m->head_unit)
        fprintf(f, ", \"head_unit\": %" PRId64, m->head_unit);
    if (m->file_bytes)
        fprintf(f, ", \"file_bytes\": %" PRIu64, m->file_bytes);
    if (m->file_hash)
        fprintf(f, ", \"file_hash\": \"%016" PRIx64 "\"", m->file_hash);
    fputs("},\n", f);
}

static bool layers_equal(const struct plan *p, int a, int b)
{
    const struct plan_layer *x = &p->layers[a], *y = &p->layers[b];
    if (x->stage != y->stage || x->sets != y->sets || x->down_at_stage != y->down_at_stage ||
        x->heads_cut != y->heads_cut || (x->heads_cut && memcmp(x->heads, y->heads, sizeof x->heads) != 0))
        return false;
    for (int r = 0; r < p->n_ranks; r++) {
        const struct neuron_range *in_x, *in_y;
        int n = plan_neurons(p, a, r, &in_x);
        if (plan_neurons(p, b, r, &in_y) != n || (n && memcmp(in_x, in_y, (size_t)n * sizeof *in_x) != 0))
            return false;
    }
    return true;
}

static void print_cut(FILE *f, const struct plan *p, int layer)
{
    int64_t bound = 0;
    fputs("[0", f);
    for (int r = 0; r < p->n_ranks; r++)
        fprintf(f, ", %" PRId64, bound += plan_n_neurons(p, layer, r));
    fputs("]", f);
}

/* A line for each rank, more if it has many ranges. */
static void print_sets(FILE *f, const struct plan *p, int layer)
{
    enum { RANGES_A_LINE = 6 };
    for (int r = 0; r < p->n_ranks; r++) {
        const struct neuron_range *ranges;
        int n = plan_neurons(p, layer, r, &ranges);
        fputs(r ? ",\n      [" : "[\n      [", f);
        for (int i = 0; i < n; i++)
            fprintf(f, "%s[%d, %d]", !i ? "" : i % RANGES_A_LINE ? ", " : ",\n       ", ranges[i].begin, ranges[i].end);
        fputs("]", f);
    }
    fputs("\n    ]", f);
}

static void print_heads(FILE *f, const struct plan *p, const struct plan_layer *layer)
{
    for (int r = 0; layer->heads_cut && r <= p->n_ranks; r++)
        fprintf(f, "%s%d%s", r ? ", " : "\"heads\": [", layer->heads[r], r == p->n_ranks ? "], " : "");
}

static void print_run(FILE *f, const struct plan *p, int from, int to)
{
    const struct plan_layer *layer = &p->layers[from];
    fprintf(f, "    {\"from\": %d, \"to\": %d, \"stage\": %d, %s", from, to, layer->stage,
            layer->down_at_stage ? "\"down\": \"stage\", " : "");
    print_heads(f, p, layer);
    fputs("\"neurons\": ", f);
    (layer->sets ? print_sets : print_cut)(f, p, from);
    fprintf(f, "}%s\n", to < p->model.n_layers ? "," : "");
}

static void print_rows(FILE *f, const struct plan *p)
{
    if (!p->rows_cut)
        return;
    fputs(",\n  \"rows\": [", f);
    for (int r = 0; r <= p->n_ranks; r++)
        fprintf(f, "%s%" PRId64, r ? ", " : "", p->rows[r]);
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
    fprintf(f, "  \"ranks\": %d,\n  \"layers\": [\n", p->n_ranks);
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
