#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the character that starts with `lead`; 1 for what starts none. */
static size_t sequence_length(unsigned char lead)
{
    return lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 ? (lead < 0xf0 ? 3 : 1) : lead >= 0xc2 ? 2 : 1;
}

size_t utf8_character(const char *bytes, size_t n)
{
    size_t length = n ? sequence_length((unsigned char)bytes[0]) : 0;
    if (length > n || (length == 1 && (unsigned char)bytes[0] >= 0x80))
        return 0;
    for (size_t i = 1; i < length; i++)
        if (((unsigned char)bytes[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

size_t utf8_whole(const char *bytes, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)bytes[n - back];
        if ((c & 0xc0) == 0x80)
            continue; /* inside a character: look for its start */
        return sequence_length(c) > back ? n - back : n;
    }
    return n;
}

enum utf8_kind utf8_next(const char *bytes, size_t n, size_t *length)
{
    const uint8_t lead = (uint8_t)bytes[0];
    const size_t all = sequence_length(lead);
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    *length = 1;
    if (all == 1)
        return lead < 0x80 ? UTF8_CHARACTER : UTF8_BROKEN;
    for (size_t i = 1; i < all; i++) {
        *length = i;
        if (i == n)
            return UTF8_CUT;
        if ((uint8_t)bytes[i] < low || (uint8_t)bytes[i] > high)
            return UTF8_BROKEN;
        low = 0x80;
        high = 0xbf;
    }
    *length = all;
    return UTF8_CHARACTER;
}

static const char replacement[] = "\uFFFD";

size_t utf8_clean(struct utf8_cleaner *c, const char *bytes, size_t n, char *out)
{
    size_t made = 0, length;
    for (size_t i = 0; i < n; i++) {
        c->held[c->n_held++] = bytes[i];
        enum utf8_kind kind = utf8_next(c->held, c->n_held, &length);
        if (kind == UTF8_BROKEN && length < c->n_held) { /* the last byte begins something else */
            memcpy(out + made, replacement, 3);
            made += 3;
            c->held[0] = bytes[i];
            c->n_held = 1;
            kind = utf8_next(c->held, 1, &length);
        }
        if (kind == UTF8_CUT)
            continue;
        const char *what = kind == UTF8_BROKEN ? replacement : c->held;
        length = kind == UTF8_BROKEN ? 3 : length;
        memcpy(out + made, what, length);
        made += length;
        c->n_held = 0;
    }
    return made;
}

size_t utf8_clean_end(struct utf8_cleaner *c, char *out)
{
    if (!c->n_held)
        return 0;
    c->n_held = 0;
    memcpy(out, replacement, 3);
    return 3;
}
