/* A plan as JSON:
 *
 *   {"hearth_plan": 1,
 *    "model": {"architecture": "llama", "layers": 30, "d_ff": 1536,
 *              "neuron_unit": 32, "file_bytes": 98, "file_hash": "0123456789abcdef"},     these three may be left out
 *    "ranks": 2,
 *    "layers": [{"from": 0, "to": 15, "stage": 0, "neurons": [0, 768, 1536]}, ...]}
 *
 * "layers" lists runs of equal layers, [from, to), in ascending order without a gap; "neurons" are the boundaries.
 * Unknown and repeated fields are refused: a misspelt one would otherwise be ignored. */
#include "placement/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { PLAN_VERSION = 1, PLAN_MAX_BYTES = 64 << 20 };

#define LARGEST INT64_C(0x7fffffffffff) /* of sizes and counts: far above any real one, far below overflow */

/* Where in the text a value is: "layers[3].". */
struct place {
    const char *where; /* the text's name */
    char prefix[48];
};

/* Logs one line about the text, whose parts may hold anything: control characters become '?'. */
__attribute__((format(printf, 2, 3))) static status refuse(const char *where, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *c = line; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    }
    log_error("%s: %s", where, line);
    return ST_FORMAT;
}

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer", "a real number",
                                        "true",      "false",    "null"};
    int type = v ? (int)json_typeof(v) : -1;
    return type >= 0 && type < (int)(sizeof names / sizeof *names) ? names[type] : "missing";
}

static status check_int(const struct place *at, const char *name, const json_t *v, int64_t low, int64_t high,
                        int64_t *out)
{
    if (!json_is_integer(v))
        return refuse(at->where, "%s%s is %s, expected an integer", at->prefix, name, type_name(v));
    int64_t found = json_integer_value(v);
    if (found < low || found > high) {
        if (low == high)
            return refuse(at->where, "%s%s is %" PRId64 ", expected %" PRId64, at->prefix, name, found, low);
        return refuse(at->where, "%s%s is %" PRId64 ", expected %" PRId64 " to %" PRId64, at->prefix, name, found, low,
                      high);
    }
    *out = found;
    return ST_OK;
}

static status get_int(const struct place *at, const json_t *object, const char *key, int64_t low, int64_t high,
                      int64_t *out)
{
    return check_int(at, key, json_object_get(object, key), low, high, out);
}

/* The same for a field that may be left out: *out stays as it is. */
static status get_optional_int(const struct place *at, const json_t *object, const char *key, int64_t low, int64_t high,
                               int64_t *out)
{
    return json_object_get(object, key) ? get_int(at, object, key, low, high, out) : ST_OK;
}

/* `keys`: the known ones, NULL-terminated. */
static status check_keys(const struct place *at, json_t *object, const char *const *keys)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        const char *const *known = keys;
        while (*known && strcmp(*known, key) != 0)
            known++;
        if (!*known)
            return refuse(at->where, "%s%.64s is not a field of a plan", at->prefix, key);
    }
    return ST_OK;
}

static status get_architecture(const struct place *at, const json_t *model, char *out, size_t n)
{
    const json_t *v = json_object_get(model, "architecture");
    const char *text = json_string_value(v);
    if (!text)
        return refuse(at->where, "%sarchitecture is %s, expected a string", at->prefix, type_name(v));
    size_t length = strlen(text);
    size_t plain = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (length == 0 || length >= n || plain != length)
        return refuse(at->where, "%sarchitecture is '%.64s', expected 1 to %zu letters, digits, '.', '_', '-'",
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
        return refuse(at->where, "%sfile_hash is %s, expected a string", at->prefix, type_name(v));
    size_t length = strlen(text);
    if (length < 1 || length > 16 || strspn(text, "0123456789abcdefABCDEF") != length)
        return refuse(at->where, "%sfile_hash is '%.64s', expected 1 to 16 hexadecimal digits", at->prefix, text);
    *out = strtoull(text, NULL, 16);
    return ST_OK;
}

static status parse_model(const char *where, json_t *v, struct plan_model *out)
{
    static const char *const keys[] = {"architecture", "layers",     "d_ff", "neuron_unit",
                                       "file_bytes",   "file_hash", NULL};
    struct place at = {where, "model."};
    int64_t n_layers = 0, file_bytes = 0;
    status st;
    if (!json_is_object(v))
        return refuse(where, "model is %s, expected an object", type_name(v));
    if ((st = check_keys(&at, v, keys)) != ST_OK ||
        (st = get_architecture(&at, v, out->architecture, sizeof out->architecture)) != ST_OK ||
        (st = get_int(&at, v, "layers", 1, PLAN_MAX_LAYERS, &n_layers)) != ST_OK ||
        (st = get_int(&at, v, "d_ff", 1, LARGEST, &out->d_ff)) != ST_OK ||
        (st = get_optional_int(&at, v, "neuron_unit", 1, LARGEST, &out->neuron_unit)) != ST_OK ||
        (st = get_optional_int(&at, v, "file_bytes", 1, INT64_MAX, &file_bytes)) != ST_OK ||
        (st = get_hash(&at, v, &out->file_hash)) != ST_OK)
        return st;
    out->n_layers = (int)n_layers;
    out->file_bytes = (uint64_t)file_bytes;
    return ST_OK;
}

/* The boundaries of one run: ascending from 0 to d_ff on multiples of the unit. */
static status parse_neurons(const struct place *at, const json_t *v, const struct plan *p, int64_t *bound)
{
    int64_t d_ff = p->model.d_ff, unit = p->model.neuron_unit ? p->model.neuron_unit : 1, low = 0;
    size_t n = (size_t)p->n_ranks + 1;
    if (!json_is_array(v))
        return refuse(at->where, "%sneurons is %s, expected an array", at->prefix, type_name(v));
    if (json_array_size(v) != n)
        return refuse(at->where, "%sneurons has %zu boundaries, expected %zu (one more than ranks)", at->prefix,
                      json_array_size(v), n);
    for (size_t i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "neurons[%zu]", i);
        status st = check_int(at, name, json_array_get(v, i), i == n - 1 ? d_ff : low, i == 0 ? 0 : d_ff, &bound[i]);
        if (st != ST_OK)
            return st;
        if (bound[i] % unit != 0 && bound[i] != d_ff)
            return refuse(at->where, "%s%s is %" PRId64 ", expected a multiple of %" PRId64, at->prefix, name, bound[i],
                          unit);
        low = bound[i];
    }
    return ST_OK;
}

