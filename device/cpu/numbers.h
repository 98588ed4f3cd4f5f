#ifndef HEARTH_DEVICE_CPU_NUMBERS_H
#define HEARTH_DEVICE_CPU_NUMBERS_H

#include "device/cpu/cpu.h"

/* Whether x[0 .. n) has neither NaN nor infinities. */
bool all_numbers(const float *x, int64_t n);
/* ST_NAN, logged: x [w->n, n], which `what` made ("attention"), has one of them. */
status not_numbers(const struct cpu *c, const struct work *w, const char *what, const float *x, int64_t n);

#endif
