#include "device/cuda/faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/numbers.h"
#include "model/model.h"

struct fault_record {
    const char *what;
    enum device_part part;
    int layer;
    uint32_t n;
    int64_t values;                  /* of a token */
    bool chosen;                     /* of faults.tokens; else of all */
};

status faults_open(struct faults *f, const struct device_options *o)
{
    enum { BESIDE_LAYERS = 8 };
    const uint32_t most = 6 * (uint32_t)o->model->hp.n_layers + BESIDE_LAYERS;
    *f = (struct faults){.records = calloc(most, sizeof *f->records), .most = most,
                         .runs = calloc(o->n_batch, sizeof *f->runs), .tokens = calloc(o->n_batch, sizeof *f->tokens)};
    if (f->records && f->runs && f->tokens)
        return ST_OK;
    log_error("out of memory for a device");
    return ST_NOMEM;
}

void faults_close(struct faults *f)
{
    free(f->records);
    free(f->runs);
    free(f->tokens);
}

bool faults_full(const struct faults *f, bool chosen, uint32_t n)
{
    return f->n + n > f->most || (chosen && f->chosen);
}

void faults_begin(struct faults *f, const struct batch *b, const char *what)
{
    f->n_runs = b->n_runs;
    memcpy(f->runs, b->runs, b->n_runs * sizeof *f->runs);
    snprintf(f->from, sizeof f->from, "%s", what);
}

uint32_t faults_add(struct faults *f, const struct work *w, const char *what, int64_t values)
{
    f->records[f->n] = (struct fault_record){what, w->part, w->layer, w->n, values, w->tokens != NULL};
    f->chosen |= w->tokens != NULL;
    if (w->tokens)
        memcpy(f->tokens, w->tokens, w->n * sizeof *f->tokens);
    return f->n++;
}

status faults_report(const struct faults *f, const struct model *m, unsigned long long noted)
{
    const uint32_t order = (uint32_t)(noted >> 32), value = (uint32_t)noted;
    if (order >= f->n || value >= f->records[order].n * f->records[order].values) {
        log_error("a GPU notes value %u of operation %u as no number: there is none", value, order);
        return ST_INTERNAL;
    }
    const struct fault_record *r = &f->records[order];
    const struct batch b = {.runs = f->runs, .n_runs = f->n_runs};
    const struct work w = {.part = r->part, .layer = r->layer, .n = r->n, .batch = &b,
                           .tokens = r->chosen ? f->tokens : NULL};
    return not_number(m, &w, r->what, value, r->values, "NaN or infinite");
}

void faults_forget(struct faults *f)
{
    f->n = 0;
    f->chosen = false;
}
