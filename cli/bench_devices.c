#include "cli/bench_devices.h"

#include <math.h>
#include <string.h>
#include "base/log.h"

static struct test_device *find(struct test_devices *all, int rank, const char *device)
{
    int i = 0;
    while (i < all->n && (all->at[i].rank != rank || strcmp(all->at[i].device, device) != 0))
        i++;
    if (i == all->n) {
        all->at[all->n++] = (struct test_device){.rank = rank};
        snprintf(all->at[i].device, sizeof all->at[i].device, "%s", device);
    }
    return &all->at[i];
}

void devices_add(const struct cluster *c, const struct wire_usage *before, const struct wire_usage *after,
                 struct test_devices *all)
{
    for (int r = 0; r < cluster_ranks(c); r++) {
        for (int i = 0; i < (int)after[r].n_devices; i++) {
            const char *device = cluster_device(c, r, i);
            const struct wire_device *a = &after[r].devices[i], *b = &before[r].devices[i];
            if (!device || a->busy_ns == b->busy_ns)
                continue;
            struct test_device *d = find(all, r, device);
            d->spent.bytes += a->bytes - b->bytes;
            d->spent.busy_ns += a->busy_ns - b->busy_ns;
            d->spent.wait_ns += a->wait_ns - b->wait_ns;
        }
    }
}

/* What is known of the GPUs of a rank. NULL: nothing. */
static const struct probe_rank *known_gpus(const struct device_peaks *p, int rank)
{
    if (p->probe)
        return rank < p->probe->n_ranks ? &p->probe->ranks[rank] : NULL;
    return rank == 0 || !p->own_only ? p->measured : NULL;
}

/* 0: it is not known. */
static double peak_of(const struct device_peaks *p, const struct test_device *d)
{
    const struct probe_rank *r = known_gpus(p, d->rank);
    if (strcmp(d->device, "cpu") == 0)
        return p->cpu;
    for (int i = 0; r && i < r->n_gpus; i++)
        if (strcmp(r->gpus[i].device, d->device) == 0)
            return r->gpus[i].read_gb_per_s;
    return 0;
}

double devices_peak(const struct test_devices *d, const struct device_peaks *p)
{
    double sum = 0;
    for (int i = 0; i < d->n; i++) {
        const double peak = peak_of(p, &d->at[i]);
        if (peak == 0)
            return 0;
        sum += peak;
    }
    return sum;
}

static json_t *row_of(const struct test_device *d, double peak, double tokens, double elapsed_s)
{
    const double busy_s = (double)d->spent.busy_ns * 1e-9, bytes = (double)d->spent.bytes;
    const double rate = bytes / busy_s / 1e9;
    json_t *known = peak > 0 ? json_real(peak) : json_null(), *share = peak > 0 ? json_real(rate / peak) : json_null();
    return json_pack("{si ss sI sf sf so so sf}", "rank", d->rank, "device", d->device, "bytes_per_token",
                     (json_int_t)llround(bytes / tokens), "busy_ms", busy_s * 1e3 / tokens, "read_gb_per_s", rate,
                     "peak_read_gb_per_s", known, "share_of_peak", share, "share_of_wait",
                     (double)d->spent.wait_ns * 1e-9 / elapsed_s);
}

json_t *devices_json(const struct test_devices *d, const struct device_peaks *p, double tokens, double elapsed_s)
{
    json_t *rows = json_array();
    for (int i = 0; i < d->n; i++) {
        if (json_array_append_new(rows, row_of(&d->at[i], peak_of(p, &d->at[i]), tokens, elapsed_s)) != 0) {
            log_error("no memory for the devices of a test");
            json_decref(rows);
            return NULL;
        }
    }
    return rows;
}
