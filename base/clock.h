/* Time. Thread-safe. */
#ifndef HEARTH_BASE_CLOCK_H
#define HEARTH_BASE_CLOCK_H

/* Monotonic seconds since an arbitrary point. */
double clock_s(void);

#endif
