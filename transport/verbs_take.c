/* What a poll finds: the message in front of a channel, if it is wanted. A message to this rank itself is read where it
 * was written, under the same rules as any other. */
#include "transport/verbs_internal.h"

/* Puts the pieces at the front of what has arrived together, as far as lent memory is free. */
void verbs_assemble(struct verbs_transport *v, struct peer *p, struct lane *l)
{
    while (l->n && !l->big.refused && l->big.state != ASSEMBLY_WHOLE && l->big.state != ASSEMBLY_TAKEN) {
        const struct piece piece = l->pieces[l->first];
        const int index = (int)(l - p->lanes) * TRANSPORT_SLOTS + piece.slot;
        if (!assembly_expects(&l->big) && !piece.more)
            break;
        l->first = (l->first + 1) % TRANSPORT_SLOTS;
        l->n--;
        v->n_waiting--;
        v->n_waiting += assembly_add(&l->big, piece.kind, p->slots + index * TRANSPORT_SLOT, piece.size, !piece.more);
        v->n_waiting += l->big.state == ASSEMBLY_WHOLE;
        verbs_free_slot(p, index);
    }
}

/* A message to this rank itself. */
static status take_own(struct lane *l, struct peer *p, uint32_t kinds, struct arrival *a, bool *found)
{
    struct send *s = l->out;
    const bool is_long = s && s->size > TRANSPORT_SLOT;
    if (!s || !(kinds >> s->kind & 1) || (is_long && l->big.state == ASSEMBLY_TAKEN))
        return ST_OK;
    l->out = s->next;
    if (!l->out)
        l->last = &l->out;
    if (is_long && s->size > l->big.capacity) {
        atomic_store_explicit(&s->done, true, memory_order_relaxed);
        return refuse_long(p->rank, s->kind, s->size, l->big.capacity);
    }
    if (is_long)
        l->big.state = ASSEMBLY_TAKEN;
    s->request[0] = l;
    *a = (struct arrival){.from = p->rank, .kind = s->kind, .size = s->size, .data = (void *)(uintptr_t)s->data,
                          .handle = {p, s}};
    *found = true;
    return ST_OK;
}

static bool take_whole(struct lane *l, struct peer *p, uint32_t kinds, struct arrival *a)
{
    if (!(kinds >> l->big.kind & 1))
        return false;
    l->big.state = ASSEMBLY_TAKEN;
    *a = (struct arrival){.from = p->rank, .kind = l->big.kind, .size = l->big.size, .data = l->big.memory,
                          .handle = {p, l}};
    return true;
}

static bool take_slot(struct lane *l, struct peer *p, uint32_t kinds, struct arrival *a)
{
    const struct piece *piece = &l->pieces[l->first];
    if (!l->n || piece->more || assembly_expects(&l->big) || !(kinds >> piece->kind & 1))
        return false;
    const int index = (int)(l - p->lanes) * TRANSPORT_SLOTS + piece->slot;
    *a = (struct arrival){.from = p->rank, .kind = piece->kind, .size = piece->size,
                          .data = p->slots + index * TRANSPORT_SLOT, .handle = {p, NULL}};
    l->first = (l->first + 1) % TRANSPORT_SLOTS;
    l->n--;
    return true;
}

static status take_theirs(struct verbs_transport *v, struct lane *l, struct peer *p, uint32_t kinds, struct arrival *a,
                          bool *found)
{
    status st = assembly_refusal(&l->big, p->rank, kinds);
    if (!st)
        *found = l->big.state == ASSEMBLY_WHOLE ? take_whole(l, p, kinds, a) : take_slot(l, p, kinds, a);
    if (st || *found)
        verbs_assemble(v, p, l); /* what waited behind it */
    return st;
}

static status take(struct verbs_transport *v, struct peer *p, uint32_t kinds, struct arrival *a, bool *found)
{
    status st = ST_OK;
    for (int c = 0; c < TRANSPORT_CHANNELS && !st && !*found; c++) {
        struct lane *l = &p->lanes[c];
        if (kinds & v->kinds[c])
            st = p->qp ? take_theirs(v, l, p, kinds, a, found) : take_own(l, p, kinds, a, found);
    }
    v->n_waiting -= st || *found;
    return st;
}

status verbs_take(struct verbs_transport *v, uint32_t kinds, struct arrival *a, bool *found)
{
    const int n = v->base.n_ranks;
    status st = ST_OK;
    *found = false;
    for (int i = 0, rank = v->turn; i < n && v->n_waiting && !st && !*found; i++) {
        st = take(v, &v->peers[rank], kinds, a, found);
        rank = rank + 1 < n ? rank + 1 : 0;
        if (*found)
            v->turn = rank;
    }
    return st;
}

void verbs_give_back(struct verbs_transport *v, const struct arrival *a)
{
    struct peer *p = a->handle[0];
    if (!p->qp) {
        struct send *s = a->handle[1];
        if (s->size > TRANSPORT_SLOT)
            ((struct lane *)s->request[0])->big.state = ASSEMBLY_EMPTY;
        atomic_store_explicit(&s->done, true, memory_order_relaxed);
    } else if (a->handle[1]) {
        struct lane *l = a->handle[1];
        l->big.state = ASSEMBLY_EMPTY;
        verbs_assemble(v, p, l);
    } else {
        verbs_free_slot(p, (int)(((const uint8_t *)a->data - p->slots) / TRANSPORT_SLOT));
    }
}
