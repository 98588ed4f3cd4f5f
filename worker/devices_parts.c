/* Computing with a rank's devices. Of each is watched what it reads and how long the rank waits for it: two looks at
 * the clock for a part of the CPU's, three for a GPU's. */
#include "worker/devices_inside.h"

#include <sched.h>

#include "base/clock.h"

static uint64_t look(struct devices *d) { return d->now_ns = clock_ns(); }

void devices_idle_until(struct devices *d, uint64_t now_ns) { d->now_ns = now_ns; }

/* A device gives back what it has made of all that it was given; the rank waits since since_ns. */
static void seen_done(struct devices *d, struct one *one, uint64_t since_ns)
{
    watch_end(&one->watch, since_ns, look(d));
}

static bool has_part(const struct devices *d, const struct work *w, const struct one *one)
{
    return holder_owns(d->o->plan, &d->shape, w->part, w->layer, one->holder);
}

void devices_copy_pages(struct devices *d, int layer, const struct wire_change *changes, uint32_t n)
{
    const struct work attention = {.part = DEVICE_ATTENTION, .layer = layer};
    for (int i = 0; i < d->n; i++)
        for (uint32_t k = 0; k < n && has_part(d, &attention, &d->one[i]); k++)
            if (changes[k].from_page != WIRE_NO_PAGE)
                d->one[i].ops->copy_page(d->one[i].device, layer, changes[k].from_page, changes[k].page);
}

/* x leaves its home, once for all who read it there. */
static struct input_bytes export_input(struct devices *d, const struct work *w, enum device_use use)
{
    struct device *home = d->home->device;
    struct input_bytes bytes = d->in[use];
    if (!device_reads_floats(&d->home->options, w->part, w->layer))
        bytes.f32 = NULL;
    if (w->part != DEVICE_FFN)
        bytes.residual = NULL;
    if (w->part != DEVICE_FFN || w->layer < d->shape.n_dense_layers) {
        bytes.expert = NULL;
        bytes.weight = NULL;
    }
    const uint64_t since = d->home->async ? look(d) : 0;
    home->ops->export_input(home, w, home->in[use], &bytes);
    if (d->home->async)
        seen_done(d, d->home, since);
    return bytes;
}

/* Waits for a device; serves meanwhile. */
static status await(struct device *device, serve_meanwhile *serve, void *arg)
{
    status st = ST_OK;
    while (!st && !device->ops->done(device)) {
        if (serve)
            st = serve(arg);
        else
            sched_yield();
    }
    return st;
}

/* Adds a device's sums to the home's. */
static status take_sums(struct devices *d, const struct work *w, enum device_use use, struct one *one,
                        serve_meanwhile *serve, void *arg)
{
    struct device *home = d->home->device, *from = one->device;
    const uint64_t since = d->now_ns;
    status st = await(from, serve, arg);
    if (st)
        return st;
    from->ops->export_sums(from, w->n, from->sums[use], false, &d->out);
    seen_done(d, one, since);
    if ((st = from->ops->found(from)) != ST_OK)
        return st;
    home->ops->import_sums(home, w->n, &d->out, home->sums[use]);
    return ST_OK;
}

/* x to all others that read it. */
static void send_input(struct devices *d, const struct work *w, enum device_use use)
{
    struct input_bytes bytes;
    bool exported = false;
    for (int i = 0; i < d->n; i++) {
        if (&d->one[i] == d->home || !has_part(d, w, &d->one[i]))
            continue;
        if (!exported)
            bytes = export_input(d, w, use);
        exported = true;
        d->one[i].device->ops->import_input(d->one[i].device, w, &bytes, d->one[i].device->in[use]);
    }
}

/* It has been given a part. */
static void seen_begun(struct devices *d, struct one *one, uint64_t begun_ns)
{
    if (one->async)
        watch_begin(&one->watch, begun_ns);
    else
        seen_done(d, one, begun_ns);
}

static void begin_part(struct devices *d, const struct work *w, enum device_use use, struct one *one)
{
    const uint64_t begun = look(d);
    one->ops->part(one->device, w, one->device->in[use], one->device->sums[use]);
    seen_begun(d, one, begun);
}

