/* Results for people and for programs: an array of flat objects as a Markdown table, CSV or JSON. */
#ifndef HEARTH_CLI_TABLE_H
#define HEARTH_CLI_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include "base/status.h"

enum table_format { TABLE_MD, TABLE_CSV, TABLE_JSON };

/* "md", "csv", "json"; false for anything else. */
bool table_format_of(const char *name, enum table_format *out);

/* Prints `rows`: objects with the same keys in the same order, the columns. Cells are written whole: in CSV as RFC 4180
 * has it (with this system's line ends), in Markdown with bars escaped and line ends as spaces. ST_NOMEM, or
 * ST_INTERNAL if jansson fails, logged; whether `out` could be written its owner finds (cli/output.h). */
status table_print(FILE *out, const json_t *rows, enum table_format format);
/* Prints one JSON value and a newline, numbers rounded to 7 digits. */
status table_print_json(FILE *out, const json_t *value);

#endif
