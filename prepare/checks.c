/* What prepare looks at before it works for hours, so that nothing is refused at the end; and what a checkpoint must
 * agree in. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>
#include "base/log.h"
#include "base/whole_file.h"
#include "prepare/inside.h"
#include "sparsity/fit/mlp.h"

status prepare_check_place(const char *path)
{
    struct whole_file f;
    struct stat info;
    status st = whole_file_can_write(path);
    if (st || stat(path, &info) != 0 || info.st_size == 0)
        return st;
    if ((st = whole_file_map(path, &f)) != ST_OK)
        return st;
    if (!neurons_begin(f.bytes, f.n)) {
        log_error("%s is there and no neuron file: prepare would replace it; --neurons names another", path);
        st = ST_USAGE;
    }
    whole_file_unmap(&f);
    return st;
}

status prepare_check_report(const struct prepare *p)
{
    char *path = prepare_report_path(p);
    status st = path ? whole_file_can_write(path) : ST_NOMEM;
    free(path);
    return st;
}

bool prepare_makes_mlps(const struct prepare *p)
{
    return p->o->mlp_percent > 0 && activation_is_exact(p->model->hp.activation) && !p->model->hp.n_experts;
}

status prepare_check_mlps(const struct prepare *p)
{
    const struct hparams *hp = &p->model->hp;
    if (!prepare_makes_mlps(p) || mlp_possible(hp->d_model))
        return ST_OK;
    log_error("%s: no MLP can be made for a d_model of %lld, which is no multiple of %d: --mlp-size 0 makes none",
              p->o->cluster.model, (long long)hp->d_model, ACT_BLOCK);
    return ST_UNSUPPORTED;
}

__attribute__((format(printf, 3, 4)))
static struct part_setting *put_setting(struct part_setting *at, const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    snprintf(at->name, sizeof at->name, "%s", name);
    vsnprintf(at->value, sizeof at->value, format, args);
    va_end(args);
    return at + 1;
}

/* What makes other settings differ too comes before them. */
void prepare_settings(const struct prepare *p, uint64_t n_samples, struct part_setting to[PART_SETTINGS])
{
    const size_t n_tokens = p->windows.n * p->windows.size;
    const uint64_t text = XXH3_64bits(p->windows.tokens, n_tokens * sizeof *p->windows.tokens);
    to = put_setting(to, "the model's hash", "%016" PRIx64, gguf_hash(p->model->file));
    to = put_setting(to, "-c", "%zu", p->windows.size);
    to = put_setting(to, "the windows (-f, --chunks)", "%zu", p->windows.n);
    to = put_setting(to, "the text's hash (-f, -p)", "%016" PRIx64, text);
    to = put_setting(to, "--samples", "%" PRIu64, n_samples);
    to = put_setting(to, "-b", "%u", p->o->cluster.n_batch);
    to = put_setting(to, "--activation", "%s", p->o->cluster.activation ? p->o->cluster.activation : "not said");
    to = put_setting(to, "--miss", "%g", (double)p->o->miss);
    to = put_setting(to, "--recall", "%g", (double)p->o->recall);
    to = put_setting(to, "--accuracy", "%g", (double)p->o->accuracy);
    to = put_setting(to, "--mlp-size", "%g", (double)p->o->mlp_percent);
    if (p->o->epochs)
        put_setting(to, "--epochs", "%" PRId64, p->o->epochs);
    else
        put_setting(to, "--epochs", "not said");
}
