#include "worker/samplers.h"

#include "base/log.h"

void samplers_lay(struct samplers *s, const struct wire_limits *lim, struct arena *a)
{
    for (uint32_t i = 0; i < lim->n_sequences; i++)
        sampler_lay(&s->of[i], lim->n_ctx, a);
    sampler_lay_scratch(&s->scratch, (int32_t)lim->n_vocab, a);
}

static struct sampler_params params_of(const struct wire_sampling *s)
{
    return (struct sampler_params){.temperature = s->temperature,
                                   .top_k = s->top_k,
                                   .top_p = s->top_p,
                                   .min_p = s->min_p,
                                   .repeat_penalty = s->repeat_penalty,
                                   .presence_penalty = s->presence_penalty,
                                   .frequency_penalty = s->frequency_penalty,
                                   .repeat_last = s->repeat_last,
                                   .seed = s->seed};
}

/* The sampler of a run that begins: its text is what lies before the run. */
static void make_anew(struct samplers *s, const struct wire_begin *b, const struct wire_step *step)
{
    struct sampler *sampler = &s->of[b->sequence];
    const struct wire_run *run = step->runs;
    while (run->sequence != b->sequence)
        run++;
    sampler->params = params_of(&b->sampling);
    sampler_begin(sampler, run->position - b->n_text);
    for (uint32_t i = 0; i < b->n_text; i++)
        sampler_accept(sampler, b->text[i]);
}

status samplers_begin(struct samplers *s, const struct wire_step *step)
{
    for (uint32_t i = 0; i < step->n_begins; i++)
        make_anew(s, &step->begins[i], step);
    for (uint32_t i = 0; i < step->n_runs; i++) {
        const struct wire_run *run = &step->runs[i];
        struct sampler *sampler = &s->of[run->sequence];
        sampler_truncate(sampler, run->position);
        if (sampler_position(sampler) != run->position) {
            log_error("a run of sequence %u at position %u, but its text ends at %u", run->sequence, run->position,
                      sampler_position(sampler));
            return ST_FORMAT;
        }
    }
    return ST_OK;
}

void samplers_accept(struct samplers *s, const struct wire_run *run, const int32_t *tokens, uint32_t place)
{
    struct sampler *sampler = &s->of[run->sequence];
    for (uint32_t i = sampler_position(sampler) - run->position; i <= place; i++)
        sampler_accept(sampler, tokens[i]);
}

int32_t samplers_pick(struct samplers *s, const struct wire_run *run, const float *logits)
{
    return sampler_pick(&s->of[run->sequence], &s->scratch, logits);
}
