/* A constraint with little memory: for tests of what happens when it is full. */
#ifndef HEARTH_SAMPLING_CONSTRAINT_LAY_H
#define HEARTH_SAMPLING_CONSTRAINT_LAY_H

#include "sampling/constraint.h"

/* constraint_lay with room for so many states (sampling/machine.h). */
struct constraint *constraint_lay_states(const struct token_trie *t, uint32_t max_ops, uint32_t most_states,
                                         struct arena *a);

#endif
