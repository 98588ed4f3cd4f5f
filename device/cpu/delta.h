/* A holder's part of a layer that is a gated delta net (Yang et al., 2024; Qwen3-Next, 2025): of its key heads with
 * their value heads (model/model.h). Tokens follow each other, so a text's state is the same whether they come one by
 * one, in chunks or beside others. In this order, all in f32: the products; of queries, keys and values the convolution
 * (kernels.h, convolve); queries and keys times 1 / sqrt(sum of squares + eps), queries 1 / sqrt(size) too, as rms_norm
 * does with weights of 1 / size and 1 / sqrt(size) and an eps / size; the step (delta_step) with decay = exp(decay *
 * softplus(alpha + dt_bias)), softplus(x) = ln(1 + exp(x)), in f64 from the f32's exp, x itself above 20; and beta = 1
 * / (1 + exp(-beta)); rms_norm; times silu(z). The output projection is summed as attention's is. */
#ifndef HEARTH_DEVICE_CPU_DELTA_H
#define HEARTH_DEVICE_CPU_DELTA_H

#include "device/cpu/cpu.h"
#include "device/loading.h"

struct delta;

/* ST_NOMEM (logged). */
status delta_new(struct cpu *c, struct delta **out);
void delta_free(struct delta *n); /* NULL is fine */
void delta_lay_weights(struct delta *n, int layer);
void delta_lay_states(struct delta *n);
void delta_lay_buffers(struct delta *n);
void delta_load(struct delta *n, struct loading *l, int layer);
/* sum[n, d] = the part of the own heads, for the tokens of the work's batch, whose sequences' states go on. */
void delta_compute(struct delta *n, const struct work *w, const struct acts *x, double *sum);

#endif
