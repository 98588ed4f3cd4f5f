/* The conformance cases over MPI, all ranks of one mpirun together; and two ways to die, for rank_death.sh.
 *   transport_mpi                     the cases
 *   transport_mpi kill|abandon RANK   that rank is killed, or abandons; the others wait for ever
 *   transport_mpi bench BYTES         half a round trip between ranks 0 and 1, microseconds */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/* Sends that nobody receives, small and large, to everyone and to oneself: destroy finishes them all the same. */
static void leave_with_sends_under_way(struct transport *t)
{
    enum { MOST = 16, LARGE = 1 << 20 };
    static struct send sends[2 * MOST];
    static const uint8_t data[LARGE];
    int n_ranks = t->n_ranks < MOST ? t->n_ranks : MOST;
    for (int r = 0; r < n_ranks; r++) {
        if (transport_send(t, r, 10, data, 100, &sends[2 * r]) != ST_OK ||
            transport_send(t, r, 11, data, LARGE, &sends[2 * r + 1]) != ST_OK)
            transport_abandon(t, "cannot send");
    }
    transport_destroy(t);
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

static void exchange(struct transport *t, int kind, uint8_t *out, uint8_t *in, size_t size, bool first)
{
    struct send s;
    struct arrival a;
    bool ready = false;
    if (first)
        transport_send(t, 1 - t->rank, kind, out, size, &s);
    while (!ready)
        transport_poll(t, 1u << kind | 1u << 8 | 1u << 9, &a, &ready);
    transport_receive(t, &a, in);
    if (!first)
        transport_send(t, 1 - t->rank, kind, out, size, &s);
    for (ready = false; !ready;)
        transport_sent(t, &s, &ready);
}

static int bench(struct transport *t, size_t size)
{
    enum { ROUNDS = 20000 };
    uint8_t *out = calloc(1, size), *in = calloc(1, size);
    if (!out || !in)
        abort();
    for (int i = 0; i < ROUNDS / 10 && t->rank < 2; i++)
        exchange(t, 4, out, in, size, t->rank == 0);
    double start_s = clock_s();
    for (int i = 0; i < ROUNDS && t->rank < 2; i++)
        exchange(t, 4, out, in, size, t->rank == 0);
    if (t->rank == 0)
        printf("%zu bytes: %.2f us\n", size, (clock_s() - start_s) / ROUNDS / 2 * 1e6);
    free(out);
    free(in);
    transport_destroy(t);
    transport_mpi_finish();
    return 0;
}

/* Endpoints one after the other: what one left behind must not reach the next, however early a rank opens it. */
static int reopen(void)
{
    enum { TIMES = 50, KIND = 3 };
    static uint8_t lost[TIMES], sent[TIMES];
    static struct send sends[2 * TIMES];
    int failures = 0;
    for (int i = 0; i < TIMES; i++) {
        struct transport *t;
        struct arrival a;
        bool found = false;
        uint8_t got = 0;
        if (transport_mpi_create(&t) != ST_OK)
            abort();
        int next = (t->rank + 1) % t->n_ranks;
        sent[i] = (uint8_t)i;
        transport_send(t, next, KIND, &sent[i], 1, &sends[2 * i]);
        while (!found)
            if (transport_poll(t, 1u << KIND, &a, &found) != ST_OK)
                abort();
        if (a.size != 1 || transport_receive(t, &a, &got) != ST_OK || got != i)
            failures++;
        lost[i] = (uint8_t)(100 + i);
        transport_send(t, next, KIND, &lost[i], 1, &sends[2 * i + 1]);
        transport_destroy(t);
    }
    if (failures)
        fprintf(stderr, "%d of %d endpoints received what was meant for an earlier one\n", failures, TIMES);
    return failures;
}

int main(int argc, char **argv)
{
    struct transport *t;
    if (!transport_mpi_launched()) {
        fprintf(stderr, "run this under mpirun\n");
        return 2;
    }
    if (transport_mpi_create(&t) != ST_OK)
        return 1;
    if (argc == 3 && !strcmp(argv[1], "bench"))
        return bench(t, strtoul(argv[2], NULL, 10));
    if (argc == 3)
        return die(t, argv[1], atoi(argv[2]));
    int failures = run_cases(t);
    leave_with_sends_under_way(t);
    failures += reopen();
    transport_mpi_finish();
    return failures != 0;
}
