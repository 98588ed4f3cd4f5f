/* Which kernel multiplies what. */
#include "kernels/cuda/products.cuh"

enum {
    MMA_CAPABILITY = 80, /* from which tensor cores have m16n8k32 */
    MMA_TOKENS = 3,      /* from so many they are faster than dot products; */
    MMA_SMS = 4,         /* groups of rows for each multiprocessor, from which they are so for one token less, */
    MANY_TOKENS = 9,     /* and below which products_few.cu is faster for fewer tokens than this, of K types */
};

static struct product_work work_of(enum dtype type, const struct acts *x, int64_t n)
{
    struct product_work w = {};
    w.cols = (int)x->cols;
    w.blocks = (int)(x->cols / ACT_BLOCK);
    w.n = (int)n;
    w.f32 = x->f32;
    w.codes = x->codes;
    w.acts = x->blocks;
    w.type = type;
    w.book = gpu_book_of(type);
    w.most_shares = 1;
    return w;
}

/* Matrix i of a launch. Those past the last have no groups: they end where the launch does. */
static void put_part(struct product_work *w, int i, const struct packed *m)
{
    struct product_part *p = &w->part[i];
    p->data = m->data;
    p->group_bytes = (int64_t)m->group_bytes;
    p->begin = w->groups;
    p->rows = (int)m->rows;
    w->groups += (int)m->groups;
    for (; i < MOST_PRODUCTS; i++)
        w->part[i].end = w->groups;
}

static bool is_k(enum dtype type)
{
    bool k = false;
    with_type(type, [&](auto t) { k = layout_t<decltype(t)::value>::k; });
    return k;
}

/* As measured on an H100. */
static enum gpu_products kernel_for(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial)
{
    const bool large = !partial && (w.shares.of || w.groups >= MMA_SMS * g->n_sms);
    if (g->capability < MMA_CAPABILITY)
        return PRODUCTS_DOT;
    if (g->products != PRODUCTS_FASTEST)
        return (enum gpu_products)g->products;
    if (w.n < MMA_TOKENS - large)
        return PRODUCTS_DOT;
    return is_k(type) && !partial && !large && w.n < MANY_TOKENS ? PRODUCTS_FEW : PRODUCTS_MMA;
}

static void multiply(const struct gpu *g, enum dtype type, const struct product_work &w)
{
    const enum gpu_products kernel = kernel_for(g, type, w, false);
    if (is_float(type))
        products_float(g, type, w, false);
    else if (kernel == PRODUCTS_DOT)
        products_dot(g, type, w);
    else if (kernel == PRODUCTS_FEW)
        products_few(g, type, w, false);
    else
        products_mma(g, type, w, false);
}

void gpu_matmul(const struct gpu *g, const struct gpu_product *p, int n_products, const struct acts *x, int64_t n)
{
    bool done[MOST_PRODUCTS] = {};
    for (int i = 0; i < n_products && n > 0; i++) {
        struct product_work w = work_of(p[i].m.type, x, n);
        int parts = 0;
        for (int j = i; j < n_products; j++) {
            if (done[j] || p[j].m.type != p[i].m.type)
                continue;
            put_part(&w, parts, &p[j].m);
            w.part[parts].y = p[j].y;
            w.part[parts].stride = p[j].y_stride;
            w.part[parts++].bias = p[j].bias;
            done[j] = true;
        }
        if (w.groups > 0)
            multiply(g, p[i].m.type, w);
    }
}

void gpu_matmul_partial(const struct gpu *g, const struct packed *m, const struct acts *x, int64_t n,
                        const struct gpu_sums *to, bool add)
{
    struct product_work w = work_of(m->type, x, n);
    put_part(&w, 0, m);
    w.segment = (int)m->segment;
    w.to = *to;
    w.add = add;
    if (n == 0 || w.groups == 0)
        return;
    const enum gpu_products kernel = kernel_for(g, m->type, w, true);
    if (is_float(m->type))
        products_float(g, m->type, w, true);
    else if (kernel == PRODUCTS_DOT || w.segment != SUM_SEGMENT)
        products_cut(g, m->type, w);
    else if (kernel == PRODUCTS_FEW)
        products_few(g, m->type, w, true);
    else
        products_mma(g, m->type, w, true);
}

/* ---- of shares ---- */

static struct product_work work_of_shares(const struct gpu_shares *s, enum dtype type, const struct acts *x, int64_t n)
{
    struct product_work w = work_of(type, x, n);
    w.most_shares = s->most;
    w.shares.sets = s->sets;
    w.shares.of = s->of;
    w.shares.n = s->n;
    w.shares.token = s->token;
    return w;
}

static int groups_of(int rows) { return (rows + ROW_GROUP - 1) / ROW_GROUP; }

static void multiply_shares(const struct gpu *g, enum dtype type, const struct product_work &w, bool partial)
{
    if (w.n == 0 || w.groups == 0 || w.most_shares == 0)
        return;
    if (is_float(type))
        products_float(g, type, w, partial);
    else if (kernel_for(g, type, w, partial) == PRODUCTS_MMA)
        products_mma(g, type, w, partial);
    else if (partial)
        products_cut(g, type, w);
    else
        products_dot(g, type, w);
}

void gpu_matmul_shares(const struct gpu *g, const struct gpu_shares *s, enum dtype type, const struct acts *x,
                       const struct acts *gathered, int64_t n, float *gate, float *up)
{
    struct product_work w = work_of_shares(s, type, x, n);
    w.groups = 2 * groups_of(s->rows);
    w.shares.gathered = *gathered;
    w.shares.gate = gate;
    w.shares.up = up;
    multiply_shares(g, type, w, false);
}

void gpu_matmul_partial_shares(const struct gpu *g, const struct gpu_shares *s, enum dtype type, const struct acts *h,
                               int64_t n, const struct gpu_sums *to)
{
    struct product_work w = work_of_shares(s, type, h, n);
    w.groups = groups_of(s->outputs);
    w.segment = SUM_SEGMENT;
    w.to = *to;
    multiply_shares(g, type, w, true);
}
