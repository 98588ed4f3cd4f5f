/* How a rank joins: it says what it has, and waits to be taken. */
#include "base/log.h"
#include "worker/internal.h"

static status send_and_wait(struct transport *t, int kind, const void *data, size_t size)
{
    struct send s;
    bool done = false;
    unsigned polls = 0;
    status st = transport_post(t, 0, kind, data, size, &s);
    while (!st && !done) {
        st = transport_sent(t, &s, &done);
        be_idle(t, &polls);
    }
    return st;
}

status worker_join(struct transport *t, const struct wire_hello *hello)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_HELLO_MAX];
    struct arrival a;
    bool found = false;
    unsigned polls = 0;
    status st = send_and_wait(t, WIRE_HELLO, message, wire_hello_encode(hello, message, sizeof message));
    while (!st && !found) {
        st = transport_poll(t, 1u << WIRE_WELCOME | 1u << WIRE_FAILED, &a, &found);
        be_idle(t, &polls);
    }
    if (!st)
        st = transport_release(t, &a);
    return st ? st : a.kind == WIRE_WELCOME ? ST_OK : ST_MISMATCH;
}

status worker_ready(struct transport *t, uint64_t held_bytes)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_READY_SIZE];
    return send_and_wait(t, WIRE_READY, message, wire_ready_encode(held_bytes, message, sizeof message));
}
