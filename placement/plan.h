/* Which holder has what. Pure data: made by hand, from options, or later by the solver; obeyed by everyone else.
 *
 * A holder is a device of a rank. Holders 0 to n_ranks - 1 are the CPUs of ranks 0 to n_ranks - 1, which are always
 * there; other devices follow. While there are CPUs alone, a holder's number is its rank's.
 *
 * A plan says for each layer whose stage it is (its residual stream and norms: exactly one rank), and which of its KV
 * heads and of its FFN neurons each holder has. A KV head comes with the query heads that share it and with its cache.
 *
 * Heads are cut at boundaries on whole head units, holder h having all from boundary h up to boundary h + 1; uncut they
 * are all the stage's. Neurons are parted into sets, each of which has one holder; a holder may have several, or none.
 * Sets are of whole neuron units, and then no plan changes a result; or, in a layer that says so, they split units, and
 * the sets decide the results: a neuron's activation is rounded in a block of 32 together with those of its set, and a
 * set's sum once for each unit that it has a part of. Who holds a set never changes a result.
 *
 * The output matrix's rows, one for each word of the vocabulary, may be cut at boundaries too; uncut they belong to the
 * last layer's stage, as the final norm does. The token embedding belongs to the first layer's. What belongs to a stage
 * is on one device of its rank, the home of the residual stream: its CPU unless the plan names another.
 *
 * The residual stream is at home on the stage, which asks the other ranks for their parts; or, in a plan of one stage,
 * all ranks that hold anything have it, and send each other their parts. */
#ifndef HEARTH_PLACEMENT_PLAN_H
#define HEARTH_PLACEMENT_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

enum { PLAN_MAX_RANKS = 64, PLAN_MAX_HOLDERS = 128, PLAN_MAX_LAYERS = 1024, PLAN_DEVICE_BYTES = 12 };

/* What a layer is made of; layers of one model may differ. Its neurons are in bundles: one for each expert, then one
 * for what all tokens share besides, if there is any; or one for all, if there are no experts. They are numbered
 * through. */
struct plan_shape {
    int64_t d_ff;        /* neurons of an expert; of the layer, if it has none */
    int64_t neuron_unit; /* sets are of whole units of so many (model_neuron_unit), counted within a bundle, whose last
                          * may be shorter; 0: not stated, of a plan written by hand */
    int64_t n_kv_heads;  /* of a delta net, key heads; 0: not stated */
    int64_t head_unit;   /* boundaries of heads are multiples of this (model_head_unit); 0: not stated */
    int64_t n_experts;   /* of d_ff neurons each; 0: it has none */
    int64_t n_experts_used; /* of them for one token */
    int64_t d_shared;    /* neurons beside experts, for all tokens */
};

/* Neurons [begin, end). */
struct neuron_range {
    int32_t begin, end;
};

/* Neurons of a layer, of all its bundles: INT32_MAX at most in any plan. */
int64_t plan_shape_neurons(const struct plan_shape *s);
int plan_n_bundles(const struct plan_shape *s);
struct neuron_range plan_bundle(const struct plan_shape *s, int i);
/* Which bundle a neuron of the layer is of. */
int plan_bundle_of(const struct plan_shape *s, int32_t neuron);
/* Where the unit ends that a neuron is of: at its bundle's end if units are not stated. */
int32_t plan_unit_end(const struct plan_shape *s, int32_t neuron);
/* Whether a multiple of `unit` neurons of its bundle come before it. */
bool plan_on_unit(const struct plan_shape *s, int32_t neuron, int64_t unit);

/* What a plan must agree with. */
struct plan_model {
    char architecture[32];
    int n_layers;
    struct plan_shape layer; /* every layer's but those of the first; unused in a struct plan, whose layers have
                              * theirs */
    int n_dense_layers;  /* that have no experts, though others do, */
    int64_t d_dense;     /* but so many neurons */
    bool is_net[PLAN_MAX_LAYERS]; /* layers that are delta nets, */
    int64_t key_heads, key_head_unit; /* which have other heads, in units of their own */
    int64_t n_vocab;     /* rows of the output matrix; 0: not stated */
    uint64_t file_bytes; /* all parts of the model file; 0: not stated */
    uint64_t file_hash;  /* of header and sampled content; 0: not stated */
};

/* A device of a rank: "cpu", "cpu:1" (a second one), "cuda:0". */
struct plan_holder {
    int rank;
    char device[PLAN_DEVICE_BYTES];
};

/* What a layer of the model is made of. */
struct plan_shape plan_model_shape(const struct plan_model *m, int layer);

/* Some of the plan's ranges, one after the other. */
struct range_span {
    size_t first;
    int n;
};

/* Neurons that are computed and rounded together. */
struct plan_set {
    int holder;
    struct range_span ranges; /* none empty, ascending and apart from each other; at least one */
};

