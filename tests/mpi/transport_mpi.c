/* The conformance cases over MPI, all ranks of one mpirun together; and two ways to die, for rank_death.sh.
 *   transport_mpi                     the cases
 *   transport_mpi kill|abandon RANK   that rank is killed, or abandons; the others wait for ever
 *   transport_mpi stress MESSAGES     so many from every rank, of random sizes, after random delays */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/conformance/transport_conformance.h"

static int run_cases(struct transport *t)
{
    int failures = 0;
    for (int i = 0; i < n_transport_cases; i++) {
        struct check c = {0};
        transport_cases[i].run(t, &c);
        if (c.failures) {
            fprintf(stderr, "rank %d of %d: %s: %s\n", t->rank, t->n_ranks, transport_cases[i].name, c.first);
            transport_abandon(t, "a conformance case failed");
        }
        failures += c.failures;
    }
    return failures;
}

/* Sends that nobody receives, small and large, to everyone and to oneself: close finishes them all the same. */
static void leave_with_sends_under_way(struct transport *t)
{
    enum { MOST = 16, LARGE = 1 << 20 };
    static struct send sends[2 * MOST];
    static const _Alignas(TRANSPORT_ALIGN) uint8_t data[LARGE];
    int n_ranks = t->n_ranks < MOST ? t->n_ranks : MOST;
    for (int r = 0; r < n_ranks; r++) {
        if (transport_post(t, r, 10, data, 100, &sends[2 * r]) != ST_OK ||
            transport_post(t, r, 11, data, LARGE, &sends[2 * r + 1]) != ST_OK)
            transport_abandon(t, "cannot send");
    }
    transport_close(t);
    for (int r = 0; r < n_ranks; r++) {
        if (!sends[2 * r].done || !sends[2 * r + 1].done)
            abort();
    }
}

static int die(struct transport *t, const char *how, int who)
{
    bool found = false;
    struct arrival a;
    status st = ST_OK;
    if (t->rank == who) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        fprintf(stderr, "died_at_ns %lld%09ld\n", (long long)now.tv_sec, now.tv_nsec);
    }
    if (t->rank == who && !strcmp(how, "kill"))
        raise(SIGKILL);
    if (t->rank == who)
        transport_abandon(t, "the disk burns");
    while (st == ST_OK)
        st = transport_poll(t, ~0u, &a, &found);
    return 1;
}

static int stress(struct transport *t, void *lent, int n_messages)
{
    struct check c = {0};
    const double start_s = clock_s();
    const int rank = t->rank, n_ranks = t->n_ranks;
    transport_stress(t, &c, n_messages, 1);
    const struct transport_counts counts = t->counts;
    transport_close(t);
    transport_mpi_finish();
    free(lent);
    if (c.failures)
        fprintf(stderr, "rank %d of %d: %s\n", rank, n_ranks, c.first);
    else
        printf("rank %d of %d: %llu messages, %.1f MB, all in order and whole, %.1f s\n", rank, n_ranks,
               (unsigned long long)counts.messages, (double)counts.bytes / 1e6, clock_s() - start_s);
    return c.failures != 0;
}

/* Endpoints one after the other: what one left behind must not reach the next, however early a rank opens it. */
static int reopen(void)
{
    enum { TIMES = 50, KIND = 3 };
    const struct transport_config config = conformance_config();
    static uint8_t lost[TIMES], sent[TIMES];
    static struct send sends[2 * TIMES];
    int failures = 0;
    for (int i = 0; i < TIMES; i++) {
        struct transport *t;
        struct arrival a;
        bool found = false;
        if (transport_mpi_open(&config, &t) != ST_OK || transport_connect(t) != ST_OK)
            abort();
        int next = (t->rank + 1) % t->n_ranks;
        sent[i] = (uint8_t)i;
        transport_post(t, next, KIND, &sent[i], 1, &sends[2 * i]);
        while (!found)
            if (transport_poll(t, 1u << KIND, &a, &found) != ST_OK)
                abort();
        failures += a.size != 1 || *(uint8_t *)a.data != i;
        if (i % 2 && transport_release(t, &a) != ST_OK) /* close releases the others */
            abort();
        lost[i] = (uint8_t)(100 + i);
        transport_post(t, next, KIND, &lost[i], 1, &sends[2 * i + 1]);
        transport_close(t);
    }
    if (failures)
        fprintf(stderr, "%d of %d endpoints received what was meant for an earlier one\n", failures, TIMES);
    return failures;
}

static void end_job(void) { _exit(1); }

int main(int argc, char **argv)
{
    struct transport_config config = conformance_config();
    struct transport *t;
    config.end_job = end_job;
    if (!getenv("OMPI_COMM_WORLD_SIZE")) {
        fprintf(stderr, "run this under mpirun\n");
        return 2;
    }
    if (transport_mpi_open(&config, &t) != ST_OK)
        return 1;
    struct check c = {0};
    void *lent = conformance_begin(t, &c);
    if (argc == 3 && !strcmp(argv[1], "stress"))
        return stress(t, lent, atoi(argv[2]));
    if (argc == 3)
        return die(t, argv[1], atoi(argv[2]));
    int failures = c.failures + run_cases(t);
    leave_with_sends_under_way(t);
    free(lent);
    failures += reopen();
    transport_mpi_finish();
    return failures != 0;
}
