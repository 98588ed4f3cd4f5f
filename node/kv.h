/* How much KV memory the ranks have: as many pages on each, by the same numbers. */
#ifndef HEARTH_NODE_KV_H
#define HEARTH_NODE_KV_H

#include "node/cluster.h"
#include "worker/worker.h"

/* Sets w's n_ctx, n_batch, n_sequences and n_pages; all else of it is set. Without o->kv_budget there are pages enough
 * for every sequence to fill its context. *page_bytes: of one page, on all ranks together; may be NULL. ST_BUDGET
 * (logged) if not even one sequence can; errors of worker_memory. */
status kv_settle(const struct cluster_options *o, struct worker_options *w, uint64_t *page_bytes);

/* "4 sequences of 4096 tokens", or with less KV memory than they could fill "4 sequences, 8192 tokens together". */
enum { KV_TEXT = 64 };
const char *kv_text(const struct worker_options *w, char out[KV_TEXT]);

#endif
