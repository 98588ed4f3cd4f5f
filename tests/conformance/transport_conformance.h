/* What every transport must do, as cases that all ranks of a cluster run together, each on its own endpoint. An
 * implementation's test makes endpoints, runs every case on all of them, and adds up the failures. A case leaves no
 * message behind, so cases may follow each other on the same endpoints. */
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

void check_that(struct check *c, bool ok, const char *file, int line, const char *what);
#define CHECK(c, condition) check_that(c, condition, __FILE__, __LINE__, #condition)

#endif
