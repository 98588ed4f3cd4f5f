/* A plug-in whose GPUs are the CPU under another name: what surrounds a GPU is tested without one. Environment
 * variables say what it has: STAND_IN_GPUS how many, STAND_IN_FREE bytes of each, STAND_IN_CAPABILITY, STAND_IN_BROKEN
 * which one, from 1 on, cannot be measured; STAND_IN_LACKS, that they do not compute the model; STAND_IN_OTHER, of
 * which build it is. All its GPUs together count the parts that they compute, the times that x has gone from one's own
 * memory, and pieces of memory that were pinned. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/log.h"
#include "device/cpu/table.h"
#include "device/plugin.h"

const struct device_plugin *hearth_device_plugin(log_line *log);
extern _Atomic unsigned stand_in_parts, stand_in_given, stand_in_pinned;

_Atomic unsigned stand_in_parts, stand_in_given, stand_in_pinned;

static struct device_ops ops;

static void part(struct device *d, const struct work *w, const struct input *in, struct sums *sums)
{
    stand_in_parts++;
    device_cpu.part(d, w, in, sums);
}

/* What an open device has in "its own memory". */
enum { MOST_OPEN = 64 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    struct device *d;
    float *memory;
    size_t stride;
} open_ones[MOST_OPEN];

static int find(const struct device *d)
{
    int i = 0;
    while (i < MOST_OPEN - 1 && open_ones[i].d != d)
        i++;
    return i;
}

static status need(const struct device_options *o, struct device_memory *out)
{
    if (!getenv("STAND_IN_LACKS"))
        return device_cpu.need(o, out);
    log_error("a GPU does not compute %s", getenv("STAND_IN_LACKS"));
    return ST_UNSUPPORTED;
}

static status open_one(const struct device_options *o, struct device **out)
{
    status st = device_cpu.open(o, out);
    if (st)
        return st;
    const size_t stride = o->n_batch * (size_t)o->model->hp.d_model;
    (*out)->ops = &ops;
    pthread_mutex_lock(&lock);
    const int i = find(NULL);
    open_ones[i].d = *out;
    open_ones[i].stride = stride;
    open_ones[i].memory = calloc(o->n_passing * stride + 1, sizeof(float));
    pthread_mutex_unlock(&lock);
    return ST_OK;
}

static void close_one(struct device *d)
{
    pthread_mutex_lock(&lock);
    const int i = find(d);
    free(open_ones[i].memory);
    open_ones[i].d = NULL;
    pthread_mutex_unlock(&lock);
    device_cpu.close(d);
}

static float *passing(struct device *d, uint32_t n)
{
    pthread_mutex_lock(&lock);
    const int i = find(d);
    float *at = open_ones[i].memory + n * open_ones[i].stride;
    pthread_mutex_unlock(&lock);
    return at;
}

static void give_states(struct device *d, uint32_t n, float *to)
{
    stand_in_given++;
    device_cpu.export_states(d, n, to);
}

static void pin(struct device *d, void *memory, size_t bytes)
{
    (void)d, (void)memory, (void)bytes;
    stand_in_pinned++;
}

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int count(char why[LOG_LINE_MAX])
{
    snprintf(why, LOG_LINE_MAX, "there is nothing to stand in for");
    return (int)number("STAND_IN_GPUS");
}

static status tell(int i, struct gpu_info *out, char why[LOG_LINE_MAX])
{
    const int capability = (int)number("STAND_IN_CAPABILITY");
    if (capability < 75) {
        snprintf(why, LOG_LINE_MAX, "cuda:%d is of capability %d", i, capability);
        return ST_UNSUPPORTED;
    }
    *out = (struct gpu_info){.name = "stand-in", .id = {(uint8_t)(i + 1)}, .capability = capability,
                             .total_bytes = UINT64_MAX, .free_bytes = (uint64_t)number("STAND_IN_FREE")};
    return ST_OK;
}

/* Of GPU i, always the same. */
static status measure(int i, struct gpu_speed *out, char why[LOG_LINE_MAX])
{
    if (number("STAND_IN_BROKEN") == i + 1) {
        snprintf(why, LOG_LINE_MAX, "cuda:%d cannot be measured: it only stands in", i);
        return ST_UNSUPPORTED;
    }
    *out = (struct gpu_speed){.read_gb_per_s = 1000 + i, .up_gb_per_s = 25, .down_gb_per_s = 20, .launch_us = 1.5,
                              .wait_us = 10};
    return ST_OK;
}

#define OPERATIONS .ops = &ops, .count = count, .describe = tell, .measure = measure

/* This build's; of another layout, release, and build. */
static const struct device_plugin plugins[] = {
    {DEVICE_PLUGIN_IDENTITY, OPERATIONS},
    {DEVICE_PLUGIN_LAYOUT + 1, "9.9.9", "", OPERATIONS},
    {DEVICE_PLUGIN_LAYOUT, "9.9.9", device_shared, OPERATIONS},
    {DEVICE_PLUGIN_LAYOUT, HEARTH_VERSION, "0123456789abcdef", OPERATIONS},
};

__attribute__((constructor)) static void fill_in(void)
{
    ops = device_cpu;
    ops.name = "cuda";
    ops.need = need;
    ops.part = part;
    ops.open = open_one;
    ops.close = close_one;
    ops.passing = passing;
    ops.give_states = give_states;
    ops.take_states = device_cpu.import_states;
    ops.pin = pin;
}

const struct device_plugin *hearth_device_plugin(log_line *log)
{
    (void)log;
    return &plugins[number("STAND_IN_OTHER")];
}
