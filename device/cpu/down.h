#ifndef HEARTH_DEVICE_CPU_DOWN_H
#define HEARTH_DEVICE_CPU_DOWN_H

#include "device/cpu/shares.h"

/* What sums become: the parts of neurons alone, or added to what they were. */
enum down_sums { DOWN_BEGINS, DOWN_ADDS };

/* Where parts wait to be added: a place for every thread, NULL: no layer adds any. */
struct down_room {
    double *place; /* [n_threads, a few tokens, d] */
};

void down_room_lay(struct cpu *c, struct down_room *r);
/* sum[n, d] = the parts of shares (down, n, token, h). */
void down_project(struct cpu *c, const struct down_room *r, const struct share *shares, int n_shares, uint32_t n,
                  enum down_sums sums, double *sum);

#endif
