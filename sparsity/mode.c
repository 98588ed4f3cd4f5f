/* Which modes a model can run in, and what is missing for the others. */
#include "sparsity/mode.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "kernels/rows.h"

enum { N_MODES = SPARSE_PREDICTED + 1, N_PREDICTORS = PREDICTOR_PLANES + 1, WHY_SIZE = 256 };

static const char *const mode_names[N_MODES] = {"dense", "exact", "threshold", "predicted"};
static const char *const predictor_names[N_PREDICTORS] = {"auto", "mlp", "planes"};

const char *sparse_mode_name(enum sparse_mode m) { return mode_names[m]; }
const char *predictor_name(enum predictor p) { return predictor_names[p]; }

static bool find_name(const char *const *names, int n, const char *name, int *out)
{
    for (int i = 0; i < n; i++) {
        if (!strcmp(names[i], name)) {
            *out = i;
            return true;
        }
    }
    return false;
}

bool sparse_mode_of(const char *name, enum sparse_mode *out)
{
    int i;
    bool found = find_name(mode_names, N_MODES, name, &i);
    if (found)
        *out = (enum sparse_mode)i;
    return found;
}

bool predictor_of(const char *name, enum predictor *out)
{
    int i;
    bool found = find_name(predictor_names, N_PREDICTORS, name, &i);
    if (found)
        *out = (enum predictor)i;
    return found;
}

status activation_settle(const struct model *m, const struct neurons *n, const char *option, enum activation *out)
{
    const char *path = gguf_path(m->file);
    enum activation a = n ? n->activation : m->hp.activation;
    if (option && !(activation_of(option, strlen(option), &a) && activation_is_choice(a))) {
        log_error("--activation: expected silu, relu, relu2 or drelu, found '%s'", option);
        return ST_USAGE;
    }
    if (!option && !activation_is_choice(a) && a != m->hp.activation) {
        log_error("%s: the neuron file was made with activation %s, which is another model's own: make a new one with "
                  "`hearth prepare`", path, activation_name(a));
        return ST_FORMAT;
    }
    if (!option && !n && !m->hp.activation_known) {
        log_error("%s: a %s model does not say its activation, and the usual one is none that hearth has: if it is "
                  "ReLU-trained, say --activation relu", path, m->hp.arch_name);
        return ST_USAGE;
    }
    if (!m->hp.has_gate && a != ACT_RELU && a != ACT_RELU2) {
        log_error("%s: activation %s (%s) needs a gate, and a %s model has none: it can have relu or relu2", path,
                  activation_name(a), option ? "--activation" : n ? "the neuron file" : "the model", m->hp.arch_name);
        return ST_USAGE;
    }
    *out = a;
    return ST_OK;
}

bool model_has_mlp(const struct model *m)
{
    bool all = true;
    for (int i = 0; all && i < m->hp.n_layers; i++)
        all = m->layers[i].fc1.data && m->layers[i].fc2.data;
    return all;
}

/* Whether a mode can be had, and if not, why: "it needs ...". */
struct verdict {
    enum { CAN, AFTER_PREPARE, CANNOT } is;
    char why[WHY_SIZE];
};

/* Whether the neuron file was made for the activation that holds; its numbers say nothing about another. */
static bool file_fits(const struct model *m, const struct neurons *n) { return n && n->activation == m->hp.activation; }

static struct verdict wants_prepare(const struct model *m, const struct neurons *n, const char *what)
{
    struct verdict v = {.is = AFTER_PREPARE};
    if (n && !file_fits(m, n))
        snprintf(v.why, sizeof v.why, "needs %s, and the neuron file was made with activation %s, not %s: run `hearth "
                 "prepare` again", what, activation_name(n->activation), activation_name(m->hp.activation));
    else
        snprintf(v.why, sizeof v.why, "needs %s%s: run `hearth prepare` first", what,
                 n ? ", which the neuron file lacks" : " from a neuron file, and there is none");
    return v;
}

/* The first layer with a matrix whose codes have no bit-planes, among those that the estimate reads; NULL: none. */
static const struct matrix *without_planes(const struct model *m, bool up_too)
{
    for (int i = 0; i < m->hp.n_layers; i++) {
        for (int k = 0; k < m->layers[i].n_bundles; k++) {
            const struct bundle *b = &m->layers[i].bundles[k];
            const struct matrix *decides = b->gate.data ? &b->gate : &b->up;
            if (!dtype_has_planes(decides->type))
                return decides;
            if (up_too && !dtype_has_planes(b->up.type))
                return &b->up;
        }
    }
    return NULL;
}

