/* Reading a plan from JSON; the format: plan_json.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/plan_json.h"

enum { PLAN_MAX_BYTES = 64 << 20 };

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

static status read_model(struct plan_reader *r, json_t *v)
{
    static const char *const old[] = {"architecture", "layers",    "d_ff",       "neuron_unit",
                                      "kv_heads",     "head_unit", "file_bytes", "file_hash", NULL};
    static const char *const keys[] = {"architecture", "layers", "file_bytes", "file_hash", NULL};
    struct plan_model *out = &r->p->model;
    struct place at = {r->where, "model."};
    int64_t n_layers = 0, file_bytes = 0;
    status st;
    if (!json_is_object(v))
        return field_refuse(r->where, "model is %s, expected an object", field_type_name(v));
    if ((st = field_check_keys(&at, v, r->version == 1 ? old : keys)) != ST_OK ||
        (st = get_architecture(&at, v, out->architecture, sizeof out->architecture)) != ST_OK ||
        (st = field_get_int(&at, v, "layers", 1, PLAN_MAX_LAYERS, &n_layers)) != ST_OK ||
        (r->version == 1 && (st = plan_read_shape(&at, v, &r->shape)) != ST_OK) ||
        (st = field_get_optional_int(&at, v, "file_bytes", 1, INT64_MAX, &file_bytes)) != ST_OK ||
        (st = get_hash(&at, v, &out->file_hash)) != ST_OK)
        return st;
    out->n_layers = (int)n_layers;
    out->file_bytes = (uint64_t)file_bytes;
    return ST_OK;
}

/* The optional row boundaries of the output matrix. */
static status read_rows(const struct plan_reader *r, const struct place *at, const json_t *v)
{
    struct plan *p = r->p;
    if (!v)
        return ST_OK;
    status st = plan_read_bounds(r, at, "rows", v, 0, 1, PLAN_LARGEST, p->rows);
    if (st != ST_OK)
        return st;
    p->rows_cut = true;
    p->model.n_vocab = p->rows[p->n_holders];
    return ST_OK;
}

static status read_residual(const struct place *at, const json_t *v, struct plan *p)
{
    status st = plan_read_choice(at, "residual", v, "home", "all", &p->residual_all);
    const char *obstacle = st == ST_OK && p->residual_all ? plan_residual_obstacle(p) : NULL;
    return obstacle ? field_refuse(at->where, "residual is \"all\", which cannot be with %s", obstacle) : st;
}

static status read_header(struct plan_reader *r, const struct place *at, json_t *root)
{
    static const char *const old[] = {"hearth_plan", "model", "ranks", "layers", "rows", "residual", NULL};
    static const char *const keys[] = {"hearth_plan", "model", "ranks", "holders", "stages", "layers", "rows",
                                       "residual", NULL};
    int64_t version = 0, n_ranks = 0;
    status st = field_get_int(at, root, "hearth_plan", 1, PLAN_VERSION, &version);
    r->version = (int)version;
    if (st != ST_OK || (st = field_check_keys(at, root, version == 1 ? old : keys)) != ST_OK ||
        (st = read_model(r, json_object_get(root, "model"))) != ST_OK ||
        (st = field_get_int(at, root, "ranks", 1, PLAN_MAX_RANKS, &n_ranks)) != ST_OK)
        return st;
    r->p->n_ranks = (int)n_ranks;
    st = plan_read_holders(r, json_object_get(root, "holders"));
    return st == ST_OK ? plan_read_stages(r, json_object_get(root, "stages")) : st;
}

static status read_plan(struct plan_reader *r, json_t *root)
{
    const struct place at = {r->where, ""};
    struct plan *p = r->p;
    if (!json_is_object(root))
        return field_refuse(r->where, "a plan is an object, found %s", field_type_name(root));
    status st = read_header(r, &at, root);
    if (st != ST_OK)
        return st;
    p->layers = calloc((size_t)p->model.n_layers, sizeof *p->layers);
    if (!p->layers) {
        log_error("%s: no memory for %d layers", r->where, p->model.n_layers);
        return ST_NOMEM;
    }
    if ((st = plan_read_layers(r, json_object_get(root, "layers"))) != ST_OK ||
        (st = read_rows(r, &at, json_object_get(root, "rows"))) != ST_OK)
        return st;
    return read_residual(&at, json_object_get(root, "residual"), p);
}

status plan_parse(const char *text, size_t n, const char *where, struct plan **out)
{
    json_t *root;
    status st = field_parse(text, n, where, "the plan", &root);
    if (st != ST_OK)
        return st;
    struct plan_reader r = {.where = where, .p = calloc(1, sizeof *r.p)};
    st = ST_NOMEM;
    if (r.p)
        st = read_plan(&r, root);
    else
        log_error("%s: no memory to read the plan", where);
    json_decref(root);
    if (st != ST_OK) {
        plan_free(r.p);
        return st;
    }
    *out = r.p;
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