struct plan_layer {
    struct plan_shape shape;
    int stage;           /* rank */
    bool splits_units;   /* sets need not be of whole units */
    bool down_at_stage;  /* see plan_down_at_stage */
    bool heads_cut;      /* the KV heads are cut: */
    int32_t heads[PLAN_MAX_HOLDERS + 1]; /* at these boundaries, n_holders + 1 of them; the last is shape.n_kv_heads */
    size_t first_set, n_sets; /* of the plan's; equal layers may share theirs */
    struct range_span held[PLAN_MAX_HOLDERS]; /* a holder's neurons of all its sets */
};

struct plan {
    struct plan_model model;
    int n_ranks, n_holders;
    struct plan_holder holders[PLAN_MAX_HOLDERS];
    int homes[PLAN_MAX_RANKS]; /* the holder that is a rank's home; 0: its CPU */
    struct plan_layer *layers; /* [model.n_layers] */
    struct plan_set *sets;     /* [n_sets], of all layers */
    size_t n_sets, sets_cap;
    struct neuron_range *ranges; /* [n_ranges], of all sets */
    size_t n_ranges, ranges_cap;
    bool rows_cut;       /* the output matrix is cut: */
    int64_t rows[PLAN_MAX_HOLDERS + 1]; /* its row boundaries, n_holders + 1 of them; the last is n_vocab */
    bool residual_all;   /* every rank that takes part has the residual stream (plan_set_residual) */
};

enum plan_split { SPLIT_STAGES, SPLIT_SHARDS, SPLIT_BOTH, SPLIT_HOT };

/* Makes a plan from options, whose holders are the ranks' CPUs. stages: rank r holds a contiguous layer range and its
 * whole FFN, in proportion to its share. shards: rank 0 is every layer's stage; heads, neurons and output rows are cut
 * in proportion to the shares. both: layers, heads, neurons and rows cut. Layers, units of heads and neurons and groups
 * of 16 rows are whole: the method of the largest remainder (Hamilton) cuts them, the lower rank first among equals, so
 * a rank with a tiny share may get none. Heads that are a single unit stay with the stage. Each expert is cut so: what
 * a rank got too little of the experts before counts, so that odd units go to the ranks in turn. `shares`: n_ranks
 * weights, not all zero, NULL for equal ones; a rank whose share is zero gets nothing but, for shards, its stage.
 * ST_USAGE (logged) if a share is negative or not finite, n_ranks is out of [1, PLAN_MAX_RANKS] or the split is
 * SPLIT_HOT, ST_UNSUPPORTED if the model has more than PLAN_MAX_LAYERS layers, ST_NOMEM. */
status plan_make(const struct plan_model *model, enum plan_split split, int n_ranks, const double *shares,
                 struct plan **out);

/* SPLIT_HOT: layers, heads and rows are cut as by SPLIT_BOTH; of each layer's neurons the hottest go to its stage, up
 * to its share, and the others to the other ranks in proportion to their shares. A lukewarm neuron goes where its
 * neighbours go, so that ranges stay few. Experts are dealt out by whole units: those that fire most, of whichever
 * expert, to the stage. fired[l] [its neurons] f32: the share of tokens for which each neuron of layer l
 * fires. ST_USAGE too (logged) if fired[l] is NULL or holds anything else. */
status plan_make_hot(const struct plan_model *model, int n_ranks, const double *shares, const float *const *fired,
                     struct plan **out);

/* Gives all down projections to the layers' stages, or back to the neurons' owners. */
void plan_set_down(struct plan *p, bool at_stage);

/* Gives the residual stream to all ranks that take part, or back to its home. ST_USAGE (logged, saying why) if the plan
 * cannot have it on all: it has several stages, or down projections on their stage. */
status plan_set_residual(struct plan *p, bool all);
/* Why plan_set_residual would refuse `all`; NULL if it would not. */
const char *plan_residual_obstacle(const struct plan *p);

/* How many layers there are of which a rank has something: the stage, heads or neurons. */
int plan_count_layers(const struct plan *p, int rank);
/* What a device is given of all that its rank's CPU has. */
struct plan_gift {
    const bool *heads, *neurons; /* [n_layers] the layer's heads; its neurons, */
    const bool *units;           /* NULL: all of them; else those of these units: a flag for each (plan_count_units) of
                                  * the neurons that are given, in the order of layers and neurons */
    bool rows, home;             /* rows of the output matrix; the residual stream */
};
/* Adds a device to a rank and gives it that. ST_USAGE (logged) if there are too many holders, ST_NOMEM; the plan is
 * then fit to be freed only. */
status plan_give(struct plan *p, int rank, const char *device, const struct plan_gift *g);
/* The first n of these layers whole, and the home; the rows too if n is more than there are. n > 0. Errors of
 * plan_give. */
