/* HTTP under TLS, with openssl for a client and for a certificate; skipped where it is not there. */
#include "tests/unit/http_client.h"

static char folder[] = "/tmp/hearth_tls_XXXXXX", cert[64], key[64];

static int make_certificate(void **state)
{
    char command[512];
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(cert, sizeof cert, "%s/cert.pem", folder);
    snprintf(key, sizeof key, "%s/key.pem", folder);
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
             "-keyout %s -out %s 2>/dev/null", key, cert);
    if (system(command) != 0)
        *cert = '\0';
    return 0;
}

static int drop_certificate(void **state)
{
    (void)state;
    unlink(cert);
    unlink(key);
    return rmdir(folder);
}

static struct http_server *serve_tls(uint32_t idle_s)
{
    struct http_options o = defaults;
    if (!*cert) {
        print_message("SKIP: there is no openssl\n");
        skip();
    }
    o.tls_cert = cert;
    o.tls_key = key;
    o.idle_s = idle_s;
    return serve(&o);
}

static FILE *ask_tls(const struct http_server *s, const char *path)
{
    char command[512];
    snprintf(command, sizeof command, "printf 'GET %s HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | "
             "openssl s_client -quiet -verify_return_error -CAfile %s -connect 127.0.0.1:%u 2>/dev/null", path, cert,
             http_port(s));
    FILE *f = popen(command, "r");
    assert_non_null(f);
    return f;
}

/* Reads until the text came. */
static void hear_text(FILE *f, const char *text)
{
    char all[4096] = "";
    for (size_t n = 0; !strstr(all, text); all[++n] = '\0') {
        const int c = getc(f);
        assert_true(c != EOF && n + 2 < sizeof all);
        all[n] = (char)c;
    }
}

static void answers_under_tls(void **state)
{
    (void)state;
    struct http_server *s = serve_tls(30);
    FILE *f = ask_tls(s, "/open");
    hear_text(f, "HTTP/1.1 200 OK\r\n");
    hear_text(f, "GET /open: ");
    pclose(f);
    f = ask_tls(s, "/mail");
    struct http_exchange *x = fetch();
    http_begin(x, 200, "text/plain", NULL, 0);
    for (int i = 0; i < 20; i++) {
        char piece[32];
        snprintf(piece, sizeof piece, "piece %d.", i);
        http_write(x, piece, strlen(piece));
        hear_text(f, piece);
    }
    assert_false(http_gone(x));
    http_end(x);
    pclose(f);
    http_free(s);
}

/* No TLS, or its beginning alone, and what leaves meanwhile. */
static void survives_what_is_no_tls(void **state)
{
    (void)state;
    struct http_server *s = serve_tls(1);
    const int plain = dial(s), idle = dial(s), slow = dial(s);
    say(plain, "GET /open HTTP/1.1\r\nHost: x\r\n\r\n");
    say(slow, "\x16\x03\x01\x02");
    assert_true(closes(plain) && closes(idle) && closes(slow));
    close(plain), close(idle), close(slow);
    FILE *f = ask_tls(s, "/open");
    hear_text(f, "GET /open: ");
    pclose(f);
    http_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_under_tls), cmocka_unit_test(survives_what_is_no_tls),
    };
    return cmocka_run_group_tests(tests, make_certificate, drop_certificate);
}
