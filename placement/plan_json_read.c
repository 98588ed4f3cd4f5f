/* Reading a plan from JSON:
 *
 *   {"hearth_plan": 1,
 *    "model": {"architecture": "llama", "layers": 30, "d_ff": 1536,
 *              "neuron_unit": 32, "kv_heads": 3, "head_unit": 1,                     these five may be left out
 *              "file_bytes": 98, "file_hash": "0123456789abcdef"},
 *    "ranks": 2,
 *    "layers": [{"from": 0, "to": 15, "stage": 0, "heads": [0, 2, 3], "neurons": [0, 768, 1536]},
 *               {"from": 15, "to": 30, "stage": 1, "down": "stage",
 *                "neurons": [[[0, 700], [900, 910]], [[700, 900], [910, 1536]]]}],
 *    "rows": [0, 512, 1000],
 *    "residual": "home"}
 *
 * "layers" lists runs of equal layers, [from, to), in ascending order without a gap. "neurons" are the boundaries, or
 * for each rank its ranges [begin, end), ascending. "heads" are boundaries too; left out, all are on the stage. "down"
 * is "owners" unless it is "stage", "residual" is "home" unless it is "all". "rows" may be left out.
 * Unknown and repeated fields are refused: a misspelt one would otherwise be ignored. */
#include "placement/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/fields.h"
#include "placement/ranges.h"

enum { PLAN_MAX_BYTES = 64 << 20 };

#define LARGEST INT64_C(0x7fffffffffff) /* of sizes and counts: far above any real one, far below overflow */

static status get_architecture(const struct place *at, const json_t *model, char *out, size_t n)
{
    const json_t *v = json_object_get(model, "architecture");
    const char *text = json_string_value(v);
    if (!text)
        return field_refuse(at->where, "%sarchitecture is %s, expected a string", at->prefix, field_type_name(v));
    size_t length = strlen(text);
    size_t plain = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (length == 0 || length >= n || plain != length)
        return field_refuse(at->where, "%sarchitecture is '%.64s', expected 1 to %zu letters, digits, '.', '_', '-'",
                            at->prefix, text, n - 1);
    memcpy(out, text, length + 1);
    return ST_OK;
}

static status get_hash(const struct place *at, const json_t *model, uint64_t *out)
{
    const json_t *v = json_object_get(model, "file_hash");
    if (!v)
        return ST_OK;
    const char *text = json_string_value(v);
    if (!text)
        return field_refuse(at->where, "%sfile_hash is %s, expected a string", at->prefix, field_type_name(v));
    size_t length = strlen(text);
    if (length < 1 || length > 16 || strspn(text, "0123456789abcdefABCDEF") != length)
        return field_refuse(at->where, "%sfile_hash is '%.64s', expected 1 to 16 hexadecimal digits", at->prefix, text);
    *out = strtoull(text, NULL, 16);
    return ST_OK;
}

static status parse_model(const char *where, json_t *v, struct plan_model *out)
{
    static const char *const keys[] = {"architecture", "layers",     "d_ff",      "neuron_unit",
                                       "kv_heads",     "head_unit",  "file_bytes", "file_hash", NULL};
    struct place at = {where, "model."};
    int64_t n_layers = 0, file_bytes = 0;
    status st;
    if (!json_is_object(v))
        return field_refuse(where, "model is %s, expected an object", field_type_name(v));
    if ((st = field_check_keys(&at, v, keys)) != ST_OK ||
        (st = get_architecture(&at, v, out->architecture, sizeof out->architecture)) != ST_OK ||
        (st = field_get_int(&at, v, "layers", 1, PLAN_MAX_LAYERS, &n_layers)) != ST_OK ||
        (st = field_get_int(&at, v, "d_ff", 1, INT32_MAX, &out->d_ff)) != ST_OK ||
        (st = field_get_optional_int(&at, v, "neuron_unit", 1, LARGEST, &out->neuron_unit)) != ST_OK ||
        (st = field_get_optional_int(&at, v, "kv_heads", 1, INT32_MAX, &out->n_kv_heads)) != ST_OK ||
        (st = field_get_optional_int(&at, v, "head_unit", 1, INT32_MAX, &out->head_unit)) != ST_OK ||
        (st = field_get_optional_int(&at, v, "file_bytes", 1, INT64_MAX, &file_bytes)) != ST_OK ||
        (st = get_hash(&at, v, &out->file_hash)) != ST_OK)
        return st;
    out->n_layers = (int)n_layers;
    out->file_bytes = (uint64_t)file_bytes;
    return ST_OK;
}

