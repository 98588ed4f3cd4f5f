/* Races, and steps beyond what a kernel may touch. Kernels that were compiled with -fsanitize=thread, but are not
 * linked with its runtime, call these functions before each access. Two accesses of a byte of which one writes, and not
 * both are atomic, must be ordered: those of a thread are; those of a block, by a barrier between them; those of a
 * warp, by __syncwarp. Those of different blocks are not, but for a block that counts others done: each has a fence in
 * all its threads, then an atomic operation; who does the same atomic operation later, and then has a fence, sees what
 * they wrote before theirs. Values that lanes exchange order nothing. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/gpu/shim/shim.h"

enum kind { READ, WRITE, ATOMIC };
enum { CELLS = 3, PAGE = 4096 };

/* An access to some bytes of a granule of four. */
struct cell {
    uint32_t when;     /* the launch, or of shared memory the block; another than now: none */
    uint32_t block;
    uint16_t barrier;  /* barriers of the block before it */
    uint16_t thread;
    uint16_t clock;    /* of the thread's lane */
    uint8_t bytes;     /* a bit each */
    uint8_t kind;
};
struct granule {
    struct cell cells[CELLS];
    uint32_t when;     /* when `set` was */
    uint8_t set;       /* a bit each: bytes that were written; 16 times that: that were read, not of shared memory */
    uint8_t written;   /* a bit each: bytes of the GPU's memory that a launch has ever written */
};

static bool watching; /* something was compiled to be */
static uint32_t launches, blocks, turn;
static uint16_t barriers;
static uint16_t clocks[MOST_THREADS][WARP]; /* of each lane of its warp, as far as a thread knows */
static struct release {
    uintptr_t at;
    uint32_t block;
    uint16_t barriers;   /* of the block, before its fence */
} *releases;             /* of the launch, in their order */
static size_t n_releases, room;
static struct {
    int n_fenced;        /* threads with a fence, after how many barriers */
    uint16_t fenced_at, acted_at;
    uintptr_t acted_on;  /* its last atomic operation after a fence, which comes after so many releases */
    size_t seen;
    bool acquired;
} own;                   /* block's */
static struct granule **pages, *shared;     /* of the GPU's memory; of shared memory */

static const char *const name_of[] = {"read", "write", "atomic operation"};

/* ---- what orders ---- */

void race_launch(void)
{
    launches++;
    n_releases = 0;
}

void race_block(int n_threads)
{
    blocks++;
    barriers = 0;
    memset(&own, 0, sizeof own);
    if (watching)
        memset(clocks, 0, (size_t)n_threads * sizeof *clocks);
}

void race_barrier(void) { barriers++; }

void race_syncwarp(int warp, unsigned mask)
{
    uint16_t (*lanes)[WARP] = &clocks[warp * WARP], joined[WARP] = {0};
    if (!watching)
        return;
    for (int t = 0; t < WARP; t++)
        for (int l = 0; (mask >> t & 1) && l < WARP; l++)
            if (lanes[t][l] > joined[l])
                joined[l] = lanes[t][l];
    for (int t = 0; t < WARP; t++)
        if (mask >> t & 1) {
            memcpy(lanes[t], joined, sizeof joined);
            lanes[t][t]++;
        }
}

/* A fence of a thread: before an atomic operation, or after. */
static void fence(void)
{
    if (!running_task())
        return;
    if (own.acted_on && barriers > own.acted_at)
        own.acquired = true;
    else if (own.n_fenced && own.fenced_at == barriers)
        own.n_fenced++;
    else {
        own.n_fenced = 1;
        own.fenced_at = barriers;
    }
}

static void release(uintptr_t at, uint32_t block)
{
    const struct simt_task *task = running_task();
    if (own.n_fenced < (int)(task->block.x * task->block.y * task->block.z) || own.fenced_at >= barriers)
        return;
    if (n_releases == room) {
        room = room ? 2 * room : 64;
        releases = realloc(releases, room * sizeof *releases);
        if (!releases)
            die("no memory to note releases in");
    }
    own.acted_on = at;
    own.acted_at = barriers;
    own.seen = n_releases;
    releases[n_releases++] = (struct release){at, block, own.fenced_at};
}

/* Whether the block has seen what another did. */
static bool acquired(const struct cell *c)
{
    for (size_t i = 0; own.acquired && i < own.seen; i++)
        if (releases[i].at == own.acted_on && releases[i].block == c->block)
            return c->kind == ATOMIC || c->barrier <= releases[i].barriers;
    return false;
}

/* Whether an access of this launch comes before what thread `now` does. */
static bool comes_before(const struct cell *c, const struct cell *now)
{
    if (c->block != now->block)
        return acquired(c);
    if (c->thread == now->thread || c->barrier < now->barrier)
        return true;
    return c->thread / WARP == now->thread / WARP && clocks[now->thread][c->thread % WARP] >= c->clock;
}

