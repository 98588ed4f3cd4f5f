/* What the lanes of a warp get when they have met. */
#include <string.h>

#include "tests/gpu/shim/shim.h"

#define EACH_LANE(l, mask) \
    for (int l = 0; l < WARP; l++) \
        if ((mask) >> l & 1)

static void shuffle(struct thread *lanes, unsigned mask)
{
    EACH_LANE(l, mask)
    {
        const int from = lanes[l].from;
        if (from < 0 || from >= WARP || !(mask >> from & 1))
            die("lane %d reads from lane %d, which is not in the mask %08x, in %s at %s:%d", l, from, mask,
                lanes[l].place.name, lanes[l].place.file, lanes[l].place.line);
        lanes[l].result = lanes[from].value;
    }
}

static void ballot(struct thread *lanes, unsigned mask)
{
    unsigned votes = 0;
    EACH_LANE(l, mask)
        votes |= (unsigned)(lanes[l].value != 0) << l;
    EACH_LANE(l, mask)
        lanes[l].result = votes;
}

/* ---- m16n8k32 of 8-bit numbers: with g = lane / 4 and t = lane % 4, lane holds
 * of A [16, 32]: row g, columns 4t .. 4t + 3 (a0) and 16 + 4t .. (a2); row g + 8, the same columns (a1, a3)
 * of B [32, 8]: column g, rows 4t .. (b0) and 16 + 4t .. (b1)
 * of C [16, 8]: row g, columns 2t and 2t + 1 (c0, c1); row g + 8, the same (c2, c3) ---- */

static const struct simt_tile *tile_of(const struct thread *t) { return (const struct simt_tile *)(uintptr_t)t->value; }

static int byte_of(unsigned word, int i, bool is_signed)
{
    const unsigned byte = word >> 8 * i & 255;
    return is_signed ? (int8_t)byte : (int)byte;
}

static void multiply(struct thread *lanes)
{
    int a[16][32], b[32][8];
    for (int l = 0; l < WARP; l++) {
        const struct simt_tile *tile = tile_of(&lanes[l]);
        if (tile->a_signed != tile_of(&lanes[0])->a_signed)
            die("lanes do not agree in the type of A");
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < 4; i++)
                a[l / 4 + 8 * (r & 1)][4 * (l % 4) + 16 * (r >> 1) + i] = byte_of(tile->a[r], i, tile->a_signed);
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < 4; i++)
                b[4 * (l % 4) + 16 * r + i][l / 4] = byte_of(tile->b[r], i, true);
    }
    for (int l = 0; l < WARP; l++)
        for (int r = 0; r < 4; r++) {
            const int row = l / 4 + 8 * (r >> 1), column = 2 * (l % 4) + (r & 1);
            unsigned sum = (unsigned)tile_of(&lanes[l])->c[r];
            for (int k = 0; k < 32; k++)
                sum += (unsigned)(a[row][k] * b[k][column]);
            tile_of(&lanes[l])->c[r] = (int)sum;
        }
}

void complete_meeting(struct thread *lanes, unsigned mask)
{
    const struct thread *first = &lanes[__builtin_ctz(mask)];
    switch (first->op) {
    case SIMT_SYNCWARP: break;
    case SIMT_SHUFFLE: shuffle(lanes, mask); break;
    case SIMT_BALLOT: ballot(lanes, mask); break;
    case SIMT_MMA: multiply(lanes); break;
    }
}
