/* Random numbers that are the same everywhere. */
#ifndef HEARTH_TOOLS_SYNTH_RANDOM_H
#define HEARTH_TOOLS_SYNTH_RANDOM_H

#include <math.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

/* SplitMix64 (Steele, Lea and Flood, 2014): one addition and two multiplications a draw. */
static inline uint64_t draw(struct random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* About normal, deviation 1: a sum of four uniform numbers. */
static inline float draw_normal(struct random *r)
{
    uint64_t bits = draw(r);
    int sum = 0;
    for (int i = 0; i < 64; i += 16)
        sum += (int)(bits >> i & 0xffff);
    return ((float)sum - 131070) * (1.7320508f / 65536);
}

#endif
