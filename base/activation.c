#include "base/activation.h"

#include <string.h>

static const char *const names[ACTIVATIONS] = {"silu", "relu", "relu2", "drelu", "gelu", "swiglu_clamped"};

const char *activation_name(enum activation a) { return names[a]; }

bool activation_of(const char *name, size_t n, enum activation *out)
{
    for (int i = 0; i < ACTIVATIONS; i++) {
        if (strlen(names[i]) == n && memcmp(names[i], name, n) == 0) {
            *out = (enum activation)i;
            return true;
        }
    }
    return false;
}
