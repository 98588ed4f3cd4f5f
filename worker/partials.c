#include "worker/partials.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

struct partials {
    struct rank *r;
    struct owners *owners;
    /* What is taken out of messages before it is checked: */
    uint8_t *widths;                 /* [n, wire_partial_widths] of a PARTIAL */
    uint32_t *pairs;                 /* [wire_active_pairs] of an ACTIVE; NULL where none comes */
};

status partials_new(struct rank *r, struct owners *owners, struct partials **out)
{
    struct partials *p = calloc(1, sizeof *p);
    if (!p) {
        log_error("out of memory for parts of blocks");
        return ST_NOMEM;
    }
    *p = (struct partials){.r = r, .owners = owners};
    *out = p;
    return ST_OK;
}

void partials_free(struct partials *p) { free(p); }

void partials_lay(struct partials *p)
{
    struct rank *r = p->r;
    const struct shard *s = devices_shard(r->devices);
    int64_t most = 0; /* neurons of a guest */
    for (int i = 0; i < s->n_guests; i++) {
        const int64_t n = neuron_list_count(&s->guests[i].neurons);
        most = n > most ? n : most;
    }
    if (most)
        p->pairs = arena_alloc(&r->arena, wire_active_pairs(&r->limits, (uint32_t)most) * sizeof *p->pairs);
    p->widths = arena_alloc(&r->arena, (size_t)r->limits.n_batch * wire_partial_widths(&r->limits));
}

struct sum_bytes partial_bytes(const struct wire_partial *p)
{
    return (struct sum_bytes){.width = p->width, .packed = p->packed};
}

status take_partial(void *arg, struct arrival *a, const struct task *t)
{
    struct partials *partials = arg;
    struct rank *r = partials->r;
    struct wire_partial p;
    log_sender(a->from);
    status st = wire_partial_decode(a->data, a->size, &r->limits, partials->widths, &p);
    log_sender(-1);
    if (st)
        return st;
    const struct work found = {.part = p.part, .layer = (int)p.layer, .n = p.n_tokens};
    st = check_answer(a->from, "partial sum", p.id, &found, t);
    if (st)
        return st;
    owners_count(partials->owners, &p.counts, p.busy_ns);
    const struct sum_bytes from = partial_bytes(&p);
    r->home->ops->import_sums(r->home, p.n_tokens, &from, r->home->sums[USE_OWN]);
    return exchange_release(r->exchange, a);
}

status take_active(void *arg, struct arrival *a, const struct task *t)
{
    struct partials *partials = arg;
    struct rank *r = partials->r;
    const struct shard *s = devices_shard(r->devices);
    const int guest = guest_of(s, t->work.layer, r->n_ranks, a->from);
    struct wire_active v;
    log_sender(a->from);
    status st = wire_active_decode(a->data, a->size, &r->limits, (uint32_t)neuron_list_count(&s->guests[guest].neurons),
                                   partials->pairs, &v);
    log_sender(-1);
    if (st)
        return st;
    const struct work found = {.part = DEVICE_FFN, .layer = (int)v.layer, .n = v.n_tokens};
    st = check_answer(a->from, "activations", v.id, &found, t);
    if (st)
        return st;
    owners_count(partials->owners, &v.counts, v.busy_ns);
    const struct live live = {.first = v.first, .index = v.index, .value = v.value};
    devices_project(r->devices, &t->work, guest, &live);
    return exchange_release(r->exchange, a);
}

size_t partial_write(struct rank *r, struct wire_partial *p, enum device_use use, uint64_t begin_ns, uint8_t *out,
                     size_t cap)
{
    wire_partial_place(p, &r->limits, out);
    const struct sum_bytes to = partial_bytes(p);
    r->home->ops->export_sums(r->home, p->n_tokens, r->home->sums[use], r->o->sums_f16, &to);
    p->busy_ns = clock_ns() - begin_ns;
    return wire_partial_encode(p, &r->limits, out, cap);
}
