/* Sampling. The only elementary function is base/exactmath.h's, sums run in a fixed order and the generator is ours, so
 * that a draw is the same on every machine. */
#include "sampling/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include "base/exactmath.h"
#include "base/log.h"

const struct sampler_params sampler_greedy = {.temperature = 0, .top_p = 1, .repeat_penalty = 1};

struct choice {
    float logit;
    int32_t id;
};

struct sampler {
    struct sampler_params p;
    int32_t n_vocab;
    struct choice *choices; /* [n_vocab] scratch */
    double *weights;        /* [n_vocab] scratch */
    int32_t *text;          /* [n_text, of most_text] the tokens so far */
    uint32_t n_text, most_text;
    uint32_t *seen;         /* [n_vocab] how often a token is among the last repeat_last of them */
    uint64_t state[4];
};

/* xoshiro256** (Blackman and Vigna, 2018, public domain algorithm), seeded by splitmix64 as its authors advise. */
static uint64_t next_u64(uint64_t s[4])
{
    uint64_t five = s[1] * 5, result = (five << 7 | five >> 57) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return result;
}

static void seed_state(uint64_t s[4], uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        s[i] = z ^ z >> 31;
    }
}

status sampler_create(int32_t n_vocab, uint32_t most_text, struct sampler **out)
{
    struct sampler *s = calloc(1, sizeof *s);
    size_t n = n_vocab > 0 ? (size_t)n_vocab : 1;
    if (s) {
        s->n_vocab = n_vocab;
        s->most_text = most_text;
        s->choices = malloc(n * sizeof *s->choices);
        s->weights = malloc(n * sizeof *s->weights);
        s->text = malloc((most_text + (size_t)1) * sizeof *s->text);
        s->seen = calloc(n, sizeof *s->seen);
    }
    if (!s || !s->choices || !s->weights || !s->text || !s->seen) {
        log_error("no memory for a sampler of %d tokens and a text of %u", n_vocab, most_text);
        sampler_free(s);
        return ST_NOMEM;
    }
    sampler_reset(s, &sampler_greedy);
    *out = s;
    return ST_OK;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    free(s->choices);
    free(s->weights);
    free(s->text);
    free(s->seen);
    free(s);
}

void sampler_reset(struct sampler *s, const struct sampler_params *p)
{
    const uint32_t n = s->n_text;
    s->p = *p;
    seed_state(s->state, p->seed);
    for (int32_t i = 0; i < s->n_vocab; i++)
        s->seen[i] = 0;
    s->n_text = 0;
    for (uint32_t i = 0; i < n; i++)
        sampler_accept(s, s->text[i]);
}

/* Whether the penalty's window is full when the text has n tokens: then each token that comes pushes one out. */
static bool window_is_full(const struct sampler *s, uint32_t n)
{
    return s->p.repeat_last >= 0 && n >= (uint32_t)s->p.repeat_last;
}

void sampler_accept(struct sampler *s, int32_t token)
{
    if (token < 0 || token >= s->n_vocab || s->n_text == s->most_text)
        return;
    s->text[s->n_text] = token;
    s->seen[token]++;
    if (window_is_full(s, s->n_text))
        s->seen[s->text[s->n_text - (uint32_t)s->p.repeat_last]]--;
    s->n_text++;
}

void sampler_truncate(struct sampler *s, uint32_t n)
{
    while (s->n_text > n) {
        s->n_text--;
        if (window_is_full(s, s->n_text))
            s->seen[s->text[s->n_text - (uint32_t)s->p.repeat_last]]++;
        s->seen[s->text[s->n_text]]--;
    }
}

/* The larger logit first, the lower id among equals: a total order, so selection does not depend on how it is done. */
static bool better(struct choice a, struct choice b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Restores the heap order below i; the root is the worst choice if `worst_up`, else the best. */
static void sift_down(struct choice *heap, size_t n, size_t i, bool worst_up)
{
    struct choice moving = heap[i];
    for (size_t down; (down = 2 * i + 1) < n; i = down) {
        if (down + 1 < n && better(heap[down], heap[down + 1]) == worst_up)
            down++;
        if (better(heap[down], moving) == worst_up)
            break;
        heap[i] = heap[down];
    }
    heap[i] = moving;
}

static void heapify(struct choice *heap, size_t n, bool worst_up)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(heap, n, i, worst_up);
}

static float penalised(const struct sampler *s, float logit, int32_t id)
{
    const float penalty = s->p.repeat_penalty, count = (float)s->seen[id];
    if (!s->seen[id])
        return logit;
    if (penalty > 0)
        logit = logit > 0 ? logit / penalty : logit * penalty;
    return logit - (count * s->p.frequency_penalty + s->p.presence_penalty);
}

