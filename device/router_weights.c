#include "device/router_weights.h"

void router_lay(struct arena *a, const struct model *m, int layer, struct router_weights *r)
{
    const struct layer_weights *f = &m->layers[layer];
    if (f->router.data)
        lay_matrix(a, &r->rows, &f->router, f->router.rows, f->router.cols);
    if (f->shared_router.data)
        lay_matrix(a, &r->shared, &f->shared_router, 1, f->shared_router.cols);
    r->bias = lay_vector(a, &f->router_bias);
    r->choice_bias = lay_vector(a, &f->choice_bias);
}

void router_load(struct loading *l, int layer, const struct router_weights *r)
{
    const struct layer_weights *f = &l->o->model->layers[layer];
    load_packed(l, &r->rows, &f->router, 0, 0, NULL);
    load_packed(l, &r->shared, &f->shared_router, 0, 0, NULL);
    load_vector(l, r->bias, &f->router_bias);
    load_vector(l, r->choice_bias, &f->choice_bias);
}