/* ---- what was touched ---- */

static void *zeros(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        die("no memory to note accesses in");
    return p;
}

static struct granule *granule_of(uintptr_t at, bool *in_shared)
{
    size_t offset = shared_offset((const void *)at);
    *in_shared = offset != SIZE_MAX;
    if (*in_shared) {
        if (!shared)
            shared = zeros(shared_bytes() / 4 * sizeof *shared);
        return &shared[offset / 4];
    }
    offset = arena_offset((const void *)at);
    if (offset == SIZE_MAX)
        return NULL;
    if (!pages)
        pages = zeros(arena_reserved() / PAGE * sizeof *pages);
    struct granule **page = &pages[offset / PAGE];
    if (!*page)
        *page = zeros(PAGE / 4 * sizeof **page);
    return &(*page)[offset % PAGE / 4];
}

static void check_bounds(const char *at, size_t n, enum kind kind)
{
    char text[256];
    if (!arena_holds(at, n))
        die("a %s of %zu bytes goes beyond an allocation: %s", name_of[kind], n,
            arena_explain(at + n - 1, text, sizeof text) ? text : "");
}

/* What a thread may touch besides: its stack, the arguments, constants. */
static bool is_own(const void *at)
{
    extern char program_begin[] __asm__("__executable_start") __attribute__((weak));
    extern char program_end[] __asm__("_end") __attribute__((weak));
    const struct simt_task *task = running_task();
    if (fiber_of(at) == running_thread() || arena_where(at) == PINNED)
        return true;
    return (uintptr_t)at - (uintptr_t)task->arguments < task->bytes ||
           ((const char *)at >= program_begin && (const char *)at < program_end);
}

static void note(struct granule *g, const struct cell *now)
{
    struct cell *to = &g->cells[turn++ % CELLS];
    for (int i = 0; i < CELLS; i++) {
        struct cell *c = &g->cells[i];
        if (c->when != now->when || (c->bytes == now->bytes && c->kind == now->kind && comes_before(c, now))) {
            to = c;
            break;
        }
    }
    *to = *now;
}

static void check_granule(uintptr_t at, uint8_t bytes, struct cell now)
{
    bool in_shared;
    struct granule *g = granule_of(at, &in_shared);
    if (!g)
        return;
    now.when = in_shared ? blocks : launches;
    now.bytes = bytes;
    for (int i = 0; i < CELLS; i++) {
        const struct cell *c = &g->cells[i];
        if (c->when == now.when && (c->bytes & bytes) && (c->kind != now.kind || now.kind == WRITE) &&
            !comes_before(c, &now))
            die("a %s of %s at %p has no order with a %s by thread %d of block %u", name_of[now.kind],
                in_shared ? "shared memory" : "the GPU's memory", (const void *)at, name_of[c->kind], c->thread,
                c->block);
    }
    g->set = g->when == now.when ? g->set : 0;
    g->when = now.when;
    if (in_shared) {
        if (now.kind != WRITE && (bytes & ~g->set))
            die("a %s of shared memory at %p %s", name_of[now.kind], (const void *)at,
                copy_is_under_way((const void *)at) ? "to which a copy is under way"
                                                    : "that nobody in the block has set");
        g->set |= bytes;
    } else {
        if (now.kind != READ)
            g->written |= bytes;
        else if ((g->written & bytes) && !running_has_begun())
            die("a read of the GPU's memory at %p, which launches write, before the one before is done",
                (const void *)at);
        const uint8_t touched = (uint8_t)(now.kind == READ ? bytes << 4 : bytes);
        traffic_needs(__builtin_popcount(touched & ~g->set));
        g->set |= touched;
    }
    note(g, &now);
}

/* place: in the program. */
static void touch(const void *place, const void *at, size_t n, enum kind kind)
{
    if (!running_task() || n == 0)
        return;
    if (arena_offset(at) != SIZE_MAX) {
        check_bounds(at, n, kind);
        if (kind != READ && !running_has_begun())
            die("a %s of the GPU's memory at %p before the launch before is done", name_of[kind], at);
        traffic_touch(place, (uintptr_t)at, n);
    } else if (shared_offset(at) == SIZE_MAX) {
        if (!is_own(at))
            die("a %s of %zu bytes at %p, which are neither the GPU's nor the thread's", name_of[kind], n, at);
        return;
    }
    const int thread = running_thread();
    const struct cell now = {.block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z),
                             .barrier = barriers,
                             .thread = (uint16_t)thread, .clock = clocks[thread][thread % WARP], .kind = kind};
    if (kind == ATOMIC)
        release((uintptr_t)at, now.block);
    const uintptr_t begin = (uintptr_t)at, end = begin + n;
    for (uintptr_t g = begin & ~(uintptr_t)3; g < end; g += 4) {
        const uintptr_t first = begin > g ? begin - g : 0, last = end - g < 4 ? end - g : 4;
        check_granule(g, (uint8_t)(((1u << last) - 1) & ~((1u << first) - 1)), now);
    }
}

