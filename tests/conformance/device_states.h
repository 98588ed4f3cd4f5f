/* x on its ways from a device and back: through memory of the host's, pinned or not, and through its own. */
#ifndef HEARTH_TESTS_DEVICE_STATES_H
#define HEARTH_TESTS_DEVICE_STATES_H

#include "device/device.h"

enum { STATES_PASSING = 2 }; /* what the device is opened with */

/* Whether x [b->n_tokens, d_model], as the device has it now, is the same bits after each of them, and is refused where
 * it is no number. `pinned` is as long as x, and was pinned if the device pins. What does not hold is printed. */
bool states_pass(struct device *d, const struct batch *b, int64_t d_model, const float *x, float *pinned);

#endif
