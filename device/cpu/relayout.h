/* A layer of which nearly all neurons fire is laid out anew, once, as a dense one.
 *
 * Single rows and columns are read and multiplied more slowly than packed matrices, so `exact` gains nothing where most
 * of them are needed. A neuron file says so before the layer is laid out; without one it shows at the first tokens.
 * Both layouts hold the same numbers and give the same bits, so no result tells when a layer has changed over, and
 * every device decides for its own neurons alone.
 *
 * The packed form takes the place of the rows and columns: each was given the room of the larger form when the arena
 * was laid out (struct laying), so nothing is allocated here and memory stays what was computed beforehand. The
 * numbers are those in memory, which lie aside meanwhile (relayout_aside): the file is not read again. */
#ifndef HEARTH_DEVICE_CPU_RELAYOUT_H
#define HEARTH_DEVICE_CPU_RELAYOUT_H

#include "device/cpu/cpu.h"
#include "device/ffn_layer.h"

/* Bytes of the rows or columns that must lie aside while the packed form takes their place; 0: it never does. */
size_t relayout_aside(const struct ffn_layer *s);
/* Changes the layer's layout if nearly all of its neurons fire. The layer's work for the step at hand is done. */
void relayout(struct cpu *c, struct ffn_layer *s, uint8_t *aside);

#endif
