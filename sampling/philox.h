/* Random numbers that are a function of what they are for: no state, so that whoever knows key and counter draws the
 * same wherever, whenever and in whatever order. Thread-safe. */
#ifndef HEARTH_SAMPLING_PHILOX_H
#define HEARTH_SAMPLING_PHILOX_H

#include <stdint.h>

/* Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011): out = 128 random
 * bits of `counter` under `key`, the words in the paper's order. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* Uniform in [0, 1), a multiple of 2^-53, of `position` under `seed`: words 0 and 1 of the above for the counter
 * {position, 0, 0, 0} and the key {low, high half of the seed}, word 1 above word 0, without the lowest 11 bits. */
double random_at(uint64_t seed, uint32_t position);

#endif
