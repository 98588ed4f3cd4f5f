/* What a checkpoint must agree in to be of use. */
#include <stdio.h>
#include <string.h>
#include "prepare/part.h"

void part_difference(const struct part_shape *there, const struct part_shape *now, char *out, size_t size)
{
    for (int i = 0; i < PART_SETTINGS; i++) {
        const struct part_setting *a = &there->settings[i], *b = &now->settings[i];
        if (memcmp(a, b, sizeof *a) != 0) {
            snprintf(out, size, "%.32s is %.32s there and %.32s now", b->name, a->value, b->value);
            return;
        }
    }
    snprintf(out, size, "this rank (mpirun -np, --shares) has layers %d to %d there and %d to %d now", there->first,
             there->last - 1, now->first, now->last - 1);
}