/* Boundaries: one more than ranks, ascending from 0; the last in [least, most], all others on multiples of the unit or
 * equal to it. */
static status get_bounds(const struct place *at, const char *key, const json_t *v, const struct plan *p, int64_t unit,
                         int64_t least, int64_t most, int64_t bound[PLAN_MAX_RANKS + 1])
{
    const size_t n = (size_t)p->n_ranks + 1;
    int64_t low = 0;
    char name[32];
    if (!json_is_array(v))
        return field_refuse(at->where, "%s%s is %s, expected an array of boundaries", at->prefix, key,
                            field_type_name(v));
    if (json_array_size(v) != n)
        return field_refuse(at->where, "%s%s has %zu boundaries, expected %zu (one more than ranks)", at->prefix, key,
                            json_array_size(v), n);
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%s[%zu]", key, i);
        status st = field_check_int(at, name, json_array_get(v, i), i == n - 1 && low < least ? least : low,
                                   i == 0 ? 0 : most, &bound[i]);
        if (st != ST_OK)
            return st;
        low = bound[i];
    }
    for (size_t i = 0; i < n && unit; i++) {
        if (bound[i] % unit != 0 && bound[i] != low)
            return field_refuse(at->where, "%s%s[%zu] is %" PRId64 ", expected a multiple of %" PRId64, at->prefix, key,
                                i, bound[i], unit);
    }
    return ST_OK;
}

static status parse_cut(const struct place *at, const json_t *v, struct plan *p, struct plan_layer *layer)
{
    const int64_t d_ff = p->model.d_ff;
    int64_t bound[PLAN_MAX_RANKS + 1];
    status st = get_bounds(at, "neurons", v, p, p->model.neuron_unit, d_ff, d_ff, bound);
    return st != ST_OK ? st : ranges_cut(p, bound, layer->first);
}

/* The optional boundaries of KV heads; the first to be read say how many there are if the model does not. */
static status parse_heads(const struct place *at, const json_t *v, struct plan *p, struct plan_layer *layer)
{
    struct plan_model *m = &p->model;
    int64_t bound[PLAN_MAX_RANKS + 1];
    if (!v)
        return ST_OK;
    status st = get_bounds(at, "heads", v, p, m->head_unit, m->n_kv_heads ? m->n_kv_heads : 1,
                           m->n_kv_heads ? m->n_kv_heads : INT32_MAX, bound);
    if (st != ST_OK)
        return st;
    layer->heads_cut = true;
    for (int r = 0; r <= p->n_ranks; r++)
        layer->heads[r] = (int32_t)bound[r];
    m->n_kv_heads = bound[p->n_ranks];
    return ST_OK;
}

