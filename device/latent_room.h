/* Where latent attention (struct latent in model/model.h) computes, before and after attention itself. */
#ifndef HEARTH_DEVICE_LATENT_ROOM_H
#define HEARTH_DEVICE_LATENT_ROOM_H

#include "device/lay.h"

/* Buffers of n tokens and the own query heads of a layer. */
struct latent_room {
    struct acts low;                 /* [n, q_rank] what queries come through */
    float *query;                    /* [n, heads * head_dim] */
    float *kept;                     /* [n, rank + n_rot] c and the turned key */
    struct acts plain;               /* [heads, n, head_dim - n_rot] what is not turned of queries */
    struct acts mixed;               /* [heads, n, rank] what attention gives */
};

static inline void latent_room_lay(struct arena *a, const struct hparams *hp, int64_t n, int64_t heads,
                                   struct latent_room *r)
{
    lay_acts(a, &r->low, n, hp->latent.q_rank);
    r->query = lay_floats(a, n * heads * hp->head_dim);
    r->kept = lay_floats(a, n * (hp->latent.rank + hp->n_rot));
    lay_acts(a, &r->plain, n * heads, hp->head_dim - hp->n_rot);
    lay_acts(a, &r->mixed, n * heads, hp->latent.rank);
}

#endif
