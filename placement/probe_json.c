/* Reading and writing a probe as JSON; the format: docs/plans.md. */
#include "placement/probe.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "placement/fields.h"

/* Far beyond any machine, as PROBE_MOST is. */
enum { PROBE_MAX_BYTES = 16 << 20 /* of the text */, MOST_MESSAGE = 1 << 30 };
static const double most_us = 1e9;

static status parse_sizes(const char *where, const json_t *v, struct probe *p)
{
    struct place at = {where, ""};
    int64_t low = 1;
    if (!json_is_array(v) || json_array_size(v) < 1 || json_array_size(v) > PROBE_MAX_SIZES)
        return field_refuse(where, "sizes is %s of %zu, expected an array of 1 to %d sizes", field_type_name(v),
                            json_array_size(v), PROBE_MAX_SIZES);
    p->n_sizes = (int)json_array_size(v);
    for (int i = 0; i < p->n_sizes; i++) {
        char name[24];
        snprintf(name, sizeof name, "sizes[%d]", i);
        status st = field_check_int(&at, name, json_array_get(v, (size_t)i), low, MOST_MESSAGE, &p->sizes[i]);
        if (st != ST_OK)
            return st;
        low = p->sizes[i] + 1;
    }
    return ST_OK;
}

/* n positive numbers. */
static status parse_numbers(const struct place *at, const char *key, const json_t *object, int n, double most,
                            double *out)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_array(v) || json_array_size(v) != (size_t)n)
        return field_refuse(at->where, "%s%s is %s of %zu, expected an array of %d numbers", at->prefix, key,
                            field_type_name(v), json_array_size(v), n);
    for (int i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s[%d]", key, i);
        status st = field_check_positive(at, name, json_array_get(v, (size_t)i), most, &out[i]);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

/* May be left out: a system may not tell it, and files of older versions have none. */
static status parse_boot_id(const struct place *at, const json_t *object, char *out)
{
    if (!json_object_get(object, "boot_id"))
        return ST_OK;
    return field_get_name(at, object, "boot_id", out, MACHINE_ID_BYTES);
}

/* No device is there twice. */
static status parse_gpu(const struct place *at, json_t *v, struct probe_rank *r)
{
    static const char *const keys[] = {"device", "name", "id", "memory_bytes", "read_gb_per_s", "up_gb_per_s",
                                       "down_gb_per_s", "launch_us", "wait_us", NULL};
    struct probe_gpu *g = &r->gpus[r->n_gpus];
    int64_t memory = 0;
    status st;
    if (!json_is_object(v))
        return field_refuse(at->where, "%.*s is %s, expected an object", (int)strlen(at->prefix) - 1, at->prefix,
                            field_type_name(v));
    if ((st = field_check_keys(at, v, keys)) != ST_OK || (st = field_get_device(at, v, g->device)) != ST_OK ||
        (st = field_get_text(at, v, "name", g->name, sizeof g->name)) != ST_OK ||
        (st = field_get_name(at, v, "id", g->id, sizeof g->id)) != ST_OK ||
        (st = field_get_int(at, v, "memory_bytes", 1, INT64_MAX, &memory)) != ST_OK ||
        (st = field_get_positive(at, v, "read_gb_per_s", PROBE_MOST, &g->read_gb_per_s)) != ST_OK ||
        (st = field_get_positive(at, v, "up_gb_per_s", PROBE_MOST, &g->up_gb_per_s)) != ST_OK ||
        (st = field_get_positive(at, v, "down_gb_per_s", PROBE_MOST, &g->down_gb_per_s)) != ST_OK ||
        (st = field_get_positive(at, v, "launch_us", PROBE_MOST, &g->launch_us)) != ST_OK ||
        (st = field_get_positive(at, v, "wait_us", PROBE_MOST, &g->wait_us)) != ST_OK)
        return st;
    g->memory_bytes = (uint64_t)memory;
    for (int i = 0; i < r->n_gpus; i++)
        if (strcmp(r->gpus[i].device, g->device) == 0)
            return field_refuse(at->where, "%sdevice is %s again", at->prefix, g->device);
    if (strncmp(g->device, "cpu", 3) == 0)
        return field_refuse(at->where, "%sdevice is %s, expected a GPU", at->prefix, g->device);
    r->n_gpus++;
    return ST_OK;
}

/* May be left out: most hosts have none, and older files know of none. */
static status parse_gpus(const struct place *at, const json_t *object, struct probe_rank *r)
{
    const json_t *v = json_object_get(object, "gpus");
    if (!v)
        return ST_OK;
    if (!json_is_array(v) || json_array_size(v) > PROBE_MAX_GPUS)
        return field_refuse(at->where, "%sgpus is %s of %zu, expected an array of at most %d", at->prefix,
                            field_type_name(v), json_array_size(v), PROBE_MAX_GPUS);
    for (size_t i = 0; i < json_array_size(v); i++) {
        struct place gpu = {.where = at->where};
        snprintf(gpu.prefix, sizeof gpu.prefix, "%.32sgpus[%zu].", at->prefix, i);
        status st = parse_gpu(&gpu, json_array_get(v, i), r);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

static status parse_rank(const struct place *at, json_t *v, struct probe_rank *out)
{
    static const char *const keys[] = {"host", "boot_id", "cores", "threads", "memory_bytes", "gb_per_s",
                                       "shared_gb_per_s", "gpus", NULL};
    int64_t cores = 0, threads = 0, memory = 0;
    status st;
    if (!json_is_object(v))
        return field_refuse(at->where, "%.*s is %s, expected an object", (int)strlen(at->prefix) - 1, at->prefix,
                            field_type_name(v));
    if ((st = field_check_keys(at, v, keys)) != ST_OK ||
        (st = field_get_name(at, v, "host", out->host, sizeof out->host)) != ST_OK ||
        (st = parse_boot_id(at, v, out->boot_id)) != ST_OK ||
        (st = field_get_int(at, v, "cores", 1, PROBE_MAX_CORES, &cores)) != ST_OK ||
        (st = field_get_int(at, v, "threads", 1, PROBE_MAX_CORES, &threads)) != ST_OK ||
        (st = field_get_int(at, v, "memory_bytes", 1, INT64_MAX, &memory)) != ST_OK ||
        (st = field_get_positive(at, v, "shared_gb_per_s", PROBE_MOST, &out->shared_gb_per_s)) != ST_OK ||
        (st = parse_gpus(at, v, out)) != ST_OK)
        return st;
    out->cores = (int)cores;
    out->threads = (int)threads;
    out->n_curve = probe_curve_points(out->threads);
    out->memory_bytes = (uint64_t)memory;
    return parse_numbers(at, "gb_per_s", v, out->n_curve, PROBE_MOST, out->curve);
}

static status parse_link(const struct place *at, json_t *v, struct probe *p, struct probe_link *links)
{
    static const char *const keys[] = {"from", "to", "us", "gb_per_s", NULL};
    struct probe_link link = {0};
    int64_t from = 0, to = 0;
    status st;
    if (!json_is_object(v))
        return field_refuse(at->where, "%.*s is %s, expected an object", (int)strlen(at->prefix) - 1, at->prefix,
                            field_type_name(v));
    if ((st = field_check_keys(at, v, keys)) != ST_OK ||
        (st = field_get_int(at, v, "from", 0, p->n_ranks - 1, &from)) != ST_OK ||
        (st = field_get_int(at, v, "to", 0, p->n_ranks - 1, &to)) != ST_OK ||
        (st = field_get_positive(at, v, "gb_per_s", PROBE_MOST, &link.gb_per_s)) != ST_OK ||
        (st = parse_numbers(at, "us", v, p->n_sizes, most_us, link.us)) != ST_OK)
        return st;
    struct probe_link *into = &links[from * p->n_ranks + to];
    if (from == to || into->gb_per_s > 0)
        return field_refuse(at->where, "%sfrom and to are %" PRId64 " and %" PRId64 ", expected every two ranks once",
                            at->prefix, from, to);
    *into = link;
    return ST_OK;
}

static status parse_transport(const char *where, int t, json_t *v, struct probe *p)
{
    static const char *const keys[] = {"name", "links", NULL};
    struct place at = {.where = where};
    const size_t n_links = (size_t)p->n_ranks * (size_t)(p->n_ranks - 1);
    struct probe_transport *out = &p->transports[t];
    status st;
    snprintf(at.prefix, sizeof at.prefix, "transports[%d].", t);
    if (!json_is_object(v))
        return field_refuse(where, "transports[%d] is %s, expected an object", t, field_type_name(v));
    if ((st = field_check_keys(&at, v, keys)) != ST_OK ||
        (st = field_get_name(&at, v, "name", out->name, sizeof out->name)) != ST_OK)
        return st;
    json_t *links = json_object_get(v, "links");
    if (!json_is_array(links) || json_array_size(links) != n_links)
        return field_refuse(where, "%slinks is %s of %zu, expected an array of %zu: every two ranks, both ways",
                            at.prefix, field_type_name(links), json_array_size(links), n_links);
    for (size_t i = 0; i < n_links; i++) {
        snprintf(at.prefix, sizeof at.prefix, "transports[%d].links[%d].", t, (int)i);
        if ((st = parse_link(&at, json_array_get(links, i), p, out->links)) != ST_OK)
            return st;
    }
    return ST_OK;
}

static status parse_transports(const char *where, const json_t *v, struct probe *p)
{
    for (int t = 0; t < p->n_transports; t++) {
        status st = parse_transport(where, t, json_array_get(v, (size_t)t), p);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

static status parse_ranks(const char *where, const json_t *v, struct probe *p)
{
    for (int r = 0; r < p->n_ranks; r++) {
        struct place at = {.where = where};
        snprintf(at.prefix, sizeof at.prefix, "ranks[%d].", r);
        status st = parse_rank(&at, json_array_get(v, (size_t)r), &p->ranks[r]);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

/* Everything that says how large the rest is. */
static status parse_frame(const char *where, json_t *root, int *n_ranks, int *n_transports)
{
    static const char *const keys[] = {"hearth_probe", "ranks", "sizes", "transports", NULL};
    struct place at = {where, ""};
    int64_t version;
    status st;
    if (!json_is_object(root))
        return field_refuse(where, "a probe is an object, found %s", field_type_name(root));
    if ((st = field_get_int(&at, root, "hearth_probe", PROBE_VERSION, PROBE_VERSION, &version)) != ST_OK ||
        (st = field_check_keys(&at, root, keys)) != ST_OK)
        return st;
    const json_t *ranks = json_object_get(root, "ranks"), *transports = json_object_get(root, "transports");
    if (!json_is_array(ranks) || json_array_size(ranks) < 1 || json_array_size(ranks) > PLAN_MAX_RANKS)
        return field_refuse(where, "ranks is %s of %zu, expected an array of 1 to %d ranks", field_type_name(ranks),
                            json_array_size(ranks), PLAN_MAX_RANKS);
    *n_ranks = (int)json_array_size(ranks);
    const size_t least = *n_ranks > 1, most = *n_ranks > 1 ? PROBE_MAX_TRANSPORTS : 0;
    const size_t found = json_array_size(transports);
    if (!json_is_array(transports) || found < least || found > most)
        return field_refuse(where, "transports is %s of %zu, expected an array of %zu to %zu",
                            field_type_name(transports), found, least, most);
    *n_transports = (int)found;
    return ST_OK;
}

status probe_parse(const char *text, size_t n, const char *where, struct probe **out)
{
    struct probe *p = NULL;
    json_t *root;
    int n_ranks = 0, n_transports = 0;
    status st = field_parse(text, n, where, "the probe", &root);
    if (st != ST_OK)
        return st;
    st = parse_frame(where, root, &n_ranks, &n_transports);
    if (st == ST_OK)
        st = probe_create(n_ranks, n_transports, &p);
    if (st == ST_OK)
        st = parse_sizes(where, json_object_get(root, "sizes"), p);
    if (st == ST_OK)
        st = parse_ranks(where, json_object_get(root, "ranks"), p);
    if (st == ST_OK)
        st = parse_transports(where, json_object_get(root, "transports"), p);
    json_decref(root);
    if (st != ST_OK) {
        probe_free(p);
        return st;
    }
    *out = p;
    return ST_OK;
}

status probe_load(const char *path, struct probe **out)
{
    char *text;
    size_t n;
    status st = field_load(path, "the probe", PROBE_MAX_BYTES, &text, &n);
    if (st != ST_OK)
        return st;
    st = probe_parse(text, n, path, out);
    free(text);
    return st;
}

/* ---- writing ---- */

static void print_numbers(FILE *f, const char *key, const double *v, int n)
{
    fprintf(f, "\"%s\": [", key);
    for (int i = 0; i < n; i++)
        fprintf(f, "%s%.7g", i ? ", " : "", v[i]);
    fputs("]", f);
}

static void print_gpu(FILE *f, const struct probe_gpu *g, const char *end)
{
    fprintf(f, "       {\"device\": \"%s\", \"name\": \"%s\", \"id\": \"%s\", \"memory_bytes\": %" PRIu64 ",\n",
            g->device, g->name, g->id, g->memory_bytes);
    fprintf(f, "        \"read_gb_per_s\": %.7g, \"up_gb_per_s\": %.7g, \"down_gb_per_s\": %.7g, \"launch_us\": %.7g, "
            "\"wait_us\": %.7g}%s", g->read_gb_per_s, g->up_gb_per_s, g->down_gb_per_s, g->launch_us, g->wait_us, end);
}

static void print_rank(FILE *f, const struct probe_rank *r, const char *end)
{
    fprintf(f, "    {\"host\": \"%s\", ", r->host);
    if (r->boot_id[0])
        fprintf(f, "\"boot_id\": \"%s\",\n     ", r->boot_id);
    fprintf(f, "\"cores\": %d, \"threads\": %d, \"memory_bytes\": %" PRIu64 ",\n     ", r->cores, r->threads,
            r->memory_bytes);
    print_numbers(f, "gb_per_s", r->curve, r->n_curve);
    fprintf(f, ", \"shared_gb_per_s\": %.7g", r->shared_gb_per_s);
    if (r->n_gpus)
        fputs(",\n     \"gpus\": [\n", f);
    for (int i = 0; i < r->n_gpus; i++)
        print_gpu(f, &r->gpus[i], i + 1 < r->n_gpus ? ",\n" : "]");
    fprintf(f, "}%s\n", end);
}

static void print_transport(FILE *f, const struct probe *p, const struct probe_transport *t, const char *end)
{
    const char *separator = "";
    fprintf(f, "    {\"name\": \"%s\", \"links\": [\n", t->name);
    for (int i = 0; i < p->n_ranks * p->n_ranks; i++) {
        int from = i / p->n_ranks, to = i % p->n_ranks;
        if (from == to)
            continue;
        fprintf(f, "%s      {\"from\": %d, \"to\": %d, ", separator, from, to);
        print_numbers(f, "us", t->links[i].us, p->n_sizes);
        fprintf(f, ", \"gb_per_s\": %.7g}", t->links[i].gb_per_s);
        separator = ",\n";
    }
    fprintf(f, "\n    ]}%s\n", end);
}

char *probe_format(const struct probe *p)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return NULL;
    fprintf(f, "{\n  \"hearth_probe\": %d,\n  \"ranks\": [\n", PROBE_VERSION);
    for (int r = 0; r < p->n_ranks; r++)
        print_rank(f, &p->ranks[r], r + 1 < p->n_ranks ? "," : "");
    fputs("  ],\n  \"sizes\": [", f);
    for (int i = 0; i < p->n_sizes; i++)
        fprintf(f, "%s%" PRId64, i ? ", " : "", p->sizes[i]);
    fputs("],\n  \"transports\": [\n", f);
    for (int t = 0; t < p->n_transports; t++)
        print_transport(f, p, &p->transports[t], t + 1 < p->n_transports ? "," : "");
    fputs("  ]\n}\n", f);
    bool failed = ferror(f);
    if (fclose(f) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
