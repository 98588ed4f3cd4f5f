#include "cli/output.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"

static bool failed;

/* stdio itself forgets the errno of a write that a full buffer caused. */
static ssize_t put(void *cookie, const char *bytes, size_t n)
{
    (void)cookie;
    for (size_t done = 0; done < n && !failed;) {
        ssize_t m = write(STDOUT_FILENO, bytes + done, n - done);
        if (m >= 0) {
            done += (size_t)m;
        } else if (errno != EINTR) {
            log_error("cannot write to standard output: %s", strerror(errno));
            failed = true;
        }
    }
    return failed ? 0 : (ssize_t)n;
}

/* Also after --help, with which argp ends the program. */
static void finish(void)
{
    if (output_flush(stdout) != ST_OK)
        _exit(EXIT_FAILURE);
}

status output_open(void)
{
    FILE *out = fopencookie(NULL, "w", (cookie_io_functions_t){.write = put});
    if (!out || atexit(finish) != 0) {
        log_error("no memory for standard output");
        return ST_NOMEM;
    }
    if (isatty(STDOUT_FILENO))
        setvbuf(out, NULL, _IOLBF, BUFSIZ);
    signal(SIGPIPE, SIG_IGN);
    stdout = out;
    return ST_OK;
}

status output_flush(FILE *out)
{
    return fflush(out) == 0 && !ferror(out) ? ST_OK : ST_INTERNAL;
}
