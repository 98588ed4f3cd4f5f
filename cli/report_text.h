/* What `hearth prepare` found, as text. */
#ifndef HEARTH_CLI_REPORT_TEXT_H
#define HEARTH_CLI_REPORT_TEXT_H

#include <stdio.h>
#include "base/status.h"
#include "prepare/report.h"

/* ST_NOMEM (logged); whether `out` could be written its owner finds. */
status report_text(FILE *out, const struct report *r);

#endif
