#include "sampling/choices.h"

#include "base/exactmath.h"

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

/* Once there are k, the worst is at the root of a heap. */
size_t top_k_take(struct choice *top, size_t n, size_t k, struct choice c)
{
    if (n == k) {
        top[0] = c;
        sift_down(top, k, 0, true);
        return n;
    }
    top[n++] = c;
    if (n == k)
        heapify(top, k, true);
    return n;
}

size_t top_k_sort(struct choice *top, size_t n, size_t k)
{
    if (n < k)
        heapify(top, n, true);
    for (size_t left = n; left > 1;) {
        struct choice worst = top[0];
        top[0] = top[--left];
        top[left] = worst;
        sift_down(top, left, 0, true);
    }
    return n;
}

double choice_weight(float logit, float best, float temperature)
{
    float x = (logit - best) / temperature;
    return logit == best ? 1 : x >= EXP_MIN ? (double)exp_f32(x) : 0;
}

static size_t keep_sorted_top_p(const struct choice *c, size_t n, double least)
{
    double sum = 0;
    size_t kept = 0;
    while (kept < n && (kept == 0 || sum < least))
        sum += choice_weight(c[kept++].logit, c[0].logit, 1);
    return kept;
}

/* The best move behind the shrinking heap, and to the front in the end: c[n - 1] is the very best. */
static size_t keep_heap_top_p(struct choice *c, size_t n, double least)
{
    const float best = c[0].logit;
    double sum = 0;
    size_t left = n;
    while (left > 0 && (left == n || sum < least)) {
        struct choice top = c[0];
        sum += choice_weight(top.logit, best, 1);
        c[0] = c[--left];
        sift_down(c, left, 0, false);
        c[left] = top;
    }
    for (size_t i = 0; i < n / 2; i++) {
        struct choice swap = c[i];
        c[i] = c[n - 1 - i];
        c[n - 1 - i] = swap;
    }
    return n - left;
}

size_t keep_top_p(struct choice *c, size_t n, float p, bool sorted)
{
    if (!sorted)
        heapify(c, n, false);
    double total = 0;
    const float best = c[0].logit;
    for (size_t i = 0; i < n; i++)
        total += choice_weight(c[i].logit, best, 1);
    return sorted ? keep_sorted_top_p(c, n, (double)p * total) : keep_heap_top_p(c, n, (double)p * total);
}

size_t keep_min_p(struct choice *c, size_t n, float min_p, float best)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (c[i].logit == best || choice_weight(c[i].logit, best, 1) >= (double)min_p)
            c[kept++] = c[i];
    return kept;
}

float choices_best(const struct choice *c, size_t n)
{
    float best = c[0].logit;
    for (size_t i = 1; i < n; i++)
        best = c[i].logit > best ? c[i].logit : best;
    return best;
}