/* The tokens that may be picked, in order of id: all whose logit is a number. */
static size_t gather(struct sampler *s, const float *logits)
{
    size_t n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        float logit = penalised(s, logits[i], i);
        s->choices[n] = (struct choice){logit, i};
        n += logit == logit;
    }
    return n;
}

/* Keeps the k best of n, best first. O(n + k log k) when the logits are in no order. */
static size_t keep_top_k(struct choice *c, size_t n, size_t k)
{
    if (k > n)
        k = n;
    heapify(c, k, true);
    for (size_t i = k; i < n; i++)
        if (better(c[i], c[0])) {
            c[0] = c[i];
            sift_down(c, k, 0, true);
        }
    for (size_t left = k; left > 1;) {
        struct choice worst = c[0];
        c[0] = c[--left];
        c[left] = worst;
        sift_down(c, left, 0, true);
    }
    return k;
}

/* e^((logit - best) / temperature), 1 for the best whatever it is (infinite too). */
static double weight(float logit, float best, float temperature)
{
    float x = (logit - best) / temperature;
    return logit == best ? 1 : x >= EXP_MIN ? (double)exp_f32(x) : 0;
}

/* Keeps the fewest best choices whose probabilities reach p, best first. */
static size_t keep_top_p(struct choice *c, size_t n, float p, bool sorted)
{
    if (!sorted)
        heapify(c, n, false);
    double total = 0, sum = 0;
    float best = c[0].logit;
    for (size_t i = 0; i < n; i++)
        total += weight(c[i].logit, best, 1);
    if (sorted) {
        size_t kept = 0;
        while (kept < n && (kept == 0 || sum < (double)p * total))
            sum += weight(c[kept++].logit, best, 1);
        return kept;
    }
    /* The best move behind the shrinking heap, and to the front in the end: c[n - 1] is the very best. */
    size_t left = n;
    while (left > 0 && (left == n || sum < (double)p * total)) {
        struct choice top = c[0];
        sum += weight(top.logit, best, 1);
        c[0] = c[--left];
        sift_down(c, left, 0, false);
        c[left] = top;
    }
    size_t kept = n - left;
    for (size_t i = 0; i < n / 2; i++) {
        struct choice swap = c[i];
        c[i] = c[n - 1 - i];
        c[n - 1 - i] = swap;
    }
    return kept;
}

/* Keeps the choices at least min_p times as probable as the best, in their order. */
static size_t keep_min_p(struct choice *c, size_t n, float min_p, float best)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (c[i].logit == best || weight(c[i].logit, best, 1) >= (double)min_p)
            c[kept++] = c[i];
    return kept;
}

static float best_of(const struct choice *c, size_t n)
{
    float best = c[0].logit;
    for (size_t i = 1; i < n; i++)
        best = c[i].logit > best ? c[i].logit : best;
    return best;
}

static int32_t draw(struct sampler *s, const struct choice *c, size_t n, float best)
{
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        total += s->weights[i] = weight(c[i].logit, best, s->p.temperature);
    double point = (double)(next_u64(s->state) >> 11) * 0x1p-53 * total;
    size_t picked = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->weights[i] == 0)
            continue;
        picked = i; /* the last possible one, should rounding leave the sum below the point */
        sum += s->weights[i];
        if (sum > point)
            break;
    }
    return c[picked].id;
}

static int32_t pick_greedy(const struct sampler *s, const float *logits)
{
    struct choice best = {0, -1};
    for (int32_t i = 0; i < s->n_vocab; i++) {
        float logit = penalised(s, logits[i], i);
        if (logit > best.logit || (best.id < 0 && logit == logit))
            best = (struct choice){logit, i};
    }
    return best.id < 0 ? 0 : best.id;
}

int32_t sampler_pick(struct sampler *s, const float *logits)
{
    if (!(s->p.temperature > 0) || s->p.top_k == 1)
        return pick_greedy(s, logits);
    size_t n = gather(s, logits);
    if (n == 0)
        return 0;
    bool sorted = s->p.top_k > 0;
    if (sorted)
        n = keep_top_k(s->choices, n, (size_t)s->p.top_k);
    if (s->p.top_p < 1)
        n = keep_top_p(s->choices, n, s->p.top_p, sorted);
    float best = best_of(s->choices, n);
    if (s->p.min_p > 0)
        n = keep_min_p(s->choices, n, s->p.min_p, best);
    return draw(s, s->choices, n, best);
}
