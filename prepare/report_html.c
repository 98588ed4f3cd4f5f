/* The report as one HTML file: figures, plots and the table of layers. Nothing in it comes from outside. */
#include <math.h>
#include <stdlib.h>
#include "base/log.h"
#include "prepare/plot.h"
#include "prepare/report.h"

enum { CURVE_POINTS = 101 };

static void page_begin(FILE *out, const struct report *r)
{
    fputs("<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
          "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n<title>", out);
    html_text(out, r->model);
    fputs(": neurons</title>\n<style>\n"
          ":root{color-scheme:light dark;--paper:#fbfbf9;--card:#fff;--ink:#22262b;--soft:#737b85;--grid:#e6e7e4;"
          "--a:#c2571a;--b:#1f6fb2;--c:#3b8a4e}\n"
          "@media(prefers-color-scheme:dark){:root{--paper:#17191c;--card:#1f2226;--ink:#e4e6e8;--soft:#959ca5;"
          "--grid:#32363b;--a:#f08a4b;--b:#63b0ec;--c:#72c487}}\n"
          "body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\n"
          "main{max-width:1120px;margin:0 auto;padding:2rem 1.2rem}\n"
          "h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2rem 0 .6rem}p{margin:.3rem 0}"
          ".soft{color:var(--soft)}\n"
          ".facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:.8rem;margin:1.4rem 0}\n"
          ".fact,figure{background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:.8rem 1rem}\n"
          ".fact b{display:block;font-size:1.4rem;font-weight:600}.fact span{color:var(--soft);font-size:.85rem}\n"
          ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:.8rem}"
          "figure{margin:0}figcaption{color:var(--soft);font-size:.85rem}\n"
          "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
          "th,td{padding:.25rem .8rem;text-align:right;border-bottom:1px solid var(--grid)}"
          "th{font-weight:600;color:var(--soft)}th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}\n",
          out);
    plot_style(out);
    fputs("</style></head>\n<body><main>\n<h1>", out);
    html_text(out, r->model);
    fprintf(out, "</h1>\n<p class=soft>%d layers of %lld neurons, ", r->neurons->n_layers, (long long)r->neurons->d_ff);
    if (r->neurons->experts.n)
        fprintf(out, "%lld experts of which a token uses %lld, ", (long long)r->neurons->experts.n,
                (long long)r->neurons->experts.used);
    fprintf(out, "%s. Measured on ", activation_name(r->neurons->activation));
    html_text(out, r->text);
    fprintf(out, ", %llu windows of %zu tokens, in %.0f s.</p>\n", (unsigned long long)r->n_windows, r->window,
            r->seconds);
}

static void fact(FILE *out, const char *what, const char *format, double value)
{
    fputs("<div class=fact><b>", out);
    fprintf(out, format, value);
    fputs("</b><span>", out);
    html_text(out, what);
    fputs("</span></div>\n", out);
}

static void fact_bytes(FILE *out, const struct report *r, const char *what, uint64_t bytes)
{
    char text[96];
    snprintf(text, sizeof text, "%s, %.2f %% of the model", what, (double)bytes / (double)r->model_bytes * 100);
    if (bytes)
        fact(out, text, "%.2f MB", (double)bytes / 1e6);
}

static status facts(FILE *out, const struct report *r, const float *busy, int64_t all)
{
    double share;
    status st = report_neurons_for(busy, all, 0.8, &share);
    if (st)
        return st;
    fputs("<div class=facts>\n", out);
    fact(out,
         r->neurons->experts.n ? "of the neurons of its experts fire for a token" : "of the neurons fire for a token",
         "%.1f %%", report_live(r->neurons) * 100);
    fact(out, "of the neurons make 80 % of all activations", "%.1f %%", share * 100);
    if (neurons_have_weights(r->neurons))
        fact(out, "of the neurons are skipped by --sparse threshold unless told", "%.0f %%",
             (double)r->neurons->skip_share * 100);
    fact_bytes(out, r, "neuron file", r->neurons_bytes);
    fact_bytes(out, r, "predictor MLP", report_mlp_bytes(r->neurons));
    fact_bytes(out, r, "predictor planes", report_planes_bytes(r->neurons));
    fputs("</div>\n", out);
    return ST_OK;
}

static void mode_row(FILE *out, const char *name, const struct score *s, const struct score *dense)
{
    fputs("<tr><td>", out);
    html_text(out, name);
    fprintf(out, "<td>%.4f<td>&plusmn; %.2f<td>", score_perplexity(s), score_uncertainty(s));
    if (s != dense)
        fprintf(out, "%+.2f %%", (score_perplexity(s) / score_perplexity(dense) - 1) * 100);
    fputs("</tr>\n", out);
}

