/* Stages on GPUs, for which the CPU stands in, and NCCL, for which a library does: x goes from GPU to GPU and the text
 * is the same; where it cannot all ranks go without, and it is said why; what fails on the way ends the run.
 * STAND_IN_GPU is the folder of the plug-in, STAND_IN_NCCL the library's file. */
#include "tests/engine/trace.h"

#include <dlfcn.h>
#include "base/log.h"
#include "device/plugin.h"
#include "node/hear.h"
#include "node/links.h"
#include "tests/nccl/stand_in.h"
#include "transport/deliver.h"
#include "wire/channels.h"
#include "worker/exchange.h"

enum { PROMPT = SANITIZED ? 300 : 900, SHORT = 150, D_MODEL = 64, SLOT = 65536 };

static char model[MADE_NAME], said[LOG_LINE_MAX];
static int32_t prompt[PROMPT];
static const struct job job = {prompt, PROMPT, 2, 3};
static struct trace expected;

/* So many times NCCL is there still, then once it is not. */
static _Atomic int nccl_left;
static bool no_cuda;

void *__real_dlopen(const char *file, int flags);
void *__wrap_dlopen(const char *file, int flags);

void *__wrap_dlopen(const char *file, int flags)
{
    if (file && strstr(file, "libnccl"))
        return __real_dlopen(nccl_left-- == 0 ? "/nowhere/libnccl.so.2" : STAND_IN_NCCL, flags);
    if (file && strstr(file, "libcudart"))
        return __real_dlopen(no_cuda ? "/nowhere/libcudart.so.13" : STAND_IN_NCCL, flags);
    return __real_dlopen(file, flags);
}

static unsigned count(const char *name)
{
    void *library = dlopen(STAND_IN_GPU "/" DEVICE_PLUGIN_FILE, RTLD_NOW);
    assert_non_null(library);
    _Atomic unsigned *counter = dlsym(library, name);
    assert_non_null(counter);
    const unsigned n = atomic_exchange(counter, 0);
    dlclose(library);
    return n;
}

static void listen(enum log_kind kind, const char *line)
{
    if (kind == LOG_INFO && strstr(line, "hidden states"))
        snprintf(said, sizeof said, "%s", line);
}

/* A GPU for each rank, and NCCL for all of them. */
static struct cluster_options all_there(int ranks)
{
    struct cluster_options o = plain_options(model);
    o.n_ctx = o.n_batch = 1024;
    o.residual = -1;
    o.split = SPLIT_STAGES;
    o.ranks = ranks;
    o.device = DEVICES_CUDA;
    o.gpu_layers = -1;
    o.plugin_dir = STAND_IN_GPU;
    stand_in_reset();
    stand_in_devices(4);
    stand_in_all_memory_is_device(true);
    nccl_left = -1;
    no_cuda = false;
    setenv("STAND_IN_GPUS", "4", 1);
    return o;
}

static void begin_listening(struct cluster_options *o)
{
    count("stand_in_given");
    count("stand_in_pinned");
    said[0] = '\0';
    o->quiet = false;
    log_redirect(listen);
}

/* Every token's x goes to every stage but the first. */
static void test_joined(void **state)
{
    (void)state;
    const unsigned batches[] = {1024, 260, 50};
    for (int ranks = 2; ranks <= (SANITIZED ? 3 : 4); ranks++) {
        for (int i = 0; i < 3; i++) {
            struct cluster_options o = all_there(ranks);
            const unsigned n = o.n_batch = batches[i], chunks = (PROMPT + n - 1) / n;
            begin_listening(&o);
            must_equal(&expected, &o, &job);
            log_redirect(NULL);
            assert_string_equal(said, "hidden states between GPUs go through NCCL");
            assert_int_equal(stand_in_bytes(), (ranks - 1) * (2 * PROMPT + 1 + 2) * D_MODEL * (int)sizeof(float));
            assert_int_equal(count("stand_in_given"), (unsigned)(ranks - 1) * (2 * chunks + 1 + 2));
            assert_int_equal(count("stand_in_pinned"), 0);
            assert_int_equal(stand_in_live(), 0);
        }
    }
}

