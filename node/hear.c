#include "node/hear.h"

#include <time.h>

#include "base/log.h"
#include "wire/wire.h"

static status read_failed(const struct arrival *a)
{
    char reason[WIRE_FAILED_MAX];
    status st = wire_failed_decode(a->data, a->size, reason);
    if (st)
        return st;
    log_error("rank %d: %s", a->from, reason);
    return ST_PEER;
}

/* What is no answer. */
static status check(const struct arrival *a, size_t most)
{
    if (a->kind == WIRE_FAILED)
        return read_failed(a);
    if (a->size <= most)
        return ST_OK;
    log_error("rank %d: message of %zu bytes at start-up, expected at most %zu", a->from, a->size, most);
    return ST_FORMAT;
}

status hear(struct transport *t, uint32_t kinds, size_t most, struct arrival *a)
{
    bool found = false;
    status st = transport_poll(t, kinds | 1u << WIRE_FAILED, a, &found);
    while (!st && !found) {
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        st = transport_poll(t, kinds | 1u << WIRE_FAILED, a, &found);
    }
    if (st)
        return st;
    st = check(a, most);
    if (st)
        (void)transport_release(t, a);
    return st;
}
