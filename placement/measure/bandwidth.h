/* The memory bandwidth that decoding is measured against. */
#ifndef HEARTH_PLACEMENT_MEASURE_BANDWIDTH_H
#define HEARTH_PLACEMENT_MEASURE_BANDWIDTH_H

#include "base/status.h"

/* The fastest of several sequential reads of a huge-page buffer much larger than the caches, by `threads` threads:
 * GB/s (10^9 bytes). ST_NOMEM if there is no memory for the buffer. */
status bandwidth_read_peak(int threads, double *gb_per_s);

#endif