static void test_named(void **state)
{
    (void)state;
    struct cluster_options o = all_there(2);
    struct cluster *c = start(&o);
    assert_string_equal(cluster_transport(c), "inproc + nccl");
    cluster_stop(c);
    o.network.kind = NETWORK_MPI;
    c = start(&o);
    assert_string_equal(cluster_transport(c), "inproc");
    cluster_stop(c);
}

/* Messages count from the start on, whichever endpoint they were posted to; and who waits for x waits for a message. */
static void test_usage(void **state)
{
    (void)state;
    uint64_t messages[2];
    for (int i = 0; i < 2; i++) {
        struct cluster_options o = all_there(2);
        struct wire_usage sum, ranks[2];
        int32_t next = 0;
        o.network.kind = i ? NETWORK_MPI : NETWORK_AUTO;
        struct cluster *c = start(&o);
        assert_int_equal(session_usage(cluster_session(c), &sum, NULL), ST_OK);
        messages[i] = sum.messages;
        assert_int_equal(dialogue_prompt(cluster_dialogue(c), prompt, SHORT, &next, NULL, NULL), ST_OK);
        assert_int_equal(session_usage(cluster_session(c), &sum, ranks), ST_OK);
        assert_int_equal(ranks[0].wire_ns, 0);
        assert_int_equal(ranks[1].wire_ns > 0, i == 0);
        cluster_stop(c);
    }
    assert_int_equal(messages[0], messages[1]);
}

/* The same text, and nobody tries. */
static void goes_without(struct cluster_options *o, unsigned pinned, const char *why)
{
    begin_listening(o);
    must_equal(&expected, o, &job);
    log_redirect(NULL);
    if (!(*why ? strstr(said, why) != NULL : !*said))
        fail_msg("'%s' does not say '%s'", said, why);
    assert_int_equal(stand_in_bytes(), 0);
    assert_int_equal(count("stand_in_given"), 0);
    assert_int_equal(count("stand_in_pinned"), pinned);
    assert_int_equal(stand_in_live(), 0);
}

static const char stages_plan[] =
    "{\"hearth_plan\": 2, \"model\": {\"architecture\": \"llama\", \"layers\": 4}, \"ranks\": 2, \"holders\": ["
    "{\"rank\": 0, \"device\": \"cpu\"}, {\"rank\": 1, \"device\": \"cpu\"}, {\"rank\": 0, \"device\": \"cuda:0\"}, "
    "{\"rank\": 1, \"device\": \"%s\"}], \"layers\": [{\"from\": 0, \"to\": 2, \"stage\": 0, \"d_ff\": 672, "
    "\"kv_heads\": 2, \"heads\": [0, 0, 0, 2, 2], \"sets\": [{\"holder\": 2, \"neurons\": [[0, 672]]}]}, {\"from\": 2, "
    "\"to\": 4, \"stage\": 1, \"d_ff\": 672, \"kv_heads\": 2, \"heads\": [0, 0, 0, 0, 2], \"sets\": [{\"holder\": 3, "
    "\"neurons\": [[0, 672]]}]}], \"stages\": [{\"rank\": 0, \"device\": \"cuda:0\"}, {\"rank\": 1, \"device\": "
    "\"%s\"}]}";

