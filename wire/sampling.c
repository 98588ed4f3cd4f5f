/* Sampling parameters of what begins in STEP and HIDDEN. */
#include <math.h>

#include "base/log.h"
#include "wire/records.h"

void write_sampling(struct writer *w, const struct wire_sampling *s)
{
    write_f32(w, s->temperature);
    write_f32(w, s->top_p);
    write_f32(w, s->min_p);
    write_f32(w, s->repeat_penalty);
    write_f32(w, s->presence_penalty);
    write_f32(w, s->frequency_penalty);
    write_u32(w, (uint32_t)s->top_k);
    write_u32(w, (uint32_t)s->repeat_last);
    write_u64(w, s->seed);
}

bool wire_sampling_finite(const struct wire_sampling *s)
{
    return isfinite(s->temperature) && isfinite(s->top_p) && isfinite(s->min_p) && isfinite(s->repeat_penalty) &&
           isfinite(s->presence_penalty) && isfinite(s->frequency_penalty);
}

status read_sampling(int kind, struct reader *r, struct wire_sampling *s)
{
    s->temperature = read_f32(r);
    s->top_p = read_f32(r);
    s->min_p = read_f32(r);
    s->repeat_penalty = read_f32(r);
    s->presence_penalty = read_f32(r);
    s->frequency_penalty = read_f32(r);
    s->top_k = (int32_t)read_u32(r);
    s->repeat_last = (int32_t)read_u32(r);
    s->seed = read_u64(r);
    if (wire_sampling_finite(s))
        return ST_OK;
    log_error("%s message: temperature %g, top_p %g, min_p %g, repeat_penalty %g, presence_penalty %g, "
              "frequency_penalty %g, expected finite numbers", wire_name(kind), (double)s->temperature,
              (double)s->top_p, (double)s->min_p, (double)s->repeat_penalty, (double)s->presence_penalty,
              (double)s->frequency_penalty);
    return ST_FORMAT;
}
