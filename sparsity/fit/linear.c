#include "sparsity/fit/linear.h"

#include <cblas.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sparsity/fit/products.h"

/* LAPACK, which OpenBLAS contains: column-major, so a row-major triangle is the other one. */
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info);
void spotri_(const char *uplo, const int *n, float *a, const int *lda, int *info);
void ssyevd_(const char *jobz, const char *uplo, const int *n, float *a, const int *lda, float *w, float *work,
             const int *lwork, int *iwork, const int *liwork, int *info);

enum { ROW_PIECE = 64 };

#define BLAS_CALLS(X) X(openblas_set_num_threads) X(cblas_sgemm) X(cblas_strsv) X(spotrf_) X(spotri_) X(ssyevd_)
#define BLAS_FIELD(name) __typeof__(&name) name;
#define BLAS_SYMBOL(name) {#name, offsetof(struct blas, name)},

/* The library's functions, found once for the process: a library is the process's, whoever opens it. */
static struct blas {
    BLAS_CALLS(BLAS_FIELD)
} blas;
static pthread_once_t opened_once = PTHREAD_ONCE_INIT;
static char why_not[256] = "";

static void open_library(void)
{
    static const struct {
        const char *name;
        size_t at; /* in struct blas */
    } symbols[] = {BLAS_CALLS(BLAS_SYMBOL)};
    /* Before it is loaded: it starts a thread for each processor then, and kills or hangs the process if it cannot. */
    void *library = setenv("OPENBLAS_NUM_THREADS", "1", true) == 0
                        ? dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) : NULL;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols && library; i++) {
        void *address = dlsym(library, symbols[i].name);
        if (!address)
            library = NULL;
        memcpy((char *)&blas + symbols[i].at, &address, sizeof address);
    }
    const char *error = library ? NULL : dlerror();
    if (!library)
        snprintf(why_not, sizeof why_not, "%s", error ? error : "out of memory");
    else
        blas.openblas_set_num_threads(1);
}

status linear_open(void)
{
    pthread_once(&opened_once, open_library);
    if (!why_not[0])
        return ST_OK;
    log_error("OpenBLAS is needed to train MLP predictors: %s (install libopenblas0-pthread, or train none: "
              "--mlp-size 0)", why_not);
    return ST_UNSUPPORTED;
}

static void product_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct product *p = arg;
    const int64_t first = begin * ROW_PIECE, last = end * ROW_PIECE < p->m ? end * ROW_PIECE : p->m;
    (void)thread;
    blas.cblas_sgemm(CblasRowMajor, p->transpose_a ? CblasTrans : CblasNoTrans,
                     p->transpose_b ? CblasTrans : CblasNoTrans, (int)(last - first), (int)p->n, (int)p->k, 1,
                     p->a + (p->transpose_a ? first : first * p->k), (int)(p->transpose_a ? p->m : p->k), p->b,
                     (int)(p->transpose_b ? p->k : p->n), p->beta, p->c + first * p->n, (int)p->n);
}

void linear_product(struct pool *pool, const struct product *p)
{
    pool_for(pool, (p->m + ROW_PIECE - 1) / ROW_PIECE, 1, product_piece, (void *)(uintptr_t)p);
}

bool linear_cholesky(float *a, int64_t n)
{
    const int order = (int)n;
    int info;
    blas.spotrf_("U", &order, a, &order, &info);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i + 1; j < n; j++)
            a[i * n + j] = 0;
    return info == 0;
}

void linear_solve(const float *cholesky, int64_t n, float *b)
{
    blas.cblas_strsv(CblasRowMajor, CblasLower, CblasNoTrans, CblasNonUnit, (int)n, cholesky, (int)n, b, 1);
    blas.cblas_strsv(CblasRowMajor, CblasLower, CblasTrans, CblasNonUnit, (int)n, cholesky, (int)n, b, 1);
}

bool linear_inverse_cholesky(float *a, int64_t n)
{
    const int order = (int)n;
    int info;
    blas.spotrf_("U", &order, a, &order, &info);
    if (!info)
        blas.spotri_("U", &order, a, &order, &info);
    /* the inverse lies in the row-major lower triangle; its upper factor needs the upper one */
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++)
            a[j * n + i] = a[i * n + j];
    if (!info)
        blas.spotrf_("L", &order, a, &order, &info);
    return info == 0;
}

status linear_eigen(float *a, int64_t n, float *values)
{
    const int order = (int)n, ask = -1;
    int info, n_int;
    float n_work;
    blas.ssyevd_("V", "U", &order, a, &order, values, &n_work, &ask, &n_int, &ask, &info);
    const int work_size = (int)n_work + 1;
    float *work = products_alloc(work_size, sizeof *work);
    int *ints = work ? products_alloc(n_int, sizeof *ints) : NULL;
    status st = ST_NOMEM;
    if (ints) {
        blas.ssyevd_("V", "U", &order, a, &order, values, work, &work_size, ints, &n_int, &info);
        st = info ? ST_INTERNAL : ST_OK;
        if (info)
            log_error("the eigenvalues of a %d x %d matrix do not converge", order, order);
    }
    free(work);
    free(ints);
    return st;
}
