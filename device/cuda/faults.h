/* Values that are no numbers, found late: kernels note the first one of the earliest operation (struct gpu_fault), and
 * the next wait reads which it was. Until then it is kept what the operations were and which tokens they had. */
#ifndef HEARTH_DEVICE_CUDA_FAULTS_H
#define HEARTH_DEVICE_CUDA_FAULTS_H

#include "device/device.h"

#define NO_FAULT (~0ull)

struct fault_record;

struct faults {
    struct fault_record *records;    /* [most] of the operations since the last wait */
    uint32_t n, most;
    bool chosen;                     /* one had but some of the tokens: */
    struct run *runs;                /* [n_batch] of their step */
    uint32_t n_runs;
    uint32_t *tokens;                /* [n_batch] these */
    char from[48];                   /* whose the hidden states are */
};

/* ST_NOMEM (logged). */
status faults_open(struct faults *f, const struct device_options *o);
void faults_close(struct faults *f);

/* Whether a wait must come before the next n operations can be kept; chosen: of some of the step's tokens. */
bool faults_full(const struct faults *f, bool chosen, uint32_t n);
/* A step begins, all before it being known to be right. what: copied. */
void faults_begin(struct faults *f, const struct batch *b, const char *what);
/* An operation that makes [w->n, values]; `what` is a constant, or faults.from. Returns its number, which is its
 * order. */
uint32_t faults_add(struct faults *f, const struct work *w, const char *what, int64_t values);
/* ST_NAN, logged: what was noted. */
status faults_report(const struct faults *f, const struct model *m, unsigned long long noted);
void faults_forget(struct faults *f);

#endif
