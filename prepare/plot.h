/* Plots as SVG inside an HTML page, whose style sheet (plot_style) gives them their colours in light and dark. */
#ifndef HEARTH_PREPARE_PLOT_H
#define HEARTH_PREPARE_PLOT_H

#include <stdio.h>

/* A plot under way: data coordinates over [x_low, x_high] x [y_low, y_high]. */
struct plot {
    FILE *out;
    double x_low, x_high, y_low, y_high;
    int n_legend;
};

/* The rules that all plots of a page share. */
void plot_style(FILE *out);

/* Draws frame, ticks and labels. Steps of ticks are chosen; the ranges are widened to whole ones. y_low < y_high. */
void plot_begin(struct plot *p, const char *title, const char *x_label, const char *y_label);
/* A line through n points; `kind` names a colour and a width: "a", "b", "c", or "thin". */
void plot_line(const struct plot *p, const char *kind, const double *x, const double *y, int n);
/* Points with a remark each that shows under the mouse. */
void plot_dot(const struct plot *p, const char *kind, double x, double y, const char *remark);
/* A bar of width 1 around x. */
void plot_bar(const struct plot *p, const char *kind, double x, double y, const char *remark);
/* Dashed, across the plot. */
void plot_mark_y(const struct plot *p, double y);
void plot_legend(struct plot *p, const char *kind, const char *text);
void plot_end(struct plot *p);

/* Text as HTML. */
void html_text(FILE *out, const char *text);

#endif