/* Of ranks that have a GPU each, by a plan. What fails is told to the others. */
static status open_links(struct transport **t, const struct cluster_options *o)
{
    char text[2048];
    struct log_catcher caught;
    struct member m = {.o = o, .transport = *t, .gpus.n = 2};
    const int n = snprintf(text, sizeof text, stages_plan, "cuda:1", "cuda:1");
    assert_int_equal(plan_parse(text, (size_t)n, "a test", &m.plan), ST_OK);
    for (int i = 0; i < 2; i++)
        m.gpus.at[i] = (struct gpu_info){.capability = 90, .id = {(uint8_t)(i + 1)}};
    log_catch(&caught);
    status st = links_open(&m);
    log_catch(NULL);
    if (st)
        log_error("%s", caught.first_error);
    if (st && st != ST_PEER)
        worker_fail(m.transport, caught.first_error);
    *t = m.transport;
    plan_free(m.plan);
    return st;
}

enum wrong { BROKEN, TWICE, FAILS, DIES, FROM_ITSELF, WRONGS };

/* Rank 1, which says something wrong. */
struct liar {
    struct transport *t;
    const struct cluster_options *o;
    enum wrong says;
    struct log_catcher caught; /* what becomes of it is rank 0's to say */
};

static void *lie(void *arg)
{
    static _Alignas(TRANSPORT_ALIGN) uint8_t none[16];
    struct liar *l = arg;
    struct arrival a;
    struct send s;
    log_catch(&l->caught);
    for (int i = 0; l->says <= TWICE && i <= (int)l->says; i++)
        assert_int_equal(deliver(l->t, 0, WIRE_LINK, none, l->says == TWICE ? 16 : 15), ST_OK);
    if (l->says <= TWICE)
        assert_int_equal(hear(l->t, 0, 0, &a), ST_PEER);
    if (l->says == FAILS)
        worker_fail(l->t, "no more");
    if (l->says == DIES)
        transport_abandon(l->t, "it is torn");
    if (l->says == FROM_ITSELF) {
        assert_int_equal(transport_post(l->t, 1, WIRE_LINK, none, sizeof none, &s), ST_OK);
        assert_int_equal(open_links(&l->t, l->o), ST_FORMAT);
    }
    log_catch(NULL);
    transport_close(l->t);
    return NULL;
}

/* Rank 0 answers nothing. */
static status hear_out(struct transport *t)
{
    struct arrival a;
    assert_int_equal(hear(t, 1u << WIRE_LINK, WIRE_LINK_MAX, &a), ST_OK);
    assert_int_equal(transport_release(t, &a), ST_OK);
    return hear(t, 0, 0, &a);
}

static void test_lies(void **state)
{
    (void)state;
    static const struct {
        status st; /* rank 0 */
        const char *says;
    } ends[WRONGS] = {
        {ST_FORMAT, "from rank 1: LINK message: size is 15, expected 16 to 271"},
        {ST_FORMAT, "rank 1: LINK a second time"},
        {ST_PEER, "rank 1: no more"},
        {ST_PEER, "rank 1: it is torn"},
        {ST_PEER, "rank 1: LINK from rank 1, expected it from rank 0 alone"},
    };
    struct transport_config config = {0};
    wire_channels(config.channel, TRANSPORT_KINDS);
    for (int i = 0; i < WRONGS; i++) {
        struct cluster_options o = all_there(2);
        struct transport *t[3] = {NULL};
        struct log_catcher caught;
        pthread_t thread;
        o.quiet = true;
        assert_int_equal(transport_inproc_open(&config, i == TWICE ? 3 : 2, t), ST_OK); /* the third says nothing */
        struct liar l = {.t = t[1], .o = &o, .says = (enum wrong)i};
        assert_int_equal(pthread_create(&thread, NULL, lie, &l), 0);
        log_catch(&caught);
        const status st = i == FROM_ITSELF ? hear_out(t[0]) : open_links(&t[0], &o);
        log_catch(NULL);
        pthread_join(thread, NULL);
        if (st != ends[i].st || !strstr(caught.first_error, ends[i].says))
            fail_msg("%s, '%s', expected %s, '%s'", status_name(st), caught.first_error, status_name(ends[i].st),
                     ends[i].says);
        transport_close(t[0]);
        transport_close(t[2]);
    }
}

