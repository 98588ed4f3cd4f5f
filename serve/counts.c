#include "serve/counts.h"

/* Upper bounds as vLLM has them (vllm/v1/metrics/loggers.py): dashboards compare servers by them. */
static const double first_token_s[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1,
                                       2.5,   5,     7.5,  10,   20,   40,   80,   160, 640,  2560};
static const double between_tokens_s[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                          0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
static const double request_s[] = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,  15,  20,
                                   30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
static const double tokens[] = {1,   2,   5,    10,   20,   50,    100,   200,
                                500, 1e3, 2e3,  5e3,  1e4,  2e4,   5e4,   1e5};

#define HISTOGRAM(of) {.bounds = of, .n = sizeof of / sizeof *of}
#define FITS(of) _Static_assert(sizeof of / sizeof *of <= COUNTS_BUCKETS, "a histogram has room for its bounds")
FITS(first_token_s);
FITS(between_tokens_s);
FITS(request_s);
FITS(tokens);

void counts_init(struct counts *c)
{
    *c = (struct counts){.lock = PTHREAD_MUTEX_INITIALIZER,
                         .first_token_s = HISTOGRAM(first_token_s),
                         .between_tokens_s = HISTOGRAM(between_tokens_s),
                         .whole_s = HISTOGRAM(request_s),
                         .queued_s = HISTOGRAM(request_s),
                         .prompt_part_s = HISTOGRAM(request_s),
                         .decode_part_s = HISTOGRAM(request_s),
                         .prompt_length = HISTOGRAM(tokens),
                         .made_length = HISTOGRAM(tokens)};
}

void counts_copy(struct counts *c, struct counts *out)
{
    pthread_mutex_lock(&c->lock);
    *out = *c;
    pthread_mutex_unlock(&c->lock);
    out->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

void histogram_add(struct histogram *h, double value)
{
    uint32_t i = 0;
    while (i < h->n && value > h->bounds[i])
        i++;
    h->count[i]++;
    h->sum += value;
}
