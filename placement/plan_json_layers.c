/* The layers of a plan: runs of equal ones. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "placement/plan_json.h"

/* What has been read of "layers" so far. */
struct progress {
    int64_t next_layer;
    int stage;          /* of the layer before, -1: none */
    uint64_t stages;    /* ranks that have had a stage */
};

_Static_assert(PLAN_MAX_RANKS <= 64, "progress.stages is a bit mask of ranks");

status plan_read_shape(const struct place *at, const json_t *object, struct plan_shape *out)
{
    status st;
    if ((st = field_get_int(at, object, "d_ff", 1, INT32_MAX, &out->d_ff)) != ST_OK ||
        (st = field_get_optional_int(at, object, "neuron_unit", 1, PLAN_LARGEST, &out->neuron_unit)) != ST_OK ||
        (st = field_get_optional_int(at, object, "kv_heads", 1, INT32_MAX, &out->n_kv_heads)) != ST_OK ||
        (st = field_get_optional_int(at, object, "head_unit", 1, INT32_MAX, &out->head_unit)) != ST_OK ||
        (st = field_get_optional_int(at, object, "experts", 0, INT32_MAX, &out->n_experts)) != ST_OK ||
        (st = field_get_optional_int(at, object, "experts_used", 0, out->n_experts, &out->n_experts_used)) != ST_OK ||
        (st = field_get_optional_int(at, object, "d_shared", 0, out->n_experts ? INT32_MAX : 0,
                                     &out->d_shared)) != ST_OK)
        return st;
    if (plan_shape_neurons(out) > INT32_MAX)
        return field_refuse(at->where, "%sexperts is %" PRId64 ", of %" PRId64 " neurons each and %" PRId64
                            " besides, expected %d neurons at most together", at->prefix, out->n_experts, out->d_ff,
                            out->d_shared, INT32_MAX);
    return ST_OK;
}

/* The optional boundaries of KV heads, which say how many there are if the shape does not: in version 1 the first of
 * them, for all layers. */
static status read_heads(struct plan_reader *r, const struct place *at, const json_t *v, struct plan_layer *layer)
{
    struct plan_shape *shape = r->version == 1 ? &r->shape : &layer->shape;
    const int64_t n = shape->n_kv_heads;
    int64_t bound[PLAN_MAX_HOLDERS + 1];
    if (!v)
        return ST_OK;
    status st = plan_read_bounds(r, at, "heads", v, shape->head_unit, n ? n : 1, n ? n : INT32_MAX, bound);
    if (st != ST_OK)
        return st;
    layer->heads_cut = true;
    for (int h = 0; h <= r->p->n_holders; h++)
        layer->heads[h] = (int32_t)bound[h];
    shape->n_kv_heads = bound[r->p->n_holders];
    return ST_OK;
}

/* What the two versions say otherwise: whose the neurons are, and in version 2 the layer's shape. */
static status read_blocks(struct plan_reader *r, const struct place *at, const json_t *v, struct plan_layer *layer)
{
    status st = ST_OK;
    layer->shape = r->shape;
    if (r->version > 1)
        st = plan_read_shape(at, v, &layer->shape);
    if (st == ST_OK && r->version > 1)
        st = plan_read_choice(at, "units", json_object_get(v, "units"), "whole", "split", &layer->splits_units);
    if (st == ST_OK)
        st = read_heads(r, at, json_object_get(v, "heads"), layer);
    if (st != ST_OK)
        return st;
    return r->version > 1 ? plan_read_sets(r, at, json_object_get(v, "sets"), layer)
                          : plan_read_neurons(r, at, json_object_get(v, "neurons"), layer);
}

static status check_keys(const struct plan_reader *r, const struct place *at, json_t *v)
{
    static const char *const old[] = {"from", "to", "stage", "down", "heads", "neurons", NULL};
    static const char *const keys[] = {"from", "to", "stage", "down", "d_ff", "neuron_unit", "kv_heads", "head_unit",
                                       "experts", "experts_used", "d_shared", "units", "heads", "sets", NULL};
    return field_check_keys(at, v, r->version == 1 ? old : keys);
}

static status read_run(struct plan_reader *r, const struct place *at, json_t *v, struct progress *done)
{
    int64_t from = 0, to = 0, stage = 0;
    struct plan_layer layer = {0};
    status st;
    if (!json_is_object(v))
        return field_refuse(at->where, "%.*s is %s, expected an object", (int)strlen(at->prefix) - 1, at->prefix,
                            field_type_name(v));
    if ((st = check_keys(r, at, v)) != ST_OK ||
        (st = field_get_int(at, v, "from", done->next_layer, done->next_layer, &from)) != ST_OK ||
        (st = field_get_int(at, v, "to", from + 1, r->p->model.n_layers, &to)) != ST_OK ||
        (st = field_get_int(at, v, "stage", 0, r->p->n_ranks - 1, &stage)) != ST_OK ||
        (st = plan_read_choice(at, "down", json_object_get(v, "down"), "owners", "stage", &layer.down_at_stage)) !=
            ST_OK ||
        (st = read_blocks(r, at, v, &layer)) != ST_OK)
        return st;
    if (stage != done->stage && done->stages >> stage & 1)
        return field_refuse(at->where, "%sstage is %" PRId64 " again, expected each rank's layers to be contiguous",
                            at->prefix, stage);
    layer.stage = (int)stage;
    for (int64_t l = from; l < to; l++)
        r->p->layers[l] = layer;
    *done = (struct progress){to, layer.stage, done->stages | UINT64_C(1) << stage};
    return ST_OK;
}

status plan_read_layers(struct plan_reader *r, const json_t *v)
{
    const int n_layers = r->p->model.n_layers;
    struct progress done = {.stage = -1};
    if (!json_is_array(v))
        return field_refuse(r->where, "layers is %s, expected an array", field_type_name(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        struct place at = {.where = r->where};
        snprintf(at.prefix, sizeof at.prefix, "layers[%zu].", i);
        if (done.next_layer == n_layers)
            return field_refuse(r->where, "layers[%zu] is one too many, all %d layers have been named", i, n_layers);
        status st = read_run(r, &at, json_array_get(v, i), &done);
        if (st != ST_OK)
            return st;
    }
    if (done.next_layer != n_layers)
        return field_refuse(r->where, "layers ends at layer %" PRId64 ", expected all %d", done.next_layer, n_layers);
    for (int l = 0; l < n_layers && r->version == 1; l++)
        r->p->layers[l].shape = r->shape; /* the number of heads may have been found late */
    return ST_OK;
}
