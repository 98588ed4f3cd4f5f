/* Time. Thread-safe. */
#ifndef HEARTH_BASE_CLOCK_H
#define HEARTH_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic seconds since an arbitrary point. */
double clock_s(void);
/* The same in whole nanoseconds. */
uint64_t clock_ns(void);

#endif
