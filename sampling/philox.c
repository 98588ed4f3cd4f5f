#include "sampling/philox.h"

#include <string.h>

enum { ROUNDS = 10 };

/* One word of a round is the high half of a product, crossed with a word that was not multiplied and with the key; its
 * neighbour is the low half. */
static void turn(uint32_t c[4], const uint32_t key[2])
{
    const uint64_t a = UINT64_C(0xd2511f53) * c[0], b = UINT64_C(0xcd9e8d57) * c[2];
    c[0] = (uint32_t)(b >> 32) ^ c[1] ^ key[0];
    c[1] = (uint32_t)b;
    c[2] = (uint32_t)(a >> 32) ^ c[3] ^ key[1];
    c[3] = (uint32_t)a;
}

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4], k[2] = {key[0], key[1]};
    memcpy(c, counter, sizeof c);
    for (int i = 0; i < ROUNDS; i++) {
        turn(c, k);
        k[0] += 0x9e3779b9; /* the golden ratio */
        k[1] += 0xbb67ae85; /* the square root of 3, less 1 */
    }
    memcpy(out, c, sizeof c);
}

double random_at(uint64_t seed, uint32_t position)
{
    uint32_t r[4];
    philox4x32((uint32_t[]){position, 0, 0, 0}, (uint32_t[]){(uint32_t)seed, (uint32_t)(seed >> 32)}, r);
    return (double)(((uint64_t)r[1] << 32 | r[0]) >> 11) * 0x1p-53;
}
