#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Which catcher an error line goes to is a property of the thread that logs: ranks of one process are threads. */
static _Thread_local struct log_catcher *catcher; /* the innermost; NULL: stderr */
static _Thread_local int sender = -1;
static _Atomic(log_line *) elsewhere; /* another copy's log_write */

static void write_line(enum log_kind kind, const char *prefix, const char *format, va_list args)
{
    char line[LOG_LINE_MAX + 64];
    log_line *to = atomic_load(&elsewhere);
    if (to) {
        vsnprintf(line, LOG_LINE_MAX, format, args);
        to(kind, line);
        return;
    }
    int n = snprintf(line, sizeof line, "hearth: %s", prefix);
    int m = vsnprintf(line + n, LOG_LINE_MAX, format, args);
    n += m < LOG_LINE_MAX ? (m > 0 ? m : 0) : LOG_LINE_MAX - 1;
    line[n++] = '\n';
    /* One write, so that lines of several threads and ranks do not mix. Nothing can be done if it fails. */
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)n);
    (void)ignored;
}

void log_error(const char *format, ...)
{
    char from[32] = "", prefix[48];
    va_list args;
    va_start(args, format);
    if (sender >= 0)
        snprintf(from, sizeof from, "from rank %d: ", sender);
    if (!catcher) {
        snprintf(prefix, sizeof prefix, "error: %s", from);
        write_line(LOG_ERROR, prefix, format, args);
    } else if (!catcher->first_error[0]) {
        const int n = snprintf(catcher->first_error, sizeof catcher->first_error, "%s", from);
        vsnprintf(catcher->first_error + n, sizeof catcher->first_error - (size_t)n, format, args);
    }
    va_end(args);
}

void log_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line(LOG_WARN, "warning: ", format, args);
    va_end(args);
}

void log_info(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line(LOG_INFO, "", format, args);
    va_end(args);
}

static bool at_work(const struct log_catcher *c)
{
    const struct log_catcher *at = catcher;
    while (at && at != c)
        at = at->outer;
    return at != NULL;
}

void log_catch(struct log_catcher *c)
{
    if (!c) {
        catcher = catcher ? catcher->outer : NULL;
        return;
    }
    if (!at_work(c))
        c->outer = catcher;
    catcher = c;
    c->first_error[0] = 0;
}

void log_let_out(void)
{
    const struct log_catcher *at = catcher;
    while (at && !at->first_error[0])
        at = at->outer;
    catcher = NULL;
    sender = -1; /* the line names it */
    if (at)
        log_error("%s", at->first_error);
}

void log_write(enum log_kind kind, const char *line)
{
    switch (kind) {
    case LOG_ERROR: log_error("%s", line); break;
    case LOG_WARN: log_warn("%s", line); break;
    default: log_info("%s", line);
    }
}

void log_redirect(log_line *to) { atomic_store(&elsewhere, to); }

void log_sender(int rank) { sender = rank; }
