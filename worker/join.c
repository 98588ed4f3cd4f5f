/* How a rank joins: it says what it has, and waits to be taken. */
#include "base/log.h"
#include "model/chunks.h"
#include "transport/deliver.h"
#include "worker/exchange.h"
#include "worker/worker.h"

/* Other releases may begin otherwise, and then wait for what does not come: whatever they say is an answer. */
static status read_answer(const struct arrival *a)
{
    if (a->kind == WIRE_FAILED)
        return ST_MISMATCH;
    if (a->kind == WIRE_WELCOME && a->size == 0 && a->from == 0)
        return ST_OK;
    if (a->kind == WIRE_WELCOME)
        log_error("WELCOME of %zu bytes from rank %d, expected none from rank 0", a->size, a->from);
    else
        log_error("%s from rank %d where a WELCOME was expected: install the same version everywhere",
                  wire_name(a->kind), a->from);
    return ST_FORMAT;
}

status worker_join(struct transport *t, const struct wire_hello *hello)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_HELLO_MAX];
    struct arrival a;
    bool found = false;
    unsigned polls = 0;
    status st = deliver(t, 0, WIRE_HELLO, message, wire_hello_encode(hello, message, sizeof message));
    while (!st && !found) {
        st = transport_poll(t, ~0u, &a, &found);
        be_idle(t, &polls);
    }
    if (st)
        return st;
    status taken = read_answer(&a);
    st = transport_release(t, &a);
    return taken ? taken : st;
}

status worker_tell_chunks(struct transport *t, struct chunks *chunks)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_CHUNKS_MAX];
    struct wire_chunk entries[WIRE_CHUNKS_MOST];
    const uint32_t n_chunks = chunks_count(chunks);
    status st = ST_OK;
    for (uint32_t i = 0, n = 0; i < n_chunks && !st; i++) {
        if (chunks_used(chunks, i))
            entries[n++] = (struct wire_chunk){i, chunks_hash(chunks, NULL, i)};
        if (n == WIRE_CHUNKS_MOST || (n && i == n_chunks - 1)) {
            st = deliver(t, 0, WIRE_CHUNKS, message, wire_chunks_encode(entries, n, message, sizeof message));
            n = 0;
        }
    }
    return st;
}

status worker_ready(struct transport *t, uint64_t held_bytes)
{
    _Alignas(TRANSPORT_ALIGN) uint8_t message[WIRE_READY_SIZE];
    return deliver(t, 0, WIRE_READY, message, wire_ready_encode(held_bytes, message, sizeof message));
}
