/* What a rank says when it was asked how its time went. */
#include "base/log.h"
#include "coordinator/session_parts.h"

static status take(struct session *s, const struct arrival *a)
{
    struct said *said = &s->said[a->from];
    if (!(s->awaited >> a->from & 1)) {
        log_error("rank %d: a second USAGE", a->from);
        return ST_FORMAT;
    }
    log_sender(a->from);
    status st = wire_usage_decode(a->data, a->size, &said->usage);
    log_sender(-1);
    if (st)
        return st;
    said->bytes = a->size;
    s->awaited &= ~(UINT64_C(1) << a->from);
    s->n_queries += !s->awaited;
    return ST_OK;
}

status session_take_usage(struct session *s, struct arrival *a)
{
    status st = take(s, a);
    return st ? st : transport_release(s->o.transport, a);
}
