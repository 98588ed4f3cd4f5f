/* `hearth prepare` in a process other than rank 0's: does what it is told until it is told that it is over. Its error
 * lines go to rank 0, which says them once. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/whole_file.h"
#include "prepare/inside.h"

struct follower {
    struct prepare *p;
    struct log_catcher errors;
    double told_s;       /* when rank 0 last heard of progress */
    bool over, forget;   /* rank 0 has said so, and whether the checkpoint goes */
};

/* Rank 0 may say that it is over whatever it had said before. */
static void note_end(struct follower *f, const struct blob *b)
{
    f->over = b->what == TASK_END;
    f->forget = f->over && b->n > 0 && b->bytes[0];
}

static status check_size(const struct blob *b, size_t expected)
{
    if (b->n == expected)
        return ST_OK;
    log_error("task %d of %zu bytes, expected %zu", (int)b->what, b->n, expected);
    return ST_FORMAT;
}

static status answer(struct follower *f, enum link_what what, uint32_t index, const void *bytes, size_t n)
{
    return link_send(f->p->link, 0, what, index, bytes, n);
}

static status open_part(struct follower *f, const struct blob *b)
{
    struct task_open t;
    status st = check_size(b, sizeof t);
    if (st)
        return st;
    memcpy(&t, b->bytes, sizeof t);
    if ((st = prepare_open_part(f->p, &t)))
        return st;
    return answer(f, ANSWER_OPEN, 0, &part_state(f->p->part)->windows, sizeof(uint64_t));
}

static status run(struct follower *f, const struct blob *b)
{
    struct task_run how;
    status st = check_size(b, sizeof how);
    if (st)
        return st;
    memcpy(&how, b->bytes, sizeof how);
    if (how.activation >= 0 && how.activation < ACTIVATIONS)
        f->p->model->hp.activation = (enum activation)how.activation;
    st = prepare_run(f->p, &how, NULL, NULL);
    if (st && !*f->errors.first_error)
        log_error("the run of the model failed: %s", status_name(st));
    if (!st && how.observe)
        st = part_save(f->p->part);
    return st;
}

static status send_fired(struct follower *f)
{
    const struct part_shape *s = part_shape(f->p->part);
    return answer(f, ANSWER_FIRED, (uint32_t)s->first, part_state(f->p->part)->fired,
                  (size_t)(s->last - s->first) * (size_t)s->d_ff * sizeof(uint32_t));
}

/* Rank 0 says nothing while its ranks fit, unless it wants them to stop. */
static bool fit_progressed(void *arg, float layers)
{
    struct follower *f = arg;
    if (link_waiting(f->p->link))
        return false;
    if (clock_s() - f->told_s < 1)
        return true;
    f->told_s = clock_s();
    return answer(f, ANSWER_PROGRESS, 0, &layers, sizeof layers) == ST_OK;
}

static status send_layer(void *arg, int layer, const uint8_t *bytes, size_t n)
{
    return answer(arg, ANSWER_LAYER, (uint32_t)layer, bytes, n);
}

static status fit(struct follower *f, const struct blob *b)
{
    struct hparams *hp = &f->p->model->hp;
    const struct task_fit *t = (const struct task_fit *)b->bytes;
    status st = check_size(b, sizeof *t + (size_t)hp->n_layers * sizeof *t->mlp_bytes);
    if (!st && t->activation >= ACTIVATIONS) {
        log_error("fit with activation %llu: there is none", (unsigned long long)t->activation);
        st = ST_FORMAT;
    }
    if (!st) {
        hp->activation = (enum activation)t->activation;
        st = prepare_fit_own(f->p, t->mlp_bytes, fit_progressed, send_layer, f);
    }
    if (st == ST_CANCELLED)
        return ST_OK;
    return st ? st : answer(f, ANSWER_DONE, 0, NULL, 0);
}

/* The neuron file may be there already: a file system that hosts share, or another rank of this host. */
static uint64_t have_file(const char *path, uint64_t hash)
{
    struct log_catcher ignored;
    struct whole_file file;
    log_catch(&ignored);
    status st = whole_file_map(path, &file);
    uint64_t have = st == ST_OK && XXH3_64bits(file.bytes, file.n) == hash;
    if (!st)
        whole_file_unmap(&file);
    log_catch(NULL);
    return have;
}

/* The next message. What cannot be one ends everything: rank 0 waits for an answer that will not come. */
static status follow_receive(struct follower *f, struct blob *b)
{
    status st = link_receive(f->p->link, b);
    if (st && st != ST_PEER)
        link_abandon(f->p->link, f->errors.first_error);
    if (!st)
        note_end(f, b);
    return st;
}

static status take_file(struct follower *f, const struct blob *b)
{
    uint64_t hash, have;
    status st = check_size(b, sizeof hash);
    if (st)
        return st;
    memcpy(&hash, b->bytes, sizeof hash);
    have = have_file(f->p->neurons, hash);
    st = answer(f, ANSWER_FILE, 0, &have, sizeof have);
    if (!st && !have) {
        struct blob file;
        if ((st = follow_receive(f, &file)))
            return st;
        if (file.what == FILE_BYTES) {
            st = whole_file_write(f->p->neurons, file.bytes, file.n);
        } else if (!f->over) {
            log_error("message %d instead of the neuron file", (int)file.what);
            st = ST_FORMAT;
        }
        free(file.bytes);
    }
    return st || f->over ? st : answer(f, ANSWER_DONE, 0, NULL, 0);
}

static status obey(struct follower *f, const struct blob *b)
{
    switch (b->what) {
    case TASK_OPEN: return open_part(f, b);
    case TASK_RUN: return run(f, b);
    case TASK_FIRED: return send_fired(f);
    case TASK_FIT: return fit(f, b);
    case TASK_FILE: return take_file(f, b);
    default:
        log_error("message %d from rank %d is no task", (int)b->what, b->from);
        return ST_FORMAT;
    }
}

/* Whether rank 0 waits for an answer to it. */
static bool answered(enum link_what task) { return task != TASK_RUN && task != TASK_END; }

status prepare_follow(struct prepare *p)
{
    struct follower f = {.p = p};
    log_catch(&f.errors);
    status st = prepare_open_model(p);
    while (p->link) {
        struct blob b;
        status done = follow_receive(&f, &b);
        if (done) {
            st = st ? st : done;
            break;
        }
        /* After a failure the next answer says so; a run must be joined all the same, or the others wait for ever. */
        if (!f.over && (!st || b.what == TASK_RUN)) {
            done = obey(&f, &b);
            st = st ? st : done;
        }
        if (!f.over && st && answered(b.what))
            (void)link_send(p->link, 0, ANSWER_FAILED, 0, f.errors.first_error, strlen(f.errors.first_error));
        free(b.bytes);
        if (f.over) {
            (f.forget ? part_remove : part_close)(p->part);
            p->part = NULL;
            break;
        }
    }
    log_catch(NULL);
    return st;
}