static void modes(FILE *out, const struct report *r)
{
    fputs("<h2>What the modes cost</h2>\n<div class=wide><table><tr><th>mode<th>perplexity<th><th>against dense</tr>\n",
          out);
    mode_row(out, "dense", &r->dense, &r->dense);
    for (int i = 0; i < r->n_measures; i++) {
        char name[48];
        report_mode_name(&r->measures[i], name, sizeof name);
        mode_row(out, name, &r->measures[i].score, &r->dense);
    }
    fputs("</table></div>\n", out);
}

static status curve_line(const struct plot *p, const char *kind, const float *busy, int64_t n)
{
    float share[CURVE_POINTS];
    double x[CURVE_POINTS], y[CURVE_POINTS];
    status st = report_curve(busy, n, CURVE_POINTS, share);
    for (int i = 0; i < CURVE_POINTS && !st; i++) {
        x[i] = i * 100.0 / (CURVE_POINTS - 1);
        y[i] = (double)share[i] * 100;
    }
    if (!st)
        plot_line(p, kind, x, y, CURVE_POINTS);
    return st;
}

static status plot_curves(FILE *out, const struct neurons *n, const float *busy, int64_t all)
{
    const float *at = busy;
    struct plot p = {.out = out, .x_high = 100, .y_high = 100};
    status st = ST_OK;
    fputs("<figure>", out);
    plot_begin(&p, "Few neurons make most activations", "busiest neurons, %", "share of all activations, %");
    for (int i = 0; i < n->n_layers && !st; i++) {
        st = curve_line(&p, "thin", at, neurons_of_layer(n, i));
        at += neurons_of_layer(n, i);
    }
    if (!st)
        st = curve_line(&p, "a", busy, all);
    plot_mark_y(&p, 80);
    plot_legend(&p, "thin", "each layer");
    plot_legend(&p, "a", "the model");
    plot_end(&p);
    fprintf(out, "<figcaption>Neurons in order of %s. Where a line meets the dashed one: the neurons that make 80 "
            "%%.</figcaption></figure>\n",
            activation_is_exact(n->activation) ? "how often they fire" : "their mean activation");
    return st;
}

static void plot_live(FILE *out, const struct neurons *n)
{
    struct plot p = {.out = out, .x_low = -0.5, .x_high = n->n_layers - 0.5};
    for (int i = 0; i < n->n_layers; i++)
        p.y_high = fmax(p.y_high, (double)n->layers[i].live * 100);
    p.y_high = fmax(p.y_high, 1);
    fputs("<figure>", out);
    plot_begin(&p, "Live share of each layer", "layer", "neurons that fire for a token, %");
    for (int i = 0; i < n->n_layers; i++) {
        char remark[48];
        snprintf(remark, sizeof remark, "layer %d: %.2f %%", i, (double)n->layers[i].live * 100);
        plot_bar(&p, "a", i, (double)n->layers[i].live * 100, remark);
    }
    plot_end(&p);
    fprintf(out, "<figcaption>%s</figcaption></figure>\n",
            activation_is_exact(n->activation) ? "A neuron fires when its activation is not zero."
                                               : "A neuron fires when its activation is above a tenth of the layer's "
                                                 "mean.");
}

/* ---- experts ---- */

static status plot_choices(FILE *out, const struct neurons *n)
{
    struct plot p = {.out = out, .x_high = 100, .y_high = 100};
    const double ends[] = {0, 100};
    status st = ST_OK;
    fputs("<figure>", out);
    plot_begin(&p, "How experts are chosen", "experts that are chosen most, %", "share of all choices, %");
    for (int i = 0; i < n->n_layers && !st; i++)
        if (neurons_experts(n, i))
            st = curve_line(&p, "thin", n->layers[i].chosen, n->experts.n);
    plot_line(&p, "b", ends, ends, 2);
    plot_legend(&p, "thin", "each layer");
    plot_legend(&p, "b", "all alike");
    plot_end(&p);
    fputs("<figcaption>Experts of a layer in order of how many tokens have chosen them.</figcaption></figure>\n", out);
    return st;
}

static double percent_of_tokens(const struct neurons *n, uint64_t tokens)
{
    return n->n_tokens ? (double)tokens / (double)n->n_tokens * 100 : 0;
}

