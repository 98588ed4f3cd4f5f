/* What every transport must do, as cases that all ranks of a cluster run together, each on its own endpoint. An
 * implementation's test makes endpoints with conformance_config(), calls conformance_begin() on each, runs every case
 * on all of them, and adds up the failures. A case leaves no message behind, so cases may follow each other on the same
 * endpoints. */
#ifndef HEARTH_TESTS_TRANSPORT_CONFORMANCE_H
#define HEARTH_TESTS_TRANSPORT_CONFORMANCE_H

#include "transport/transport.h"

/* Of one rank: cmocka's asserts jump, which only its own thread may do. */
struct check {
    int failures;
    char first[256]; /* the first failure, "file:line: what" */
};

struct transport_case {
    const char *name;
    void (*run)(struct transport *t, struct check *c);
};

extern const struct transport_case transport_cases[];
extern const int n_transport_cases;

/* Kind k travels in channel k % 4, kinds 30 and 31 in channel 4. */
struct transport_config conformance_config(void);
/* Connects, and lends what the cases need; the result is to be freed when the endpoint is closed. */
void *conformance_begin(struct transport *t, struct check *c);
/* The whole of it, for one rank: begins, runs every case, closes the endpoint. */
void conformance_run(struct transport *t, struct check *c);
/* Every rank sends so many messages of random sizes and kinds to random ranks, after random delays; each is known by
 * its sender, kind and number, byte for byte: none is lost, doubled or out of order. */
void transport_stress(struct transport *t, struct check *c, int n_messages, uint32_t seed);

void check_that(struct check *c, bool ok, const char *file, int line, const char *what);
#define CHECK(c, condition) check_that(c, condition, __FILE__, __LINE__, #condition)

#endif
