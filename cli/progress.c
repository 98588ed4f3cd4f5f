#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"

enum { BAR_WIDTH = 30 };
static const double quick_s = 0.5; /* work that takes less is not worth a line */
static const double redraw_s = 0.1;
static const double line_every_s = 10;
static const double estimate_after_s = 2, estimate_above_s = 10; /* no guess from too little, nor about too little */

void progress_init(struct progress *p, bool quiet)
{
    *p = (struct progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO)};
}

/* " 2 h 05 min left", as it went so far, n bytes at most; "" where that is not known or not worth saying. */
static void estimate(const struct progress *p, uint64_t done, uint64_t total, double elapsed_s, char *out, size_t n)
{
    double pace_s = done > p->started ? elapsed_s / (double)(done - p->started) : 0; /* of one */
    double left_s = pace_s * (double)(total - done);
    long minutes = (long)(left_s / 60);
    out[0] = '\0';
    if (done >= total || pace_s <= 0 || elapsed_s < estimate_after_s || elapsed_s + left_s < estimate_above_s)
        return;
    if (minutes >= 60)
        snprintf(out, n, " %ld h %02ld min left", minutes / 60, minutes % 60);
    else if (minutes >= 2)
        snprintf(out, n, " %ld min left", minutes);
    else
        snprintf(out, n, " %.0f s left", left_s);
}

/* One call each, so that nothing else on stderr gets between. */
static void draw_bar(const struct progress *p, int percent, const char *left, const char *note)
{
    char bar[BAR_WIDTH + 1];
    int full = percent * BAR_WIDTH / 100;
    memset(bar, '-', BAR_WIDTH);
    memset(bar, '#', (size_t)full);
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r%s [%s] %3d %%%s%s%s\033[K", p->what, bar, percent, left, *note ? "  " : "", note);
}

static void print_line(const struct progress *p, int percent, double elapsed_s, const char *left, const char *note)
{
    fprintf(stderr, "hearth: %s: %d %% after %.1f s%s%s%s%s\n", p->what, percent, elapsed_s, *left ? "," : "", left,
            *note ? ", " : "", note);
}

void progress_note(void *arg, const char *what, uint64_t done, uint64_t total, const char *note)
{
    struct progress *p = arg;
    if (p->quiet || total == 0)
        return;
    double now = clock_s();
    if (strcmp(p->what, what) != 0) {
        snprintf(p->what, sizeof p->what, "%s", what);
        p->shown = false;
        p->started_s = p->printed_s = now;
        p->started = done;
    }
    int percent = done >= total ? 100 : (int)((double)done / (double)total * 100);
    double elapsed = now - p->started_s;
    bool finished = done >= total;
    char left[48];
    estimate(p, done, total, elapsed, left, sizeof left);
    if (p->terminal) {
        if (!finished && elapsed >= quick_s / 2 && now - p->printed_s >= redraw_s) {
            draw_bar(p, percent, left, note);
            p->printed_s = now;
            p->shown = true;
        } else if (finished && p->shown) {
            fputs("\r\033[K", stderr);
        }
    } else if (finished ? elapsed >= quick_s : now - p->printed_s >= line_every_s) {
        print_line(p, percent, elapsed, left, note);
        p->printed_s = now;
    }
    if (finished)
        p->what[0] = '\0';
}

void progress_update(void *arg, const char *what, uint64_t done, uint64_t total)
{
    progress_note(arg, what, done, total, "");
}
