#include "tests/conformance/device_states.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const char rank_3[] = "the hidden state from rank 3";

/* Whether the device has x, as it leaves for `to`. */
static bool has(struct device *d, uint32_t n, const float *x, size_t bytes, float *to)
{
    memset(to, 0xa5, bytes);
    d->ops->export_states(d, n, to);
    return d->ops->found(d) == ST_OK && memcmp(to, x, bytes) == 0;
}

/* Through memory of the host's: what it came from may be something else as soon as it is taken. */
static bool through_host(struct device *d, const struct batch *b, const float *x, size_t bytes, float *from, float *to)
{
    memcpy(from, x, bytes);
    const status st = d->ops->import_states(d, b, from, rank_3);
    memset(from, 0xa5, bytes);
    return st == ST_OK && has(d, b->n_tokens, x, bytes, to);
}

/* x = zeros, then what lies in the device's own memory, where more than one x has room. */
static bool through_device(struct device *d, const struct batch *b, const float *x, size_t bytes, float *zeros)
{
    const struct device_ops *ops = d->ops;
    ops->give_states(d, b->n_tokens, ops->passing(d, 1));
    memset(zeros, 0, bytes);
    if (ops->import_states(d, b, zeros, rank_3))
        return false;
    ops->give_states(d, b->n_tokens, ops->passing(d, 0));
    return ops->take_states(d, b, ops->passing(d, 1), rank_3) == ST_OK && has(d, b->n_tokens, x, bytes, zeros);
}

/* What is no number is found on the way in, where it came from. */
static bool refuses(struct device *d, const struct batch *b, float *some, size_t values)
{
    struct log_catcher found;
    memset(some, 0, values * sizeof *some);
    some[values - 1] = NAN;
    log_catch(&found);
    (void)d->ops->import_states(d, b, some, "what a test brings");
    d->ops->give_states(d, b->n_tokens, d->ops->passing(d, 0));
    (void)d->ops->found(d);
    log_catch(NULL);
    log_catch(&found);
    const status st = d->ops->take_states(d, b, d->ops->passing(d, 0), rank_3);
    log_catch(NULL);
    return st == ST_NAN && strstr(found.first_error, rank_3);
}

bool states_pass(struct device *d, const struct batch *b, int64_t d_model, const float *x, float *pinned)
{
    const size_t values = b->n_tokens * (size_t)d_model, bytes = values * sizeof *x;
    float *own = malloc(bytes);
    const char *wrong = NULL;
    if (!own)
        return false;
    if (!through_host(d, b, x, bytes, own, own))
        wrong = "through the host's memory x";
    else if (!through_host(d, b, x, bytes, pinned, own) || !through_host(d, b, x, bytes, own, pinned))
        wrong = "through pinned memory x";
    else if (d->ops->passing && !through_device(d, b, x, bytes, own))
        wrong = "through its own memory x";
    else if (d->ops->passing && !refuses(d, b, own, values))
        wrong = "through its own memory NaN";
    else if (!through_host(d, b, x, bytes, own, own))
        wrong = "after NaN x";
    if (wrong)
        fprintf(stderr, "%s: %s does not come as it is\n", d->ops->name, wrong);
    free(own);
    return !wrong;
}