status plan_offload(struct plan *p, int rank, const char *device, int n);
/* How many neuron units a holder has, of all layers; 0: sets of some layer split units, or nobody has said what one
 * is. */
int64_t plan_count_units(const struct plan *p, int holder);
/* Of these units, in the order of layers and neurons, those for which a flag is set stay on the holder, the others go
 * to its rank's CPU, which has no neurons. There are units. ST_NOMEM (logged): the plan is then fit to be freed
 * only. */
status plan_keep_units(struct plan *p, int holder, const bool *stay);
/* The same: of each layer's units as many stay as its marked neurons would fill (rounded), those with most of them
 * first. marks[l] [its neurons]: 1 or 0. */
status plan_keep_marked(struct plan *p, int holder, const int32_t *const *marks);
/* NULL (logged) if out of memory. */
struct plan *plan_copy(const struct plan *p);

/* Reads a plan from JSON text (n bytes, not NUL-terminated; this version of the format or an older one) and checks it
 * completely: holders are known kinds of devices, each there once, and homes are some of them; every layer has one
 * stage, stages are contiguous in ascending layers; every head and neuron of a layer and every row belongs to one
 * holder; sets are of whole units (if those are stated) unless the layer says that they split them; the residual stream
 * is on all ranks only where that is possible. Whether a rank has the device is for the rank to say. `where` names the
 * text in error lines, which say where in the JSON: "layers[3].sets[1].holder". ST_FORMAT, ST_NOMEM; plan_load also
 * ST_IO. Bytes are hostile: no input crashes. The format: docs/plans.md. */
status plan_parse(const char *text, size_t n, const char *where, struct plan **out);
status plan_load(const char *path, struct plan **out);

/* Whether the plan fits this model and number of ranks, and its sets and boundaries the model's units; what either side
 * does not state is not compared. ST_MISMATCH (logged: expected, found) if not. */
status plan_check(const struct plan *p, const struct plan_model *model, int n_ranks);

/* The plan as JSON text of the newest version, NUL-terminated, malloc'ed (caller frees); NULL if out of memory.
 * plan_parse reads it back. */
char *plan_format(const struct plan *p);

void plan_free(struct plan *p); /* NULL is fine */

/* Which rank a holder is a device of, and the device's name, which points into the plan. */
int plan_n_holders(const struct plan *p);
int plan_holder_rank(const struct plan *p, int holder);
const char *plan_holder_device(const struct plan *p, int holder);
/* The holder on which a rank has the residual stream, where it has it. */
int plan_home(const struct plan *p, int rank);
/* Whether it is a CPU, in the rank's main memory. */
bool plan_holder_is_cpu(const struct plan *p, int holder);

/* How many of a layer's sets a holder has, and the i-th of them: ranges, none empty, ascending and apart from each
 * other. plan_set returns how many; *ranges points into the plan. */
int plan_n_sets(const struct plan *p, int layer, int holder);
int plan_set(const struct plan *p, int layer, int holder, int i, const struct neuron_range **ranges);
/* Neurons of a layer that a holder has, of all its sets: ranges as of plan_set. */
int plan_neurons(const struct plan *p, int layer, int holder, const struct neuron_range **ranges);
int64_t plan_n_neurons(const struct plan *p, int layer, int holder); /* how many neurons those are */
/* Whether the layer's down projections lie on its stage, the owners having gate and up alone: they then answer with
 * their live activations instead of a partial sum. */
bool plan_down_at_stage(const struct plan *p, int layer);

/* [*begin, *end) of a layer's n_kv_heads KV heads that a holder has. */
void plan_heads(const struct plan *p, int layer, int holder, int64_t n_kv_heads, int64_t *begin, int64_t *end);

/* [*first, *last) of the layers whose stage is `rank`; *first == *last if none. */
void plan_stage(const struct plan *p, int rank, int *first, int *last);
/* The rank of the stage after `rank`'s, or -1 if that is the last. `rank` has a stage. */
int plan_next_stage(const struct plan *p, int rank);
/* [*begin, *end) of the output matrix's n_vocab rows that a holder has. */
void plan_rows(const struct plan *p, int holder, int64_t n_vocab, int64_t *begin, int64_t *end);

/* What a rank is asked for, which answers once for all its holders. */
enum plan_part { PLAN_HEADS, PLAN_NEURONS, PLAN_ROWS };
/* Whether any holder of a rank has some of that; `layer` means nothing for PLAN_ROWS. */
bool plan_rank_holds(const struct plan *p, enum plan_part part, int layer, int rank);
/* How many layers there are of which a holder has heads or neurons. */
int plan_holder_layers(const struct plan *p, int holder);
/* Whether a rank holds anything: a stage, heads, neurons or rows. */
bool plan_takes_part(const struct plan *p, int rank);
/* The ranks of the first layer's stage and of the last layer's. */
int plan_first_stage(const struct plan *p);
int plan_last_stage(const struct plan *p);

#endif
