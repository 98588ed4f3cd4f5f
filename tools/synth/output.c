#include "tools/synth/output.h"

#include <errno.h>
#include <string.h>
#include "base/bytes.h"
#include "base/log.h"

enum { ALIGNMENT = 32 }; /* of tensor data, GGUF's default */

void put(struct output *o, const void *bytes, size_t n)
{
    if (o->file && !o->failed && fwrite(bytes, 1, n, o->file) != n) {
        log_error("%s: cannot write at byte %llu: %s", o->path, (unsigned long long)o->at, strerror(errno));
        o->failed = true;
    }
    o->at += n;
}

void put_u32(struct output *o, uint32_t v)
{
    uint8_t b[4];
    struct writer w = {b, b + sizeof b, false};
    write_u32(&w, v);
    put(o, b, sizeof b);
}

void put_u64(struct output *o, uint64_t v)
{
    uint8_t b[8];
    struct writer w = {b, b + sizeof b, false};
    write_u64(&w, v);
    put(o, b, sizeof b);
}

void put_f32(struct output *o, float v)
{
    uint8_t b[4];
    struct writer w = {b, b + sizeof b, false};
    write_f32(&w, v);
    put(o, b, sizeof b);
}

void put_string(struct output *o, const char *s)
{
    put_u64(o, strlen(s));
    put(o, s, strlen(s));
}

uint64_t output_aligned(uint64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void put_padding(struct output *o)
{
    static const uint8_t zeros[ALIGNMENT];
    put(o, zeros, (size_t)(output_aligned(o->at) - o->at));
}

static void key(struct output *o, const char *name, enum gguf_type type)
{
    put_string(o, name);
    put_u32(o, type);
    o->n_keys++;
}

void key_u32(struct output *o, const char *name, uint32_t v)
{
    key(o, name, GGUF_U32);
    put_u32(o, v);
}

void key_f32(struct output *o, const char *name, float v)
{
    key(o, name, GGUF_F32);
    put_f32(o, v);
}

void key_string(struct output *o, const char *name, const char *v)
{
    key(o, name, GGUF_STRING);
    put_string(o, v);
}

void key_array(struct output *o, const char *name, enum gguf_type type, uint64_t n)
{
    key(o, name, GGUF_ARRAY);
    put_u32(o, type);
    put_u64(o, n);
}
