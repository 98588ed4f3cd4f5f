#ifndef HEARTH_DEVICE_NUMBERS_H
#define HEARTH_DEVICE_NUMBERS_H

#include "device/device.h"

/* Whether x[0 .. n) has neither NaN nor infinities. */
bool all_numbers(const float *x, int64_t n);
/* ST_NAN, logged: x [w->n, n], which `what` made ("attention"), has one of them. */
status not_numbers(const struct model *m, const struct work *w, const char *what, const float *x, int64_t n);
/* The same of value i of x, whatever it is: `is` says it ("nan"). */
status not_number(const struct model *m, const struct work *w, const char *what, int64_t i, int64_t n, const char *is);

#endif
