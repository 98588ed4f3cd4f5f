/* What a seed of the simulation plays: a model in one of its modes, on ranks that hold it in some way. */
#ifndef HEARTH_TESTS_SIM_COMBINATION_H
#define HEARTH_TESTS_SIM_COMBINATION_H

#include "tests/engine/made_neurons.h"
#include "tests/sim/delays.h"

/* A model and how it is run; its results do not depend on anything else. */
struct subject {
    const struct made_model *made; /* NULL: the file of tests/vectors */
    const char *file, *activation;
    enum sparse_mode sparse;
    enum predictor predictor;
    size_t n_prompt;
    uint32_t n_ctx;
    char path[512], neurons[MADE_NAME]; /* "": no neuron file */
    struct plan_model shape;
};

/* All subjects, their files written; call subjects_remove afterwards. */
struct subject *subjects_write(int *n);
void subjects_remove(void);

struct combination {
    const struct subject *subject;
    struct cluster_options options;
    struct delays delays;
    bool splits_units;      /* results are this plan's own */
    char shares[64], plan[MADE_NAME]; /* what options point to; "": nothing. A plan is removed by combination_end */
    char text[1024];        /* all of it in a line, for people */
};

void combination_draw(uint64_t seed, const struct subject *subjects, int n_subjects, struct combination *c);
void combination_end(struct combination *c);

#endif