static void plot_busiest(FILE *out, const struct neurons *n)
{
    struct plot p = {.out = out, .x_low = -0.5, .x_high = n->n_layers - 0.5, .y_high = 1};
    for (int i = 0; i < n->n_layers; i++)
        p.y_high = fmax(p.y_high, percent_of_tokens(n, neurons_expert_use(n, i).most));
    fputs("<figure>", out);
    plot_begin(&p, "The expert that is chosen most", "layer", "tokens that have chosen it, %");
    for (int i = 0; i < n->n_layers; i++) {
        const struct expert_use use = neurons_expert_use(n, i);
        char remark[128];
        snprintf(remark, sizeof remark, "layer %d: the most %.2f %%, the least %.2f %% (%llu tokens)", i,
                 percent_of_tokens(n, use.most), percent_of_tokens(n, use.least), (unsigned long long)use.least);
        if (neurons_experts(n, i))
            plot_bar(&p, "a", i, percent_of_tokens(n, use.most), remark);
    }
    plot_mark_y(&p, (double)n->experts.used / (double)n->experts.n * 100);
    plot_end(&p);
    fputs("<figcaption>The dashed line: if all were chosen alike.</figcaption></figure>\n", out);
}

static status plot_experts(FILE *out, const struct neurons *n)
{
    if (!n->experts.n)
        return ST_OK;
    plot_busiest(out, n);
    return plot_choices(out, n);
}

/* A predictor's figure in every layer, in percent. */
static void quality_line(struct plot *p, const char *kind, const struct neurons *n, bool mlp, bool flagged)
{
    double last_x = 0, last_y = 0;
    for (int i = 0; i < n->n_layers; i++) {
        const struct neuron_layer *l = &n->layers[i];
        const struct predictor_quality *q = mlp ? &l->mlp : &l->planes;
        double x[2] = {last_x, i}, y[2] = {last_y, (double)(flagged ? q->flagged : q->recall) * 100};
        char remark[96];
        snprintf(remark, sizeof remark, "layer %d, %s: recall %.1f %%, precision %.1f %%, flagged %.1f %%", i,
                 mlp ? "MLP" : "planes", (double)q->recall * 100, (double)q->precision * 100, (double)q->flagged * 100);
        if (i > 0)
            plot_line(p, kind, x, y, 2);
        plot_dot(p, kind, x[1], y[1], remark);
        last_x = x[1];
        last_y = y[1];
    }
}

static double lowest_recall(const struct neurons *n, bool planes, bool mlp)
{
    double low = 1;
    for (int i = 0; i < n->n_layers; i++) {
        low = planes ? fmin(low, (double)n->layers[i].planes.recall) : low;
        low = mlp ? fmin(low, (double)n->layers[i].mlp.recall) : low;
    }
    return low * 100;
}

static void plot_predictors(FILE *out, const struct neurons *n)
{
    const bool planes = report_planes_bytes(n) > 0, mlp = report_mlp_bytes(n) > 0;
    if (!activation_is_exact(n->activation) || (!planes && !mlp))
        return;
    for (int flagged = 0; flagged < 2; flagged++) {
        struct plot p = {.out = out, .x_low = -0.5, .x_high = n->n_layers - 0.5, .y_high = 100,
                         .y_low = flagged ? 0 : fmin(lowest_recall(n, planes, mlp), 90)};
        fputs("<figure>", out);
        plot_begin(&p, flagged ? "What the predictors flag" : "What the predictors find", "layer",
                   flagged ? "neurons flagged, %" : "recall, %");
        if (mlp) {
            quality_line(&p, "b", n, true, flagged);
            plot_legend(&p, "b", "MLP");
        }
        if (planes) {
            quality_line(&p, "c", n, false, flagged);
            plot_legend(&p, "c", "planes");
        }
        if (!flagged)
            plot_mark_y(&p, 95);
        plot_end(&p);
        fprintf(out, "<figcaption>%s</figcaption></figure>\n",
                flagged ? "Of all neurons, those whose rows are read. What fires alone would be the live share."
                        : "Of the neurons that fire, those that are flagged, on tokens that were not fitted on.");
    }
}

