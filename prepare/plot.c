#include "prepare/plot.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* In units of the picture. */
enum { WIDTH = 680, HEIGHT = 360, LEFT = 62, RIGHT = 16, TOP = 40, BOTTOM = 48 };

void html_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("<>&\"", *text))
            fprintf(out, "&#%d;", *text);
        else
            fputc(*text, out);
    }
}

void plot_style(FILE *out)
{
    fputs("svg.plot{width:100%;height:auto;font:12px system-ui,sans-serif}\n"
          ".plot text{fill:var(--ink)}.plot .title{font-size:14px;font-weight:600}.plot .tick{fill:var(--soft)}\n"
          ".plot .grid{stroke:var(--grid);stroke-width:1}.plot .axis{stroke:var(--soft);stroke-width:1}\n"
          ".plot .mark{stroke:var(--ink);stroke-width:1;stroke-dasharray:5 4;opacity:.6}\n"
          ".plot polyline{fill:none;stroke-width:2;stroke-linejoin:round}\n"
          ".plot .line-a{stroke:var(--a)}.plot .line-b{stroke:var(--b)}.plot .line-c{stroke:var(--c)}\n"
          ".plot .line-thin{stroke:var(--soft);stroke-width:1;opacity:.45}\n"
          ".plot .fill-a{fill:var(--a)}.plot .fill-b{fill:var(--b)}.plot .fill-c{fill:var(--c)}"
          ".plot .fill-thin{fill:var(--soft)}\n"
          ".plot .bar{opacity:.85}.plot .bar:hover,.plot .dot:hover{opacity:1;stroke:var(--ink);stroke-width:1.5}\n",
          out);
}

static double at_x(const struct plot *p, double x)
{
    return LEFT + (x - p->x_low) / (p->x_high - p->x_low) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const struct plot *p, double y)
{
    return HEIGHT - BOTTOM - (y - p->y_low) / (p->y_high - p->y_low) * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2 or 5 times a power of ten, so that a range has some six of them. */
static double tick_step(double range)
{
    const double raw = range / 6, power = pow(10, floor(log10(raw))), scaled = raw / power;
    return (scaled <= 1 ? 1 : scaled <= 2 ? 2 : scaled <= 5 ? 5 : 10) * power;
}

static int digits_of(double step) { return step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9); }

static void tick(const struct plot *p, bool across, double value, double step)
{
    const int digits = digits_of(step);
    if (across)
        fprintf(p->out, "<line class=grid x1=%d x2=%d y1=%.1f y2=%.1f /><text class=tick x=%d y=%.1f "
                "text-anchor=end>%.*f</text>\n", LEFT, WIDTH - RIGHT, at_y(p, value), at_y(p, value), LEFT - 8,
                at_y(p, value) + 4, digits, value);
    else
        fprintf(p->out, "<line class=axis x1=%.1f x2=%.1f y1=%d y2=%d /><text class=tick x=%.1f y=%d "
                "text-anchor=middle>%.*f</text>\n", at_x(p, value), at_x(p, value), HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 4, at_x(p, value), HEIGHT - BOTTOM + 18, digits, value);
}

void plot_begin(struct plot *p, const char *title, const char *x_label, const char *y_label)
{
    const double x_step = tick_step(p->x_high - p->x_low), y_step = tick_step(p->y_high - p->y_low);
    p->y_low = floor(p->y_low / y_step + 1e-9) * y_step;
    p->y_high = ceil(p->y_high / y_step - 1e-9) * y_step;
    p->n_legend = 0;
    fprintf(p->out, "<svg class=plot viewBox=\"0 0 %d %d\" role=img>\n<text class=title x=%d y=18>", WIDTH, HEIGHT,
            LEFT);
    html_text(p->out, title);
    fputs("</text>\n", p->out);
    for (double y = p->y_low; y <= p->y_high + y_step / 2; y += y_step)
        tick(p, true, fabs(y) < y_step / 2 ? 0 : y, y_step);
    for (double x = ceil(p->x_low / x_step - 1e-9) * x_step; x <= p->x_high + x_step * 1e-6; x += x_step)
        tick(p, false, fabs(x) < x_step / 2 ? 0 : x, x_step);
    fprintf(p->out, "<line class=axis x1=%d x2=%d y1=%d y2=%d />\n<text x=%d y=%d text-anchor=middle>", LEFT,
            WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8);
    html_text(p->out, x_label);
    fprintf(p->out, "</text>\n<text transform=\"translate(16 %d) rotate(-90)\" text-anchor=middle>",
            (TOP + HEIGHT - BOTTOM) / 2);
    html_text(p->out, y_label);
    fputs("</text>\n", p->out);
}

void plot_line(const struct plot *p, const char *kind, const double *x, const double *y, int n)
{
    fprintf(p->out, "<polyline class=line-%s points=\"", kind);
    for (int i = 0; i < n; i++)
        fprintf(p->out, "%.1f,%.1f ", at_x(p, x[i]), at_y(p, y[i]));
    fputs("\"/>\n", p->out);
}

static void end_with_remark(const struct plot *p, const char *shape, const char *remark)
{
    fputs("><title>", p->out);
    html_text(p->out, remark);
    fprintf(p->out, "</title></%s>\n", shape);
}

void plot_dot(const struct plot *p, const char *kind, double x, double y, const char *remark)
{
    fprintf(p->out, "<circle class=\"dot fill-%s\" cx=%.1f cy=%.1f r=4", kind, at_x(p, x), at_y(p, y));
    end_with_remark(p, "circle", remark);
}

void plot_bar(const struct plot *p, const char *kind, double x, double y, const char *remark)
{
    const double left = at_x(p, x - 0.4), right = at_x(p, x + 0.4), top = at_y(p, y), bottom = HEIGHT - BOTTOM;
    fprintf(p->out, "<rect class=\"bar fill-%s\" x=%.1f y=%.1f width=%.1f height=%.1f", kind, left, top, right - left,
            bottom - top);
    end_with_remark(p, "rect", remark);
}

void plot_mark_y(const struct plot *p, double y)
{
    fprintf(p->out, "<line class=mark x1=%d x2=%d y1=%.1f y2=%.1f />\n", LEFT, WIDTH - RIGHT, at_y(p, y), at_y(p, y));
}

void plot_legend(struct plot *p, const char *kind, const char *text)
{
    enum { ENTRY = 130 };
    const int x = WIDTH - RIGHT - ENTRY * ++p->n_legend;
    fprintf(p->out, "<rect class=fill-%s x=%d y=24 width=14 height=4 /><text x=%d y=30>", kind, x, x + 20);
    html_text(p->out, text);
    fputs("</text>\n", p->out);
}

void plot_end(struct plot *p) { fputs("</svg>\n", p->out); }
