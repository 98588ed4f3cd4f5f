/* Values that are no numbers (NaN, infinities) end the run with a line that says where they arose, instead of a text
 * that means nothing. A weight that is none makes them, or a peer's message.
 *
 * Whatever is computed of a NaN is one (kernels.h), so it is enough to look at what every block reads and at what it
 * gives: d values of a token each, while the block reads all of its weights. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "device/numbers.h"
#include "model/model.h"

/* Carries into the top bit where all bits of the exponent are set. */
static uint32_t carry_of(uint32_t bits) { return (bits & 0x7fffffff) + 0x00800000; }

bool all_numbers(const float *x, int64_t n)
{
    enum { AT_ONCE = 16 }; /* so that compilers take vectors */
    uint32_t carried[AT_ONCE] = {0}, bits[AT_ONCE], any = 0;
    int64_t i = 0;
    for (; i + AT_ONCE <= n; i += AT_ONCE) {
        memcpy(bits, x + i, sizeof bits);
        for (int k = 0; k < AT_ONCE; k++)
            carried[k] |= carry_of(bits[k]);
    }
    for (; i < n; i++) {
        memcpy(bits, x + i, sizeof *bits);
        any |= carry_of(*bits);
    }
    for (int k = 0; k < AT_ONCE; k++)
        any |= carried[k];
    return !(any >> 31);
}

/* The run of the work's token i, and its position. */
static const struct run *run_of(const struct work *w, int64_t i, uint32_t *position)
{
    uint32_t token = w->tokens ? w->tokens[i] : (uint32_t)i;
    const struct run *r = batch_run(w->batch, &token);
    *position = r->position + token;
    return r;
}

status not_number(const struct model *m, const struct work *w, const char *what, int64_t i, int64_t n, const char *is)
{
    uint32_t position;
    char layer[32] = "";
    if (w->part != DEVICE_OUTPUT)
        snprintf(layer, sizeof layer, "layer %d: ", w->layer);
    const struct run *r = run_of(w, i / n, &position);
    log_error("%s: %s%s: value %lld of the token at position %u of sequence %u is %s, no number: the file is damaged, "
              "or the model does not work", gguf_path(m->file), layer, what, (long long)(i % n), position, r->sequence,
              is);
    return ST_NAN;
}

status not_numbers(const struct model *m, const struct work *w, const char *what, const float *x, int64_t n)
{
    int64_t i = 0;
    char is[16];
    while (i < w->n * n && isfinite(x[i]))
        i++;
    snprintf(is, sizeof is, "%g", (double)x[i]);
    return not_number(m, w, what, i, n, is);
}
