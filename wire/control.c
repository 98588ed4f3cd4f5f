/* HELLO, FAILED and USAGE. */
#include "wire/parts.h"

#include "base/log.h"

enum {
    VERSION_SIZE = 4 + 16, /* version and release: readable in every version */
    HOST_SIZE = 64 + 4 * 8,
    HELLO_SIZE = VERSION_SIZE + 5 * 8 + 6 * 4 + HOST_SIZE + 128 + 256
};
_Static_assert((int)HELLO_SIZE <= (int)WIRE_HELLO_MAX, "HELLO outgrew its buffer");

void wire_printable(char *out, const uint8_t *text, size_t n)
{
    size_t i = 0;
    wire_own(out, text, n);
    out[n] = '\0';
    for (; out[i]; i++)
        out[i] = (unsigned char)out[i] < 0x20 || out[i] == 0x7f ? '?' : out[i];
    memset(out + i, 0, n + 1 - i);
}

/* Writes text into a field of n bytes that ends in at least one NUL. */
static void write_text(struct writer *w, const char *text, size_t n)
{
    uint8_t *at = write_bytes(w, n);
    if (!at)
        return;
    size_t length = strnlen(text, n - 1);
    memcpy(at, text, length);
    memset(at + length, 0, n - length);
}

static void write_host(struct writer *w, const struct wire_host *h)
{
    write_text(w, h->name, sizeof h->name);
    write_u64(w, h->id);
    write_u64(w, h->memory_bytes);
    write_u64(w, h->limit_id);
    write_u64(w, h->limit_bytes);
}

/* There are HOST_SIZE bytes. */
static void read_host(struct reader *r, struct wire_host *h)
{
    wire_printable(h->name, read_bytes(r, sizeof h->name), sizeof h->name - 1);
    h->id = read_u64(r);
    h->memory_bytes = read_u64(r);
    h->limit_id = read_u64(r);
    h->limit_bytes = read_u64(r);
}

size_t wire_hello_encode(const struct wire_hello *h, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    write_u32(&w, h->version);
    write_text(&w, h->release, sizeof h->release);
    write_u64(&w, h->file_bytes);
    write_u64(&w, h->file_hash);
    write_u64(&w, h->plan_hash);
    write_u64(&w, h->settings_hash);
    write_u64(&w, h->need_bytes);
    write_u32(&w, h->n_ctx);
    write_u32(&w, h->n_batch);
    write_u32(&w, h->n_sequences);
    write_u32(&w, h->n_pages);
    write_u32(&w, h->n_grammar_ops);
    write_u32(&w, h->failed);
    write_host(&w, &h->host);
    write_text(&w, h->settings, sizeof h->settings);
    write_text(&w, h->reason, sizeof h->reason);
    return w.failed ? 0 : HELLO_SIZE;
}

status wire_hello_decode(const uint8_t *in, size_t n, struct wire_hello *out)
{
    struct reader r = {in, in + n, false};
    struct wire_hello h = {0};
    h.version = read_u32(&r);
    const uint8_t *release = read_bytes(&r, sizeof h.release);
    if (!release)
        return wire_refuse(WIRE_HELLO, "size", (int64_t)n, VERSION_SIZE, INT64_MAX);
    wire_printable(h.release, release, sizeof h.release - 1);
    if (h.version == WIRE_VERSION) {
        status st = wire_size_is(WIRE_HELLO, n, HELLO_SIZE);
        if (st != ST_OK)
            return st;
        h.file_bytes = read_u64(&r);
        h.file_hash = read_u64(&r);
        h.plan_hash = read_u64(&r);
        h.settings_hash = read_u64(&r);
        h.need_bytes = read_u64(&r);
        h.n_ctx = read_u32(&r);
        h.n_batch = read_u32(&r);
        h.n_sequences = read_u32(&r);
        h.n_pages = read_u32(&r);
        h.n_grammar_ops = read_u32(&r);
        h.failed = read_u32(&r);
        if ((st = wire_in_range(WIRE_HELLO, "failed", h.failed, 0, 1)) != ST_OK)
            return st;
        read_host(&r, &h.host);
        wire_printable(h.settings, read_bytes(&r, sizeof h.settings), sizeof h.settings - 1);
        wire_printable(h.reason, read_bytes(&r, sizeof h.reason), sizeof h.reason - 1);
    }
    *out = h;
    return ST_OK;
}

size_t wire_ready_encode(uint64_t held_bytes, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    write_u64(&w, held_bytes);
    return w.failed ? 0 : WIRE_READY_SIZE;
}

