#include "device/decisions.h"

#include <math.h>

#include "base/log.h"
#include "kernels/kernels.h"

enum decision decide(const struct device_options *o, int layer)
{
    switch (o->sparse) {
    case SPARSE_EXACT: return o->neurons && o->neurons->layers[layer].live > DENSE_FROM ? DECIDE_NOT : DECIDE_GATE;
    case SPARSE_PREDICTED: return o->predictor == PREDICTOR_MLP ? DECIDE_MLP : DECIDE_ESTIMATE;
    case SPARSE_THRESHOLD: return DECIDE_PRODUCT;
    default: return DECIDE_NOT;
    }
}

float skip_threshold(const struct device_options *o, int layer)
{
    const float share = o->skip_share > 0 ? o->skip_share : o->neurons->skip_share;
    int step = (int)lroundf(share * 10) - 1;
    step = step < 0 ? 0 : step >= SKIP_STEPS ? SKIP_STEPS - 1 : step;
    return o->neurons->layers[layer].skip[step];
}

float mlp_threshold(const struct device_options *o, int layer)
{
    return device_reads_residual(o) ? o->model->hp.sparse_threshold : o->neurons->layers[layer].mlp_threshold;
}

/* The longest of whole blocks, but no longer than those of neurons. Of heads that are not cut the columns are all,
 * which are whole blocks where those of a turn of them need not be. */
int64_t head_segment(const struct model *m, int layer)
{
    const int64_t unit = model_head_unit(m, layer);
    const int64_t columns = unit < model_heads(&m->hp, layer) ? unit * model_head_columns(&m->hp, layer)
                                                              : m->layers[layer].o.cols;
    const int64_t block = columns % ACT_BLOCK ? 1 : ACT_BLOCK;
    int64_t segment = SUM_SEGMENT;
    while (columns % segment)
        segment -= block;
    return segment;
}

status context_check(const struct device_options *o)
{
    const struct model *m = o->model;
    if (!m->positions.data || o->n_ctx <= m->hp.n_ctx_train)
        return ST_OK;
    log_error("%s: a context of %u tokens, but it has learned %lld positions (-c)", gguf_path(m->file), o->n_ctx,
              (long long)m->hp.n_ctx_train);
    return ST_USAGE;
}
