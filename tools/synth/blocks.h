/* Quantised blocks of random weights, drawn as codes, and of given weights. */
#ifndef HEARTH_TOOLS_SYNTH_BLOCKS_H
#define HEARTH_TOOLS_SYNTH_BLOCKS_H

#include <stddef.h>
#include <stdint.h>
#include "base/dtype.h"
#include "tools/synth/random.h"

enum {
    N_SCALES = 8,             /* block scales of a tensor, 1 to 1.44 times the smallest */
    GROUP = 32,               /* weights that share a scale, in every type */
    HEAD = 256,               /* weights of one encode: a block of a K type */
    HEAD_GROUPS = HEAD / GROUP
};

/* Root mean square of the scales of a tensor, in units of the smallest. */
#define SCALES_RMS 1.227f

struct block_maker {
    enum dtype type;
    float deviation; /* of a block's weights when its scale is 1 */
    /* As block_fill; NULL: every bit is drawn, but for the scale's. */
    void (*fill)(struct random *r, const uint16_t *scales, uint8_t *block);
    /* Encodes HEAD weights and writes back what the codes say. Rounding errors are handed on within a group, so that
     * its sum is kept: a group that stands for one number keeps it. NULL: of this type blocks are only drawn. */
    void (*encode)(float *weights /* [HEAD] */, uint8_t *blocks);
    int scale_at;    /* bytes before the scale of a block whose bits are drawn */
};

/* NULL: hearth-synth does not write this type. */
const struct block_maker *block_maker_of(enum dtype type);
/* Draws one block: symmetric codes, one of the scales. */
void block_fill(const struct block_maker *maker, struct random *r, const uint16_t *scales /* [N_SCALES] */,
                uint8_t *block);
/* Scales that give drawn weights this deviation, and up to 1.44 times of it. */
void block_scales(const struct block_maker *maker, float deviation, uint16_t scales[N_SCALES]);
/* IEEE half, rounded to nearest; numbers beyond its range are its largest. */
uint16_t half_of(float x);
float half_value(uint16_t h);

#endif
