/* What `hearth prepare` found: its figures, and one HTML file for people with its plots inside. */
#ifndef HEARTH_PREPARE_REPORT_H
#define HEARTH_PREPARE_REPORT_H

#include <stdio.h>
#include "base/status.h"
#include "prepare/part.h"
#include "sparsity/mode.h"

struct report {
    const char *model, *text;       /* names */
    const char *neurons_path;
    const struct neurons *neurons;
    uint64_t model_bytes, neurons_bytes; /* of the files */
    uint64_t n_windows;
    size_t window;                  /* tokens */
    struct score dense;
    const struct part_measure *measures; /* [n_measures] whole ones, in the order in which they are told */
    int n_measures;
    double seconds;
};

/* The share of the n neurons, the busiest first, that make `share` of all that they do. ST_NOMEM (logged). */
status report_neurons_for(const float *busy, int64_t n, double share, double *out);
/* The curve of that: y[i], i < points, is the share of all that the busiest i / (points - 1) of the n neurons make.
 * ST_NOMEM (logged). */
status report_curve(const float *busy, int64_t n, int points, float *y);
/* How busy neurons are: how often each fires; of a SiLU model, where all fire a little, its mean |activation| in its
 * layer's sum. All layers', one after the other, *all of them; malloc'ed. ST_NOMEM (logged). */
status report_busy(const struct neurons *n, float **out, int64_t *all);
/* Bytes of the MLPs and of the planes' bounds; 0: there are none. */
uint64_t report_mlp_bytes(const struct neurons *n);
uint64_t report_planes_bytes(const struct neurons *n);
/* Of the neurons that a token looks at, the share that fires. */
double report_live(const struct neurons *n);
/* "predicted, planes". */
void report_mode_name(const struct part_measure *m, char *out, size_t n);

/* The report as one page. ST_NOMEM. */
status report_html(FILE *out, const struct report *r);

#endif
