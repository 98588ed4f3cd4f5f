/* In how many ways at once a grammar's texts can be read. */
#ifndef HEARTH_SAMPLING_WAYS_H
#define HEARTH_SAMPLING_WAYS_H

#include "sampling/grammar.h"

/* Follows texts of a checked grammar, taken at random but the same ones each time, the last where many ways are rather
 * than where few are, and refuses it (ST_FULL, logged) if its machine (sampling/machine.h) needs too many states for
 * them, or states of too many ways: a mask would make as many and more for each token, and a state takes as long to
 * make as it has ways. So masks take about as long as the tree of tokens takes to walk, but for states to which none of
 * the texts here has come. ST_NOMEM (logged). Stateless and thread-safe. */
status grammar_check_ways(const struct grammar *g);

#endif