status wire_ready_decode(const uint8_t *in, size_t n, uint64_t *held_bytes)
{
    struct reader r = {in, in + n, false};
    status st = wire_size_is(WIRE_READY, n, WIRE_READY_SIZE);
    if (st == ST_OK)
        *held_bytes = read_u64(&r);
    return st;
}

size_t wire_failed_encode(const char *reason, uint8_t *out, size_t cap)
{
    if (!*reason)
        reason = "no reason given";
    size_t n = strnlen(reason, WIRE_FAILED_MAX - 1);
    if (cap < n)
        return 0;
    memcpy(out, reason, n);
    return n;
}

status wire_failed_decode(const uint8_t *in, size_t n, char reason[WIRE_FAILED_MAX])
{
    status st = wire_in_range(WIRE_FAILED, "size", (int64_t)n, 0, WIRE_FAILED_MAX - 1);
    if (st == ST_OK)
        wire_printable(reason, in, n);
    return st;
}

enum { USAGE_HEAD = 5 * 8 + 4, USAGE_DEVICE = 5 * 8 };
_Static_assert((int)WIRE_USAGE_MAX == (int)USAGE_HEAD + (int)WIRE_DEVICES_MOST * (int)USAGE_DEVICE,
               "USAGE has its size");

size_t wire_usage_encode(const struct wire_usage *u, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    write_u64(&w, u->messages);
    write_u64(&w, u->bytes);
    write_u64(&w, u->run_ns);
    write_u64(&w, u->wire_ns);
    write_u64(&w, u->wait_ns);
    write_u32(&w, u->n_devices);
    for (uint32_t i = 0; i < u->n_devices; i++) {
        write_u64(&w, u->devices[i].bytes);
        write_u64(&w, u->devices[i].neurons);
        write_u64(&w, u->devices[i].live);
        write_u64(&w, u->devices[i].busy_ns);
        write_u64(&w, u->devices[i].wait_ns);
    }
    return w.failed ? 0 : USAGE_HEAD + u->n_devices * USAGE_DEVICE;
}

/* Parts exceed no whole. */
static status check_parts(const struct wire_usage *u)
{
    if (u->wire_ns > u->run_ns || u->wait_ns > u->run_ns - u->wire_ns) {
        log_error("USAGE message: %llu ns of wire and %llu of waiting, expected at most %llu together",
                  (unsigned long long)u->wire_ns, (unsigned long long)u->wait_ns, (unsigned long long)u->run_ns);
        return ST_FORMAT;
    }
    for (uint32_t i = 0; i < u->n_devices; i++) {
        const struct wire_device *d = &u->devices[i];
        if (d->wait_ns > d->busy_ns) {
            log_error("USAGE message: %llu ns of waiting for device %u, expected at most %llu, while it was busy",
                      (unsigned long long)d->wait_ns, i, (unsigned long long)d->busy_ns);
            return ST_FORMAT;
        }
        if (d->live > d->neurons) {
            log_error("USAGE message: %llu live neurons of device %u, expected at most %llu, which it looked at",
                      (unsigned long long)d->live, i, (unsigned long long)d->neurons);
            return ST_FORMAT;
        }
    }
    return ST_OK;
}

status wire_usage_decode(const uint8_t *in, size_t n, struct wire_usage *out)
{
    struct reader r = {in, in + n, false};
    struct wire_usage u = {.messages = read_u64(&r)};
    u.bytes = read_u64(&r);
    u.run_ns = read_u64(&r);
    u.wire_ns = read_u64(&r);
    u.wait_ns = read_u64(&r);
    u.n_devices = read_u32(&r);
    status st = n < USAGE_HEAD ? wire_size_is(WIRE_USAGE, n, USAGE_HEAD)
                               : wire_in_range(WIRE_USAGE, "n_devices", u.n_devices, 0, WIRE_DEVICES_MOST);
    st = st ? st : wire_size_is(WIRE_USAGE, n, USAGE_HEAD + u.n_devices * USAGE_DEVICE);
    if (st)
        return st;
    for (uint32_t i = 0; i < u.n_devices; i++) {
        u.devices[i].bytes = read_u64(&r);
        u.devices[i].neurons = read_u64(&r);
        u.devices[i].live = read_u64(&r);
        u.devices[i].busy_ns = read_u64(&r);
        u.devices[i].wait_ns = read_u64(&r);
    }
    st = check_parts(&u);
    if (!st)
        *out = u;
    return st;
}
