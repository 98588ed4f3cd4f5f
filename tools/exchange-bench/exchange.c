#include "tools/exchange-bench/exchange.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "wire/wire.h"

struct sides {
    struct transport *t;
    uint8_t *out, *in; /* [bytes] */
    size_t bytes;
};

/* As a stage asks and an owner answers: whoever waits looks for requests, answers and failures. */
static status take(struct transport *t, int kind)
{
    const uint32_t kinds = 1u << kind | 1u << WIRE_FAILED | 1u << WIRE_STEP;
    struct arrival a;
    bool found = false;
    status st = ST_OK;
    while (!st && !found)
        st = transport_poll(t, kinds, &a, &found);
    return st ? st : transport_release(t, &a);
}

static status finish(struct transport *t, struct send *s)
{
    bool done = false;
    status st = ST_OK;
    while (!st && !done)
        st = transport_sent(t, s, &done);
    return st;
}

static status exchange_hearth(struct sides *s)
{
    struct send send; /* does not outlive its frame: what was posted is waited for, whatever happened since */
    const int to = 1 - s->t->rank;
    status st = s->t->rank ? take(s->t, WIRE_REQUEST) : ST_OK;
    if (!st)
        st = transport_post(s->t, to, s->t->rank ? WIRE_PARTIAL : WIRE_REQUEST, s->out, s->bytes, &send);
    if (st)
        return st;
    st = s->t->rank ? ST_OK : take(s->t, WIRE_PARTIAL);
    status sent = finish(s->t, &send);
    return st ? st : sent;
}

static status exchange_mpi(struct sides *s)
{
    const int to = 1 - s->t->rank, n = (int)s->bytes;
    if (s->t->rank) {
        MPI_Recv(s->in, n, MPI_BYTE, to, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Send(s->out, n, MPI_BYTE, to, 0, MPI_COMM_WORLD);
    } else {
        MPI_Send(s->out, n, MPI_BYTE, to, 0, MPI_COMM_WORLD);
        MPI_Recv(s->in, n, MPI_BYTE, to, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    return ST_OK;
}

static status time_batch(struct sides *s, status (*exchange)(struct sides *), int n, double *us)
{
    status st = ST_OK;
    MPI_Barrier(MPI_COMM_WORLD);
    const double start_s = clock_s();
    for (int i = 0; i < n && !st && s->t->rank < 2; i++)
        st = exchange(s);
    *us = (clock_s() - start_s) / n * 1e6;
    return st;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    return values[n / 2];
}

status exchange_measure(struct transport *t, size_t bytes, int n_batches, int batch_size, struct exchange_times *out)
{
    enum { WARM_UP = 5 };
    double *us = calloc(2 * (size_t)n_batches, sizeof *us);
    struct sides s = {.t = t, .bytes = bytes, .out = aligned_alloc(TRANSPORT_ALIGN, TRANSPORT_SLOT),
                      .in = aligned_alloc(TRANSPORT_ALIGN, TRANSPORT_SLOT)};
    status st = us && s.out && s.in ? ST_OK : ST_NOMEM;
    if (st) {
        log_error("no memory for an exchange of %zu bytes", bytes);
        goto out;
    }
    memset(s.out, 1, TRANSPORT_SLOT);
    st = transport_register(t, s.out, TRANSPORT_SLOT);
    for (int i = -WARM_UP; i < n_batches && !st; i++) {
        const int at = i < 0 ? 0 : i;
        st = time_batch(&s, exchange_mpi, batch_size, &us[at]);
        if (!st)
            st = time_batch(&s, exchange_hearth, batch_size, &us[n_batches + at]);
    }
    if (!st)
        *out = (struct exchange_times){.mpi_us = median(us, n_batches), .hearth_us = median(us + n_batches, n_batches)};
out:
    free(us);
    free(s.out);
    free(s.in);
    return st;
}
