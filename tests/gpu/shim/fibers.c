/* Fibers: a stack each, and a switch that saves what a called function has to keep. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/gpu/shim/shim.h"

enum {
    PAGE = 4096,
    STACK = 256 << 10, /* of which a plain kernel touches a page or two; a sanitizer wants more */
    LINE = 64          /* of a cache: stacks begin in different ones, or all would want the same few */
};

static char *stacks;

/* The frames that fiber_switch makes and takes: six registers and where to go on. */
__asm__(".text\n"
        ".globl fiber_switch\n"
        ".hidden fiber_switch\n"
        ".type fiber_switch, @function\n"
        "fiber_switch:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size fiber_switch, . - fiber_switch\n");

static void make_stacks(void)
{
    const size_t bytes = (size_t)MOST_THREADS * (STACK + PAGE);
    stacks = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED)
        die("no memory for stacks");
    for (int i = 0; i < MOST_THREADS; i++)
        if (mprotect(stacks + (size_t)i * (STACK + PAGE), PAGE, PROT_NONE))
            die("a stack cannot be guarded");
}

void *fiber_new(int i, void (*entry)(void))
{
    if (!stacks)
        make_stacks();
    uint64_t *top = (uint64_t *)(stacks + (size_t)(i + 1) * (STACK + PAGE) - (size_t)i % (PAGE / LINE) * LINE);
    top[-1] = 0; /* what a caller would have pushed: a stack is aligned to 16 bytes and 8 where a function begins */
    top[-2] = (uint64_t)(uintptr_t)entry;
    for (int r = 3; r <= 8; r++)
        top[-r] = 0;
    return top - 8;
}

int fiber_of(const void *at)
{
    const uintptr_t offset = (uintptr_t)at - (uintptr_t)stacks;
    return stacks && offset < (uintptr_t)MOST_THREADS * (STACK + PAGE) ? (int)(offset / (STACK + PAGE)) : -1;
}

bool fiber_overflowed(const void *at)
{
    return fiber_of(at) >= 0 && ((uintptr_t)at - (uintptr_t)stacks) % (STACK + PAGE) < PAGE;
}
