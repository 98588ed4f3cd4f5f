/* Where the files lie that prepare makes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "prepare/inside.h"

char *name_beside(const char *path, const char *suffix, int rank)
{
    const char *end = strstr(path, ".gguf");
    size_t n = strlen(path);
    char *out, number[16] = "";
    n = end && !end[5] ? (size_t)(end - path) : n;
    if (rank > 0)
        snprintf(number, sizeof number, "-%d", rank);
    if (asprintf(&out, "%.*s%s%s", (int)n, path, suffix, number) >= 0)
        return out;
    log_error("no memory for the name of a file beside %s", path);
    return NULL;
}

char *prepare_report_path(const struct prepare *p)
{
    if (!p->o->report)
        return name_beside(p->neurons, ".html", 0);
    char *path = strdup(p->o->report);
    if (!path)
        log_error("no memory for the report's name");
    return path;
}
