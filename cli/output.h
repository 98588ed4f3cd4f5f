/* Standard output. All results go through one stream, which knows why a write failed: it says so once, at once, and the
 * program ends with status 1. Not thread-safe beyond what stdio is. */
#ifndef HEARTH_CLI_OUTPUT_H
#define HEARTH_CLI_OUTPUT_H

#include <stdio.h>
#include "base/status.h"

/* Call once, first: `stdout` becomes that stream, and a reader who goes away a failed write (SIGPIPE is ignored).
 * Whatever is unwritten when the program exits is written then. ST_NOMEM (logged). */
status output_open(void);

/* Writes what `out` holds back. ST_INTERNAL if this or any earlier write failed; of standard output the reason has been
 * logged. Who computes for every piece of its result asks after each, and stops. */
status output_flush(FILE *out);

#endif
