#include "cli/report_text.h"

#include <stdlib.h>
#include "base/log.h"
#include "cli/table.h"

static void add_quality(json_t *row, const char *name, bool there, const struct predictor_quality *q)
{
    static const char *const what[] = {"recall", "precision", "accuracy", "flagged"};
    const float values[] = {q->recall, q->precision, q->accuracy, q->flagged};
    for (int i = 0; i < 4; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s %s %%", name, what[i]);
        json_object_set_new(row, key, there ? json_real((double)values[i] * 100) : json_null());
    }
}

/* How many tokens have chosen the layer's experts. */
static void add_experts(json_t *row, const struct neurons *n, int layer)
{
    const bool there = neurons_experts(n, layer) > 0;
    const struct expert_use use = neurons_expert_use(n, layer);
    json_object_set_new(row, "expert chosen most", there ? json_integer((json_int_t)use.most) : json_null());
    json_object_set_new(row, "least", there ? json_integer((json_int_t)use.least) : json_null());
}

/* A row for every layer. */
static json_t *layer_rows(const struct neurons *n, const float *busy)
{
    bool planes = report_planes_bytes(n) > 0, mlp = report_mlp_bytes(n) > 0;
    json_t *rows = json_array();
    for (int i = 0; i < n->n_layers; i++) {
        const struct neuron_layer *l = &n->layers[i];
        double share = 0;
        json_t *row = json_object();
        if (report_neurons_for(busy, neurons_of_layer(n, i), 0.8, &share) != ST_OK || !row) {
            json_decref(row);
            json_decref(rows);
            return NULL;
        }
        json_object_set_new(row, "layer", json_integer(i));
        json_object_set_new(row, "live %", json_real((double)l->live * 100));
        busy += neurons_of_layer(n, i);
        json_object_set_new(row, "for 80 % of all %", json_real(share * 100));
        if (n->experts.n)
            add_experts(row, n, i);
        if (planes && activation_is_exact(n->activation))
            add_quality(row, "planes", l->bound != NULL, &l->planes);
        if (mlp) {
            add_quality(row, "MLP", l->fc1.data != NULL, &l->mlp);
            json_object_set_new(row, "MLP rank", json_integer(l->fc1.data ? l->fc1.rows : 0));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *mode_row(const char *mode, const struct score *s, const struct score *dense)
{
    char perplexity[48], change[32];
    snprintf(perplexity, sizeof perplexity, "%.4f +- %.2f", score_perplexity(s), score_uncertainty(s));
    snprintf(change, sizeof change, "%+.2f %%", (score_perplexity(s) / score_perplexity(dense) - 1) * 100);
    return json_pack("{s:s, s:s, s:s}", "mode", mode, "perplexity", perplexity, "against dense",
                     s == dense ? "" : change);
}

static json_t *mode_rows(const struct report *r)
{
    json_t *rows = json_array();
    json_array_append_new(rows, mode_row("dense", &r->dense, &r->dense));
    for (int i = 0; i < r->n_measures; i++) {
        char name[48];
        report_mode_name(&r->measures[i], name, sizeof name);
        json_array_append_new(rows, mode_row(name, &r->measures[i].score, &r->dense));
    }
    return rows;
}

static status print_rows(FILE *out, json_t *rows)
{
    if (!rows) {
        log_error("no memory for the report");
        return ST_NOMEM;
    }
    status st = table_print(out, rows, TABLE_MD);
    json_decref(rows);
    return st;
}

static void print_bytes(FILE *out, const struct report *r, const char *what, uint64_t bytes)
{
    if (bytes)
        fprintf(out, "%s: %.2f MB, %.2f %% of the model\n", what, (double)bytes / 1e6,
                (double)bytes / (double)r->model_bytes * 100);
}

static void print_experts(FILE *out, const struct neurons *n)
{
    int64_t rare = 0, all = 0;
    for (int i = 0; i < n->n_layers; i++) {
        all += neurons_experts(n, i);
        rare += neurons_expert_use(n, i).rare;
    }
    fprintf(out, "experts: a token uses %lld of a layer's %lld; of the %lld of all layers %lld were chosen by fewer "
            "than %d of %llu tokens\n",
            (long long)n->experts.used, (long long)n->experts.n, (long long)all, (long long)rare, EXPERT_RARE,
            (unsigned long long)n->n_tokens);
}

status report_text(FILE *out, const struct report *r)
{
    const struct neurons *n = r->neurons;
    double share;
    float *busy;
    int64_t all;
    status st = report_busy(n, &busy, &all);
    if (st)
        return st;
    if ((st = report_neurons_for(busy, all, 0.8, &share))) {
        free(busy);
        return st;
    }
    fprintf(out, "model: %s, %d layers of %lld neurons, %s\n", r->model, n->n_layers, (long long)n->d_ff,
            activation_name(n->activation));
    fprintf(out, "text: %s, %llu windows of %zu tokens\n", r->text, (unsigned long long)r->n_windows, r->window);
    if (n->experts.n)
        print_experts(out, n);
    fprintf(out, "live: %.2f %% of the neurons%s fire for a token\n", report_live(n) * 100,
            n->experts.n ? " of its experts" : "");
    fprintf(out, "skew: %.2f %% of the neurons make 80 %% of all activations\n", share * 100);
    if (neurons_have_weights(n))
        fprintf(out, "threshold: skips %.0f %% unless told\n", (double)n->skip_share * 100);
    print_bytes(out, r, "neuron file", r->neurons_bytes);
    print_bytes(out, r, "predictor planes (its bounds)", report_planes_bytes(n));
    print_bytes(out, r, "predictor MLP", report_mlp_bytes(n));
    fprintf(out, "time: %.0f s\n\n", r->seconds);
    st = print_rows(out, mode_rows(r));
    fputc('\n', out);
    if (!st)
        st = print_rows(out, layer_rows(n, busy));
    free(busy);
    return st;
}
