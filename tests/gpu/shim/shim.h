/* What the shim's parts know of each other. Everything here is called with the lock of api.c held. */
#ifndef SIMT_SHIM_H
#define SIMT_SHIM_H

#include <simt.h>

enum { WARP = 32, MOST_THREADS = 1024, SHARED_PLAIN = 48 << 10, SHARED_MOST = 227 << 10 /* where asked for */ };

/* ---- fibers.c ---- */

/* Stacks of MOST_THREADS fibers; fiber i begins in `entry` when it is first switched to. Gives its stack pointer. */
void *fiber_new(int i, void (*entry)(void));
/* Goes on at stack pointer `to`, having saved the own one in *from. */
void fiber_switch(void **from, void *to);
/* Whether an address is in the guard page below a fiber's stack; whose stack it is in, -1: nobody's. */
bool fiber_overflowed(const void *at);
int fiber_of(const void *at);

/* ---- blocks.c: one kernel at a time ---- */

void run_kernel(const struct simt_task *l);
/* What runs, NULL: no kernel; which thread of its block. */
const struct simt_task *running_task(void);
int running_thread(void);
/* Whether it may touch what launches write. */
bool running_has_begun(void);
/* A number below n. */
uint32_t draw(uint32_t n);
/* Says what is wrong, in which kernel, block and thread if any runs, and aborts. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
/* The same without the end. */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);

/* ---- warps.c: meetings of lanes ---- */

struct place {
    const char *name, *file;
    int line;
};

struct thread {
    void *sp;
    uint3 index;
    int warp, lane;
    enum { READY, AT_BARRIER, IN_WARP, ENDED } state;
    struct place place;          /* where it waits */
    enum simt_operation op;      /* of its warp */
    unsigned mask;
    int from;
    uint64_t value, result;      /* what it brings and gets */
    int counted;                 /* of a barrier */
    bool begun;
};

/* `threads` [n] are the warp's. All lanes of the mask have come: gives each its result. */
void complete_meeting(struct thread *threads, unsigned mask);

/* ---- shared.c ---- */

/* Fills shared memory with what is no number, and gives a block its dynamic part. */
void shared_refill(size_t dynamic_bytes);
/* Whether an address is right behind dynamic shared memory. */
bool shared_overflowed(const void *at);
/* Where an address lies in the block's shared memory; SIZE_MAX: elsewhere. How much there can be. */
size_t shared_offset(const void *at);
size_t shared_bytes(void);
/* Bytes that no sanitizer looks at: fills them with what is no number; whether they are still that. */
void fill_with_nan(void *to, size_t n);
bool filled_with_nan(const void *at, size_t n);

/* ---- async.c: copies into shared memory that are under way ---- */

/* Whether there is one to the word of shared memory at that address. */
bool copy_is_under_way(const void *at);
/* The running thread ends: it must have waited for its copies. */
void copies_end(void);

/* ---- arena.c: the GPU's memory and pinned memory ---- */

enum where { PAGEABLE, PINNED, ON_DEVICE };

cudaError_t simt_arena_alloc(enum where where, int device, size_t bytes, void **p);
/* Checks what lies around it. */
cudaError_t arena_free(enum where where, void *p);
size_t arena_used(int device);
cudaError_t arena_register(void *p, size_t bytes);
cudaError_t arena_unregister(void *p);
enum where arena_where(const void *p);
/* Whether [p, p + bytes) is one allocation's; of PAGEABLE memory, true. */
bool arena_holds(const void *p, size_t bytes);
/* The host may touch the GPU's memory between these two, and only there. open: as often as one likes. */
void arena_open(void);
void arena_close(void);
/* What to say of a fault at an address; false: none of ours. */
bool arena_explain(const void *at, char *text, size_t size);

/* Where an address lies in the stretch of all allocations; SIZE_MAX: elsewhere. How long it is. */
size_t arena_offset(const void *at);
size_t arena_reserved(void);

/* ---- race.c ---- */

/* What orders the accesses of threads. */
void race_launch(void);
void race_block(int n_threads);
void race_barrier(void);
void race_syncwarp(int warp, unsigned mask);
/* An asynchronous copy of the running thread, which was begun at `place` in the program; nothing where accesses are not
 * watched. */
void race_copy_begins(const void *place, void *to, const void *from, size_t n);
void race_copy_ends(void *to, size_t n);

/* ---- traffic.c ---- */

/* The running thread touches n bytes of the GPU's memory, from `place` in the program; so many bytes are touched for
 * the first time in the launch; a block ends; a launch does. */
void traffic_touch(const void *place, uintptr_t at, size_t n);
void traffic_needs(int bytes);
void traffic_block(void);
void traffic_launch(const char *kernel);

/* ---- faults.c ---- */

/* Faults of memory are explained from the one to the other. */
void faults_watch(void);
void faults_ignore(void);

/* ---- streams.c ---- */

struct entry {
    _Alignas(16) struct entry *next;
    enum { LAUNCH, COPY, FILL, RECORD, WAIT } kind;
    uint64_t number;             /* entries are counted as they are queued */
    struct simt_task launch;   /* with its arguments behind the entry */
    void *to;
    const void *from;
    int value;
    size_t bytes;
    struct CUevent_st *event;
    uint64_t record;             /* of the event, which this is or waits for */
    bool own_source;             /* `from` is a copy, to be freed */
};

struct queue {
    struct entry *first, **end;
};

struct CUgraph_st {
    struct queue entries;        /* in the order in which they were captured */
};

struct CUstream_st {
    struct queue queue;
    bool blocking;               /* its entries and the default stream's wait for each other */
    struct CUgraph_st *capture;  /* where they go instead */
    bool origin;                 /* of that capture */
    struct CUstream_st *next;
};

extern struct CUstream_st *streams;
/* The stream; NULL: the default one. Ends the process where there is none. */
struct CUstream_st *known(cudaStream_t s);

/* NULL: the default stream. */
cudaError_t queue_entry(cudaStream_t s, const struct entry *e);
void queue_append(struct queue *q, const struct entry *e);
void queue_clear(struct queue *q);
/* Runs what must be for the stream, the event, or all to be done; and by chance other work. */
void drain_stream(cudaStream_t s);
void drain_event(cudaEvent_t e);
void drain_all(void);
/* Runs some work, perhaps none. */
void drain_some(void);
bool is_capturing(cudaStream_t s);

/* ---- graphs.c ---- */

/* Whether a graph's capture, or any, goes on. */
bool capture_is_open(const struct CUgraph_st *g);
bool any_capture(void);

/* ---- api.c ---- */

/* Each call of the interface is enter, the work, leave: takes the lock and counts; a result that is not cudaSuccess is
 * the call's, without any work. */
cudaError_t api_enter(void);
cudaError_t api_leave(cudaError_t e);
#define CALL(work) \
    do { \
        cudaError_t call_error = api_enter(); \
        if (!call_error) \
            call_error = (work); \
        return api_leave(call_error); \
    } while (0)
/* The same of what gives something back: it does so even where it reports an error, which is one of before. */
#define GIVE_BACK(work) \
    do { \
        const cudaError_t earlier = api_enter(), call_error = (work); \
        return api_leave(earlier ? earlier : call_error); \
    } while (0)
/* The calling thread's device; how much memory each has. */
int api_device(void);
size_t api_memory(void);

#endif
