/* What goes before and after attention where a token's keys and values are one latent vector c (struct latent in
 * model/model.h): queries into the space of c, and what they mix of c back into values, head by head. */
#ifndef HEARTH_DEVICE_CPU_LATENT_H
#define HEARTH_DEVICE_CPU_LATENT_H

#include "device/cpu/cpu.h"
#include "device/cpu/kv.h"
#include "device/heads.h"
#include "device/latent_room.h"

/* A batch in a layer. */
struct latent_work {
    const struct cpu *c;
    struct latent_room *room;
    const struct heads *h;
    const struct kv *kv;
    const struct batch *batch;
    const struct acts *x;
    int64_t n, heads;                /* tokens; own query heads */
    const float *cos_sin;            /* [n, n_rot] */
    float *q;                        /* [n, heads * (rank + n_rot)] queries as attention compares them */
    float *values;                   /* [n, heads * value_dim] what the output projection reads */
};

/* Keeps c and the turned key of the tokens, and makes q. */
void latent_project(struct latent_work *w);
/* values, from room->mixed. */
void latent_read(struct latent_work *w);

#endif
