/* gpu_traffic: what kernels move of the GPU's memory, over the shim (shim/traffic.c). The launches that the speed
 * program measures are made once each, and counted instead. Lengths of the model of 7 billion are divided by 16, tokens
 * and contexts above 32 too; a row's lengths are of all that its kernel was launched for. Standard output is the table
 * of docs/gpu-kernels.md. */
#include "tests/gpu/speed/speed.h"

#include <simt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALLER = 16, MOST_ROWS = 400 };

struct row {
    char kernel[64];
    int64_t tokens;
    uint64_t moved, needed;
};
static struct row rows[MOST_ROWS], last[16];
static int n_rows, n_last;

/* ---- counting ---- */

/* "file.cu kernel" of "file.cu (kernel<...>)"; where the kernel is chosen before, "file.cu". */
static void shorten(char to[64], const char *kernel)
{
    const size_t file = strcspn(kernel, " ");
    const char *name = kernel + file + strspn(kernel + file, " (");
    const int n = (int)strcspn(name, "<),");
    const bool chosen = strncmp(name, "kernel", 6) == 0;
    snprintf(to, 64, "%.*s %.*s", (int)file, kernel, chosen ? 0 : n, name);
}

static void add_row(struct row *of, int *n, int most, const struct row *r)
{
    int i = 0;
    while (i < *n && (strcmp(of[i].kernel, r->kernel) != 0 || of[i].tokens != r->tokens))
        i++;
    if (i == most) {
        fprintf(stderr, "gpu_traffic: more kernels than it has rows for\n");
        exit(1);
    }
    if (i == *n)
        of[(*n)++] = (struct row){.tokens = r->tokens};
    memcpy(of[i].kernel, r->kernel, sizeof r->kernel);
    of[i].moved += r->moved;
    of[i].needed += r->needed;
}

static void count(const char *kernel, uint64_t moved, uint64_t needed)
{
    struct row r = {.moved = moved, .needed = needed};
    shorten(r.kernel, kernel);
    add_row(last, &n_last, sizeof last / sizeof *last, &r);
}

/* ---- what the speed program calls ---- */

int speed_sets(const struct speed *s, uint64_t bytes)
{
    (void)s;
    (void)bytes;
    return 1;
}

double speed_time(struct speed *s, speed_launch *launch, void *of)
{
    CUDA(cudaStreamSynchronize(s->gpu.stream));
    n_last = 0;
    simt_traffic(count);
    launch(s, of, 0);
    CUDA(cudaStreamSynchronize(s->gpu.stream));
    CUDA(cudaGetLastError());
    simt_traffic(NULL);
    return 1;
}

/* The same lengths again are not counted again. */
void speed_report(struct speed *s, const struct speed_row *row)
{
    static struct speed_row before;
    (void)s;
    const bool again = row->what == before.what && row->type == before.type && row->tokens == before.tokens &&
                       row->bytes == before.bytes;
    before = *row;
    for (int i = 0; i < n_last && !again; i++) {
        last[i].tokens = row->tokens;
        add_row(rows, &n_rows, MOST_ROWS, &last[i]);
    }
}

static int by_kernel(const void *p, const void *q)
{
    const struct row *a = p, *b = q;
    const int order = strcmp(a->kernel, b->kernel);
    return order ? order : (a->tokens > b->tokens) - (a->tokens < b->tokens);
}

int main(void)
{
    struct speed s = {.smaller = SMALLER, .rng = {.state = 1}};
    CUDA(cudaStreamCreateWithFlags(&s.gpu.stream, cudaStreamNonBlocking));
    s.gpu.n_sms = 132; /* of an H100 */
    s.gpu.capability = 90;
    speed_products(&s);
    speed_stream(&s);
    speed_attention(&s);
    speed_neurons(&s);
    CUDA(cudaStreamDestroy(s.gpu.stream));
    qsort(rows, (size_t)n_rows, sizeof *rows, by_kernel);
    printf("| %-40s | %6s | %9s | %9s | %6s |\n|%.42s|%.7s:|%.10s:|%.10s:|%.7s:|\n", "kernel", "tokens", "moved MB",
           "needed MB", "ratio", "------------------------------------------", "-------", "----------", "----------",
           "-------");
    for (const struct row *r = rows; r < rows + n_rows; r++)
        printf("| %-40s | %6lld | %9.3f | %9.3f | %6.2f |\n", r->kernel, (long long)r->tokens, (double)r->moved * 1e-6,
               (double)r->needed * 1e-6, (double)r->moved / (double)(r->needed ? r->needed : 1));
    return 0;
}
