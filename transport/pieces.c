#include "transport/pieces.h"

#include <string.h>

#include "base/log.h"

status refuse_long(int from, int kind, size_t bytes, size_t capacity)
{
    const size_t most = capacity > TRANSPORT_SLOT ? capacity : TRANSPORT_SLOT;
    log_error("rank %d: a message of kind %d of %zu bytes or more, expected at most %zu", from, kind, bytes, most);
    return ST_FORMAT;
}

bool assembly_add(struct assembly *a, int kind, const void *piece, size_t n, bool last)
{
    bool refused = false;
    if (a->state == ASSEMBLY_EMPTY) {
        a->size = 0;
        a->kind = kind;
        a->state = ASSEMBLY_FILLING;
    }
    if (a->state == ASSEMBLY_FILLING && n > a->capacity - a->size) {
        a->refused = a->size + n;
        a->refused_kind = a->kind;
        a->state = ASSEMBLY_SKIPPING;
        refused = true;
    }
    if (a->state == ASSEMBLY_SKIPPING) {
        a->state = last ? ASSEMBLY_EMPTY : ASSEMBLY_SKIPPING;
        return refused;
    }
    if (n)
        memcpy(a->memory + a->size, piece, n);
    a->size += n;
    if (last)
        a->state = ASSEMBLY_WHOLE;
    return false;
}

status assembly_refusal(struct assembly *a, int from, uint32_t kinds)
{
    if (!a->refused || !(kinds >> a->refused_kind & 1))
        return ST_OK;
    status st = refuse_long(from, a->refused_kind, a->refused, a->capacity);
    a->refused = 0;
    return st;
}
