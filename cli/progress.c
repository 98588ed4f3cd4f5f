#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"

enum { BAR_WIDTH = 30 };
static const double quick_s = 0.5; /* work that takes less is not worth a line */
static const double redraw_s = 0.1;
static const double line_every_s = 10;

void progress_init(struct progress *p, bool quiet)
{
    *p = (struct progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO)};
}

/* One call each, so that nothing else on stderr gets between. */
static void draw_bar(const struct progress *p, int percent, const char *note)
{
    char bar[BAR_WIDTH + 1];
    int full = percent * BAR_WIDTH / 100;
    memset(bar, '-', BAR_WIDTH);
    memset(bar, '#', (size_t)full);
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r%s [%s] %3d %%%s%s\033[K", p->what, bar, percent, *note ? "  " : "", note);
}

static void print_line(const struct progress *p, int percent, double elapsed_s, const char *note)
{
    fprintf(stderr, "hearth: %s: %d %% after %.1f s%s%s\n", p->what, percent, elapsed_s, *note ? ", " : "", note);
}

void progress_note(struct progress *p, const char *what, uint64_t done, uint64_t total, const char *note)
{
    if (p->quiet || total == 0)
        return;
    double now = clock_s();
    if (strcmp(p->what, what) != 0) {
        snprintf(p->what, sizeof p->what, "%s", what);
        p->shown = false;
        p->started_s = p->printed_s = now;
    }
    int percent = done >= total ? 100 : (int)((double)done / (double)total * 100);
    double elapsed = now - p->started_s;
    bool finished = done >= total;
    if (p->terminal) {
        if (!finished && elapsed >= quick_s / 2 && now - p->printed_s >= redraw_s) {
            draw_bar(p, percent, note);
            p->printed_s = now;
            p->shown = true;
        } else if (finished && p->shown) {
            fputs("\r\033[K", stderr);
        }
    } else if (finished ? elapsed >= quick_s : now - p->printed_s >= line_every_s) {
        print_line(p, percent, elapsed, note);
        p->printed_s = now;
    }
    if (finished)
        p->what[0] = '\0';
}

void progress_update(void *arg, const char *what, uint64_t done, uint64_t total)
{
    progress_note(arg, what, done, total, "");
}
