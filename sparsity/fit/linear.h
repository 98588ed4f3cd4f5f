/* Dense linear algebra in f32 on several threads, by BLAS and LAPACK (OpenBLAS). All matrices are row-major without
 * gaps. Work is cut the same way whatever the number of threads, so the results are, too. */
#ifndef HEARTH_SPARSITY_FIT_LINEAR_H
#define HEARTH_SPARSITY_FIT_LINEAR_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "base/threads.h"

/* c [m, n] = a b + beta c, a [m, k] (transposed: [k, m]), b [k, n] (transposed: [n, k]). */
struct product {
    bool transpose_a, transpose_b;
    int64_t m, n, k;
    const float *a, *b;
    float beta;
    float *c;
};

/* Loads the library, which nothing else needs, and tells it to start no threads of its own; once for the process, again
 * is fine. It sets an environment variable, so the first call comes before the process has other threads that read any.
 * Called before the first of the others. ST_UNSUPPORTED (logged) if the library is not there or cannot be loaded. */
status linear_open(void);

void linear_product(struct pool *pool, const struct product *p);

/* In place, a [n, n] symmetric positive definite, of which the lower triangle is read: its Cholesky factor L (lower,
 * a = L L^T), zeros above the diagonal. False if it is not positive definite. */
bool linear_cholesky(float *a, int64_t n);
/* Solves a x = b in place of b [n], by the Cholesky factor of a. */
void linear_solve(const float *cholesky, int64_t n, float *b);
/* The same for the upper Cholesky factor U of the inverse of a (inverse = U^T U), in place of a [n, n]. */
bool linear_inverse_cholesky(float *a, int64_t n);
/* Eigenvalues, ascending, of a symmetric [n, n]; its rows become the eigenvectors. ST_NOMEM, ST_INTERNAL (logged). */
status linear_eigen(float *a, int64_t n, float *values);

#endif
