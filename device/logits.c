#include "device/logits.h"

#include <math.h>

#include "base/threads.h"
#include "device/numbers.h"
#include "kernels/kernels.h"
#include "model/model.h"

enum { LOGITS_CHECKED = 16384 }; /* by a thread at a time */

struct checking {
    const float *logits;
    _Atomic bool broken;
};

static void check_some(void *arg, int64_t begin, int64_t end, int thread)
{
    struct checking *c = arg;
    (void)thread;
    if (!all_numbers(c->logits + begin, end - begin))
        c->broken = true;
}

status logits_check(const struct device_options *o, const struct work *w, const float *logits)
{
    const int64_t n_vocab = o->model->hp.n_vocab;
    struct checking all = {.logits = logits};
    pool_for(o->pool, w->n * n_vocab, LOGITS_CHECKED, check_some, &all);
    return all.broken ? not_numbers(o->model, w, "the logits", logits, n_vocab) : ST_OK;
}

struct scoring {
    const struct device_options *o;
    float *logits;       /* [n, n_vocab] */
    const int32_t *next; /* [n] */
    float *scores;       /* [n] */
};

/* Log-sum-exp from the softmax, whose largest value is 1 / sum. */
static void score_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct scoring *s = arg;
    const int64_t n_vocab = s->o->model->hp.n_vocab;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        float *row = s->logits + i * n_vocab;
        int64_t top = 0;
        for (int64_t v = 1; v < n_vocab; v++)
            top = row[v] > row[top] ? v : top;
        double behind = (double)row[top] - (s->next[i] >= 0 ? (double)row[s->next[i]] : 0.0);
        s->o->kernels->softmax(row, n_vocab);
        s->scores[i] = (float)(behind - log((double)row[top]));
    }
}

void logits_score(const struct device_options *o, uint32_t n, float *logits, const int32_t *next, float *scores)
{
    struct scoring s = {o, logits, next, scores};
    pool_for(o->pool, n, 1, score_rows, &s);
}
