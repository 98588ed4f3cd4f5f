/* Runs a kernel: a block after another in random order, a fiber for each of its threads. A fiber runs until it waits or
 * ends; who is next is drawn. That a barrier or a warp's operation is right is checked as threads come to it: they
 * must all come to the same one. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/shim/shim.h"

uint3 threadIdx, blockIdx, blockDim, gridDim;

/* Of its lanes, a bit each: who waits in a meeting, and who has ended; and those of the last meeting that somebody came
 * to, who agree in what it is. */
struct warp {
    unsigned waiting, ended, met, mask;
    enum simt_operation op;
    struct place place;
};

static struct {
    const struct simt_task *launch; /* NULL: no kernel runs */
    struct thread threads[MOST_THREADS];
    struct warp warps[MOST_THREADS / WARP];
    int n, n_ended, n_at_barrier, n_ready;
    const struct thread *at_barrier;  /* the first who came to it */
    int counted;                      /* by the barrier, until now */
    struct thread *ready[MOST_THREADS], *current;
    void *main, *ended;               /* stack pointers of who runs the kernel, and of whom nobody goes back to */
} block;

const struct simt_task *running_task(void) { return block.launch; }
int running_thread(void) { return (int)(block.current - block.threads); }
bool running_has_begun(void) { return block.current->begun; }

static uint64_t random_state = 1;

void simt_seed(uint64_t seed) { random_state = seed; }

/* Splitmix64. */
uint32_t draw(uint32_t n)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (uint32_t)(((z ^ z >> 31) >> 32) * n >> 32);
}

/* ---- complaints ---- */

