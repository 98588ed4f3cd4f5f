/* Options that several commands share, as children for their argp parsers, and the checks of option values.
 *
 * A wrong value prints one line and ends the program with status 2, as argp does. Rank 0 says it, and mpirun ends the
 * others before they say anything; a rank whose options alone are wrong (mpirun takes some for each) says so itself.
 * --help and the like end with status 0 everywhere, and are printed once. */
#ifndef HEARTH_CLI_OPTIONS_H
#define HEARTH_CLI_OPTIONS_H

#include <argp.h>
#include <stdint.h>
#include "base/status.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "cli/text.h"
#include "node/cluster.h"
#include "node/launch.h"
#include "sampling/sampler.h"

extern const struct argp argp_cluster;  /* -m -t -b --plan ...; input: struct cluster_options */
extern const struct argp argp_network;  /* --transport --rdma-device ...; input: struct network_options */
extern const struct argp argp_context;  /* -c; the same input. A command whose default is its own has a -c of its own */
extern const struct argp argp_sampling; /* -s --temp ...; input: struct sampler_params */
extern const struct argp argp_text;     /* -p -f; input: struct text_option */
extern const struct argp argp_output;   /* -o; input: enum table_format */

/* The values that options have when nobody sets them. */
extern const struct cluster_options cluster_defaults;
extern const struct sampler_params sampling_defaults;

/* What an option that takes several numbers holds. */
struct number_list {
    int64_t at[16];
    int n;
};

/* Parses the command line into `input`. Text that says what is wrong has been printed unless ST_OK. */
status options_parse(const struct argp *argp, const struct launch *launch, int argc, char **argv, void *input);

/* After parsing, on every rank of a command that runs the model: the threads that this rank should use, its NUMA node,
 * where progress goes, and whether ranks are processes: then --ranks is told to have no effect, and MPI is started. `p`
 * must outlive the cluster. Errors of launch_meet. */
status options_settle(struct cluster_options *o, const struct launch *launch, struct progress *p);

/* For parsers: values with their range, both ends allowed. 0, or EINVAL after one line on stderr. */
error_t option_int(struct argp_state *state, const char *name, const char *arg, int64_t least, int64_t most,
                   int64_t *out);
/* "8,16": numbers of that range, in *out. */
error_t option_list(struct argp_state *state, const char *name, const char *arg, int64_t least, int64_t most,
                    struct number_list *out);
error_t option_float(struct argp_state *state, const char *name, const char *arg, double least, double most,
                     float *out);
/* "8G", "512M", "1048576": bytes, K M G T being powers of 1024. */
error_t option_bytes(struct argp_state *state, const char *name, const char *arg, uint64_t *out);
/* ARGP_KEY_ARG where -m FILE may be given as FILE alone: an argument beside a model belongs to nothing. */
error_t option_model(struct argp_state *state, char *arg, const char **model);
/* -c, at least `least` tokens. */
error_t option_context(struct argp_state *state, const char *arg, uint32_t least, struct cluster_options *o);
/* Says what is wrong with the command line. Returns EINVAL. */
error_t option_wrong(struct argp_state *state, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
