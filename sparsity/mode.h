/* Which neurons are computed. */
#ifndef HEARTH_SPARSITY_MODE_H
#define HEARTH_SPARSITY_MODE_H

#include <stdbool.h>
#include "base/activation.h"
#include "base/status.h"
#include "model/model.h"
#include "sparsity/neurons.h"

enum sparse_mode {
    SPARSE_DENSE,     /* all */
    SPARSE_EXACT,     /* those whose gate says that they fire: changes no bit; not for SiLU */
    SPARSE_THRESHOLD, /* SiLU: those whose activation is estimated to be large; lossy */
    SPARSE_PREDICTED  /* those that a predictor flags, of them those that fire; lossy; not for SiLU */
};

enum predictor {
    PREDICTOR_AUTO,   /* the MLP if the neuron file (or a PowerInfer model) has one, else the top bits */
    PREDICTOR_MLP,
    PREDICTOR_PLANES  /* the top bits of the deciding projection's own codes */
};

const char *sparse_mode_name(enum sparse_mode m);  /* "dense", "exact", "threshold", "predicted" */
bool sparse_mode_of(const char *name, enum sparse_mode *out);
const char *predictor_name(enum predictor p);      /* "auto", "mlp", "planes" */
bool predictor_of(const char *name, enum predictor *out);

/* Which activation holds: the one that `option` names, else the neuron file's, else the model's. option and n may be
 * NULL. ST_USAGE (logged): no activation of that name, one that needs a gate where the model has none, or nobody says.
 * ST_FORMAT (logged): the file's is one that only models bring along, and not this model's. */
status activation_settle(const struct model *m, const struct neurons *n, const char *option, enum activation *out);

/* Checks that a model can run in a mode: its activation (m->hp.activation, settled), weight types, and what the neuron
 * file (NULL: there is none) holds. Settles PREDICTOR_AUTO. ST_USAGE, one logged line that names the modes that it can
 * run in and how to make what is missing. */
status sparse_mode_check(const struct model *m, const struct neurons *n, enum sparse_mode mode,
                         enum predictor *predictor);

/* The modes that it can run in as text: "dense, exact, predicted (after `hearth prepare`)". */
enum { SPARSE_MODES_TEXT = 128 };
void sparse_modes_text(const struct model *m, const struct neurons *n, char text[SPARSE_MODES_TEXT]);

/* Whether every layer of a PowerInfer model has a predictor of its own. */
bool model_has_mlp(const struct model *m);
/* Whose MLPs predict, in all layers alike: the neuron file's if it has one for every layer and was made for the
 * activation that holds, else (false) the model's own. */
bool neurons_mlp_holds(const struct model *m, const struct neurons *n);

#endif
