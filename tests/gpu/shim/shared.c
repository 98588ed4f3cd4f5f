/* Shared memory. What kernels declare lies in the section that shared.ld makes; what a launch asks for ends at a page
 * that nobody may touch. Both are filled anew before every block. Of the section, which has the variables of all
 * kernels, a block touches a few pages: it is a private mapping of a file that is filled, and forgets what was written
 * to it. */
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/gpu/shim/shim.h"

enum { PAGE = 4096, ROOM = 256 << 10 };
/* No number as f64, as f32, and as two f16. */
#define NAN_WORD 0x7ffdfe5bu

extern uint32_t simt_shared_begin[], simt_shared_end[]; /* shared.ld: whole pages */

static char *room;
static unsigned char *dynamic;

/* The byte that belongs to an address. */
static unsigned char nan_byte(uintptr_t at) { return (unsigned char)(NAN_WORD >> 8 * (at % 4)); }

__attribute__((no_sanitize("address", "undefined"))) void fill_with_nan(void *to, size_t n)
{
    unsigned char *p = to, *end = p + n;
    for (; p < end && (uintptr_t)p % 4; p++)
        *p = nan_byte((uintptr_t)p);
    size_t words = (size_t)(end - p) / 4;
    __asm__ volatile("rep stosl" : "+D"(p), "+c"(words) : "a"(NAN_WORD) : "memory");
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

static size_t section_bytes(void) { return (size_t)((char *)simt_shared_end - (char *)simt_shared_begin); }

/* Puts the private mapping in the section's place. */
static void map_section(void)
{
    if (section_bytes() == 0)
        return;
    const int file = memfd_create("shared memory", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)section_bytes()))
        die("no file for shared memory");
    void *filled = mmap(NULL, section_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (filled == MAP_FAILED)
        die("no file for shared memory");
    fill_with_nan(filled, section_bytes());
    munmap(filled, section_bytes());
    const int flags = MAP_PRIVATE | MAP_FIXED;
    if (mmap(simt_shared_begin, section_bytes(), PROT_READ | PROT_WRITE, flags, file, 0) == MAP_FAILED)
        die("no shared memory");
    close(file);
}

void shared_refill(size_t dynamic_bytes)
{
    if (!room) {
        room = mmap(NULL, ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED || mprotect(room + ROOM, PAGE, PROT_NONE))
            die("no shared memory");
        map_section();
    }
    dynamic = (unsigned char *)room + ROOM - (dynamic_bytes + 15) / 16 * 16;
    fill_with_nan(dynamic, (dynamic_bytes + 15) / 16 * 16);
    if (section_bytes() && madvise(simt_shared_begin, section_bytes(), MADV_DONTNEED))
        die("shared memory cannot be filled anew");
}

unsigned char *simt_dynamic_shared(void) { return dynamic; }

bool shared_overflowed(const void *at)
{
    return room && (uintptr_t)at - (uintptr_t)(room + ROOM) < PAGE;
}

size_t shared_bytes(void) { return ROOM + section_bytes(); }

size_t shared_offset(const void *at)
{
    const uintptr_t in_section = (uintptr_t)at - (uintptr_t)simt_shared_begin,
                    in_room = (uintptr_t)at - (uintptr_t)room;
    if (in_section < section_bytes())
        return ROOM + in_section;
    return room && (uintptr_t)at >= (uintptr_t)dynamic && in_room < ROOM ? in_room : SIZE_MAX;
}
