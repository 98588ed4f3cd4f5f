/* The checkpoint of `hearth prepare`, MODEL.neurons.part: what a process has counted, the samples it keeps, and the
 * layers it has fitted. Whatever ends the process, the next one goes on from there.
 *
 * One file: a header, the state twice (a checkpoint overwrites the older one, so that one is always whole), the
 * samples and what they have chosen, whose room is reserved when the file is made, and the fitted layers as they come.
 * Integers and floats lie in
 * it as they lie in memory: it never leaves its machine. One process at a time; not thread-safe, except that samples of
 * different layers may be put at once. */
#ifndef HEARTH_PREPARE_PART_H
#define HEARTH_PREPARE_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "coordinator/scoring.h"
#include "kernels/kernels.h"

enum { PART_MEASURES = 16, PART_SETTINGS = 12 };

/* Something that results depend on, as text for people; zeros behind it. */
struct part_setting {
    char name[32], value[32];
};

/* What must agree for a checkpoint to be of use. No gaps: it is compared as bytes. */
struct part_shape {
    struct part_setting settings[PART_SETTINGS]; /* model, text and options; name "": no more */
    int32_t first, last;   /* layers of this process */
    int64_t d_model, d_ff;
    int64_t n_experts, n_used, n_weights; /* of a layer; that a token chooses; weights that it then has. 0: none */
    uint64_t n_windows;
    uint64_t n_samples;    /* of each layer */
};

/* A mode and how well the model predicts the text in it, as far as that was measured. */
struct part_measure {
    int32_t sparse, predictor; /* enum sparse_mode, enum predictor */
    float skip_share;
    uint32_t used;
    struct score score;
};

struct part_fitted {
    uint64_t offset, size; /* of an encoded layer in the file; size 0: not fitted yet */
};

/* What changes. Arrays of layers begin with the process's first one. */
struct part_state {
    uint64_t windows;      /* counted, each layer */
    int32_t activation;    /* enum activation as it was found out, -1: not yet */
    uint32_t reserved;
    double seconds;        /* worked so far */
    struct part_measure measures[PART_MEASURES];
    struct score *scores;        /* [n_windows] dense; rank 0 alone */
    struct part_fitted *fitted;  /* [layers] */
    float *level;                /* [layers] |activation| above which a neuron of a SiLU model fires */
    uint32_t *fired;             /* [layers, d_ff] tokens */
    double *sum;                 /* [layers, d_ff] of |activation| */
    uint32_t *chosen;            /* [layers, n_experts] tokens */
};

/* The first thing in which the shape of a checkpoint differs from what is asked for now, for people. */
void part_difference(const struct part_shape *there, const struct part_shape *now, char *out, size_t size);

struct part;

/* Opens the checkpoint, or makes a new one where there is none, or one that holds no work yet, or a damaged one (which
 * is said). *resumed: it held something. `kernels` is borrowed. ST_MISMATCH: it holds the work of another shape, which
 * a line names, or is no checkpoint; it stays as it is. ST_IO (also if another process is at work on it), ST_NOMEM;
 * logged. */
status part_open(const char *path, const struct part_shape *shape, const struct kernels *kernels, bool *resumed,
                 struct part **out);
/* Closes it; what was not saved is lost. NULL is fine. */
void part_close(struct part *p);
/* Closes and deletes it. */
void part_remove(struct part *p);

const struct part_shape *part_shape(const struct part *p);
struct part_state *part_state(struct part *p); /* the caller's to change */
/* Writes the state. ST_IO, logged. */
status part_save(struct part *p);
/* Whether it is time to save again: saving may take a fiftieth of the time. */
bool part_due(const struct part *p);
/* Bytes of disk that a part of this shape takes at least. */
uint64_t part_bytes(const struct part_shape *s);

/* Keeps x [d_model] f32 as f16, or gives n samples of a layer back as f32. ST_IO, logged. */
status part_put_sample(struct part *p, int layer, uint64_t slot, const float *x);
status part_samples(struct part *p, int layer, uint64_t n, float *x /* [n, d_model] */);
/* The same of what a sample has chosen: experts [n_used], weights [n_weights]. */
status part_put_routes(struct part *p, int layer, uint64_t slot, const uint32_t *expert, const float *weight);
status part_routes(struct part *p, int layer, uint64_t n, uint32_t *expert /* [n, n_used] */,
                   float *weight /* [n, n_weights] */);

/* Keeps an encoded layer and saves the state. ST_IO, logged. */
status part_put_layer(struct part *p, int layer, const uint8_t *bytes, size_t n);
/* An encoded layer; *bytes malloc'ed, NULL: not fitted yet. ST_IO, ST_NOMEM; logged. */
status part_layer(struct part *p, int layer, uint8_t **bytes, size_t *n);

#endif
