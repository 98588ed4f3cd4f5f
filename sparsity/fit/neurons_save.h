/* Writing the neuron file (sparsity/neurons.h). */
#ifndef HEARTH_SPARSITY_FIT_NEURONS_SAVE_H
#define HEARTH_SPARSITY_FIT_NEURONS_SAVE_H

#include "base/status.h"
#include "sparsity/neurons.h"

/* Writes the file whole or not at all: a temporary beside it is synced and renamed. ST_IO (a full disk), ST_NOMEM,
 * ST_INTERNAL (numbers that no reader would accept); all logged. Thread-safe as long as paths differ. */
status neurons_save(const struct neurons *n, const char *path);

#endif