static void say(const char *format, va_list list)
{
    fprintf(stderr, "simt: ");
    if (block.launch)
        fprintf(stderr, "%s, block (%u, %u, %u), thread (%u, %u, %u): ", block.launch->name, blockIdx.x, blockIdx.y,
                blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
}

void complain(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    say(format, list);
    va_end(list);
}

void die(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    say(format, list);
    va_end(list);
    abort();
}

void simt_trap(const char *file, int line) { die("__trap at %s:%d", file, line); }

static void report_deadlock(void)
{
    int shown = 0;
    for (int i = 0; i < block.n && shown < 8; i++) {
        const struct thread *t = &block.threads[i];
        if (t->state == ENDED)
            continue;
        shown++;
        fprintf(stderr, "simt: thread (%u, %u, %u) waits in %s at %s:%d", t->index.x, t->index.y, t->index.z,
                t->place.name, t->place.file, t->place.line);
        if (t->state == IN_WARP)
            fprintf(stderr, " with mask %08x", t->mask);
        fputc('\n', stderr);
    }
    die("deadlock: %d threads wait, %d have ended", block.n - block.n_ended, block.n_ended);
}

/* ---- scheduling ---- */

static void make_ready(struct thread *t)
{
    t->state = READY;
    block.ready[block.n_ready++] = t;
}

/* Goes on with another thread, or with who runs the kernel once all have ended. */
static void go_on(void **save)
{
    if (block.n_ready == 0) {
        if (block.n_ended < block.n)
            report_deadlock();
        fiber_switch(save, block.main);
        return;
    }
    const uint32_t i = draw((uint32_t)block.n_ready);
    struct thread *t = block.ready[i];
    block.ready[i] = block.ready[--block.n_ready];
    if (t == block.current && save == &t->sp)
        return;
    block.current = t;
    threadIdx = t->index;
    fiber_switch(save, t->sp);
}

static void run_thread(void)
{
    block.launch->run(block.launch->arguments);
    copies_end();
    struct thread *t = block.current;
    if (!t->begun)
        die("the thread ends, and has not waited for the launch before");
    if (block.n_at_barrier) {
        for (int i = 0; i < block.n; i++)
            if (block.threads[i].state == AT_BARRIER)
                die("the thread ends while others wait at the barrier at %s:%d", block.threads[i].place.file,
                    block.threads[i].place.line);
    }
    t->state = ENDED;
    block.warps[t->warp].ended |= 1u << t->lane;
    block.n_ended++;
    go_on(&block.ended);
}

static void run_block(void)
{
    const uint3 n = block.launch->block;
    block.n = (int)(n.x * n.y * n.z);
    block.n_ended = block.n_at_barrier = block.n_ready = block.counted = 0;
    shared_refill(block.launch->shared_bytes);
    race_block(block.n);
    memset(block.warps, 0, sizeof block.warps);
    for (int i = 0; i < block.n; i++) {
        struct thread *t = &block.threads[i];
        *t = (struct thread){.sp = fiber_new(i, run_thread), .warp = i / WARP, .lane = i % WARP,
                             .begun = !block.launch->overlaps};
        t->index = (uint3){(unsigned)i % n.x, (unsigned)i / n.x % n.y, (unsigned)i / n.x / n.y};
        make_ready(t);
    }
    block.current = NULL;
    go_on(&block.main);
}

void run_kernel(const struct simt_task *l)
{
    const uint32_t n = l->grid.x * l->grid.y * l->grid.z;
    uint32_t *order = malloc(n * sizeof *order);
    if (!order)
        die("no memory for the order of %u blocks", n);
    block.launch = l;
    race_launch();
    blockDim = l->block;
    gridDim = l->grid;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t j = draw(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (uint32_t i = 0; i < n; i++) {
        blockIdx = (uint3){order[i] % gridDim.x, order[i] / gridDim.x % gridDim.y, order[i] / gridDim.x / gridDim.y};
        run_block();
        traffic_block();
    }
    traffic_launch(l->name);
    block.launch = NULL;
    free(order);
}

/* ---- meeting ---- */

void simt_begin(void) { block.current->begun = true; }

int simt_lane(void) { return block.current->lane; }

static bool same_place(const struct place *a, const struct place *b)
{
    return a->line == b->line && (a->file == b->file || strcmp(a->file, b->file) == 0);
}

static void open_barrier(void)
{
    const int counted = block.counted;
    block.counted = block.n_at_barrier = 0;
    race_barrier();
    for (int i = 0; i < block.n; i++) {
        block.threads[i].counted = counted;
        make_ready(&block.threads[i]);
    }
}

int simt_barrier(bool value, const char *file, int line)
{
    struct thread *t = block.current;
    t->place = (struct place){"__syncthreads", file, line};
    if (block.n_ended)
        die("the barrier at %s:%d is reached by a thread after %d others have ended", file, line, block.n_ended);
    if (!block.n_at_barrier)
        block.at_barrier = t;
    const struct thread *o = block.at_barrier; /* those who wait agree */
    if (!same_place(&o->place, &t->place))
        die("comes to the barrier at %s:%d, but thread (%u, %u, %u) waits at the one at %s:%d", file, line, o->index.x,
            o->index.y, o->index.z, o->place.file, o->place.line);
    t->state = AT_BARRIER;
    block.counted += value;
    if (++block.n_at_barrier == block.n)
        open_barrier();
    go_on(&t->sp);
    return t->counted;
}

/* That lane `other` may meet t: it is there, and where it waits, it waits for the same. Gives whether it does wait. */
static bool meets(const struct thread *t, const struct thread *lanes, int other)
{
    const struct thread *o = &lanes[other];
    if (o >= block.threads + block.n)
        die("%s at %s:%d: the mask %08x names lane %d, which the block does not have", t->place.name, t->place.file,
            t->place.line, t->mask, other);
    if (o->state == ENDED)
        die("%s at %s:%d: the mask %08x names lane %d, which has ended", t->place.name, t->place.file, t->place.line,
            t->mask, other);
    if (o->state != IN_WARP || !(o->mask >> t->lane & 1))
        return false; /* it may come yet */
    if (o->op != t->op || !same_place(&o->place, &t->place))
        die("comes to %s at %s:%d with lane %d in its mask %08x, who waits in %s at %s:%d", t->place.name,
            t->place.file, t->place.line, other, t->mask, o->place.name, o->place.file, o->place.line);
    if (o->mask != t->mask)
        die("%s at %s:%d: the mask is %08x here and %08x of lane %d", t->place.name, t->place.file, t->place.line,
            t->mask, o->mask, other);
    return true;
}

/* t comes to a meeting of its warp. Gives whether it was the last: all of its mask are there. */
static bool join(struct warp *w, struct thread *t, const struct thread *lanes)
{
    const unsigned self = 1u << t->lane;
    /* Who waits for the same has been asked by those before; so nobody else may wait, nor have ended. */
    const bool known = w->met && w->mask == t->mask && w->op == t->op && same_place(&w->place, &t->place) &&
                       (w->waiting & t->mask) == w->met && !(w->ended & t->mask);
    if (!known) {
        w->met = 0;
        for (int l = 0; l < WARP; l++)
            if (l != t->lane && (t->mask >> l & 1) && meets(t, lanes, l))
                w->met |= 1u << l;
        w->mask = t->mask;
        w->op = t->op;
        w->place = t->place;
    }
    t->state = IN_WARP;
    w->met |= self;
    w->waiting |= self;
    const bool all = w->met == w->mask;
    if (all) {
        w->waiting &= ~w->mask;
        w->met = 0;
    }
    return all;
}

uint64_t simt_meet(enum simt_operation op, const char *name, unsigned mask, uint64_t value, int from, const char *file,
                   int line)
{
    struct thread *t = block.current, *lanes = block.threads + t->warp * WARP;
    t->place = (struct place){name, file, line};
    t->op = op;
    t->mask = mask;
    t->value = value;
    t->from = from;
    if (!(mask >> t->lane & 1))
        die("%s at %s:%d: lane %d is not in its own mask %08x", name, file, line, t->lane, mask);
    if (join(&block.warps[t->warp], t, lanes)) {
        complete_meeting(lanes, mask);
        if (op == SIMT_SYNCWARP)
            race_syncwarp(t->warp, mask);
        for (int l = 0; l < WARP; l++)
            if (mask >> l & 1)
                make_ready(&lanes[l]);
    }
    go_on(&t->sp);
    return t->result;
}
