/* Shared memory. What kernels declare lies in the section that shared.ld makes; what a launch asks for ends at a page that
 * nobody may touch. Both are filled anew before every block. */
#include <stdint.h>
#include <sys/mman.h>

#include "shim.h"

enum { PAGE = 4096, ROOM = 256 << 10 };
/* No number as f64, as f32, and as two f16. */
#define NAN_WORD 0x7ffdfe5bu

extern uint32_t section_begin[] __asm__("__start_simt_shared") __attribute__((weak, visibility("hidden")));
extern uint32_t section_end[] __asm__("__stop_simt_shared") __attribute__((weak, visibility("hidden")));

static char *room;
static unsigned char *dynamic;

/* The byte that belongs to an address. */
static unsigned char nan_byte(uintptr_t at) { return (unsigned char)(NAN_WORD >> 8 * (at % 4)); }

__attribute__((no_sanitize("address", "undefined"))) void fill_with_nan(void *to, size_t n)
{
    unsigned char *p = to, *end = p + n;
    for (; p < end && (uintptr_t)p % 4; p++)
        *p = nan_byte((uintptr_t)p);
    for (; end - p >= 4; p += 4)
        *(uint32_t *)p = NAN_WORD;
    for (; p < end; p++)
        *p = nan_byte((uintptr_t)p);
}

__attribute__((no_sanitize("address", "undefined"))) bool filled_with_nan(const void *at, size_t n)
{
    for (const unsigned char *p = at; p < (const unsigned char *)at + n; p++)
        if (*p != nan_byte((uintptr_t)p))
            return false;
    return true;
}

void shared_refill(size_t dynamic_bytes)
{
    if (!room) {
        room = mmap(NULL, ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED || mprotect(room + ROOM, PAGE, PROT_NONE))
            die("no shared memory");
    }
    dynamic = (unsigned char *)room + ROOM - (dynamic_bytes + 15) / 16 * 16;
    fill_with_nan(dynamic, (dynamic_bytes + 15) / 16 * 16);
    if (section_begin)
        fill_with_nan(section_begin, (size_t)((char *)section_end - (char *)section_begin));
}

unsigned char *simt_dynamic_shared(void) { return dynamic; }

bool shared_overflowed(const void *at)
{
    return room && (uintptr_t)at - (uintptr_t)(room + ROOM) < PAGE;
}
