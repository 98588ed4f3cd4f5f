/* What the files that decode blocks share (block_decode, kernels/layout.h). */
#ifndef HEARTH_KERNELS_DECODE_H
#define HEARTH_KERNELS_DECODE_H

#include "kernels/layout.h"

static inline uint16_t load16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* decode_grids.c: block j of 32 columns of one of 256 at p, of an IQ1, IQ2, IQ3 or TQ type. */
void decode_of_grids(enum dtype type, const uint8_t *p, int j, struct block *b);

#endif
