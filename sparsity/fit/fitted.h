/* Inside of struct fitted_layer. */
#ifndef HEARTH_SPARSITY_FIT_FITTED_H
#define HEARTH_SPARSITY_FIT_FITTED_H

#include "sparsity/fit/fit.h"

/* Copies a layer and all it points to into memory of its own. ST_NOMEM (logged). */
status fitted_layer_copy(const struct fitted_layer *from, struct fitted_layer *out);

#endif
