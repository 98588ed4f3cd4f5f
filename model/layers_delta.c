/* Which layers are gated delta nets, and of what size. */
#include <inttypes.h>

#include "model/layers.h"

static const char each_key[] = "attention.recurrent_layers";

static status read_kinds(const struct keys *k, struct hparams *hp)
{
    uint64_t n;
    int64_t interval = 4;
    status s = ST_OK;
    if (!array_length(k, each_key, &n)) {
        s = optional_int(k, "full_attention_interval", 1, MAX_LAYERS, &interval);
        for (int i = 0; i < hp->n_layers; i++)
            hp->layer[i].kind = (i + 1) % interval ? LAYER_DELTA : LAYER_ATTENTION;
        return s;
    }
    if (n < (uint64_t)hp->n_layers)
        return bad_key(k, ST_FORMAT, each_key, "expected %d truths, found %" PRIu64, hp->n_layers, n);
    for (int i = 0; i < hp->n_layers; i++) {
        bool recurrent;
        if (!array_truth(k, each_key, (uint64_t)i, &recurrent))
            return bad_key(k, ST_FORMAT, each_key, "expected truths, found other values");
        hp->layer[i].kind = recurrent ? LAYER_DELTA : LAYER_ATTENTION;
    }
    return s;
}

int model_n_nets(const struct hparams *hp)
{
    int n = 0;
    for (int i = 0; i < hp->n_layers; i++)
        n += hp->layer[i].kind == LAYER_DELTA;
    return n;
}

static status check_sizes(const struct keys *k, const struct delta_net *n, int64_t inner)
{
    if (n->value_heads % n->key_heads)
        return bad_key(k, ST_FORMAT, "ssm.time_step_rank", "expected a multiple of the %" PRId64 " key heads, found %"
                       PRId64, n->key_heads, n->value_heads);
    if (inner != n->value_heads * n->size)
        return bad_key(k, ST_FORMAT, "ssm.inner_size",
                       "expected %" PRId64 " heads of %" PRId64 " values, found %" PRId64, n->value_heads, n->size,
                       inner);
    if (n->size % 16)
        return bad_key(k, ST_UNSUPPORTED, "ssm.state_size", "expected a multiple of 16, found %" PRId64, n->size);
    return ST_OK;
}

status layers_delta(const struct keys *k, struct hparams *hp)
{
    struct delta_net *n = &hp->delta;
    int64_t inner = 0;
    status s = read_kinds(k, hp);
    if (s == ST_OK)
        s = required_int(k, "ssm.group_count", 1, MAX_HEADS, &n->key_heads);
    if (s == ST_OK)
        s = required_int(k, "ssm.time_step_rank", 1, MAX_HEADS, &n->value_heads);
    if (s == ST_OK)
        s = required_int(k, "ssm.state_size", 1, MAX_HEAD_DIM, &n->size);
    if (s == ST_OK)
        s = required_int(k, "ssm.conv_kernel", 2, MOST_TAPS, &n->taps);
    if (s == ST_OK)
        s = required_int(k, "ssm.inner_size", 1, MAX_D_MODEL, &inner);
    return s == ST_OK ? check_sizes(k, n, inner) : s;
}
