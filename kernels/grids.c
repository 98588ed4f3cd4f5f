#include "kernels/grids.h"

#include <pthread.h>

enum { POINTS = 256 + 512 + 1024 + 2048 + 256 + 512 };

static const uint32_t sets[GRIDS][GRID_WORDS] =
#include "kernels/grid_sets.h"
    ;

static uint64_t points[POINTS];
static const uint64_t *first[GRIDS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint64_t point_of(int code, int base)
{
    uint64_t point = 0;
    for (int at = 0; code; at += 8, code /= base)
        point |= (uint64_t)(code % base) << at;
    return point;
}

static void find_points(void)
{
    uint64_t *to = points;
    for (int g = 0; g < GRIDS; g++) {
        first[g] = to;
        for (int code = 0; code < 32 * GRID_WORDS; code++)
            if (sets[g][code / 32] >> (code % 32) & 1)
                *to++ = point_of(code, g >= GRID_IQ3_XXS ? 8 : 3);
    }
}

const uint64_t *grid_points(enum grid g)
{
    pthread_once(&once, find_points);
    return first[g];
}
