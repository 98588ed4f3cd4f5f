/* What keys say of how layers differ; for model/ alone. */
#ifndef HEARTH_MODEL_LAYERS_H
#define HEARTH_MODEL_LAYERS_H

#include "model/hparams.h"
#include "model/keys.h"

/* Reads the window, which hp has a default of (0: without the key no layer slides), and which layers slide: as an array
 * of the file says; or of each `pattern` layers (another number may be in the file) all but the last. ST_FORMAT
 * (logged). */
status layers_slide(const struct keys *k, struct hparams *hp, int64_t pattern);
/* Layers that slide turn by hp.rope[1], which is made of this, with the base that the file has for them. ST_FORMAT. */
status layers_turn(const struct keys *k, struct hparams *hp, struct rope own);
/* Reads which layers are delta nets: as an array of the file says, or of each `full_attention_interval` layers (4) all
 * but the last; and their sizes. ST_FORMAT, ST_UNSUPPORTED (logged). */
status layers_delta(const struct keys *k, struct hparams *hp);

#endif
