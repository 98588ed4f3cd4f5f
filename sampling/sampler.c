/* Sampling. The only elementary function is base/exactmath.h's, sums run in a fixed order and the generator is ours, so
 * that a draw is the same on every machine. */
#include "sampling/sampler.h"

#include <math.h>
#include <string.h>
#include "sampling/choices.h"
#include "sampling/constraint.h"
#include "sampling/philox.h"

const struct sampler_params sampler_greedy = {.temperature = 0, .top_p = 1, .repeat_penalty = 1};

void sampler_lay(struct sampler *s, uint32_t most_text, const struct token_trie *trie, uint32_t max_ops,
                 struct arena *a)
{
    *s = (struct sampler){.params = sampler_greedy, .most_text = most_text};
    s->text = arena_alloc(a, most_text * sizeof *s->text);
    if (trie) {
        s->constraint = constraint_lay(trie, max_ops, a);
        s->n_known = token_trie_n_vocab(trie);
    }
}

void sampler_lay_scratch(struct sampler_scratch *s, int32_t n_vocab, struct arena *a)
{
    const size_t n = (size_t)n_vocab;
    *s = (struct sampler_scratch){.n_vocab = n_vocab};
    s->choices = arena_alloc(a, n * sizeof *s->choices);
    s->weights = arena_alloc(a, n * sizeof *s->weights);
    s->adjusted = arena_alloc(a, n * sizeof *s->adjusted);
    s->seen = arena_alloc(a, n * sizeof *s->seen);
}

void sampler_begin(struct sampler *s, uint32_t position)
{
    s->begin = position;
    s->n_text = 0;
    s->constrained = s->constraint && s->params.grammar;
    if (s->constrained)
        constraint_begin(s->constraint, s->params.grammar);
}

void sampler_accept(struct sampler *s, int32_t token)
{
    if (s->n_text == s->most_text)
        return;
    if (s->constrained && sampler_position(s) >= s->params.grammar_from)
        constraint_accept(s->constraint, token);
    s->text[s->n_text++] = token;
}

/* The grammar has read none of the text, and reads it again. */
static void read_again(struct sampler *s)
{
    const uint32_t n = s->n_text;
    constraint_begin(s->constraint, NULL);
    for (s->n_text = 0; s->n_text < n;)
        sampler_accept(s, s->text[s->n_text]);
}

void sampler_truncate(struct sampler *s, uint32_t position)
{
    const uint32_t n = position > s->begin ? position - s->begin : 0;
    if (n >= s->n_text)
        return;
    const bool was_read = sampler_position(s) > s->params.grammar_from;
    s->n_text = n;
    if (s->constrained && was_read)
        read_again(s);
}

/* The tokens under penalty: the last n of the text. */
static uint32_t window(const struct sampler *s)
{
    const struct sampler_params *p = &s->params;
    if (p->repeat_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0)
        return 0;
    return p->repeat_last >= 0 && (uint32_t)p->repeat_last < s->n_text ? (uint32_t)p->repeat_last : s->n_text;
}

static void count(const struct sampler *s, struct sampler_scratch *scratch)
{
    for (uint32_t i = s->n_text - window(s); i < s->n_text; i++)
        scratch->seen[s->text[i]]++;
}

static void forget(const struct sampler *s, struct sampler_scratch *scratch)
{
    for (uint32_t i = s->n_text - window(s); i < s->n_text; i++)
        scratch->seen[s->text[i]] = 0;
}

/* A bias of so much says: never. */
static const float NEVER = -100;

/* The logits that the rest of a pick goes by. */
static const float *adjust(const struct sampler *s, struct sampler_scratch *scratch, const float *logits)
{
    const struct sampler_params *p = &s->params;
    const size_t n = (size_t)scratch->n_vocab;
    float *out = scratch->adjusted;
    if (!p->n_bias && !s->constrained)
        return logits;
    memcpy(out, logits, n * sizeof *out);
    for (uint32_t i = 0; i < p->n_bias; i++)
        out[p->bias[i].token] += p->bias[i].bias > NEVER ? p->bias[i].bias : -INFINITY;
    if (!s->constrained)
        return out;
    const uint64_t *mask = constraint_mask(s->constraint);
    for (size_t i = 0; i < n; i++)
        out[i] = i < (size_t)s->n_known && mask[i / 64] >> i % 64 & 1 ? out[i] : NAN;
    return out;
}

static float penalised(const struct sampler_params *p, uint32_t seen, float logit)
{
    if (!seen)
        return logit;
    if (p->repeat_penalty > 0)
        logit = logit > 0 ? logit / p->repeat_penalty : logit * p->repeat_penalty;
    return logit - ((float)seen * p->frequency_penalty + p->presence_penalty);
}

