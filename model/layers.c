#include "model/layers.h"

#include <inttypes.h>

static const char pattern_key[] = "attention.sliding_window_pattern";

/* A truth for each layer. */
static status read_each(const struct keys *k, struct hparams *hp, uint64_t n)
{
    if (n < (uint64_t)hp->n_layers)
        return bad_key(k, ST_FORMAT, pattern_key, "expected a number or %d truths, found %" PRIu64, hp->n_layers, n);
    for (int i = 0; i < hp->n_layers; i++) {
        if (!array_truth(k, pattern_key, (uint64_t)i, &hp->layer[i].slides))
            return bad_key(k, ST_FORMAT, pattern_key, "expected truths, found other values");
    }
    return ST_OK;
}

status layers_slide(const struct keys *k, struct hparams *hp, int64_t pattern)
{
    uint64_t n;
    status s = optional_int(k, "attention.sliding_window", 0, INT32_MAX, &hp->window);
    if (s != ST_OK || hp->window == 0)
        return s;
    if (array_length(k, pattern_key, &n))
        return read_each(k, hp, n);
    s = optional_int(k, pattern_key, 0, INT32_MAX, &pattern);
    for (int i = 0; s == ST_OK && i < hp->n_layers; i++)
        hp->layer[i].slides = pattern == 0 || i % pattern < pattern - 1;
    return s;
}

status layers_turn(const struct keys *k, struct hparams *hp, struct rope own)
{
    if (hp->window == 0)
        return ST_OK;
    hp->rope[1] = own;
    for (int i = 0; i < hp->n_layers; i++)
        hp->layer[i].rope = hp->layer[i].slides;
    return optional_float(k, "rope.freq_base_swa", 1, 1e15, &hp->rope[1].base);
}