static void with_plan(struct cluster_options *o, const char *device, const char *home, char path[MADE_NAME])
{
    char text[2048];
    const int n = snprintf(text, sizeof text, stages_plan, device, home);
    made_file_of(text, (size_t)n, path);
    o->plan = path;
}

static void test_without(void **state)
{
    (void)state;
    char plan[MADE_NAME];
    struct cluster_options o;
    for (int rank = 0; rank < 2; rank++) {
        o = all_there(2);
        nccl_left = rank;
        goes_without(&o, 2, "go through pinned memory of the hosts: rank ");
        assert_non_null(strstr(said, ": NCCL is not there: /nowhere/libnccl.so.2: cannot open"));
    }
    o = all_there(3);
    no_cuda = true;
    goes_without(&o, 3, "rank 0: the CUDA runtime is not there: /nowhere/libcudart.so.13: cannot open");
    o = all_there(2);
    stand_in_devices(1); /* as this CUDA runtime counts */
    goes_without(&o, 2, "rank 1: GPU 1 is not there: CUDA knows 1");
    o = all_there(2);
    o.network.kind = NETWORK_VERBS;
    goes_without(&o, 2, "rank 0: --transport verbs");
    o = all_there(2);
    with_plan(&o, "cuda:0", "cuda:0", plan);
    goes_without(&o, 2, "rank 0 and rank 1 have the same GPU");
    unlink(plan);
    o = all_there(2);
    with_plan(&o, "cuda:1", "cpu", plan); /* x of rank 1 is in its main memory: there is nothing to say */
    goes_without(&o, 1, "");
    unlink(plan);
    o = all_there(2);
    o.gpu_layers = 0;
    o.device = DEVICES_AUTO;
    goes_without(&o, 0, "");
}

/* ---- what fails ---- */

/* How it ends: in order, and with a line. */
static status live(const struct cluster_options *o)
{
    struct log_catcher caught;
    struct cluster *c = NULL;
    int32_t next = 0;
    log_catch(&caught);
    status st = cluster_start(o, &c);
    st = st ? st : dialogue_prompt(cluster_dialogue(c), prompt, SHORT, &next, NULL, NULL);
    for (int i = 0; i < 2 && !st; i++)
        st = dialogue_next(cluster_dialogue(c), next, &next);
    cluster_stop(c);
    log_catch(NULL);
    snprintf(said, sizeof said, "%s", caught.first_error);
    if (st && !said[0])
        fail_msg("%s without a word", status_name(st));
    assert_int_equal(stand_in_live(), 0);
    return st;
}

static void test_calls(void **state)
{
    (void)state;
    long n = 0;
    int ended = 0;
    for (bool failed = true; failed; n += SANITIZED ? 5 : 1) {
        struct cluster_options o = all_there(2);
        stand_in_aborts_are_noticed(n & 1);
        stand_in_fail_at(n);
        ended += live(&o) != ST_OK;
        failed = stand_in_failed();
    }
    print_message("%ld calls, %d runs ended\n", n, ended);
    assert_true(n > 60 && ended > (SANITIZED ? 8 : 40)); /* others fail before NCCL is used, or after */
}

/* NCCL finds out under way that the other is gone. */
static void test_under_way(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct cluster_options o = all_there(3);
        o.n_batch = 32; /* chunks of the prompt are on all stages at once */
        stand_in_aborts_are_noticed(i & 1);
        stand_in_async_error(6);
        assert_int_equal(live(&o), ST_PEER);
    }
}

/* ---- STATES that are wrong ---- */

/* What comes to rank 1, the second of three stages. */
static enum { NO_LIE, EMPTY, TOO_SHORT, TOO_LONG, BEYOND_ROOM, ONE_MORE, OF_RANK_2, TO_THE_FIRST, LIES } told;
static _Atomic bool is_told;
static _Alignas(TRANSPORT_ALIGN) uint8_t anything[3 * D_MODEL * sizeof(float)];
static struct outbox surplus = {.buffer = anything, .capacity = sizeof anything};