/* Perplexity against the share that is skipped, where more than one was measured. */
static void plot_skipped(FILE *out, const struct report *r)
{
    double x[PART_MEASURES + 1] = {0}, y[PART_MEASURES + 1] = {score_perplexity(&r->dense)}, high = y[0];
    int n = 1;
    for (int i = 0; i < r->n_measures; i++) {
        if (r->measures[i].sparse != SPARSE_THRESHOLD)
            continue;
        x[n] = (double)r->measures[i].skip_share * 100;
        y[n] = score_perplexity(&r->measures[i].score);
        high = fmax(high, y[n++]);
    }
    if (n < 3)
        return;
    /* What is far beyond use would flatten the rest. */
    struct plot p = {.out = out, .x_high = 100, .y_low = y[0] * 0.9, .y_high = fmin(high, y[0] * 3)};
    fputs("<figure>", out);
    plot_begin(&p, "What skipping costs", "neurons skipped, %", "perplexity");
    int shown = 0;
    while (shown < n && y[shown] <= p.y_high)
        shown++;
    plot_line(&p, "a", x, y, shown);
    for (int i = 0; i < shown; i++) {
        char remark[64];
        snprintf(remark, sizeof remark, "%.0f %% skipped: perplexity %.3f, %+.1f %%", x[i], y[i],
                 (y[i] / y[0] - 1) * 100);
        plot_dot(&p, "a", x[i], y[i], remark);
    }
    plot_mark_y(&p, y[0]);
    plot_end(&p);
    fputs("<figcaption>The dashed line is dense.</figcaption></figure>\n", out);
}

static void quality_cells(FILE *out, bool there, const struct predictor_quality *q)
{
    if (there)
        fprintf(out, "<td>%.1f<td>%.1f<td>%.1f<td>%.1f", (double)q->recall * 100, (double)q->precision * 100,
                (double)q->accuracy * 100, (double)q->flagged * 100);
    else
        fputs("<td><td><td><td>", out);
}

static void expert_cells(FILE *out, const struct neurons *n, int layer)
{
    const struct expert_use use = neurons_expert_use(n, layer);
    if (neurons_experts(n, layer))
        fprintf(out, "<td>%.2f<td>%.2f<td>%llu", percent_of_tokens(n, use.most), percent_of_tokens(n, use.least),
                (unsigned long long)use.least);
    else
        fputs("<td><td><td>", out);
}

static status layer_table(FILE *out, const struct neurons *n, const float *busy)
{
    const bool planes = report_planes_bytes(n) > 0 && activation_is_exact(n->activation), mlp = report_mlp_bytes(n) > 0;
    static const char heads[] = "<th>%s recall<th>precision<th>accuracy<th>flagged";
    fputs("<h2>Layers</h2>\n<div class=wide><table><tr><th>layer<th>live<th>for 80 %", out);
    if (n->experts.n)
        fputs("<th>expert chosen most<th>least<th>by tokens", out);
    if (planes)
        fprintf(out, heads, "planes");
    if (mlp) {
        fprintf(out, heads, "MLP");
        fputs("<th>rank", out);
    }
    fputs("</tr>\n", out);
    for (int i = 0; i < n->n_layers; i++) {
        const struct neuron_layer *l = &n->layers[i];
        double share;
        status st = report_neurons_for(busy, neurons_of_layer(n, i), 0.8, &share);
        busy += neurons_of_layer(n, i);
        if (st)
            return st;
        fprintf(out, "<tr><td>%d<td>%.2f<td>%.1f", i, (double)l->live * 100, share * 100);
        if (n->experts.n)
            expert_cells(out, n, i);
        if (planes)
            quality_cells(out, l->bound != NULL, &l->planes);
        if (mlp) {
            quality_cells(out, l->fc1.data != NULL, &l->mlp);
            fprintf(out, "<td>%lld", (long long)(l->fc1.data ? l->fc1.rows : 0));
        }
        fputs("</tr>\n", out);
    }
    fputs("</table></div>\n<p class=soft>All in percent, but for ranks and tokens.</p>\n", out);
    return ST_OK;
}

status report_html(FILE *out, const struct report *r)
{
    float *busy;
    int64_t all;
    status st = report_busy(r->neurons, &busy, &all);
    if (st)
        return st;
    page_begin(out, r);
    st = facts(out, r, busy, all);
    modes(out, r);
    fputs("<h2>Neurons</h2>\n<div class=plots>\n", out);
    if (!st)
        st = plot_curves(out, r->neurons, busy, all);
    if (!st)
        st = plot_experts(out, r->neurons);
    plot_live(out, r->neurons);
    plot_predictors(out, r->neurons);
    plot_skipped(out, r);
    fputs("</div>\n", out);
    if (!st)
        st = layer_table(out, r->neurons, busy);
    fputs("</main></body></html>\n", out);
    free(busy);
    return st;
}
