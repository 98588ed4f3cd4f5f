/* Packing of weights at load, and dequantising. */
#include "kernels/layout.h"

bool dtype_is_quantised(enum dtype type)
{
    return type != DT_F32 && type != DT_F16 && type != DT_BF16;
}

void packed_shape(struct packed *m, enum dtype type, int64_t rows, int64_t cols)
{
    *m = (struct packed){.type = type, .rows = rows, .cols = cols, .groups = (rows + ROW_GROUP - 1) / ROW_GROUP,
                         .segment = SUM_SEGMENT};
    if (dtype_is_quantised(type)) {
        struct layout l = layout_of(type);
        size_t nb = (size_t)cols / ACT_BLOCK;
        m->group_bytes = nb * (layout_code_bytes(l) + layout_scale_bytes(l));
        m->group_bytes += nb / SUPER_BLOCKS * layout_super_bytes(l);
    } else {
        m->group_bytes = (size_t)cols * ROW_GROUP * (type == DT_F32 ? 4 : 2);
    }
    m->group_bytes = (m->group_bytes + 63) / 64 * 64;
}

size_t packed_bytes(const struct packed *m) { return (size_t)m->groups * m->group_bytes; }

void block_put_codes(struct layout l, const uint32_t quad[8], int r, uint8_t *codes)
{
    uint32_t word[8];
    int n = l.low_bits;
    for (int i = 0; i < n; i++) {
        if (l.low_bits == 8)
            word[i] = quad[i];
        else if (l.low_bits == 4)
            word[i] = (quad[i] & 0x0f0f0f0f) | (quad[i + 4] & 0x0f0f0f0f) << 4;
        else
            word[i] = (quad[i] & 0x03030303) | (quad[2 + i] & 0x03030303) << 2 | (quad[4 + i] & 0x03030303) << 4 |
                      (quad[6 + i] & 0x03030303) << 6;
    }
    if (l.high_bits == 2) {
        for (int h = 0; h < 2; h++)
            word[n + h] = (quad[h] >> 4 & 0x03030303) | (quad[2 + h] >> 4 & 0x03030303) << 2 |
                          (quad[4 + h] >> 4 & 0x03030303) << 4 | (quad[6 + h] >> 4 & 0x03030303) << 6;
    } else if (l.high_bits == 1) {
        word[n] = 0;
        for (int q = 0; q < 8; q++)
            word[n] |= (quad[q] >> l.low_bits & 0x01010101) << q;
    }
    for (int i = 0; i < n + l.high_bits; i++)
        memcpy(codes + 64 * i + 4 * r, &word[i], 4);
}

void block_put_scales(struct layout l, const struct block *b, int r, uint8_t *scales, uint8_t *supers)
{
    if (!l.k) {
        memcpy(scales + layout_d_bytes(l) * (size_t)r, &b->d, layout_d_bytes(l));
        if (l.minima)
            memcpy(scales + 2 * ROW_GROUP + 2 * r, &b->m, 2);
        return;
    }
    if (l.halves) {
        for (int h = 0; h < 2; h++)
            scales[h * ROW_GROUP + r] = (uint8_t)(l.minima ? b->sc[h] | b->mn[h] << 4 : b->sc[h]);
    } else {
        scales[r] = b->sc[0];
        if (l.minima)
            scales[ROW_GROUP + r] = b->mn[0];
    }
    memcpy(supers + 2 * r, &b->d, 2);
    if (l.minima)
        memcpy(supers + 2 * ROW_GROUP + 2 * r, &b->m, 2);
}

static void pack_row(const struct packed *m, uint8_t *group, int r, const uint8_t *src)
{
    struct layout l = layout_of(m->type);
    const int64_t nb = m->cols / ACT_BLOCK;
    for (int64_t b = 0; b < nb; b++) {
        struct place p = layout_place(l, group, b);
        struct block block;
        block_decode(m->type, src, b, &block);
        block_put_codes(l, block.quad, r, p.codes);
        block_put_scales(l, &block, r, p.scales, p.supers);
    }
}

/* Float weights: element [column, row]. */
static void pack_float_row(const struct packed *m, uint8_t *group, int r, const uint8_t *src)
{
    size_t size = m->type == DT_F32 ? 4 : 2;
    for (int64_t c = 0; c < m->cols; c++)
        memcpy(group + ((size_t)c * ROW_GROUP + (size_t)r) * size, src + (size_t)c * size, size);
}

void packed_fill(struct packed *m, int64_t group_begin, int64_t group_end, const uint8_t *src, size_t src_stride,
                 const int32_t *ids)
{
    for (int64_t g = group_begin; g < group_end; g++) {
        uint8_t *group = m->data + (size_t)g * m->group_bytes;
        if ((g + 1) * ROW_GROUP > m->rows)
            memset(group, 0, m->group_bytes);
        for (int r = 0; r < ROW_GROUP && g * ROW_GROUP + r < m->rows; r++) {
            const int64_t i = g * ROW_GROUP + r;
            const uint8_t *row = src + (size_t)(ids ? ids[i] : i) * src_stride;
            if (dtype_is_quantised(m->type))
                pack_row(m, group, r, row);
            else
                pack_float_row(m, group, r, row);
        }
    }
}

void block_dequantize(enum dtype type, const uint8_t *src, int64_t index, float *out)
{
    struct layout l = layout_of(type);
    struct block b;
    block_decode(type, src, index, &b);
    float d = d_of(l, b.d), m = f32_of_f16(b.m);
    for (int c = 0; c < ACT_BLOCK; c++) {
        int h = c / 16;
        float scale = !l.k ? d : d * (float)(l.minima ? b.sc[h] : (int8_t)b.sc[h]);
        float value = scale * (float)value_of(l, (int)(b.quad[c / 4] >> (8 * (c % 4)) & 255));
        if (l.minima)
            value = l.k ? value - m * (float)b.mn[h] : value + m;
        out[c] = value;
    }
}

void dequantize_row(enum dtype type, const uint8_t *src, int64_t n, float *out)
{
    if (dtype_is_quantised(type)) {
        for (int64_t b = 0; b < n / ACT_BLOCK; b++)
            block_dequantize(type, src, b, out + b * ACT_BLOCK);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        if (type == DT_F32) {
            memcpy(&out[i], src + 4 * i, 4);
        } else {
            memcpy(&h, src + 2 * i, 2);
            out[i] = type == DT_F16 ? f32_of_f16(h) : f32_of_bf16(h);
        }
    }
}
