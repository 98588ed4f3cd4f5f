/* The end of a step, on logits in the host's memory: the same for every device. */
#ifndef HEARTH_DEVICE_LOGITS_H
#define HEARTH_DEVICE_LOGITS_H

#include "device/device.h"

/* device.h: check_logits, score; on the options' pool. */
status logits_check(const struct device_options *o, const struct work *w, const float *logits);
void logits_score(const struct device_options *o, uint32_t n, float *logits, const int32_t *next, float *scores);

#endif
