/* hearth inspect: what is in a model file. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/options.h"
#include "model/model.h"

struct inspect {
    const char *model;
    enum table_format format;
};

static const struct argp_option options[] = {
    {"model", 'm', "FILE", 0, "model file (GGUF), instead of the argument", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct inspect *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->format;
        return 0;
    case 'm':
    case ARGP_KEY_ARG:
        if (o->model)
            return option_wrong(state, "one model at a time: '%s' and '%s'", o->model, arg);
        o->model = arg;
        return 0;
    case ARGP_KEY_END:
        return o->model ? 0 : option_wrong(state, "no model given (hearth inspect FILE)");
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static json_t *summary(const struct model *m)
{
    const struct hparams *h = &m->hp;
    return json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:i, s:I, s:s, s:I}", "architecture", h->arch_name, "layers",
                     h->n_layers, "d_model", (json_int_t)h->d_model, "d_ff", (json_int_t)h->d_ff, "heads",
                     (json_int_t)h->n_heads, "kv_heads", (json_int_t)h->n_kv_heads, "vocab", (json_int_t)h->n_vocab,
                     "tensors", gguf_n_tensors(m->file), "bytes", (json_int_t)gguf_file_bytes(m->file), "activation",
                     model_activation(m), "context", (json_int_t)h->n_ctx_train);
}

/* Text from a file goes to a terminal: nothing in it may steer that terminal. */
static void print_harmless(const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
}

static void print_summary(const json_t *s)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)s, key, v) {
        printf("%-14s ", key);
        if (json_is_integer(v))
            printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(v));
        else
            puts(json_string_value(v));
    }
}

static void print_metadata(const struct gguf *g)
{
    const char *key;
    char value[80];
    puts("\nmetadata");
    for (int i = 0; gguf_key_at(g, i, &key, value, sizeof value); i++) {
        fputs("  ", stdout);
        print_harmless(key);
        fputs(" = ", stdout);
        print_harmless(value);
        putchar('\n');
    }
}

static void print_tensors(const struct gguf *g)
{
    puts("\ntensors");
    for (int i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        char shape[96];
        int at = 0;
        for (int d = 0; d < t->n_dims; d++)
            at += snprintf(shape + at, sizeof shape - (size_t)at, d ? " x %" PRId64 : "%" PRId64, t->dims[d]);
        printf("  %-5s %18s %14" PRIu64 "  ", dtype_name(t->type), shape, t->bytes);
        print_harmless(t->name);
        putchar('\n');
    }
}

status command_inspect(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_output, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children, .args_doc = "FILE",
        .doc = "Show what is in a model file: its shape, its metadata and its tensors; with -o the shape alone."};
    enum { PEOPLE = -1 };
    struct inspect o = {.format = (enum table_format)PEOPLE};
    struct model *m = NULL;
    status st = options_parse(&argp, launch, argc, argv, &o);
    if (st != ST_OK || launch->rank > 0)
        return st;
    st = model_load(o.model, &m);
    if (st != ST_OK)
        return st;
    json_t *s = summary(m);
    if (!s) {
        log_error("%s: the summary cannot be made (a name that is no UTF-8, or no memory)", o.model);
        st = ST_FORMAT;
    } else if (o.format == TABLE_JSON) {
        st = table_print_json(stdout, s);
    } else if ((int)o.format == PEOPLE) {
        print_summary(s);
        print_metadata(m->file);
        print_tensors(m->file);
    } else {
        json_t *rows = json_pack("[O]", s);
        st = table_print(stdout, rows, o.format);
        json_decref(rows);
    }
    json_decref(s);
    model_free(m);
    return st;
}