static struct verdict planeless(const struct matrix *m)
{
    struct verdict v = {.is = CANNOT};
    snprintf(v.why, sizeof v.why, "needs weights of Q4_0 to Q8_0 or Q3_K to Q6_K, and %s is %s", m->name,
             dtype_name(m->type));
    return v;
}

/* What makes estimates and MLPs knows of none. */
static const struct verdict biased = {CANNOT, "is for FFNs whose gates have no biases"};

static struct verdict can_threshold(const struct model *m, const struct neurons *n)
{
    if (activation_is_exact(m->hp.activation)) {
        struct verdict v = {.is = CANNOT};
        snprintf(v.why, sizeof v.why, "is for SiLU models, its activation is %s", activation_name(m->hp.activation));
        return v;
    }
    if (model_has_biased_gates(m))
        return biased;
    const struct matrix *bad = without_planes(m, true);
    if (bad)
        return planeless(bad);
    return file_fits(m, n) && neurons_have_weights(n) ? (struct verdict){.is = CAN}
                                                      : wants_prepare(m, n, "thresholds");
}

bool neurons_mlp_holds(const struct model *m, const struct neurons *n)
{
    return !model_has_biased_gates(m) && file_fits(m, n) && neurons_have_mlp(n);
}

static struct verdict can_mlp(const struct model *m, const struct neurons *n)
{
    if (m->hp.n_experts)
        return (struct verdict){CANNOT, "has no MLPs for experts"};
    if (neurons_mlp_holds(m, n) || model_has_mlp(m))
        return (struct verdict){.is = CAN};
    if (model_has_biased_gates(m))
        return biased;
    return wants_prepare(m, n, "an MLP for every layer");
}

static struct verdict can_planes(const struct model *m, const struct neurons *n)
{
    const struct matrix *bad = without_planes(m, false);
    if (model_has_biased_gates(m))
        return biased;
    if (bad)
        return planeless(bad);
    return file_fits(m, n) && neurons_have_bounds(n) ? (struct verdict){.is = CAN}
                                                     : wants_prepare(m, n, "bounds for every neuron");
}

static struct verdict needs_relu(const struct model *m)
{
    struct verdict v = {.is = CANNOT};
    snprintf(v.why, sizeof v.why, "needs a ReLU-family model, its activation is %s", activation_name(m->hp.activation));
    return v;
}

/* Settles PREDICTOR_AUTO if the answer is CAN. */
static struct verdict can(const struct model *m, const struct neurons *n, enum sparse_mode mode, enum predictor *p)
{
    if (mode == SPARSE_DENSE)
        return (struct verdict){.is = CAN};
    if (mode == SPARSE_THRESHOLD)
        return can_threshold(m, n);
    if (!activation_is_exact(m->hp.activation))
        return needs_relu(m);
    if (mode == SPARSE_EXACT)
        return (struct verdict){.is = CAN};
    if (*p == PREDICTOR_PLANES)
        return can_planes(m, n);
    struct verdict mlp = can_mlp(m, n);
    if (*p == PREDICTOR_MLP)
        return mlp;
    struct verdict planes = mlp.is == CAN ? mlp : can_planes(m, n);
    if (planes.is == CAN)
        *p = mlp.is == CAN ? PREDICTOR_MLP : PREDICTOR_PLANES;
    return planes.is == CANNOT ? mlp : planes;
}

void sparse_modes_text(const struct model *m, const struct neurons *n, char text[SPARSE_MODES_TEXT])
{
    size_t at = 0;
    for (int mode = 0; mode < N_MODES; mode++) {
        enum predictor any = PREDICTOR_AUTO;
        struct verdict v = can(m, n, (enum sparse_mode)mode, &any);
        if (v.is != CANNOT)
            at += (size_t)snprintf(text + at, SPARSE_MODES_TEXT - at, "%s%s%s", at ? ", " : "", mode_names[mode],
                                   v.is == AFTER_PREPARE ? " (after `hearth prepare`)" : "");
    }
}

status sparse_mode_check(const struct model *m, const struct neurons *n, enum sparse_mode mode,
                         enum predictor *predictor)
{
    struct verdict v = can(m, n, mode, predictor);
    if (v.is == CAN)
        return ST_OK;
    char modes[SPARSE_MODES_TEXT];
    sparse_modes_text(m, n, modes);
    bool maybe_relu = mode != SPARSE_THRESHOLD && !activation_is_exact(m->hp.activation);
    bool named = mode == SPARSE_PREDICTED && *predictor != PREDICTOR_AUTO;
    log_error("%s: --sparse %s%s%s %s; it can run %s%s", gguf_path(m->file), mode_names[mode],
              named ? " --predictor " : "", named ? predictor_names[*predictor] : "", v.why, modes,
              maybe_relu ? "; if it is ReLU-trained, say --activation relu" : "");
    return ST_USAGE;
}