/* The optional row boundaries of the output matrix: ascending from 0. */
static status parse_rows(const struct place *at, const json_t *v, struct plan *p)
{
    size_t n = (size_t)p->n_ranks + 1;
    int64_t low = 0;
    if (!v)
        return ST_OK;
    if (!json_is_array(v) || json_array_size(v) != n)
        return refuse(at->where, "rows is %s, expected an array of %zu boundaries (one more than ranks)",
                      type_name(v), n);
    for (size_t i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "rows[%zu]", i);
        status st = check_int(at, name, json_array_get(v, i), i == n - 1 && low == 0 ? 1 : low, i == 0 ? 0 : LARGEST,
                              &p->rows[i]);
        if (st != ST_OK)
            return st;
        low = p->rows[i];
    }
    p->rows_cut = true;
    p->model.n_vocab = low;
    return ST_OK;
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
    static const char *const keys[] = {"from", "to", "stage", "neurons", NULL};
    int64_t from = 0, to = 0, stage = 0;
    struct plan_layer layer = {0};
    status st;
    if (!json_is_object(v))
        return refuse(at->where, "%.*s is %s, expected an object", (int)strlen(at->prefix) - 1, at->prefix,
                      type_name(v));
    if ((st = check_keys(at, v, keys)) != ST_OK ||
        (st = get_int(at, v, "from", done->next_layer, done->next_layer, &from)) != ST_OK ||
        (st = get_int(at, v, "to", from + 1, p->model.n_layers, &to)) != ST_OK ||
        (st = get_int(at, v, "stage", 0, p->n_ranks - 1, &stage)) != ST_OK ||
        (st = parse_neurons(at, json_object_get(v, "neurons"), p, layer.bound)) != ST_OK)
        return st;
    if (stage != done->stage && done->stages >> stage & 1)
        return refuse(at->where, "%sstage is %" PRId64 " again, expected each rank's layers to be contiguous",
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
        return refuse(where, "layers is %s, expected an array", type_name(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        struct place at = {.where = where};
        snprintf(at.prefix, sizeof at.prefix, "layers[%zu].", i);
        if (done.next_layer == p->model.n_layers)
            return refuse(where, "layers[%zu] is one too many, all %d layers have been named", i, p->model.n_layers);
        status st = parse_run(&at, json_array_get(v, i), p, &done);
        if (st != ST_OK)
            return st;
    }
    if (done.next_layer != p->model.n_layers)
        return refuse(where, "layers ends at layer %" PRId64 ", expected all %d", done.next_layer, p->model.n_layers);
    return ST_OK;
}

static status parse_plan(const char *where, json_t *root, struct plan *p)
{
    static const char *const keys[] = {"hearth_plan", "model", "ranks", "layers", "rows", NULL};
    struct place at = {where, ""};
    int64_t version, n_ranks = 0;
    status st;
    if (!json_is_object(root))
        return refuse(where, "a plan is an object, found %s", type_name(root));
    if ((st = get_int(&at, root, "hearth_plan", PLAN_VERSION, PLAN_VERSION, &version)) != ST_OK ||
        (st = check_keys(&at, root, keys)) != ST_OK ||
        (st = parse_model(where, json_object_get(root, "model"), &p->model)) != ST_OK ||
        (st = get_int(&at, root, "ranks", 1, PLAN_MAX_RANKS, &n_ranks)) != ST_OK)
        return st;
    p->n_ranks = (int)n_ranks;
    p->layers = calloc((size_t)p->model.n_layers, sizeof *p->layers);
    if (!p->layers) {
        log_error("%s: no memory for %d layers", where, p->model.n_layers);
        return ST_NOMEM;
    }
    st = parse_layers(where, json_object_get(root, "layers"), p);
    return st != ST_OK ? st : parse_rows(&at, json_object_get(root, "rows"), p);
}

static status load_error(const char *where, const json_error_t *e)
{
    if (!e->text[0]) { /* how jansson says that memory ran out: every other error has a text */
        log_error("%s: no memory to read the plan", where);
        return ST_NOMEM;
    }
    return refuse(where, "line %d, column %d: %s", e->line, e->column, e->text);
}

status plan_parse(const char *text, size_t n, const char *where, struct plan **out)
{
    json_error_t error;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return load_error(where, &error);
    status st = ST_NOMEM;
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

/* Reads an open file to its end; pipes have no size to ask for. */
static status read_all(FILE *file, const char *path, char **text, size_t *n)
{
    size_t used = 0, cap = 0;
    char *buffer = NULL;
    status st = ST_OK;
    for (;;) {
        if (used == cap) {
            char *larger = realloc(buffer, cap = cap ? 2 * cap : 4096);
            if (!larger) {
                log_error("%s: no memory to read the plan", path);
                st = ST_NOMEM;
                goto err_free;
            }
            buffer = larger;
        }
        size_t got = fread(buffer + used, 1, cap - used, file);
        used += got;
        if (used > PLAN_MAX_BYTES) {
            st = refuse(path, "a plan of more than %d bytes", PLAN_MAX_BYTES);
            goto err_free;
        }
        if (got == 0)
            break;
    }
    if (ferror(file)) {
        log_error("%s: cannot read: %s", path, strerror(errno));
        st = ST_IO;
        goto err_free;
    }
    *text = buffer;
    *n = used;
    return ST_OK;
err_free:
    free(buffer);
    return st;
}

status plan_load(const char *path, struct plan **out)
{
    char *text = NULL;
    size_t n = 0;
    FILE *file = fopen(path, "rb");
    if (!file) {
        log_error("%s: cannot open the plan: %s", path, strerror(errno));
        return ST_IO;
    }
    status st = read_all(file, path, &text, &n);
    fclose(file);
    if (st != ST_OK)
        return st;
    st = plan_parse(text, n, path, out);
    free(text);
    return st;
}

static void print_model(FILE *f, const struct plan_model *m)
{
    fprintf(f, "  \"model\": {\"architecture\": \"%s\", \"layers\": %d, \"d_ff\": %" PRId64, m->architecture,
            m->n_layers, m->d_ff);
    if (m->neuron_unit)
        fprintf(f, ", \"neuron_unit\": %" PRId64, m->neuron_unit);
    if (m->file_bytes)
        fprintf(f, ", \"file_bytes\": %" PRIu64, m->file_bytes);
    if (m->file_hash)
        fprintf(f, ", \"file_hash\": \"%016" PRIx64 "\"", m->file_hash);
    fputs("},\n", f);
}

static bool layers_equal(const struct plan *p, int a, int b)
{
    return p->layers[a].stage == p->layers[b].stage &&
           memcmp(p->layers[a].bound, p->layers[b].bound, ((size_t)p->n_ranks + 1) * sizeof(int64_t)) == 0;
}

static void print_run(FILE *f, const struct plan *p, int from, int to)
{
    fprintf(f, "    {\"from\": %d, \"to\": %d, \"stage\": %d, \"neurons\": [", from, to, p->layers[from].stage);
    for (int r = 0; r <= p->n_ranks; r++)
        fprintf(f, "%s%" PRId64, r ? ", " : "", p->layers[from].bound[r]);
    fprintf(f, "]}%s\n", to < p->model.n_layers ? "," : "");
}

static void print_rows(FILE *f, const struct plan *p)
{
    if (!p->rows_cut)
        return;
    fputs(",\n  \"rows\": [", f);
    for (int r = 0; r <= p->n_ranks; r++)
        fprintf(f, "%s%" PRId64, r ? ", " : "", p->rows[r]);
    fputs("]", f);
}

char *plan_format(const struct plan *p)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return NULL;
    fprintf(f, "{\n  \"hearth_plan\": %d,\n", PLAN_VERSION);
    print_model(f, &p->model);
    fprintf(f, "  \"ranks\": %d,\n  \"layers\": [\n", p->n_ranks);
    for (int from = 0, to; from < p->model.n_layers; from = to) {
        for (to = from + 1; to < p->model.n_layers && layers_equal(p, from, to); to++)
            ;
        print_run(f, p, from, to);
    }
    fputs("  ]", f);
    print_rows(f, p);
    fputs("\n}\n", f);
    bool failed = ferror(f);
    if (fclose(f) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
