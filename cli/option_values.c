/* The values of options: numbers, sizes, lists, each with its range. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "cli/options.h"

error_t option_wrong(struct argp_state *state, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    argp_failure(state, argp_err_exit_status, 0, "error: %s", line);
    return EINVAL;
}

error_t option_int(struct argp_state *state, const char *name, const char *arg, int64_t least, int64_t most,
                   int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(arg, &end, 10);
    if (end == arg || *end || errno || v < least || v > most)
        return option_wrong(state, "%s takes a whole number from %lld to %lld, not '%s'", name, (long long)least,
                            (long long)most, arg);
    *out = v;
    return 0;
}

error_t option_list(struct argp_state *state, const char *name, const char *arg, int64_t least, int64_t most,
                    struct number_list *out)
{
    struct number_list found = {.n = 0};
    const int cap = sizeof found.at / sizeof *found.at;
    for (const char *at = arg;; at++) {
        char number[24];
        const size_t n = strcspn(at, ",");
        if ((size_t)snprintf(number, sizeof number, "%.*s", (int)n, at) >= sizeof number)
            return option_wrong(state, "%s takes whole numbers such as 8,16, not '%s'", name, arg);
        if (found.n == cap)
            return option_wrong(state, "%s takes at most %d numbers", name, cap);
        error_t e = option_int(state, name, number, least, most, &found.at[found.n++]);
        if (e)
            return e;
        at += n;
        if (!*at)
            break;
    }
    *out = found;
    return 0;
}

error_t option_float(struct argp_state *state, const char *name, const char *arg, double least, double most,
                     float *out)
{
    char *end;
    double v = strtod(arg, &end);
    if (end == arg || *end || !(v >= least && v <= most))
        return option_wrong(state, "%s takes a number from %g to %g, not '%s'", name, least, most, arg);
    *out = (float)v;
    return 0;
}

error_t option_bytes(struct argp_state *state, const char *name, const char *arg, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(arg, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        v *= ldexp(1, 10 * (int)(unit - units + 1));
        end += 1 + (end[1] == 'i') + (end[1 + (end[1] == 'i')] == 'B');
    }
    if (!isdigit((unsigned char)*arg) || *end || !(v >= 1 && v < 0x1p62))
        return option_wrong(state, "%s takes a size such as 8G or 512M, not '%s'", name, arg);
    *out = (uint64_t)v;
    return 0;
}

error_t option_model(struct argp_state *state, char *arg, const char **model)
{
    if (*model)
        return option_wrong(state, "'%s' belongs to no option (the model is %s; a text of several words needs quotes)",
                            arg, *model);
    *model = arg;
    return 0;
}

error_t option_context(struct argp_state *state, const char *arg, uint32_t least, struct cluster_options *o)
{
    int64_t v = 0;
    error_t e = option_int(state, "-c", arg, least, 1 << 24, &v);
    if (e == 0)
        o->n_ctx = (uint32_t)v;
    return e;
}
