/* What the other parts stand on: slots and sends as they complete, peers as they are lost. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "transport/verbs_internal.h"

void verbs_error(struct verbs_transport *v, const char *format, ...)
{
    char line[sizeof v->why];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log_error("%s", line);
    memcpy(v->why, line, sizeof line);
}

status verbs_lost(struct verbs_transport *v, struct peer *p, const char *what)
{
    p->lost = true;
    if (!v->failed)
        verbs_error(v, "rank %d: %s", p->rank, what);
    return ST_PEER;
}

void verbs_free_slot(struct peer *p, int index)
{
    p->filled &= ~(1u << index);
    p->freed |= 1u << index;
}

void verbs_complete_send(struct verbs_transport *v, struct peer *p, uint64_t id)
{
    const int index = (int)(id & 0xffff);
    p->completed++;
    switch (id >> 48) {
    case WORK_WRITE:
        p->writing &= ~(1u << index);
        if (p->bounces[index] >= 0)
            v->bounces_free |= 1u << p->bounces[index];
        p->bounces[index] = -1;
        if (p->writes[index]) {
            struct send *s = p->writes[index];
            p->writes[index] = NULL;
            if (--s->in_flight == 0 && s->at == s->size)
                atomic_store_explicit(&s->done, true, memory_order_relaxed);
        }
        break;
    case WORK_CREDITS:
        p->n_credits--;
        break;
    case WORK_BEAT:
        p->n_beats--;
        break;
    default:
        p->n_last--;
        break;
    }
}

/* Says that every send is done: its memory is the caller's. Nothing moves any more. */
void verbs_cancel_sends(struct verbs_transport *v)
{
    for (int r = 0; v->peers && r < v->base.n_ranks; r++) {
        struct peer *p = &v->peers[r];
        for (int i = 0; i < RING_SLOTS; i++)
            if (p->writes[i])
                atomic_store_explicit(&p->writes[i]->done, true, memory_order_relaxed);
        memset(p->writes, 0, sizeof p->writes);
        for (int c = 0; c < TRANSPORT_CHANNELS; c++) {
            struct lane *l = &p->lanes[c];
            for (struct send *s = l->out, *next; s; s = next) {
                next = s->next;
                atomic_store_explicit(&s->done, true, memory_order_relaxed);
            }
            l->out = NULL;
            l->last = &l->out;
        }
    }
    v->n_queued = 0;
}
