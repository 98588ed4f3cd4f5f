/* From logits to one token. The same logits, parameters, seed and text give the same token on every machine: the
 * generator is xoshiro256** (Blackman and Vigna, 2018), the exponential base/exactmath.h's. One thread per sampler. */
#ifndef HEARTH_SAMPLING_SAMPLER_H
#define HEARTH_SAMPLING_SAMPLER_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

struct sampler_params {
    float temperature;    /* <= 0: greedy */
    int32_t top_k;        /* <= 0: off */
    float top_p;          /* >= 1: off; Holtzman et al. 2020 */
    float min_p;          /* <= 0: off; Nguyen et al. 2024 */
    float repeat_penalty; /* 1: off; Keskar et al. 2019, as llama.cpp applies it: over the last repeat_last tokens */
    float presence_penalty;  /* 0: off; taken from the logit of every token among those */
    float frequency_penalty; /* 0: off; taken from it as often as the token is among those */
    int32_t repeat_last;  /* tokens; 0: none, < 0: all of the text */
    uint64_t seed;
};

/* Greedy, as an unset command line has it: temperature 0.8 etc. are the cli's defaults, not these. */
extern const struct sampler_params sampler_greedy;

struct sampler;

/* ST_NOMEM. Scratch for n_vocab candidates and a text of most_text tokens is allocated here, none later. */
status sampler_create(int32_t n_vocab, uint32_t most_text, struct sampler **out);
void sampler_free(struct sampler *s); /* NULL is fine */
/* New parameters, generator reseeded; the text stays. */
void sampler_reset(struct sampler *s, const struct sampler_params *p);
/* The text, which the penalties look at, and nothing else: a token comes behind it (prompt tokens too; one beyond
 * most_text is ignored); all but its first n tokens are gone. */
void sampler_accept(struct sampler *s, int32_t token);
void sampler_truncate(struct sampler *s, uint32_t n);
/* Picks a token; logits [n_vocab] are not changed. Order: penalties, top-k, top-p, min-p, temperature, draw. Greedy
 * takes the largest, the lowest id among equals. Does not accept it. NaN logits are never picked unless all are. */
int32_t sampler_pick(struct sampler *s, const float *logits /* [n_vocab] f32 */);

#endif