/* The part of all that return before it is done, or of all others. */
static void begin_parts(struct devices *d, const struct work *w, enum device_use use, bool async)
{
    for (int i = 0; i < d->n; i++) {
        struct device *device = d->one[i].device;
        if (d->one[i].async != async)
            continue;
        if (has_part(d, w, &d->one[i]))
            begin_part(d, w, use, &d->one[i]);
        else if (&d->one[i] == d->home)
            device->ops->clear_sums(device, w->n, device->sums[use]);
    }
}

status devices_part(struct devices *d, const struct work *w, enum device_use use, serve_meanwhile *serve, void *arg)
{
    status st = ST_OK;
    send_input(d, w, use);
    begin_parts(d, w, use, true);
    begin_parts(d, w, use, false);
    for (int i = 0; i < d->n && !st; i++)
        if (&d->one[i] != d->home && has_part(d, w, &d->one[i]))
            st = take_sums(d, w, use, &d->one[i], serve, arg);
    return st;
}

/* The device that has the rank's only set of a layer's neurons. */
static struct one *find_neurons(const struct devices *d, const struct work *w)
{
    int i = 0;
    while (!has_part(d, w, &d->one[i]))
        i++;
    return &d->one[i];
}

uint32_t devices_fire(struct devices *d, const struct work *w, enum device_use use)
{
    struct one *one = find_neurons(d, w);
    send_input(d, w, use);
    const uint64_t begun = look(d);
    const uint32_t n = one->ops->fire(one->device, w, one->device->in[use]);
    seen_done(d, one, begun);
    return n;
}

void devices_live(struct devices *d, const struct work *w, const struct live *to)
{
    struct device *device = find_neurons(d, w)->device;
    device->ops->live(device, w, to);
}

void devices_project(struct devices *d, const struct work *w, int guest, const struct live *from)
{
    struct device *home = d->home->device;
    const uint64_t begun = look(d);
    home->ops->project(home, w, guest, from, home->sums[USE_OWN]);
    seen_begun(d, d->home, begun);
}

void devices_logits(struct devices *d, const struct work *w, enum device_use use, bool packed, float *logits,
                    int64_t stride)
{
    int64_t at = 0;
    send_input(d, w, use);
    for (int i = 0; i < d->n; i++) {
        struct device *device = d->one[i].device;
        const struct shard *s = d->one[i].shard;
        if (s->row_begin == s->row_end)
            continue;
        const uint64_t begun = look(d);
        device->ops->logits(device, w, device->in[use], logits + (packed ? at : s->row_begin), stride);
        seen_done(d, &d->one[i], begun);
        at += s->row_end - s->row_begin;
    }
}

status devices_found(struct devices *d)
{
    status st = ST_OK;
    if (d->home->watch.begun_ns) /* what leaves the rank, it has just given */
        seen_done(d, d->home, d->now_ns);
    for (int i = 0; i < d->n && !st; i++)
        st = d->one[i].ops->found(d->one[i].device);
    return st;
}

struct wire_counts devices_counts(struct devices *d)
{
    struct wire_counts sum = {0};
    for (int i = 0; i < d->n; i++) {
        const struct device_counts c = d->one[i].ops->counts(d->one[i].device);
        const struct wire_counts of = {.bytes = c.bytes, .neurons = c.neurons, .flagged = c.flagged, .live = c.live};
        wire_counts_add(&sum, &of);
        struct wire_device *spent = &d->one[i].watch.spent;
        spent->bytes += c.bytes;
        spent->neurons += c.neurons;
        spent->live += c.live;
    }
    return sum;
}

uint32_t devices_spent(const struct devices *d, struct wire_device spent[WIRE_DEVICES_MOST])
{
    const int n = d->n < WIRE_DEVICES_MOST ? d->n : WIRE_DEVICES_MOST;
    for (int i = 0; i < n; i++)
        spent[i] = d->one[i].watch.spent;
    return (uint32_t)n;
}
