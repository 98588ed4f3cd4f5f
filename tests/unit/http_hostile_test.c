/* HTTP with clients that mean no good or have bad luck: what they get, and that others go on. */
#include "tests/unit/alloc_fail.h"
#include "tests/unit/http_client.h"

static const char fine[] = "GET /open HTTP/1.1\r\nHost: x\r\n\r\n";

/* The code of what a server says to bytes that may be anything; 0: it closed. */
static int code_for(const struct http_server *s, const char *bytes, size_t n)
{
    const int fd = dial(s);
    struct answer a;
    say_bytes(fd, bytes, n);
    hear_head(fd, &a);
    close(fd);
    return a.code;
}

static void refuses_bad_heads(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
#define BYTES(text) {text, sizeof text - 1}
    static const struct {
        const char *at;
        size_t n;
    } bad[] = {
        BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), /* TLS */
        BYTES("hello\r\n\r\n"),
        BYTES("GET\r\n\r\n"),
        BYTES("GET /open HTTP/1.1\r\n\r\n"), /* whose host? */
        BYTES("GET open HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET http://x/open HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET * HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET /op\xc3\x28n HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET /open\xff HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET /open%00 HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET /%6fpen HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET /open\x01 HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BYTES("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd"),
        BYTES("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\nabcd"),
        BYTES("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4x\r\n\r\nabcd"),
        BYTES("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nabcd"),
        BYTES("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\nabcd"),
        BYTES("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        BYTES("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        BYTES("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const int code = code_for(s, bad[i].at, bad[i].n);
        if (code != 0 && (code < 400 || code > 499))
            print_error("%d to: %.60s\n", code, bad[i].at);
        assert_true(code == 0 || (code >= 400 && code <= 499));
    }
    expect(s, "GET /open%00 HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    expect(s, "GET /op\xc3\x28n HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    expect(s, fine, 200);
    http_free(s);
}

/* Heads of which two readers could make two things: neither of the two happens, and what comes behind them is none. */
static void refuses_ambiguous_heads(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    static const struct {
        const char *at;
        size_t n;
        int code;
    } heads[] = {
#define BEHIND "\r\nabcdGET /open HTTP/1.1\r\nHost: x\r\n\r\n"
#define HEAD(line, fields, code) \
    {line "\r\nHost: x\r\n" fields BEHIND, sizeof line "\r\nHost: x\r\n" fields BEHIND - 1, code}
        HEAD("GET /open\0nothing HTTP/1.1", "", 400), /* to libmicrohttpd the target ends there */
        HEAD("GET /open\0 HTTP/1.1", "", 400),
        HEAD("GET /open?a=\0b HTTP/1.1", "", 400),
        HEAD("POST /echo HTTP/1.1", "A: b\rContent-Length: 4\r\n", 400), /* a bare CR ends no line */
        HEAD("POST /echo HTTP/1.1", "A: b\x01\r\nContent-Length: 4\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "Content-Length : 4\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "Content-Length: 4\r\nContent-Length: 4\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "Content-Length: 4, 4\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "Content-Length: +4\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "Content-Length: 0x4\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "Transfer-Encoding: chunked;a=b\r\n", 400),
        HEAD("POST /echo HTTP/1.1", "", 411),
        HEAD("GET http://x/open HTTP/1.1", "", 400),
        HEAD("CONNECT x:80 HTTP/1.1", "", 400),
        HEAD("OPTIONS * HTTP/1.1", "", 400),
    };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        const int fd = dial(s);
        struct answer a;
        say_bytes(fd, heads[i].at, heads[i].n);
        a = hear(fd);
        if (a.code != heads[i].code)
            print_error("%d to: %.100s\n", a.code, heads[i].at);
        assert_int_equal(a.code, heads[i].code);
        if (heads[i].code == 411 || strncmp(heads[i].at, "POST", 4) == 0) {
            char more[64] = "";
            const ssize_t n = recv(fd, more, sizeof more - 1, 0);
            if (n > 0) /* libmicrohttpd's own pages are longer than they say */
                assert_null(strstr(more, "HTTP/1.1"));
        }
        forget(&a);
        close(fd);
    }
    expect(s, fine, 200);
    http_free(s);
}

/* What is unusual, and plain. */
static void answers_odd_requests(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    expect(s, "GET /open?a=b&c=%00%zz HTTP/1.1\r\nHost: x\r\n\r\n", 200);
    expect(s, "GET /open HTTP/1.1\nHost: x\n\n", 200);
    expect(s, "GET /open HTTP/1.1\r\nHost: x\r\nA:\r\nB: \t\xe9\tc\r\n\r\n", 200);
    expect(s, "GET /open HTTP/1.0\r\n\r\n", 200);
    expect(s, "GET /%2Fopen HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    expect(s, "GET /open%2F HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    expect(s, "GET //open HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    expect(s, "GET /open/ HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    expect(s, "BREW /open HTTP/1.1\r\nHost: x\r\n\r\n", 405);
    expect(s, "OPTIONS /open HTTP/1.1\r\nHost: x\r\n\r\n", 405);
    expect(s, "TRACE /open HTTP/1.1\r\nHost: x\r\n\r\n", 405);
    expect(s, "GET /open HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n", 200);
    expect(s, "GET /open HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd", 200);
    expect(s, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
              "4;a=b\r\nabcd\r\n0\r\nA: b\r\n\r\n", 200);
    http_free(s);
}

/* Two streams that were asked for at once on one connection come one behind the other. */
static void streams_in_their_order(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    const int fd = dial(s);
    say(fd, "GET /mail HTTP/1.1\r\nHost: x\r\n\r\nGET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        struct http_exchange *x = fetch();
        http_begin(x, 200, "text/plain", NULL, 0);
        http_write(x, i ? "second" : "first", i ? 6 : 5);
        http_end(x);
        struct answer a = hear(fd);
        assert_string_equal(a.body, i ? "second" : "first");
        forget(&a);
    }
    close(fd);
    http_free(s);
}

/* `head`, `n` times `part`, `end`. */
static int code_for_many(const struct http_server *s, const char *head, const char *part, size_t n, const char *end)
{
    const size_t n_head = strlen(head), n_part = strlen(part), n_end = strlen(end), all = n_head + n * n_part + n_end;
    char *text = malloc(all);
    assert_non_null(text);
    memcpy(text, head, n_head);
    for (size_t i = 0; i < n; i++)
        memcpy(text + n_head + i * n_part, part, n_part);
    memcpy(text + all - n_end, end, n_end);
    const int code = code_for(s, text, all);
    free(text);
    return code;
}

static void refuses_bombs(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    static const char head[] = "GET /open HTTP/1.1\r\nHost: x\r\n", end[] = " HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_int_equal(code_for_many(s, head, "A: b\r\n", 100, "\r\n"), 200);
    assert_int_equal(code_for_many(s, head, "Aaaaaaaa: bbbbbbb\r\n", 1000, "\r\n"), 431);
    assert_int_equal(code_for_many(s, "GET /", "deep/", 1000, end), 404);
    assert_int_equal(code_for_many(s, "GET /", "deep/", 2000, end), 414);
    static const size_t many[] = {10000, 100000, 1000000};
    for (int i = 0; i < 3; i++) { /* more than is read at all */
        int code = code_for_many(s, head, "A: b\r\n", many[i], "\r\n");
        assert_true(code == 431 || code == 0);
        code = code_for_many(s, "GET /open HTTP/1.1\r\nHost: x\r\nA: ", "bbbbbb", many[i], "\r\n\r\n");
        assert_true(code == 431 || code == 0);
        code = code_for_many(s, "GET /", "deep/", many[i], end);
        assert_true(code == 414 || code == 431 || code == 0);
        expect(s, fine, 200);
    }
    http_free(s);
}

/* A client that sends 20 MB is told that it is too much, and may ask for something else on the same connection. */
static void refuses_large_bodies(void **state)
{
    enum { N = 20 << 20, CHUNK = 1 << 20 };
    (void)state;
    struct http_server *s = serve(&defaults);
    char *much = calloc(1, CHUNK);
    assert_non_null(much);
    for (int chunked = 0; chunked < 2; chunked++) {
        const int fd = dial(s);
        say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\n");
        say(fd, chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "Content-Length: 20971520\r\n\r\n");
        for (int i = 0; i < N / CHUNK; i++) {
            assert_true(!chunked || say(fd, "100000\r\n"));
            assert_true(say_bytes(fd, much, CHUNK));
            assert_true(!chunked || say(fd, "\r\n"));
        }
        assert_true(!chunked || say(fd, "0\r\n\r\n"));
        struct answer a = hear(fd);
        assert_int_equal(a.code, 413);
        forget(&a);
        say(fd, fine);
        a = hear(fd);
        assert_int_equal(a.code, 200);
        forget(&a);
        close(fd);
    }
    /* What never ends is cut off. */
    const int fd = dial(s);
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    int sent = 0;
    while (sent < 200 && say(fd, "100000\r\n") && say_bytes(fd, much, CHUNK) && say(fd, "\r\n"))
        sent++;
    assert_true(sent < 200);
    close(fd);
    free(much);
    expect(s, fine, 200);
    http_free(s);
}

/* Who sends a byte now and then is not waited for; who waits for an answer may wait. */
static void closes_slow_requests(void **state)
{
    (void)state;
    struct http_options o = defaults;
    o.idle_s = 1;
    struct http_server *s = serve(&o);
    const int waits = dial(s), idle = dial(s), used = dial(s), head = dial(s), line = dial(s), body = dial(s);
    say(waits, "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
    struct http_exchange *x = fetch();
    expect(s, fine, 200);
    say(used, fine);
    struct answer a = hear(used);
    forget(&a);
    say(line, "GET /op");
    say(head, "GET /open HTTP/1.1\r\nHo");
    say(body, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    for (bool open = true; open;) { /* it would be whole in 10 s */
        usleep(100000);
        say(line, "e");
        say(head, "o");
        open = say(body, "o");
    }
    hear_head(body, &a);
    assert_int_equal(a.code, 408);
    assert_true(closes(body) && closes(idle) && closes(used) && closes(head) && closes(line));
    assert_false(http_gone(x));
    http_answer(x, 200, "text/plain", "late", 4, NULL, 0);
    a = hear(waits);
    assert_string_equal(a.body, "late");
    forget(&a);
    close(waits), close(idle), close(used), close(head), close(line), close(body);
    http_free(s);
}

static void wait_until_gone(struct http_exchange *x)
{
    while (!http_gone(x))
        usleep(10000);
}

/* 50 clients leave in the middle of their streams, in order or not. */
static void clients_vanish(void **state)
{
    enum { N = 50 };
    (void)state;
    struct http_server *s = serve(&defaults);
    struct http_exchange *x[N], *other;
    int fd[N];
    const int stays = dial(s);
    say(stays, "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
    other = fetch();
    http_begin(other, 200, "text/plain", NULL, 0);
    for (int i = 0; i < N; i++) {
        fd[i] = dial(s);
        say(fd[i], "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
        x[i] = fetch();
        if (i % 5 > 0) { /* the others have heard nothing yet */
            http_begin(x[i], 200, "text/plain", NULL, 0);
            http_write(x[i], "begun", 5);
        }
        assert_false(http_gone(x[i]));
    }
    for (int i = 0; i < N; i++) {
        const struct linger reset = {.l_onoff = 1};
        if (i % 2)
            setsockopt(fd[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd[i]);
    }
    for (int i = 0; i < N; i++)
        wait_until_gone(x[i]);
    for (int i = 0; i < N; i++) {
        if (i % 5 > 0)
            http_write(x[i], "nobody hears this", 17);
        if (i % 5 > 0)
            http_end(x[i]);
        else
            http_answer(x[i], 200, "text/plain", "nor this", 8, NULL, 0);
    }
    http_write(other, "still here", 10);
    http_end(other);
    struct answer a = hear(stays);
    assert_string_equal(a.body, "still here");
    forget(&a);
    close(stays);
    http_free(s);
}

/* A client that reads nothing costs 16 MiB, not more. */
static void drops_slow_readers(void **state)
{
    enum { PIECE = 1 << 20 };
    (void)state;
    struct http_server *s = serve(&defaults);
    char *piece = calloc(1, PIECE);
    assert_non_null(piece);
    const int fd = dial(s);
    say(fd, "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
    struct http_exchange *x = fetch();
    http_begin(x, 200, "text/plain", NULL, 0);
    int n = 0;
    for (; n < 64 && !http_gone(x); n++)
        http_write(x, piece, PIECE);
    assert_true(n > 15 && n < 64);
    http_end(x);
    expect(s, fine, 200);
    free(piece);
    close(fd);
    http_free(s);
}

/* Nor for ever. */
static void stops_waiting_for_readers(void **state)
{
    enum { N = 12 << 20 };
    (void)state;
    struct http_options o = defaults;
    o.idle_s = 1;
    struct http_server *s = serve(&o);
    char *much = calloc(1, N);
    assert_non_null(much);
    const int fd = dial(s);
    say(fd, "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
    struct http_exchange *x = fetch();
    http_begin(x, 200, "text/plain", NULL, 0);
    http_write(x, much, N);
    wait_until_gone(x);
    http_end(x);
    free(much);
    close(fd);
    http_free(s);
}

static void limits_connections(void **state)
{
    enum { N = 200 };
    (void)state;
    struct http_options o = defaults;
    o.max_connections = N;
    struct http_server *s = serve(&o);
    int fd[N];
    for (int i = 0; i < N; i++)
        fd[i] = dial(s);
    say(fd[N - 1], fine); /* 200 that are idle disturb nobody */
    struct answer a = hear(fd[N - 1]);
    assert_int_equal(a.code, 200);
    forget(&a);
    a = ask(s, fine);
    assert_int_equal(a.code, 503);
    assert_string_equal(value_of(&a, "Connection"), "close");
    assert_string_not_equal(value_of(&a, "Retry-After"), "");
    forget(&a);
    for (int i = 0; i < N; i++)
        close(fd[i]);
    for (int code = 503; code != 200;) /* until the server has seen it */
        code = code_for(s, fine, sizeof fine - 1);
    http_free(s);
}

/* What runs is answered, what comes is not let in. */
static void drains(void **state)
{
    (void)state;
    struct http_server *s = serve(&defaults);
    const int runs = dial(s), idle = dial(s);
    say(runs, "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
    struct http_exchange *x = fetch();
    say(idle, fine);
    struct answer a = hear(idle);
    assert_int_equal(a.code, 200);
    forget(&a);
    http_drain(s);
    http_drain(s);
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(http_port(s)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int late = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(late, (const struct sockaddr *)&address, sizeof address), -1);
    say(idle, fine);
    a = hear(idle);
    assert_int_equal(a.code, 503);
    forget(&a);
    assert_true(closes(idle));
    http_answer(x, 200, "text/plain", "done", 4, NULL, 0);
    http_close(s); /* which sends what is ended */
    a = hear(runs);
    assert_string_equal(a.body, "done");
    forget(&a);
    http_close(s);
    close(runs), close(idle), close(late);
    http_free(s);
}

static void *write_until_gone(void *arg)
{
    struct http_exchange *x = arg;
    http_begin(x, 200, "text/plain", NULL, 0);
    while (!http_gone(x))
        http_write(x, "more", 4);
    http_end(x);
    return NULL;
}

/* Exchanges outlive the server's end, whatever they were at. */
static void closes_under_way(void **state)
{
    enum { N = 4 };
    (void)state;
    struct http_server *s = serve(&defaults);
    int fd[N], waits = dial(s), half = dial(s);
    pthread_t thread[N];
    for (int i = 0; i < N; i++) {
        fd[i] = dial(s);
        say(fd[i], "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_int_equal(pthread_create(&thread[i], NULL, write_until_gone, fetch()), 0);
    }
    say(half, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    say(waits, "POST /mail HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nA: b\r\n\r\nbody");
    struct http_exchange *x = fetch();
    char c[100];
    for (int i = 0; i < N; i++)
        assert_true(recv(fd[i], c, sizeof c, 0) > 0);
    http_close(s);
    assert_true(http_gone(x));
    size_t n;
    assert_string_equal(http_body(x, &n), "body");
    assert_string_equal(http_header(x, "a"), "b");
    http_answer(x, 200, "text/plain", "late", 4, NULL, 0);
    for (int i = 0; i < N; i++) {
        pthread_join(thread[i], NULL);
        close(fd[i]);
    }
    assert_true(closes(waits) && closes(half));
    close(waits), close(half);
    http_free(s);

    s = serve(&defaults); /* one that nobody ends */
    waits = dial(s);
    say(waits, "GET /mail HTTP/1.1\r\nHost: x\r\n\r\n");
    fetch();
    http_free(s);
    close(waits);
}

/* The server goes on whichever allocation fails: that request alone gets a 500 or no answer. */
static void memory_runs_out(void **state)
{
    (void)state;
    struct http_server *s = NULL;
    status st = ST_NOMEM;
    for (long n = 0; alloc_fail_at(n), st = http_open(&defaults, &s), alloc_failed(); n++)
        assert_int_equal(st, ST_NOMEM);
    assert_int_equal(st, ST_OK);
    for (long n = 0; alloc_fail_at(n), st = http_set_keys(s, "a\nb"), alloc_failed(); n++)
        assert_int_equal(st, ST_NOMEM);
    static const char *const requests[] = {
        "POST /echo HTTP/1.1\r\nHost: x\r\nx-api-key: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /nowhere HTTP/1.1\r\nHost: x\r\nx-api-key: b\r\nConnection: close\r\n\r\n",
    };
    static const int codes[] = {200, 401, 404};
    for (int i = 0; i < 3; i++) {
        bool failed = true;
        for (long n = 0; failed; n++) {
            struct answer a;
            alloc_fail_at(n);
            const int fd = dial(s);
            say(fd, requests[i]);
            hear_head(fd, &a);
            closes(fd);
            close(fd);
            failed = alloc_failed();
            assert_true(a.code == codes[i] || (failed && (a.code == 0 || a.code == 500)));
        }
    }
    for (long n = 0, failed = 1; failed; n++) { /* of who answers */
        const int fd = dial(s);
        say(fd, "GET /mail HTTP/1.1\r\nHost: x\r\nx-api-key: a\r\n\r\n");
        struct http_exchange *x = fetch();
        alloc_fail_at(n);
        http_begin(x, 200, "text/plain", NULL, 0);
        http_write(x, "text", 4);
        failed = alloc_failed();
        assert_true(!failed || http_gone(x));
        http_end(x);
        close(fd);
    }
    http_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bad_heads),    cmocka_unit_test(refuses_bombs),
        cmocka_unit_test(refuses_ambiguous_heads), cmocka_unit_test(answers_odd_requests),
        cmocka_unit_test(streams_in_their_order),
        cmocka_unit_test(refuses_large_bodies), cmocka_unit_test(closes_slow_requests),
        cmocka_unit_test(clients_vanish),       cmocka_unit_test(drops_slow_readers),
        cmocka_unit_test(stops_waiting_for_readers), cmocka_unit_test(limits_connections),
        cmocka_unit_test(drains),               cmocka_unit_test(closes_under_way),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
