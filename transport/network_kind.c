#include <string.h>

#include "transport/network.h"

static const char *const names[NETWORK_KINDS] = {"auto", "mpi", "verbs"};

const char *network_kind_name(enum network_kind k) { return names[k]; }

bool network_kind_of(const char *name, enum network_kind *out)
{
    for (int k = 0; k < NETWORK_KINDS; k++) {
        if (!strcmp(name, names[k])) {
            *out = (enum network_kind)k;
            return true;
        }
    }
    return false;
}
