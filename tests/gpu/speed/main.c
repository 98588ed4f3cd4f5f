/* cuda_speed [-o FILE] [-s N] [-k KERNEL] [FAMILY...]: a table, and a line of JSON that is appended to FILE. See
 * speed.h. */
#include "tests/gpu/speed/speed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    void (*measure)(struct speed *s);
} families[] = {
    {"launches", speed_launches}, {"bus", speed_bus},           {"products", speed_products},
    {"stream", speed_stream},     {"attention", speed_attention}, {"neurons", speed_neurons},
};
enum { FAMILIES = sizeof families / sizeof *families };

static void usage(void)
{
    fprintf(stderr, "usage: cuda_speed [-o FILE] [-s N] [-k KERNEL] [FAMILY...]\n"
                    "  -o FILE  append the results to FILE, a line of JSON\n"
                    "  -s N     shapes N times smaller\n"
                    "  -k KERNEL  products by 1: dot products, 2: tensor cores for few tokens, 3: for many\n"
                    "families:");
    for (int i = 0; i < FAMILIES; i++)
        fprintf(stderr, " %s", families[i].name);
    fprintf(stderr, " (none: all)\n");
    exit(2);
}

static void open_gpu(struct speed *s, struct cudaDeviceProp *p)
{
    int n = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);
    if (e || n == 0) {
        printf("SKIP: no GPU: %s\n", e ? cudaGetErrorString(e) : "the driver shows none");
        exit(77);
    }
    CUDA(cudaGetDeviceProperties(p, 0));
    CUDA(cudaStreamCreateWithFlags(&s->gpu.stream, cudaStreamNonBlocking));
    s->gpu.n_sms = p->multiProcessorCount;
    s->gpu.capability = 10 * p->major + p->minor;
    s->cache_bytes = p->l2CacheSize > 0 ? (uint64_t)p->l2CacheSize : 1 << 20;
    printf("%s, sm_%d, %d multiprocessors, %.0f MB of cache\n\n", p->name, s->gpu.capability, s->gpu.n_sms,
           (double)s->cache_bytes * 1e-6);
    printf("%-9s %-40s %-5s %6s %10s %8s %7s %8s\n", "family", "what", "type", "tokens", "us", "GB/s", "of read",
           "Top/s");
}

static bool wanted(int n, char **names, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return n == 0;
}

static void check_names(int n, char **names)
{
    for (int i = 0; i < n; i++) {
        int f = 0;
        while (f < FAMILIES && strcmp(families[f].name, names[i]) != 0)
            f++;
        if (f == FAMILIES)
            usage();
    }
}

/* A line of JSON behind those that are there. */
static void append(const struct speed *s, const struct cudaDeviceProp *p, const char *path)
{
    FILE *f = fopen(path, "a");
    json_t *all = json_pack("{s:s, s:i, s:i, s:f, s:O}", "gpu", p->name, "capability", s->gpu.capability,
                            "multiprocessors", s->gpu.n_sms, "read_gb_per_s", s->read_gb_per_s, "rows", s->rows);
    if (!f || !all || json_dumpf(all, f, JSON_COMPACT | JSON_REAL_PRECISION(6)) || fputc('\n', f) == EOF || fclose(f)) {
        fprintf(stderr, "cuda_speed: cannot write %s\n", path);
        exit(1);
    }
    json_decref(all);
}

int main(int argc, char **argv)
{
    struct speed s = {.smaller = 1, .rng = {.state = 1}, .rows = json_array()};
    const char *path = NULL;
    for (int c; (c = getopt(argc, argv, "o:s:k:")) != -1;) {
        if (c == 'o')
            path = optarg;
        else if (c == 'k')
            s.gpu.products = atoi(optarg);
        else if (c != 's' || (s.smaller = atoi(optarg)) < 1)
            usage();
    }
    argc -= optind;
    argv += optind;
    check_names(argc, argv);
    struct cudaDeviceProp p;
    open_gpu(&s, &p);
    speed_memory(&s);
    for (int f = 0; f < FAMILIES; f++)
        if (wanted(argc, argv, families[f].name))
            families[f].measure(&s);
    if (path)
        append(&s, &p, path);
    json_decref(s.rows);
    CUDA(cudaStreamDestroy(s.gpu.stream));
    return 0;
}