/* A copy writes at any time from when it begins until it is waited for; meanwhile nobody has set what it writes. */
void race_copy_begins(const void *place, void *to, const void *from, size_t n)
{
    bool in_shared;
    if (!watching)
        return;
    touch(place, from, n, READ);
    touch(place, to, n, WRITE);
    for (size_t i = 0; i < n; i += 4)
        granule_of((uintptr_t)to + i, &in_shared)->set = 0;
}

void race_copy_ends(void *to, size_t n)
{
    if (watching)
        touch(NULL, to, n, WRITE);
}

static void touch_aligned(const void *place, const void *at, size_t n, enum kind kind)
{
    if (running_task() && (uintptr_t)at % n)
        die("a %s of %zu bytes at %p, which is not aligned", name_of[kind], n, at);
    touch(place, at, n, kind);
}

/* ---- what the compiler calls ---- */

#define HERE __builtin_return_address(0)
#define HOOK(name, ...) \
    void __tsan_##name(__VA_ARGS__); \
    void __tsan_##name(__VA_ARGS__)
HOOK(init, void) { watching = true; }
HOOK(func_entry, void *caller) { (void)caller; }
HOOK(func_exit, void) {}
HOOK(read_range, void *p, size_t n) { touch(HERE, p, n, READ); }
HOOK(write_range, void *p, size_t n) { touch(HERE, p, n, WRITE); }
#define SIZE(n) \
    HOOK(read##n, void *p) { touch_aligned(HERE, p, n, READ); } \
    HOOK(write##n, void *p) { touch_aligned(HERE, p, n, WRITE); } \
    HOOK(unaligned_read##n, void *p) { touch(HERE, p, n, READ); } \
    HOOK(unaligned_write##n, void *p) { touch(HERE, p, n, WRITE); } \
    HOOK(volatile_read##n, void *p) { touch_aligned(HERE, p, n, READ); } \
    HOOK(volatile_write##n, void *p) { touch_aligned(HERE, p, n, WRITE); }
SIZE(1)
SIZE(2)
SIZE(4)
SIZE(8)
SIZE(16)

#define ATOMIC_OPERATION(bits, type, name, builtin) \
    type __tsan_atomic##bits##_##name(volatile type *p, type v, int order); \
    type __tsan_atomic##bits##_##name(volatile type *p, type v, int order) \
    { \
        (void)order; \
        touch_aligned(HERE, (const void *)(uintptr_t)p, sizeof *p, ATOMIC); \
        return builtin(p, v, __ATOMIC_SEQ_CST); \
    }
#define ATOMIC_SWAP(bits, type, strength) \
    int __tsan_atomic##bits##_compare_exchange_##strength(volatile type *p, type *old, type v, int order, \
                                                          int failing); \
    int __tsan_atomic##bits##_compare_exchange_##strength(volatile type *p, type *old, type v, int order, int failing) \
    { \
        (void)order; \
        (void)failing; \
        touch_aligned(HERE, (const void *)(uintptr_t)p, sizeof *p, ATOMIC); \
        return __atomic_compare_exchange_n(p, old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    }
#define ATOMICS(bits, type) \
    ATOMIC_OPERATION(bits, type, exchange, __atomic_exchange_n) \
    ATOMIC_OPERATION(bits, type, fetch_add, __atomic_fetch_add) \
    ATOMIC_OPERATION(bits, type, fetch_sub, __atomic_fetch_sub) \
    ATOMIC_OPERATION(bits, type, fetch_and, __atomic_fetch_and) \
    ATOMIC_OPERATION(bits, type, fetch_or, __atomic_fetch_or) \
    ATOMIC_OPERATION(bits, type, fetch_xor, __atomic_fetch_xor) \
    ATOMIC_SWAP(bits, type, strong) \
    ATOMIC_SWAP(bits, type, weak) \
    type __tsan_atomic##bits##_load(const volatile type *p, int order); \
    type __tsan_atomic##bits##_load(const volatile type *p, int order) \
    { \
        (void)order; \
        touch_aligned(HERE, (const void *)(uintptr_t)p, sizeof *p, ATOMIC); \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST); \
    }
ATOMICS(32, unsigned)
ATOMICS(64, unsigned long)
HOOK(atomic_thread_fence, int order)
{
    (void)order;
    fence();
}
