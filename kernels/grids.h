/* Grids: what IQ1, IQ2 and IQ3 types have instead of codes for single weights. A number in a block stands for a point
 * of a grid, the magnitudes of 8 or of 4 neighbouring weights, as numbers of a book's values (kernels/book.h) to which
 * signs are added. Thread-safe. */
#ifndef HEARTH_KERNELS_GRIDS_H
#define HEARTH_KERNELS_GRIDS_H

#include <stdint.h>

enum grid {
    GRID_IQ2_XXS, /* 256 points of 8 numbers below 3 */
    GRID_IQ2_XS,  /* 512 */
    GRID_IQ2_S,   /* 1024 */
    GRID_IQ1,     /* 2048 */
    GRID_IQ3_XXS, /* 256 points of 4 numbers below 8 */
    GRID_IQ3_S,   /* 512 */
    GRIDS
};
enum { GRID_WORDS = 206 }; /* of a grid in kernels/grid_sets.h */

/* A grid's points: a byte for each number, the first lowest. */
const uint64_t *grid_points(enum grid g);

#endif
