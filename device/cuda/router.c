#include "device/cuda/router.h"

#include "kernels/cuda/products.h"

struct gpu_router cuda_router_of(const struct cuda *c, int layer)
{
    static const enum gpu_router_score scores[] = {[ROUTER_SOFTMAX] = GPU_ROUTER_SOFTMAX,
                                                   [ROUTER_SIGMOID] = GPU_ROUTER_SIGMOID,
                                                   [ROUTER_CHOSEN] = GPU_ROUTER_CHOSEN};
    const struct hparams *hp = c->hp;
    return (struct gpu_router){.score = scores[hp->router.score], .normed = hp->router.normed,
                               .weighs_shared = c->o.model->layers[layer].shared_router.data != NULL,
                               .scale = hp->router.scale, .n_experts = (int)hp->n_experts,
                               .used = (int)hp->n_experts_used, .n_weights = (int)model_route_weights(hp),
                               .n_groups = (int)hp->router.n_groups, .groups_used = (int)hp->router.n_groups_used};
}

int64_t cuda_router_logits(const struct cuda *c, int layer)
{
    return c->hp->n_experts + (c->o.model->layers[layer].shared_router.data != NULL);
}

/* ---- memory ---- */

float *cuda_logits_lay(struct cuda *c)
{
    return c->hp->n_experts ? lay_floats(&c->arena, c->o.n_batch * (c->hp->n_experts + 1)) : NULL;
}

void cuda_routes_lay(struct cuda *c, struct gpu_routes *r)
{
    if (!c->hp->n_experts)
        return;
    r->expert = lay_words(&c->arena, c->o.n_batch * c->hp->n_experts_used);
    r->weight = lay_floats(&c->arena, c->o.n_batch * model_route_weights(c->hp));
}

/* ---- a step ---- */

void cuda_route(const struct cuda *c, float *logits, const struct router_weights *r, int layer, const float *x,
                int64_t n, uint32_t order, const struct gpu_routes *out)
{
    const struct acts read = {.cols = c->hp->d_model, .f32 = (float *)x}; /* only read */
    const int64_t stride = cuda_router_logits(c, layer);
    const struct gpu_product p[] = {{.m = r->rows, .y = logits, .y_stride = stride, .bias = r->bias},
                                    {.m = r->shared, .y = logits + c->hp->n_experts, .y_stride = stride}};
    const struct gpu_fault of_logits = {&c->notes->fault, order}, of_scores = {&c->notes->fault, order + 1};
    struct gpu_router router = cuda_router_of(c, layer);
    router.choice_bias = r->choice_bias;
    gpu_matmul(&c->gpu, p, router.weighs_shared ? 2 : 1, &read, n);
    gpu_choose(&c->gpu, &router, logits, n, out, of_logits, of_scores);
}
