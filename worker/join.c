/* How a rank joins: it says what it has, and waits to be taken. */
#include "base/log.h"
#include "transport/deliver.h"
#include "worker/internal.h"

status worker_join(struct transport *t, const struct wire_hello *hello)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_HELLO_MAX];
    struct arrival a;
    bool found = false;
    unsigned polls = 0;
    status st = deliver(t, 0, WIRE_HELLO, message, wire_hello_encode(hello, message, sizeof message));
    while (!st && !found) {
        st = transport_poll(t, 1u << WIRE_WELCOME | 1u << WIRE_FAILED, &a, &found);
        be_idle(t, &polls);
    }
    if (st)
        return st;
    status taken = a.kind == WIRE_FAILED ? ST_MISMATCH : ST_OK;
    if (a.kind == WIRE_WELCOME && (a.size || a.from != 0)) {
        log_error("WELCOME of %zu bytes from rank %d, expected none from rank 0", a.size, a.from);
        taken = ST_FORMAT;
    }
    st = transport_release(t, &a);
    return taken ? taken : st;
}

status worker_ready(struct transport *t, uint64_t held_bytes)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_READY_SIZE];
    return deliver(t, 0, WIRE_READY, message, wire_ready_encode(held_bytes, message, sizeof message));
}
