/* Jobs that wait, each behind those of its key, and whose turn it is: that of the key with the fewest tokens so far, as
 * in start-time fair queueing (Goyal, Vin and Cheng 1996). A key that comes, or comes back, begins with as many as the
 * least of the others: it is owed nothing for the time in which it wanted nothing. One thread. */
#ifndef HEARTH_SERVE_ENGINE_QUEUE_H
#define HEARTH_SERVE_ENGINE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include "serve/engine.h"

/* A key that has jobs, or has had more than its part. */
struct account {
    uint32_t key, n_jobs, n_begun; /* jobs that wait or run; of them, those that run */
    uint64_t tokens;        /* it has had, on the scale of queue->now */
    struct job *first, *last; /* that wait, in order of arrival */
};

struct job_queue {
    struct account *accounts; /* [n, of most] malloc'ed; {0} is an empty queue */
    uint32_t n, most, n_waiting;
    uint64_t now;           /* tokens of the key that was due last, or of that which has fewest of all that have jobs */
    uint64_t n_tickets;
};

void queue_free(struct job_queue *q); /* whatever waits is forgotten */
/* A job comes. ST_NOMEM (logged). */
status queue_push(struct job_queue *q, struct job *j);
/* Takes out the job that is to be begun, and charges its key with its prompt. Jobs that may not begin now are passed
 * over. NULL: none. */
struct job *queue_next(struct job_queue *q, bool (*may_begin)(void *arg, struct job *j), void *arg);
/* Takes out a job of which `is` says so. NULL: there is none. */
struct job *queue_take(struct job_queue *q, bool (*is)(const struct job *j));
/* A job that was begun had so many tokens more, or fewer, than its key was charged with. */
void queue_charge(struct job_queue *q, uint32_t key, int64_t tokens);
/* A job that was taken out is over; `begun`: by queue_next. */
void queue_over(struct job_queue *q, uint32_t key, bool begun);

#endif