/* The tokens that may be picked, in order of id: all whose logit is a number. */
static size_t gather(const struct sampler_params *p, struct sampler_scratch *scratch, const float *logits)
{
    size_t n = 0;
    for (int32_t i = 0; i < scratch->n_vocab; i++) {
        float logit = penalised(p, scratch->seen[i], logits[i]);
        scratch->choices[n] = (struct choice){logit, i};
        n += logit == logit;
    }
    return n;
}

enum { AT_ONCE = 16 }; /* logits: so that compilers take vectors */

static bool any_above(const float *logits, float least)
{
    int any = 0;
    for (int i = 0; i < AT_ONCE; i++)
        any |= logits[i] > least;
    return any;
}

/* The best of them, best first. `plain`: none is under penalty, so that most need not be looked at one by one. */
static size_t gather_top_k(const struct sampler_params *p, struct sampler_scratch *scratch, const float *logits,
                           bool plain)
{
    const size_t k = (size_t)p->top_k;
    size_t n = 0;
    for (int32_t at = 0; at < scratch->n_vocab; at += AT_ONCE) {
        const int32_t end = at + AT_ONCE < scratch->n_vocab ? at + AT_ONCE : scratch->n_vocab;
        if (plain && n == k && end == at + AT_ONCE && !any_above(logits + at, scratch->choices[0].logit))
            continue; /* of equals the lower ids stay */
        for (int32_t i = at; i < end; i++) {
            const float logit = penalised(p, scratch->seen[i], logits[i]);
            if (logit == logit)
                n = top_k_offer(scratch->choices, n, k, (struct choice){logit, i});
        }
    }
    return top_k_sort(scratch->choices, n, k);
}

static int32_t draw(const struct choice *c, size_t n, float best, float temperature, double random, double *weights)
{
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        total += weights[i] = choice_weight(c[i].logit, best, temperature);
    const double point = random * total;
    size_t picked = 0;
    for (size_t i = 0; i < n; i++) {
        if (weights[i] == 0)
            continue;
        picked = i; /* the last possible one, should rounding leave the sum below the point */
        sum += weights[i];
        if (sum > point)
            break;
    }
    return c[picked].id;
}

/* The lowest id of those with the largest logit; 0: none is a number. */
static int32_t largest(const float *logits, int32_t n)
{
    float most[AT_ONCE], best = -INFINITY;
    int32_t i = 0;
    for (int k = 0; k < AT_ONCE; k++)
        most[k] = -INFINITY;
    for (; i + AT_ONCE <= n; i += AT_ONCE)
        for (int k = 0; k < AT_ONCE; k++)
            most[k] = logits[i + k] > most[k] ? logits[i + k] : most[k];
    for (; i < n; i++)
        best = logits[i] > best ? logits[i] : best;
    for (int k = 0; k < AT_ONCE; k++)
        best = most[k] > best ? most[k] : best;
    for (i = 0; i < n && logits[i] != best;)
        i++;
    return i < n ? i : 0;
}

static int32_t largest_penalised(const struct sampler_params *p, const struct sampler_scratch *scratch,
                                 const float *logits)
{
    struct choice best = {0, -1};
    for (int32_t i = 0; i < scratch->n_vocab; i++) {
        float logit = penalised(p, scratch->seen[i], logits[i]);
        if (logit > best.logit || (best.id < 0 && logit == logit))
            best = (struct choice){logit, i};
    }
    return best.id < 0 ? 0 : best.id;
}

static int32_t pick_random(const struct sampler_params *p, struct sampler_scratch *scratch, const float *logits,
                           bool plain, double random)
{
    struct choice *c = scratch->choices;
    const bool sorted = p->top_k > 0;
    size_t n = sorted ? gather_top_k(p, scratch, logits, plain) : gather(p, scratch, logits);
    if (n == 0)
        return 0;
    if (p->top_p < 1)
        n = keep_top_p(c, n, p->top_p, sorted);
    const float best = choices_best(c, n);
    if (p->min_p > 0)
        n = keep_min_p(c, n, p->min_p, best);
    return draw(c, n, best, p->temperature, random, scratch->weights);
}

int32_t sampler_pick(const struct sampler *s, struct sampler_scratch *scratch, const float *logits)
{
    const struct sampler_params *p = &s->params;
    logits = adjust(s, scratch, logits);
    count(s, scratch);
    const bool plain = window(s) == 0;
    const int32_t token =
        p->temperature > 0 && p->top_k != 1
            ? pick_random(p, scratch, logits, plain, random_at(p->seed, sampler_position(s)))
            : plain ? largest(logits, scratch->n_vocab) : largest_penalised(p, scratch, logits);
    forget(s, scratch);
    return token;
}
