/* What GET /metrics says, in Prometheus' text format: what dashboards for llama.cpp (llamacpp:*) and for vLLM (vllm:*)
 * read, where the meaning is the same, and hearth's own of each rank. Counters are since the start. */
#ifndef HEARTH_SERVE_METRICS_H
#define HEARTH_SERVE_METRICS_H

#include <stddef.h>
#include "serve/counts.h"
#include "serve/engine.h"
#include "serve/serve.h"

/* Malloc'ed, *n bytes; caller frees. `model`: its name, any text. NULL: no memory. Stateless and thread-safe. */
char *metrics_text(const struct serve_house *s, const char *model, const struct house *h, const struct counts *c,
                   size_t *n);

#endif
