/* A transport of threads, above inproc's, over which messages are late: any of them, by any time, in any order that
 * channels allow; whole ranks and whole links stand still for long. Everything is drawn from a seed.
 *
 * Time is counted in polls. One rank runs at a time, and whenever it calls the transport the seed says who runs next: a
 * seed plays the same way every time, whatever the machine does meanwhile. When all ranks wait, time passes at once
 * until something arrives: long delays cost nothing. If nothing can arrive any more nobody will ever move again; then a
 * line says who waits for what, and the run fails with ST_PEER instead of hanging.
 *
 * A rank may see that a message is sent long after it was taken (inproc reads messages where they lie), or long before
 * it arrives, as where a network buffers: each link is of one sort. */
#ifndef HEARTH_TESTS_SIM_DELAYS_H
#define HEARTH_TESTS_SIM_DELAYS_H

#include "transport/transport.h"

/* Times in polls, any up to what is given here; one_in 0: never. */
struct delays {
    uint64_t seed;
    uint32_t each;                   /* that every message takes */
    uint32_t late_one_in, late;      /* messages that take longer */
    uint32_t sent;                   /* until a sender learns that a message is sent */
    uint32_t rank_one_in, rank_still; /* polls at which a rank stands still, for so long */
    uint32_t link_one_in, link_still; /* the same of a link, in one direction */
    uint32_t buffered_one_in;        /* links that keep copies of what they carry */
    int slow;                        /* a rank that runs seldom, -1: none */
    int from, to;                    /* if from >= 0: only messages of this link are late by `late` */
    uint32_t spoilt;                 /* of the n-th message a bit is changed; 0: none */
    _Atomic bool *stuck;             /* set when nobody can move any more; may be NULL */
};

/* What a seed says. */
struct delays delays_draw(uint64_t seed, int n_ranks);
/* As transport_inproc_open, with delays; every endpoint takes part once it is connected. */
status delays_open(const struct transport_config *c, int n_ranks, const struct delays *d, struct transport **out);
/* The inner transport; the tests' link line puts delays in its place (--wrap). */
status __real_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out);

/* SplitMix64. */
static inline uint64_t sim_draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
/* 0 .. n - 1. */
static inline uint32_t sim_below(uint64_t *state, uint32_t n) { return (uint32_t)(sim_draw(state) % n); }

#endif
