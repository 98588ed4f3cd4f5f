/* hearth-synth: a GGUF model of random weights in the shape of a known model, for benchmarks (synth.h). */
#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "tools/synth/blocks.h"
#include "tools/synth/synth.h"

#define LIVE_TOLERANCE 0.1 /* of the share that was asked for */

const char *argp_program_version = "hearth-synth " HEARTH_VERSION;

static const char doc[] =
    "Writes a GGUF model of random weights in the shape of a known model, for benchmarks.\v"
    "Shapes: 1b is Llama 3.2 1B (16 layers, tied embedding), 7b is Llama 2 7B (32 layers), 70b is Llama 2 70B (80 "
    "layers), opt-6.7b is OPT 6.7B (32 layers, tied embedding, no gate). With experts: qwen3-30b-a3b (48 layers, 8 of "
    "128 experts), qwen3-235b-a22b (94 layers, 8 of 128), gpt-oss-20b (24 layers, 4 of 32), gpt-oss-120b (36 layers, 4 "
    "of 128); their routers are random, so that all experts are chosen alike.\n\n"
    "Types: q4_0, q8_0, q6_k and iq4_nl are used for every matrix. q4_k, q5_k, iq4_xs, iq3_s and tq have Q6_K, the "
    "other iq types Q5_K, mxfp4 has Q8_0 for the matrix that makes the logits, as in llama.cpp's files of these: a "
    "tied embedding or the output matrix. Beside experts of MXFP4 all matrices are Q8_0. Norms, biases and routers are "
    "F32. From iq3_s on types are for silu alone, and for shapes with experts.\n\n"
    "FFNs: silu computes silu(gate) * up, and every neuron counts. In the others most neurons of a token are exactly "
    "zero: reglu is relu(gate) * up, drelu relu(gate) * relu(up), relu (opt's) relu(up). Nothing in the file says so "
    "but its name: give hearth --activation relu or drelu.\n\n"
    "--live is the share of neurons that fire, mean over neurons and tokens. How often a neuron fires is a power law "
    "over the neurons of a layer, whose exponent is --skew; with 1.25 a quarter of them makes 80 % of a live share of "
    "0.10. 64 columns of d_model bear 98 % of the variance that decides whether a neuron fires, so a small predictor "
    "can be right. The live share is measured in a forward pass of 192 tokens, which needs memory for the model, and "
    "the norms are corrected until it is right; --no-measure leaves that out.\n\n"
    "--header-only writes a file that has the model's header and size and takes no room on the disk, for it has no "
    "weights: enough to plan by.\n\n"
    "The text of such a model means nothing. The same options and seed write the same file.";

enum { OPT_SHAPE = 256, OPT_TYPE, OPT_LAYERS, OPT_SEED, OPT_FFN, OPT_LIVE, OPT_SKEW, OPT_NO_MEASURE,
       OPT_HEADER_ONLY };

#define SHAPES "1b, 7b, 70b, opt-6.7b, qwen3-30b-a3b, qwen3-235b-a22b, qwen3-next-80b, gpt-oss-20b or " \
               "gpt-oss-120b"
#define TYPES "q4_0, q8_0, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4, iq3_s, iq3_xxs, iq2_s, iq2_xs, iq2_xxs, iq1_m, " \
              "iq1_s, tq1_0 or tq2_0"

static const struct argp_option argp_options[] = {
    {"shape", OPT_SHAPE, "SHAPE", 0, SHAPES, 0},
    {"type", OPT_TYPE, "TYPE", 0, "Weight type: " TYPES, 0},
    {"layers", OPT_LAYERS, "N", 0, "Write N layers (1 to 1000) instead of the shape's own number", 0},
    {"seed", OPT_SEED, "N", 0, "Seed of the weights (default 1)", 0},
    {"ffn", OPT_FFN, "KIND", 0, "silu (default), reglu, drelu; relu for opt-6.7b; shapes with experts take none", 0},
    {"live", OPT_LIVE, "SHARE", 0, "Share of neurons that fire, 0.001 to 1 (default 0.10; not for silu)", 0},
    {"skew", OPT_SKEW, "EXPONENT", 0, "How unequal neurons are, 0 (all alike) to 3 (default 1.25)", 0},
    {"no-measure", OPT_NO_MEASURE, NULL, 0, "Do not run the model to measure and correct its live share", 0},
    {"header-only", OPT_HEADER_ONLY, NULL, 0, "Write no weights", 0},
    {"output", 'o', "FILE", 0, "The file to write", 0},
    {0},
};

struct arguments {
    struct synth_options synth;
    bool ffn_given, no_measure;
};

static uint64_t parse_number(const char *arg, const char *option, uint64_t min, uint64_t max, struct argp_state *state)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(arg, &end, 10);
    if (errno || end == arg || *end || *arg == '-' || v < min || v > max)
        argp_error(state, "%s takes a number from %llu to %llu, not '%s'", option, (unsigned long long)min,
                   (unsigned long long)max, arg);
    return v;
}

