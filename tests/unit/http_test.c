/* HTTP: requests in, answers out, by other threads and piece by piece. */
#include "tests/unit/http_client.h"

static void answers_at_once(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    struct answer a = ask(s, "GET /echo?a=1&b HTTP/1.1\r\nHost: x\r\nX-MARK: m\r\n\r\n");
    assert_int_equal(a.code, 200);
    assert_string_equal(a.body, "GET /echo: ");
    assert_string_equal(value_of(&a, "Content-Type"), "text/plain");
    assert_string_equal(value_of(&a, "x-mark"), "m");
    assert_string_equal(value_of(&a, "Access-Control-Allow-Origin"), "");
    forget(&a);
    a = ask(s, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_string_equal(a.body, "POST /echo: hello");
    forget(&a);
    http_free(s);
}

static void reads_chunked_bodies(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    const int fd = dial(s);
    assert_true(say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"));
    usleep(20000);
    assert_true(say(fd, "lo\r\n6\r\n world\r\n0\r\n\r\n"));
    struct answer a = hear(fd);
    assert_string_equal(a.body, "POST /echo: hello world");
    forget(&a);
    close(fd);
    http_free(s);
}

/* curl waits for this word before it sends a large body. */
static void says_continue(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    int fd = dial(s);
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    struct answer a;
    hear_head(fd, &a);
    assert_int_equal(a.code, 100);
    say(fd, "hi");
    a = hear(fd);
    assert_string_equal(a.body, "POST /echo: hi");
    forget(&a);
    close(fd);
    /* It is not told to go on with what is refused. */
    fd = dial(s);
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n");
    a = hear(fd);
    assert_int_equal(a.code, 413);
    forget(&a);
    assert_true(closes(fd));
    close(fd);
    http_free(s);
}

static void head_has_no_body(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    const int fd = dial(s);
    struct answer a;
    say(fd, "HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\nGET /open HTTP/1.1\r\nHost: x\r\n\r\n");
    hear_head(fd, &a);
    assert_int_equal(a.code, 200);
    assert_string_equal(value_of(&a, "Content-Length"), "12");
    a = hear(fd); /* nothing lies between */
    assert_string_equal(a.body, "GET /open: ");
    forget(&a);
    /* A stream too, whose connection ends, as libmicrohttpd writes an end of the chunks that there are none of. */
    say(fd, "HEAD /mail HTTP/1.1\r\nHost: x\r\n\r\n");
    struct http_exchange *x = fetch();
    http_begin(x, 200, "text/event-stream", NULL, 0);
    hear_head(fd, &a);
    assert_int_equal(a.code, 200);
    assert_string_equal(value_of(&a, "Connection"), "close");
    assert_true(closes(fd));
    http_write(x, "data", 4);
    http_end(x);
    close(fd);
    http_free(s);
}

/* Each piece is there before the next is written. */
static void streams(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    const int fd = dial(s);
    struct answer a;
    for (int turn = 0; turn < 2; turn++) {
        say(fd, "POST /mail HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n.");
        struct http_exchange *x = fetch();
        assert_false(http_gone(x));
        http_begin(x, 200, "text/event-stream", (struct http_field[]){{"Cache-Control", "no-cache"}}, 1);
        hear_head(fd, &a);
        assert_int_equal(a.code, 200);
        assert_string_equal(value_of(&a, "Cache-Control"), "no-cache");
        assert_string_equal(value_of(&a, "Transfer-Encoding"), "chunked");
        for (int i = 0; i < 50; i++) {
            char piece[32];
            const int n = snprintf(piece, sizeof piece, "data: %d\n\n", i);
            http_write(x, piece, (size_t)n);
            a.n = 0;
            assert_int_equal(hear_chunk(fd, &a), n);
            assert_memory_equal(a.body, piece, (size_t)n);
        }
        http_end(x);
        assert_int_equal(hear_chunk(fd, &a), 0);
        forget(&a);
    }
    close(fd);
    http_free(s);
}

/* HTTP/1.0 knows no chunks: the end of the connection is the end. */
static void streams_to_old_clients(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    const int fd = dial(s);
    struct answer a;
    say(fd, "GET /mail HTTP/1.0\r\n\r\n");
    struct http_exchange *x = fetch();
    http_begin(x, 200, "text/plain", NULL, 0);
    http_write(x, "all", 3);
    http_end(x);
    hear_head(fd, &a);
    hear_bytes(fd, &a, 3);
    assert_string_equal(a.body, "all");
    assert_int_equal(next_char(fd), -1);
    forget(&a);
    close(fd);
    http_free(s);
}

struct writer {
    struct http_exchange *x;
    int number;
};

static void *write_pieces(void *arg)
{
    const struct writer *w = arg;
    http_begin(w->x, 200, "text/plain", NULL, 0);
    for (int i = 0; i < 500; i++) {
        char piece[48];
        const int n = snprintf(piece, sizeof piece, "%d of thread %d; ", i, w->number);
        http_write(w->x, piece, (size_t)n);
    }
    http_end(w->x);
    return NULL;
}

/* Many threads write at the same time, and every client reads its own. */
static void threads_write(void **state)
{
    enum { N = 16 };
    (void)state;
    struct http_server *s = serve(&defaults);
    int fd[N];
    pthread_t thread[N];
    struct writer w[N];
    for (int i = 0; i < N; i++) {
        fd[i] = dial(s);
        say(fd[i], "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
        w[i] = (struct writer){fetch(), i};
        assert_int_equal(pthread_create(&thread[i], NULL, write_pieces, &w[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        struct answer a = hear(fd[i]);
        char expected[48];
        const char *at = a.body;
        for (int k = 0; k < 500; k++) {
            const int n = snprintf(expected, sizeof expected, "%d of thread %d; ", k, i);
            assert_memory_equal(at, expected, (size_t)n);
            at += n;
        }
        assert_string_equal(at, "");
        forget(&a);
        pthread_join(thread[i], NULL);
        close(fd[i]);
    }
    http_free(s);
}

/* Requests that come at once are answered one after the other, whoever answers them. */
static void pipelines(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    const int fd = dial(s);
    say(fd, "GET /mail HTTP/1.1\r\nHost: x\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\ntwo"
            "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\nPOST /mail HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nfour");
    http_answer(fetch(), 200, "text/plain", "one", 3, NULL, 0);
    struct answer a = hear(fd);
    assert_string_equal(a.body, "one");
    forget(&a);
    a = hear(fd);
    assert_string_equal(a.body, "POST /echo: two");
    forget(&a);
    a = hear(fd);
    assert_int_equal(a.code, 404);
    forget(&a);
    struct http_exchange *x = fetch();
    size_t n;
    assert_string_equal(http_body(x, &n), "four");
    http_answer(x, 200, "text/plain", "", 0, NULL, 0);
    a = hear(fd);
    assert_int_equal(a.code, 200);
    forget(&a);
    close(fd);
    http_free(s);
}

static void large_answer(void **state)
{
    enum { N = 20 << 20 };
    (void)state;
    struct http_server *s = serve(&defaults);
    const int fd = dial(s);
    char *much = malloc(N);
    assert_non_null(much);
    for (size_t i = 0; i < N; i++)
        much[i] = (char)(i * 31 >> 8);
    say(fd, "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
    http_answer(fetch(), 200, "application/octet-stream", much, N, NULL, 0);
    struct answer a = hear(fd);
    assert_int_equal(a.n, N);
    assert_memory_equal(a.body, much, N);
    forget(&a);
    free(much);
    close(fd);
    http_free(s);
}

#define WITH(header) "GET /key HTTP/1.1\r\nHost: x\r\n" header "\r\n\r\n"

static void asks_for_keys(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    expect(s, WITH("X: y"), 200);
    assert_int_equal(http_set_keys(s, "# the house's\n\n  first-key\r\nsecond\n#third\nlast"), ST_OK);
    struct answer a = ask(s, WITH("X: y"));
    assert_int_equal(a.code, 401);
    assert_string_equal(value_of(&a, "WWW-Authenticate"), "Bearer");
    assert_non_null(strstr(a.body, "\"error\": 401"));
    forget(&a);
    static const char *const wrong[] = {
        WITH("Authorization: Bearer "), WITH("Authorization: Bearer first-ke"), WITH("Authorization: Basic first-key"),
        WITH("Authorization: Bearer first-key2"), WITH("x-api-key: third"), WITH("x-api-key: #third"),
        WITH("x-api-key:"), WITH("x-api-key: Second"),
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        expect(s, wrong[i], 401);
    static const char *const right[] = {WITH("Authorization: Bearer first-key"), WITH("authorization: bearer  second"),
                                        WITH("X-Api-Key: last")};
    for (int i = 0; i < 3; i++) {
        a = ask(s, right[i]);
        assert_int_equal(a.code, 200);
        assert_int_equal(strtol(a.body, NULL, 10), i);
        forget(&a);
    }
    expect(s, "GET /open HTTP/1.1\r\nHost: x\r\n\r\n", 200);
    expect(s, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 401); /* what is there is nobody's business */
    assert_int_equal(http_set_keys(s, "new"), ST_OK);
    expect(s, right[0], 401);
    expect(s, WITH("x-api-key: new"), 200);
    assert_int_equal(http_set_keys(s, "# none\n"), ST_OK); /* nobody's, not everybody's */
    expect(s, WITH("x-api-key: new"), 401);
    expect(s, WITH("x-api-key:"), 401);
    assert_int_equal(http_set_keys(s, NULL), ST_OK);
    expect(s, WITH("X: y"), 200);
    char long_key[300] = {0};
    memset(long_key, 'k', 256);
    assert_int_equal(http_set_keys(s, long_key), ST_USAGE);
    expect(s, WITH("X: y"), 200);
    long_key[255] = '\0';
    assert_int_equal(http_set_keys(s, long_key), ST_OK);
    char request[512];
    snprintf(request, sizeof request, "GET /key HTTP/1.1\r\nHost: x\r\nx-api-key: %s\r\n\r\n", long_key);
    expect(s, request, 200);
    snprintf(request, sizeof request, "GET /key HTTP/1.1\r\nHost: x\r\nx-api-key: %sk\r\n\r\n", long_key);
    expect(s, request, 401);
    http_free(s);
}

static void knows_methods(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    struct answer a = ask(s, "DELETE /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(a.code, 405);
    assert_string_equal(value_of(&a, "Allow"), "GET, HEAD, POST");
    forget(&a);
    a = ask(s, "GET /only HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(a.code, 405);
    assert_string_equal(value_of(&a, "Allow"), "POST");
    assert_string_equal(value_of(&a, "Content-Type"), "application/json");
    forget(&a);
    expect(s, "OPTIONS /only HTTP/1.1\r\nHost: x\r\n\r\n", 405); /* other origins are not asked in */
    expect(s, "BREW /only HTTP/1.1\r\nHost: x\r\n\r\n", 405);
    expect(s, "GET /echo/ HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    expect(s, "POST /only HTTP/1.1\r\nHost: x\r\n\r\n", 411);
    /* A refused body is read, and the connection goes on. */
    const int fd = dial(s);
    say(fd, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    a = hear(fd);
    assert_int_equal(a.code, 404);
    forget(&a);
    say(fd, "GET /open HTTP/1.1\r\nHost: x\r\n\r\n");
    a = hear(fd);
    assert_int_equal(a.code, 200);
    forget(&a);
    close(fd);
    http_free(s);
}

static void lets_other_origins_in(void **state)
{
    (void)state;
    struct http_options o = defaults;
    o.cors_origin = "https://page.example";
    struct http_server *s = serve(&o);
    assert_int_equal(http_set_keys(s, "k"), ST_OK);
    struct answer a = ask(s, "OPTIONS /only HTTP/1.1\r\nHost: x\r\nOrigin: https://page.example\r\n"
                             "Access-Control-Request-Method: POST\r\n"
                             "Access-Control-Request-Headers: authorization,x-stainless-os\r\n\r\n");
    assert_int_equal(a.code, 204); /* without a key, which browsers do not send here */
    assert_string_equal(value_of(&a, "Access-Control-Allow-Origin"), "https://page.example");
    assert_string_equal(value_of(&a, "Access-Control-Allow-Headers"), "authorization,x-stainless-os");
    assert_string_equal(value_of(&a, "Vary"), "Origin");
    assert_non_null(strstr(value_of(&a, "Access-Control-Allow-Methods"), "POST"));
    forget(&a);
    /* Errors too, or pages cannot read them. */
    a = ask(s, "POST /only HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(a.code, 401);
    assert_string_equal(value_of(&a, "Access-Control-Allow-Origin"), "https://page.example");
    forget(&a);
    expect(s, "OPTIONS /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 401);
    http_free(s);
}

/* A port that is taken, an address that is none. */
static void says_where_it_cannot_listen(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults), *other;
    struct http_options o = defaults;
    o.port = http_port(s);
    assert_int_equal(http_open(&o, &other), ST_USAGE);
    o.host = "no.such.host.invalid";
    assert_int_equal(http_open(&o, &other), ST_USAGE);
    o = defaults;
    o.tls_cert = o.tls_key = "/nonexistent";
    assert_int_equal(http_open(&o, &other), ST_USAGE);
    o.tls_cert = o.tls_key = TEST_DATA "/chat.json";
    assert_int_equal(http_open(&o, &other), ST_USAGE);
    http_free(s);
    http_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_at_once),  cmocka_unit_test(reads_chunked_bodies),
        cmocka_unit_test(says_continue),    cmocka_unit_test(head_has_no_body),
        cmocka_unit_test(streams),          cmocka_unit_test(streams_to_old_clients),
        cmocka_unit_test(threads_write),    cmocka_unit_test(pipelines),
        cmocka_unit_test(large_answer),     cmocka_unit_test(asks_for_keys),
        cmocka_unit_test(knows_methods),    cmocka_unit_test(lets_other_origins_in),
        cmocka_unit_test(says_where_it_cannot_listen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
