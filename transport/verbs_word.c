/* The immediate value that comes with every message, 32 bits:
 *   0-3  slots given back   4-6  their channel   7-11 kind   12-13 slot   14 more   15 control
 *   16-31 sequence number */
#include <arpa/inet.h>

#include "transport/verbs_word.h"

uint32_t word_encode(const struct word *w)
{
    return htonl(w->freed | (uint32_t)w->channel << 4 | (uint32_t)w->kind << 7 | (uint32_t)w->slot << 12 |
                 (uint32_t)w->more << 14 | (uint32_t)w->control << 15 | (uint32_t)w->sequence << 16);
}

struct word word_decode(uint32_t bits)
{
    const uint32_t x = ntohl(bits);
    return (struct word){.freed = x & 15,
                         .channel = x >> 4 & 7,
                         .kind = x >> 7 & 31,
                         .slot = x >> 12 & 3,
                         .more = x >> 14 & 1,
                         .control = x >> 15 & 1,
                         .sequence = (uint16_t)(x >> 16)};
}
