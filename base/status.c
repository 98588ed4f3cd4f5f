#include "base/status.h"

const char *status_name(status s)
{
    static const char *const names[] = {"ok",        "usage",  "io",   "format", "unsupported", "mismatch", "budget",
                                        "no memory", "full",   "peer", "cancelled", "not a number", "internal"};
    if ((unsigned)s >= sizeof names / sizeof *names)
        return "unknown";
    return names[s];
}