/* The ranges of one rank: none empty, ascending. */
static status parse_set(const struct place *at, int rank, const json_t *v, struct plan *p)
{
    const size_t start = p->n_ranges;
    int64_t begin = 0, end = 0;
    if (!json_is_array(v))
        return field_refuse(at->where, "%sneurons[%d] is %s, expected an array of ranges", at->prefix, rank,
                            field_type_name(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *range = json_array_get(v, i);
        char name[48];
        if (!json_is_array(range) || json_array_size(range) != 2)
            return field_refuse(at->where, "%sneurons[%d][%zu] is no range, expected [begin, end]", at->prefix, rank,
                                i);
        snprintf(name, sizeof name, "neurons[%d][%zu][0]", rank, i);
        status st = field_check_int(at, name, json_array_get(range, 0), end, p->model.d_ff - 1, &begin);
        if (st != ST_OK)
            return st;
        snprintf(name, sizeof name, "neurons[%d][%zu][1]", rank, i);
        if ((st = field_check_int(at, name, json_array_get(range, 1), begin + 1, p->model.d_ff, &end)) != ST_OK ||
            (st = ranges_add(p, start, begin, end)) != ST_OK)
            return st;
    }
    return ST_OK;
}

/* Whether the ranks' ranges, merged, are all neurons, each once. */
static status check_sets(const struct place *at, const struct plan *p, const struct plan_layer *layer)
{
    size_t next[PLAN_MAX_RANKS];
    memcpy(next, layer->first, sizeof next);
    for (int64_t done = 0; done < p->model.d_ff;) {
        int lowest = -1;
        for (int r = 0; r < p->n_ranks; r++) {
            if (next[r] < layer->first[r + 1] &&
                (lowest < 0 || p->ranges[next[r]].begin < p->ranges[next[lowest]].begin))
                lowest = r;
        }
        int64_t begin = lowest < 0 ? p->model.d_ff : p->ranges[next[lowest]].begin;
        if (begin != done)
            return field_refuse(at->where, "%sneurons: neuron %" PRId64 " %s", at->prefix, begin < done ? begin : done,
                                begin < done ? "is listed twice" : "is not listed");
        done = p->ranges[next[lowest]++].end;
    }
    for (int r = 0; r < p->n_ranks; r++) {
        if (next[r] < layer->first[r + 1])
            return field_refuse(at->where, "%sneurons: neuron %d is listed twice", at->prefix,
                                p->ranges[next[r]].begin);
    }
    return ST_OK;
}

static status parse_sets(const struct place *at, const json_t *v, struct plan *p, struct plan_layer *layer)
{
    layer->sets = true;
    if (json_array_size(v) != (size_t)p->n_ranks)
        return field_refuse(at->where, "%sneurons has %zu lists of ranges, expected %d (one for each rank)", at->prefix,
                            json_array_size(v), p->n_ranks);
    for (int r = 0; r < p->n_ranks; r++) {
        layer->first[r] = p->n_ranges;
        status st = parse_set(at, r, json_array_get(v, (size_t)r), p);
        if (st != ST_OK)
            return st;
    }
    layer->first[p->n_ranks] = p->n_ranges;
    return check_sets(at, p, layer);
}

static status parse_neurons(const struct place *at, const json_t *v, struct plan *p, struct plan_layer *layer)
{
    if (!json_is_array(v))
        return field_refuse(at->where, "%sneurons is %s, expected an array", at->prefix, field_type_name(v));
    return (json_is_array(json_array_get(v, 0)) ? parse_sets : parse_cut)(at, v, p, layer);
}

/* A field that is one of two words, the first of them unless it is there. */
static status parse_choice(const struct place *at, const char *key, const json_t *v, const char *first,
                           const char *second, bool *is_second)
{
    const char *text = json_string_value(v);
    if (!v)
        return ST_OK;
    if (!text || (strcmp(text, first) != 0 && strcmp(text, second) != 0))
        return field_refuse(at->where, "%s%s is %s%.64s, expected \"%s\" or \"%s\"", at->prefix, key,
                            text ? "" : field_type_name(v), text ? text : "", first, second);
    *is_second = strcmp(text, second) == 0;
    return ST_OK;
}

/* The optional row boundaries of the output matrix. */
static status parse_rows(const struct place *at, const json_t *v, struct plan *p)
{
    if (!v)
        return ST_OK;
    status st = get_bounds(at, "rows", v, p, 0, 1, LARGEST, p->rows);
    if (st != ST_OK)
        return st;
    p->rows_cut = true;
    p->model.n_vocab = p->rows[p->n_ranks];
    return ST_OK;
}

static status parse_residual(const struct place *at, const json_t *v, struct plan *p)
{
    status st = parse_choice(at, "residual", v, "home", "all", &p->residual_all);
    const char *obstacle = st == ST_OK && p->residual_all ? plan_residual_obstacle(p) : NULL;
    return obstacle ? field_refuse(at->where, "residual is \"all\", which cannot be with %s", obstacle) : st;
}

/* What has been read of "layers" so far. */
struct progress {
    int64_t next_layer;
    int stage;          /* of the layer before, -1: none */
    uint64_t stages;    /* ranks that have had a stage */
};

_Static_assert(PLAN_MAX_RANKS <= 64, "progress.stages is a bit mask of ranks");

static status parse_run(const struct place *at, json_t *v, struct plan *p, struct progress *done)
{
    static const char *const keys[] = {"from", "to", "stage", "down", "heads", "neurons", NULL};
    int64_t from = 0, to = 0, stage = 0;
    struct plan_layer layer = {0};
    status st;
    if (!json_is_object(v))
        return field_refuse(at->where, "%.*s is %s, expected an object", (int)strlen(at->prefix) - 1, at->prefix,
                            field_type_name(v));
    if ((st = field_check_keys(at, v, keys)) != ST_OK ||
        (st = field_get_int(at, v, "from", done->next_layer, done->next_layer, &from)) != ST_OK ||
        (st = field_get_int(at, v, "to", from + 1, p->model.n_layers, &to)) != ST_OK ||
        (st = field_get_int(at, v, "stage", 0, p->n_ranks - 1, &stage)) != ST_OK ||
        (st = parse_choice(at, "down", json_object_get(v, "down"), "owners", "stage", &layer.down_at_stage)) != ST_OK ||
        (st = parse_heads(at, json_object_get(v, "heads"), p, &layer)) != ST_OK ||
        (st = parse_neurons(at, json_object_get(v, "neurons"), p, &layer)) != ST_OK)
        return st;
    if (stage != done->stage && done->stages >> stage & 1)
        return field_refuse(at->where, "%sstage is %" PRId64 " again, expected each rank's layers to be contiguous",
                            at->prefix, stage);
    layer.stage = (int)stage;
    for (int64_t l = from; l < to; l++)
        p->layers[l] = layer;
    *done = (struct progress){to, layer.stage, done->stages | UINT64_C(1) << stage};
    return ST_OK;
}

static status parse_layers(const char *where, const json_t *v, struct plan *p)
{
    struct progress done = {.stage = -1};
    if (!json_is_array(v))
        return field_refuse(where, "layers is %s, expected an array", field_type_name(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        struct place at = {.where = where};
        snprintf(at.prefix, sizeof at.prefix, "layers[%zu].", i);
        if (done.next_layer == p->model.n_layers)
            return field_refuse(where, "layers[%zu] is one too many, all %d layers have been named", i,
                                p->model.n_layers);
        status st = parse_run(&at, json_array_get(v, i), p, &done);
        if (st != ST_OK)
            return st;
    }
    if (done.next_layer != p->model.n_layers)
        return field_refuse(where, "layers ends at layer %" PRId64 ", expected all %d", done.next_layer,
                            p->model.n_layers);
    return ST_OK;
}

static status parse_plan(const char *where, json_t *root, struct plan *p)
{
    static const char *const keys[] = {"hearth_plan", "model", "ranks", "layers", "rows", "residual", NULL};
    struct place at = {where, ""};
    int64_t version, n_ranks = 0;
    status st;
    if (!json_is_object(root))
        return field_refuse(where, "a plan is an object, found %s", field_type_name(root));
    if ((st = field_get_int(&at, root, "hearth_plan", PLAN_VERSION, PLAN_VERSION, &version)) != ST_OK ||
        (st = field_check_keys(&at, root, keys)) != ST_OK ||
        (st = parse_model(where, json_object_get(root, "model"), &p->model)) != ST_OK ||
        (st = field_get_int(&at, root, "ranks", 1, PLAN_MAX_RANKS, &n_ranks)) != ST_OK)
        return st;
    p->n_ranks = (int)n_ranks;
    p->layers = calloc((size_t)p->model.n_layers, sizeof *p->layers);
    if (!p->layers) {
        log_error("%s: no memory for %d layers", where, p->model.n_layers);
        return ST_NOMEM;
    }
    if ((st = parse_layers(where, json_object_get(root, "layers"), p)) != ST_OK ||
        (st = parse_rows(&at, json_object_get(root, "rows"), p)) != ST_OK)
        return st;
    return parse_residual(&at, json_object_get(root, "residual"), p);
}

status plan_parse(const char *text, size_t n, const char *where, struct plan **out)
{
    json_t *root;
    status st = field_parse(text, n, where, "the plan", &root);
    if (st != ST_OK)
        return st;
    st = ST_NOMEM;
    struct plan *p = calloc(1, sizeof *p);
    if (p)
        st = parse_plan(where, root, p);
    else
        log_error("%s: no memory to read the plan", where);
    json_decref(root);
    if (st != ST_OK) {
        plan_free(p);
        return st;
    }
    *out = p;
    return ST_OK;
}

status plan_load(const char *path, struct plan **out)
{
    char *text;
    size_t n;
    status st = field_load(path, "the plan", PLAN_MAX_BYTES, &text, &n);
    if (st != ST_OK)
        return st;
    st = plan_parse(text, n, path, out);
    free(text);
    return st;
}