static float parse_real(const char *arg, const char *option, double min, double max, struct argp_state *state)
{
    char *end;
    double v = strtod(arg, &end);
    if (end == arg || *end || !(v >= min && v <= max))
        argp_error(state, "%s takes a number from %g to %g, not '%s'", option, min, max, arg);
    return (float)v;
}

static enum ffn parse_ffn(const char *arg, struct argp_state *state)
{
    for (int f = 0; f < FFNS; f++)
        if (strcmp(arg, ffn_name(f)) == 0)
            return f;
    argp_error(state, "unknown FFN '%s': silu, reglu, drelu or relu", arg);
    return FFN_SILU;
}

/* What options mean together. */
static void settle(struct arguments *a, struct argp_state *state)
{
    struct synth_options *o = &a->synth;
    if (!o->shape || !o->type || !o->path) {
        argp_error(state, "--shape, --type and -o are needed");
        return;
    }
    if (!a->ffn_given && o->shape->architecture == OPT)
        o->ffn = FFN_RELU;
    if ((o->shape->architecture == OPT) != (o->ffn == FFN_RELU))
        argp_error(state, "shape %s takes --ffn %s", o->shape->name,
                   o->shape->architecture == OPT ? "relu" : "silu, reglu or drelu");
    if (o->shape->experts && a->ffn_given)
        argp_error(state, "shape %s has an FFN of its own: leave out --ffn", o->shape->name);
    if (o->ffn == FFN_SILU && (o->live > 0 || o->skew >= 0))
        argp_error(state, "--live and --skew are for --ffn reglu, drelu and relu");
    if (o->ffn != FFN_SILU && !block_maker_of(o->type->body)->encode)
        argp_error(state, "type %s is not for --ffn %s: its weights are only drawn", o->type->name, ffn_name(o->ffn));
    o->live = o->live > 0 ? o->live : 0.10f;
    o->skew = o->skew >= 0 ? o->skew : 1.25f;
    o->layers = o->layers ? o->layers : o->shape->layers;
}

static error_t parse_option(int k, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct synth_options *o = &a->synth;
    switch (k) {
    case OPT_SHAPE:
        o->shape = shape_of(arg);
        if (!o->shape)
            argp_error(state, "unknown shape '%s': " SHAPES, arg);
        return 0;
    case OPT_TYPE:
        o->type = weight_type_of(arg);
        if (!o->type)
            argp_error(state, "unknown type '%s': " TYPES, arg);
        return 0;
    case OPT_LAYERS: o->layers = (uint32_t)parse_number(arg, "--layers", 1, MAX_LAYERS, state); return 0;
    case OPT_SEED: o->seed = parse_number(arg, "--seed", 0, UINT64_MAX, state); return 0;
    case OPT_FFN:
        o->ffn = parse_ffn(arg, state);
        a->ffn_given = true;
        return 0;
    case OPT_LIVE: o->live = parse_real(arg, "--live", 0.001, 1, state); return 0;
    case OPT_SKEW: o->skew = parse_real(arg, "--skew", 0, 3, state); return 0;
    case OPT_NO_MEASURE: a->no_measure = true; return 0;
    case OPT_HEADER_ONLY: o->header_only = true; return 0;
    case 'o': o->path = arg; return 0;
    case ARGP_KEY_END: settle(a, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Prints the live share by layer, and whether the model's is what was asked for. */
static status report(const struct synth_options *o, const struct layer_measure *layers)
{
    double sum = 0;
    printf("live share by layer:");
    for (uint32_t i = 0; i < o->layers; i++) {
        printf(" %.4f", layers[i].live);
        sum += layers[i].live;
    }
    double live = sum / o->layers;
    printf("\nlive share: %.4f (asked for %g)\n", live, (double)o->live);
    if (fabs(live / o->live - 1) <= LIVE_TOLERANCE)
        return ST_OK;
    log_error("%s: the live share is %.4f, expected %g within 10 %%", o->path, live, (double)o->live);
    return ST_INTERNAL;
}

static status calibrate(const struct synth_options *o, struct synth_file *file)
{
    struct layer_measure *layers = calloc(o->layers, sizeof *layers);
    if (!layers) {
        log_error("out of memory for the measurements of %u layers", o->layers);
        return ST_NOMEM;
    }
    status st = synth_calibrate(o, file, layers);
    if (st == ST_OK)
        st = report(o, layers);
    free(layers);
    return st;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {argp_options, parse_option, NULL, doc, NULL, NULL, NULL};
    struct arguments a = {.synth = {.seed = 1, .live = -1, .skew = -1}};
    const struct synth_options *o = &a.synth;
    struct synth_file file;
    argp_err_exit_status = 2;
    if (argp_parse(&argp, argc, argv, 0, NULL, &a) != 0)
        return 2;
    status st = synth_write(o, &file);
    if (st != ST_OK)
        return 1;
    fprintf(stderr, "%s: %s, %u layers, %s, %s, %.2f GB\n", o->path, o->shape->name, o->layers, o->type->name,
            ffn_name(o->ffn), (double)file.bytes * 1e-9);
    if (o->ffn != FFN_SILU && !a.no_measure && !o->header_only)
        st = calibrate(o, &file);
    free(file.norms);
    return st == ST_OK ? 0 : 1;
}
