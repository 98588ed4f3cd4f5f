/* What the files of this folder share: a GPU, its memory, and how arrays are handed out. Each object has a header of
 * its own. d_model is written d, tokens of a step n.
 *
 * Everything that is computed goes into one stream, in the order of the calls; a call waits only where it gives
 * something to the host (staging.h). Pointers into weights and activations are the GPU's, unless a comment says
 * "host". */
#ifndef HEARTH_DEVICE_CUDA_CUDA_H
#define HEARTH_DEVICE_CUDA_CUDA_H

#include "base/arena.h"
#include "base/threads.h"
#include "device/cuda/faults.h"
#include "device/cuda/queue.h"
#include "device/cuda/staging.h"
#include "device/device.h"
#include "device/lay.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/neurons.h"
#include "kernels/kernels.h"
#include "model/model.h"

/* What kernels note on the GPU; every wait brings it. */
struct notes {
    unsigned long long fault;    /* struct gpu_fault */
    unsigned long long reserved; /* so that counters are aligned to 16 */
    struct gpu_counts counts[];  /* of a set of neurons each, since the device was opened */
};

struct cuda {
    struct device_options o;
    const struct hparams *hp;    /* o.model's */
    struct gpu gpu;
    struct arena arena;          /* over the GPU's memory; dry: the same code counts what it would hand out */
    bool lost;                   /* a call of CUDA has failed, and was logged: nothing is computed any more */
    status failed;               /* found late, and logged: the next operation that returns a status returns it */
    struct notes *notes;
    size_t notes_bytes;
    struct queue queue;
    struct staging staging;
    struct faults faults;
    struct device_counts counts; /* since they were asked for: what the host knows by itself */
};

/* Whether a call of CUDA went well; the first that did not is logged, and the device lost from then on. */
bool cuda_ok(struct cuda *c, cudaError_t e, const char *call);
/* The same of the launches since the last call. */
bool cuda_launched(struct cuda *c);
/* The GPU with number o.index, for the calling thread. ST_INTERNAL (logged) if it cannot be had. */
status cuda_begin(struct cuda *c);
/* Memory of so many bytes and a stream. ST_BUDGET, ST_NOMEM, ST_INTERNAL; logged. */
status cuda_acquire(struct cuda *c, uint64_t bytes);
/* Before it is given back: what was begun comes to its end, whatever that is. */
void cuda_settle(struct cuda *c);
void cuda_release(struct cuda *c);

static inline struct laying cuda_laying(struct cuda *c)
{
    return (struct laying){.arena = &c->arena, .o = &c->o, .unit = model_neuron_unit(c->o.model), .apart = true};
}

static inline void lay_sums(struct cuda *c, struct gpu_sums *s)
{
    s->units = arena_alloc(&c->arena, (size_t)(c->o.n_batch * c->hp->d_model) * sizeof *s->units);
    s->broken = lay_words(&c->arena, c->o.n_batch);
}

#endif
