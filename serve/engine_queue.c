#include "serve/engine_queue.h"

#include <stdlib.h>
#include "base/log.h"

void queue_free(struct job_queue *q)
{
    free(q->accounts);
    *q = (struct job_queue){0};
}

static struct account *account_of(const struct job_queue *q, uint32_t key)
{
    for (uint32_t i = 0; i < q->n; i++)
        if (q->accounts[i].key == key)
            return &q->accounts[i];
    return NULL;
}

/* NULL: no memory (logged). */
static struct account *open_account(struct job_queue *q, uint32_t key)
{
    if (q->n == q->most) {
        const uint32_t most = q->most ? 2 * q->most : 8;
        struct account *a = realloc(q->accounts, most * sizeof *a);
        if (!a) {
            log_error("out of memory for the jobs of %u keys", q->n + 1);
            return NULL;
        }
        q->accounts = a;
        q->most = most;
    }
    q->accounts[q->n] = (struct account){.key = key};
    return &q->accounts[q->n++];
}

status queue_push(struct job_queue *q, struct job *j)
{
    struct account *a = account_of(q, j->key);
    if (!a && !(a = open_account(q, j->key)))
        return ST_NOMEM;
    if (a->n_jobs++ == 0 && a->tokens < q->now)
        a->tokens = q->now;
    j->next = NULL;
    j->ticket = ++q->n_tickets;
    *(a->first ? &a->last->next : &a->first) = j;
    a->last = j;
    q->n_waiting++;
    return ST_OK;
}

/* Takes out the job to which a link of the account's list leads. */
static struct job *unlink_job(struct job_queue *q, struct account *a, struct job *before, struct job *j)
{
    *(before ? &before->next : &a->first) = j->next;
    if (a->last == j)
        a->last = before;
    j->next = NULL;
    q->n_waiting--;
    return j;
}

/* The first of an account's jobs that may begin, among some. */
static struct job *first_of(const struct account *a, bool (*may_begin)(void *arg, struct job *j), void *arg,
                            struct job **before)
{
    enum { LOOKED_AT = 64 };
    int n = 0;
    *before = NULL;
    for (struct job *j = a->first; j && n < LOOKED_AT; *before = j, j = j->next, n++)
        if (may_begin(arg, j))
            return j;
    return NULL;
}

/* Among equals first who has fewer jobs that run, then who waits longer. */
static bool comes_before(const struct account *a, const struct account *b)
{
    if (!b || a->tokens != b->tokens)
        return !b || a->tokens < b->tokens;
    return a->n_begun != b->n_begun ? a->n_begun < b->n_begun : a->first->ticket < b->first->ticket;
}

struct job *queue_next(struct job_queue *q, bool (*may_begin)(void *arg, struct job *j), void *arg)
{
    struct account *next = NULL;
    struct job *j = NULL, *before = NULL;
    for (uint32_t i = 0; i < q->n; i++) {
        struct account *a = &q->accounts[i];
        struct job *p, *first;
        if (!a->first || !comes_before(a, next) || !(first = first_of(a, may_begin, arg, &p)))
            continue;
        next = a;
        j = first;
        before = p;
    }
    if (!j)
        return NULL;
    q->now = next->tokens > q->now ? next->tokens : q->now;
    next->tokens += j->n_prompt;
    next->n_begun++;
    return unlink_job(q, next, before, j);
}

struct job *queue_take(struct job_queue *q, bool (*is)(const struct job *j))
{
    for (uint32_t i = 0; i < q->n; i++) {
        struct account *a = &q->accounts[i];
        for (struct job *j = a->first, *before = NULL; j; before = j, j = j->next)
            if (is(j))
                return unlink_job(q, a, before, j);
    }
    return NULL;
}

void queue_charge(struct job_queue *q, uint32_t key, int64_t tokens)
{
    struct account *a = account_of(q, key);
    if (a)
        a->tokens += (uint64_t)tokens;
}

/* The account with the fewest tokens among those with jobs, or without; how many these are. NULL: none. */
static struct account *poorest(const struct job_queue *q, bool with_jobs, uint32_t *n)
{
    struct account *found = NULL;
    *n = 0;
    for (uint32_t i = 0; i < q->n; i++) {
        struct account *a = &q->accounts[i];
        if ((a->n_jobs > 0) != with_jobs)
            continue;
        ++*n;
        found = found && found->tokens <= a->tokens ? found : a;
    }
    return found;
}

/* Accounts without jobs that have had no more than any with jobs are as good as new ones; and however many keys there
 * are, no more than some are remembered. */
static void close_accounts(struct job_queue *q)
{
    enum { REMEMBERED = 64 };
    uint32_t n_active, n_idle;
    const struct account *active = poorest(q, true, &n_active);
    const uint64_t fewest = active ? active->tokens : UINT64_MAX;
    struct account *idle;
    while ((idle = poorest(q, false, &n_idle)) && (idle->tokens <= fewest || n_idle > REMEMBERED))
        *idle = q->accounts[--q->n];
    if (active && fewest > q->now)
        q->now = fewest;
}

void queue_over(struct job_queue *q, uint32_t key, bool begun)
{
    struct account *a = account_of(q, key);
    if (!a)
        return;
    a->n_jobs--;
    a->n_begun -= begun;
    close_accounts(q);
}
