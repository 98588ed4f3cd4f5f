/* hearth inspect: what is in a model file, a neuron file or PowerInfer's split file. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/log.h"
#include "cli/command.h"
#include "cli/inspect.h"
#include "cli/options.h"
#include "model/model.h"
#include "sparsity/gpuidx.h"
#include "sparsity/mode.h"

struct inspect {
    const char *model;
    const char *neurons;
    enum table_format format;
};

enum { KEY_NEURONS = 256 };

static const struct argp_option options[] = {
    {"model", 'm', "FILE", 0, "the file, instead of the argument", 0},
    {"neurons", KEY_NEURONS, "FILE", 0, "the model's neuron file (default: MODEL.neurons.gguf beside it, if it is "
     "there and fits)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct inspect *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->format;
        return 0;
    case KEY_NEURONS:
        o->neurons = arg;
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

/* The neuron file that was named, or the one beside the model if it fits: of another model's only a warning is made. */
static status open_neurons(const struct inspect *o, const struct model *m, struct neurons **out)
{
    if (o->neurons && !*o->neurons) /* none, as for the commands that run a model */
        return ST_OK;
    if (o->neurons)
        return neurons_load(o->neurons, m, out);
    char *path = neurons_path(o->model);
    if (!path) {
        log_error("%s: no memory for its neuron file's name", o->model);
        return ST_NOMEM;
    }
    if (access(path, F_OK) == 0) {
        struct log_catcher caught;
        log_catch(&caught);
        status st = neurons_load(path, m, out);
        log_catch(NULL);
        if (st != ST_OK)
            log_warn("%s", caught.first_error);
    }
    free(path);
    return ST_OK;
}

static const char *activation_text(const struct model *m, const struct neurons *n)
{
    return n || m->hp.activation_known ? activation_name(m->hp.activation) : "unknown";
}

/* What not all models have. Experts: d_ff is the neurons of one then. Delta nets: with the bytes of a text's state. */
static json_t *add_kinds(json_t *s, const struct hparams *h)
{
    if (s && h->n_experts) {
        json_object_set_new(s, "d_shared", json_integer(h->d_shared));
        json_object_set_new(s, "dense_layers", json_integer(h->n_dense_layers));
    }
    if (s && h->delta.key_heads) {
        json_object_set_new(s, "delta_layers", json_integer(model_n_nets(h)));
        json_object_set_new(s, "key_heads", json_integer(h->delta.key_heads));
        json_object_set_new(s, "value_heads", json_integer(h->delta.value_heads));
        json_object_set_new(s, "state_bytes", json_integer(model_n_nets(h) * model_state_bytes(h)));
    }
    return s;
}

static json_t *summary(const struct model *m, const struct neurons *n)
{
    const struct hparams *h = &m->hp;
    char modes[SPARSE_MODES_TEXT];
    if (n || m->hp.activation_known)
        sparse_modes_text(m, n, modes);
    else
        snprintf(modes, sizeof modes, "none without --activation");
    json_t *s = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:I}", "architecture", h->arch_name,
        "layers", (json_int_t)h->n_layers, "d_model", (json_int_t)h->d_model, "d_ff",
        (json_int_t)(h->n_experts ? h->d_expert : h->d_ff), "experts", (json_int_t)h->n_experts, "experts_used",
        (json_int_t)h->n_experts_used, "heads", (json_int_t)h->n_heads, "kv_heads", (json_int_t)h->n_kv_heads, "vocab",
        (json_int_t)h->n_vocab, "tensors", (json_int_t)gguf_n_tensors(m->file), "bytes",
        (json_int_t)gguf_file_bytes(m->file), "activation", activation_text(m, n), "activation_from",
        n ? "neuron file" : "model", "sparse_modes", modes, "context", (json_int_t)h->n_ctx_train);
    return add_kinds(s, h);
}

static void print_metadata(const struct gguf *g)
{
    const char *key;
    char value[80];
    puts("\nmetadata");
    for (int i = 0; gguf_key_at(g, i, &key, value, sizeof value); i++) {
        fputs("  ", stdout);
        inspect_print_harmless(key);
        fputs(" = ", stdout);
        inspect_print_harmless(value);
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
        inspect_print_harmless(t->name);
        putchar('\n');
    }
}

static status print_model(const struct inspect *o, const struct model *m, const struct neurons *n)
{
    status st = ST_OK;
    json_t *s = summary(m, n);
    if (!s) {
        log_error("%s: the summary cannot be made (a name that is no UTF-8, or no memory)", o->model);
        return ST_FORMAT;
    }
    if ((int)o->format == INSPECT_PEOPLE) {
        inspect_print_summary(s);
        print_metadata(m->file);
        print_tensors(m->file);
    } else if (o->format == TABLE_JSON) {
        st = table_print_json(stdout, s);
    } else {
        json_t *rows = json_pack("[O]", s);
        st = table_print(stdout, rows, o->format);
        json_decref(rows);
    }
    json_decref(s);
    return st;
}

/* Takes g over. */
static status inspect_model(const struct inspect *o, struct gguf *g)
{
    struct model *m;
    struct neurons *n = NULL;
    status st = model_from_gguf(g, &m);
    if (st != ST_OK)
        return st;
    st = open_neurons(o, m, &n);
    if (st == ST_OK) {
        if (n)
            m->hp.activation = n->activation;
        st = print_model(o, m, n);
    }
    neurons_free(n);
    model_free(m);
    return st;
}

status command_inspect(const struct launch *launch, int argc, char **argv)
{
    static const struct argp_child children[] = {{&argp_output, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options, .parser = parse, .children = children, .args_doc = "FILE",
        .doc = "Show what is in a model file: its shape, its metadata and its tensors; with -o the shape alone. Neuron "
               "files and PowerInfer's split files (.gpuidx) are shown layer by layer."};
    struct inspect o = {.format = (enum table_format)INSPECT_PEOPLE};
    struct gguf *g;
    status st = options_parse(&argp, launch, argc, argv, &o);
    if (st != ST_OK || launch->rank > 0)
        return st;
    st = gguf_open(o.model, &g);
    if (st != ST_OK)
        return st;
    const bool neurons = neurons_is_file(g), split = gpuidx_is_file(g);
    if (!neurons && !split)
        return inspect_model(&o, g);
    gguf_close(g);
    return neurons ? inspect_neurons(o.model, (int)o.format) : inspect_gpuidx(o.model, (int)o.format);
}
