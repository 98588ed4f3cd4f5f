/* How long an exchange between two ranks takes through hearth's mpi transport, and how long the bare MPI calls would.
 *   mpirun -np 2 hearth-exchange-bench [--json] [BYTES...]
 * Prints a table, or an array of rows {bytes, mpi_us, hearth_us, ratio}. The ways take turns in batches; a row holds
 * the medians of the batches, in microseconds for a message there and one back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/end_job.h"
#include "node/launch.h"
#include "tools/exchange-bench/exchange.h"
#include "wire/channels.h"

enum { BATCHES = 151, EXCHANGES = 20, MOST_SIZES = 16 };

struct arguments {
    bool json;
    size_t bytes[MOST_SIZES];
    int n;
};

static status parse(int argc, char **argv, struct arguments *a)
{
    *a = (struct arguments){.bytes = {8192, 49152}, .n = 2};
    int n = 0;
    for (int i = 1; i < argc; i++) {
        char *end;
        if (!strcmp(argv[i], "--json")) {
            a->json = true;
            continue;
        }
        errno = 0;
        const unsigned long bytes = strtoul(argv[i], &end, 10);
        if (*end || end == argv[i] || errno || bytes > TRANSPORT_SLOT || n == MOST_SIZES) {
            log_error("'%s': expected at most %d sizes of 0 to %d bytes", argv[i], MOST_SIZES, TRANSPORT_SLOT);
            return ST_USAGE;
        }
        a->bytes[n++] = bytes;
    }
    a->n = n ? n : a->n;
    return ST_OK;
}

static void print_row(const struct arguments *a, int i, const struct exchange_times *m)
{
    const double ratio = m->hearth_us / m->mpi_us;
    if (a->json)
        printf("%s{\"bytes\": %zu, \"mpi_us\": %.2f, \"hearth_us\": %.2f, \"ratio\": %.3f}%s", i ? ", " : "[",
               a->bytes[i], m->mpi_us, m->hearth_us, ratio, i == a->n - 1 ? "]\n" : "");
    else
        printf("%s| %zu | %.2f | %.2f | %.2f |\n",
               i ? "" : "| bytes | bare MPI, us | hearth, us | ratio |\n|---|---|---|---|\n", a->bytes[i], m->mpi_us,
               m->hearth_us, ratio);
}

static status measure(struct transport *t, const struct arguments *a)
{
    status st = transport_connect(t);
    if (!st && t->n_ranks < 2) {
        log_error("mpirun started %d rank, expected at least 2", t->n_ranks);
        st = ST_USAGE;
    }
    for (int i = 0; i < a->n && !st; i++) {
        struct exchange_times m;
        st = exchange_measure(t, a->bytes[i], BATCHES, EXCHANGES, &m);
        if (!st && t->rank == 0)
            print_row(a, i, &m);
    }
    return st;
}

int main(int argc, char **argv)
{
    struct arguments a;
    struct transport_config config = {.end_job = end_job};
    struct transport *t;
    if (parse(argc, argv, &a))
        return 2;
    if (!launch_read().mpi) {
        log_error("run this under mpirun");
        return 2;
    }
    wire_channels(config.channel, TRANSPORT_KINDS);
    status st = transport_mpi_open(&config, &t);
    if (st)
        return 1;
    st = measure(t, &a);
    transport_close(t);
    transport_mpi_finish();
    return st != ST_OK;
}