status __real_outbox_send(struct exchange *e, struct outbox *b, int to, int kind, size_t size);
status __wrap_outbox_send(struct exchange *e, struct outbox *b, int to, int kind, size_t size);

/* A message that no step foresees, of some tokens, once. */
static status add(struct exchange *e, int to, size_t tokens)
{
    const size_t size = tokens * D_MODEL * sizeof(float);
    return atomic_exchange(&is_told, true) ? ST_OK : __real_outbox_send(e, &surplus, to, WIRE_STATES, size);
}

status __wrap_outbox_send(struct exchange *e, struct outbox *b, int to, int kind, size_t size)
{
    const bool to_1 = kind == WIRE_STATES && to == 1;
    if (told == OF_RANK_2 && to_1 && is_told)
        return ST_OK; /* what is awaited stays away */
    if (to_1)
        size = told == EMPTY         ? 0
               : told == TOO_SHORT   ? size - sizeof(float)
               : told == TOO_LONG    ? size + sizeof(float)
               : told == BEYOND_ROOM ? b->capacity + sizeof(float)
                                     : size;
    status st = ST_OK;
    if (told == OF_RANK_2 && kind == WIRE_RESULT)
        st = add(e, 1, 1);
    if (told == TO_THE_FIRST && kind == WIRE_STATES && to == 2)
        st = add(e, 0, 1);
    st = st ? st : __real_outbox_send(e, b, to, kind, size);
    return st || told != ONE_MORE || !to_1 ? st : add(e, 1, 3);
}

/* One line, and the end; what nobody waits for is passed over. */
static void test_wrong_states(void **state)
{
    (void)state;
    static const char *const says[LIES] = {
        [EMPTY] = "rank 1: STATES of 0 bytes from rank 0, expected 38400 from rank 0",
        [TOO_SHORT] = "rank 1: STATES of 38396 bytes from rank 0, expected 38400 from rank 0",
        [TOO_LONG] = "rank 1: STATES of 38404 bytes from rank 0, expected 38400 from rank 0",
        [BEYOND_ROOM] = "rank 0: a bulk message of kind 17 has 262148 bytes, expected at most 262144",
        [ONE_MORE] = "rank 1: STATES of 768 bytes from rank 0, expected 256 from rank 0",
        [OF_RANK_2] = "rank 1: STATES of 256 bytes from rank 2, expected 256 from rank 0",
    };
    for (told = NO_LIE; told < LIES; told++) {
        struct cluster_options o = all_there(3);
        is_told = false;
        const status st = live(&o);
        if ((says[told] != NULL) != (st == ST_PEER) || (says[told] && !strstr(said, says[told])))
            fail_msg("%s, '%s', expected '%s'", status_name(st), said, says[told] ? says[told] : "");
    }
    told = NO_LIE;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joined),  cmocka_unit_test(test_named), cmocka_unit_test(test_usage),
        cmocka_unit_test(test_without), cmocka_unit_test(test_lies),  cmocka_unit_test(test_calls),
        cmocka_unit_test(test_under_way), cmocka_unit_test(test_wrong_states),
    };
    assert_true(260 * D_MODEL * sizeof(float) > SLOT); /* some go into a slot, some do not */
    setenv("STAND_IN_FREE", "1073741824", 1);
    setenv("STAND_IN_CAPABILITY", "90", 1);
    /* Its ranks find it open, and itself made. */
    assert_non_null(dlopen(STAND_IN_GPU "/" DEVICE_PLUGIN_FILE, RTLD_NOW));
    made_model_write(&made_quantised, model);
    fill_prompt(prompt, PROMPT);
    struct cluster_options o = plain_options(model);
    o.n_ctx = o.n_batch = 1024;
    expected = run(&o, &job);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    trace_free(&expected);
    unlink(model);
    return failed;
}
