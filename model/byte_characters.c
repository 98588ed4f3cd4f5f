/* The printable characters that bytes are written as in byte-level vocabularies. */
#include "model/tokenizer_internal.h"

/* Bytes that stand for themselves; the others take U+0100, U+0101, ... in their order. */
static bool is_printable(int byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

int byte_character(uint8_t byte, char out[2])
{
    uint32_t code = byte;
    if (!is_printable(byte)) {
        code = 0x100;
        for (int b = 0; b < byte; b++)
            code += !is_printable(b);
    }
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

int character_byte(uint32_t code)
{
    if (code < 0x100)
        return is_printable((int)code) ? (int)code : -1;
    /* 0x00-0x20, 0x7f-0xa0 and 0xad, in this order. */
    uint32_t i = code - 0x100;
    return i <= 0x20 ? (int)i : i < 0x21 + 0x22 ? (int)(i - 0x21 + 0x7f) : i == 0x21 + 0x22 ? 0xad : -1;
}

int spelt_byte(const char *at, uint32_t n, uint32_t *len)
{
    uint8_t c = (uint8_t)at[0], next = n > 1 ? (uint8_t)at[1] : 0;
    *len = (c & 0xe0) == 0xc0 && (next & 0xc0) == 0x80 ? 2 : 1;
    if (*len == 1 && c >= 0x80)
        return -1;
    return character_byte(*len == 2 ? (c & 0x1fu) << 6 | (next & 0x3fu) : c);
}
