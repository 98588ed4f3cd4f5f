#include "worker/samplers.h"

#include "base/log.h"
#include "sampling/grammar.h"

void samplers_lay(struct samplers *s, const struct wire_limits *lim, const struct token_trie *trie, struct arena *a)
{
    for (uint32_t i = 0; i < lim->n_sequences; i++)
        sampler_lay(&s->of[i], lim->n_ctx, trie, lim->n_grammar_ops, a);
    sampler_lay_scratch(&s->scratch, (int32_t)lim->n_vocab, a);
    s->bias = arena_alloc(a, (size_t)lim->n_sequences * WIRE_BIASES * sizeof *s->bias);
    s->ops = arena_alloc(a, lim->n_grammar_ops * sizeof *s->ops);
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

static const struct token_bias *biases_of(struct samplers *s, const struct wire_begin *b)
{
    struct token_bias *bias = s->bias + (size_t)b->sequence * WIRE_BIASES;
    for (uint32_t i = 0; i < b->n_bias; i++)
        bias[i] = (struct token_bias){b->bias[i].token, b->bias[i].bias};
    return bias;
}

static struct grammar grammar_of(struct samplers *s, const struct wire_begin *b)
{
    for (uint32_t i = 0; i < b->n_ops; i++)
        s->ops[i] = (struct grammar_op){b->ops[i].kind, b->ops[i].lo, b->ops[i].hi, b->ops[i].a, b->ops[i].b};
    return (struct grammar){s->ops, b->n_ops};
}

/* The sampler of a run that begins: its text is what lies before the run. */
static status make_anew(struct samplers *s, const struct wire_begin *b, const struct wire_step *step)
{
    struct sampler *sampler = &s->of[b->sequence];
    const struct grammar grammar = grammar_of(s, b);
    const struct wire_run *run = step->runs;
    while (run->sequence != b->sequence)
        run++;
    status st = b->n_ops ? grammar_check(&grammar) : ST_OK;
    if (st)
        return st;
    sampler->params = params_of(&b->sampling);
    sampler->params.n_bias = b->n_bias;
    sampler->params.bias = biases_of(s, b);
    sampler->params.grammar = b->n_ops ? &grammar : NULL;
    sampler->params.grammar_from = b->grammar_from;
    sampler_begin(sampler, run->position - b->n_text);
    sampler->params.grammar = NULL; /* it has a copy */
    for (uint32_t i = 0; i < b->n_text; i++)
        sampler_accept(sampler, b->text[i]);
    return ST_OK;
}

status samplers_begin(struct samplers *s, const struct wire_step *step)
{
    status st = ST_OK;
    for (uint32_t i = 0; i < step->n_begins && !st; i++)
        st = make_anew(s, &step->begins[i], step);
    for (uint32_t i = 0; i < step->n_runs && !st; i++) {
        const struct wire_run *run = &step->runs[i];
        struct sampler *sampler = &s->of[run->sequence];
        sampler_truncate(sampler, run->position);
        if (sampler_position(sampler) != run->position) {
            log_error("a run of sequence %u at position %u, but its text ends at %u", run->sequence, run->position,
                      sampler_position(sampler));
            st = ST_FORMAT;
        }
    }
    return st;
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
