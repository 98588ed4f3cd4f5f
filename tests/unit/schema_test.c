/* JSON schemas as grammars: what each keyword allows and what it does not, what is refused and how that is said, and
 * memory that runs out. Whether all texts are valid is asked elsewhere, of another reader of schemas
 * (tests/schema/schema_test.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "base/log.h"
#include "sampling/schema/schema.h"
#include "tests/schema/walk.h"
#include "tests/unit/alloc_fail.h"

static json_t *read_json(const char *text)
{
    json_error_t e;
    json_t *j = json_loads(text, JSON_DECODE_ANY, &e);
    if (!j)
        fail_msg("%s in %s", e.text, text);
    return j;
}

static struct grammar make(const char *schema)
{
    struct grammar g = {0};
    struct log_catcher quiet;
    json_t *j = read_json(schema);
    log_catch(&quiet);
    const status st = schema_grammar(j, &g);
    log_catch(NULL);
    json_decref(j);
    if (st != ST_OK)
        fail_msg("%s: %s", schema, quiet.first_error);
    assert_int_equal(grammar_check(&g), ST_OK);
    return g;
}

/* Texts end with NULL. */
static void check(const char *schema, bool allowed, const char *const *texts)
{
    const struct grammar g = make(schema);
    for (; *texts; texts++)
        if (walk_accepts(&g, *texts, strlen(*texts)) != allowed)
            fail_msg("%s %s %s", schema, allowed ? "does not allow" : "allows", *texts);
    free((void *)g.ops);
}

#define ALLOWS(schema, ...) check(schema, true, (const char *const[]){__VA_ARGS__, NULL})
#define FORBIDS(schema, ...) check(schema, false, (const char *const[]){__VA_ARGS__, NULL})

/* The line holds `says`. */
static void check_refused(const char *schema, status expected, const char *says)
{
    struct grammar g = {0};
    struct log_catcher quiet;
    json_t *j = read_json(schema);
    log_catch(&quiet);
    const status st = schema_grammar(j, &g);
    log_catch(NULL);
    json_decref(j);
    if (st != expected || !strstr(quiet.first_error, says) || g.ops)
        fail_msg("%.200s: %s, %s", schema, status_name(st), quiet.first_error);
}

#define REFUSES(schema, says) check_refused(schema, ST_USAGE, says)

/* --- what JSON is --- */

static void test_anything(void **state)
{
    (void)state;
    ALLOWS("{}", "1", "-0.5e+10", "\"a\"", "true", "false", "null", "[]", "{}", "[1,2, 3]", "{\"a\":1, \"b\": [null]}",
           "\"\\u00e9\\uD83D\\uDE00\\n\\/\"", "\"\xc3\xa9\xf0\x9f\x98\x80\"", "[[[[]]],{\"\":{}}]", "\"\x7f\"");
    FORBIDS("{}", "", "01", "+1", ".5", "1.", "1e", "\"", "\"\n\"", "\"\\x\"", "\"\\ud800\"", "\"\\udc00\"",
            "\"\\u0000\"",
            "\"\\ud83d\\u0041\"", "\"\xc3\"", "\"\xed\xa0\x80\"", "\"\xff\"", "[1,]", "{\"a\"}", "{\"a\":1,}", "tr"
        "u", "nul",
            " 1", "1 ", "[1 ,2]", "{\"a\":  1}", "[ ]", "\xff<|end|>", "1e999");
    ALLOWS("true", "1", "{}");
    ALLOWS("{\"title\":\"t\",\"description\":\"d\",\"default\":1,\"examples\":[],\"$comment\":\"\",\"x-mine\":1}", "1",
           "{}");
}

static void test_any_object(void **state)
{
    struct grammar g;
    (void)state;
    assert_int_equal(schema_grammar(NULL, &g), ST_OK);
    assert_true(walk_accepts(&g, "{\"a\":[1]}", 9));
    assert_false(walk_accepts(&g, "[1]", 3));
    free((void *)g.ops);
}

/* Rules may stand behind others in one grammar. */
static void test_rules(void **state)
{
    struct grammar_maker m = {0};
    struct grammar g;
    uint32_t a, b;
    json_t *integer = read_json("{\"type\":\"integer\"}");
    (void)state;
    const uint32_t first = grammar_call(&m, UINT32_MAX), second = grammar_call(&m, UINT32_MAX);
    grammar_return(&m);
    assert_int_equal(schema_rule(integer, &m, &a), ST_OK);
    assert_int_equal(schema_any_object(&m, &b), ST_OK);
    grammar_patch(&m, first, a);
    grammar_patch(&m, second, b);
    assert_int_equal(grammar_made(&m, &g), ST_OK);
    assert_true(walk_accepts(&g, "12{}", 4));
    assert_false(walk_accepts(&g, "12", 2));
    free((void *)g.ops);
    json_decref(integer);
}

/* --- keywords --- */

static void test_types(void **state)
{
    (void)state;
    ALLOWS("{\"type\":\"null\"}", "null");
    ALLOWS("{\"type\":\"boolean\"}", "true", "false");
    ALLOWS("{\"type\":\"integer\"}", "0", "-7", "123456789012345678");
    FORBIDS("{\"type\":\"integer\"}", "1.0", "1e2", "-0", "00", "\"1\"", "1234567890123456789", "-");
    ALLOWS("{\"type\":\"number\"}", "0", "-0.0", "1.5", "3E-7");
    ALLOWS("{\"type\":[\"string\",\"null\"]}", "\"\"", "null");
    FORBIDS("{\"type\":[\"string\",\"null\"]}", "1", "[]");
    FORBIDS("{\"type\":\"object\"}", "[]", "1");
    ALLOWS("{\"type\":[\"integer\",\"number\"]}", "1", "1.5");
    ALLOWS("{\"type\":\"number\",\"multipleOf\":1}", "10");
    FORBIDS("{\"type\":\"number\",\"multipleOf\":1}", "1.5");
    REFUSES("{\"type\":\"text\"}", "#: type must be");
    REFUSES("{\"type\":[]}", "#: no JSON is valid");
    REFUSES("false", "no JSON is valid");
    REFUSES("[]", "an object or a boolean");
}

static void test_enum(void **state)
{
    (void)state;
    const char *all = "{\"enum\":[\"a\",\"ab\",\"b\\\"\\\\\\n\",1,-2.5,0.1,null,true,[1,{\"x\":[]}],\"\"]}";
    ALLOWS(all, "\"a\"", "\"ab\"", "\"b\\\"\\\\\\n\"", "1", "-2.5", "0.1", "null", "true", "[1,{\"x\":[]}]",
           "[1, {\"x\": []}]", "\"\"");
    FORBIDS(all, "\"abc\"", "2", "false", "[1]", "\"b\"", "0.10", "\"\\u0061\"");
    ALLOWS("{\"const\":{\"a\":\"\\u00e9\"}}", "{\"a\":\"\xc3\xa9\"}");
    ALLOWS("{\"type\":\"string\",\"enum\":[\"a\",1]}", "\"a\"");
    FORBIDS("{\"type\":\"string\",\"enum\":[\"a\",1]}", "1");
    ALLOWS("{\"const\":2,\"enum\":[1,2,3]}", "2");
    FORBIDS("{\"const\":2,\"enum\":[1,2,3]}", "1", "3");
    ALLOWS("{\"const\":\"\\u001f\"}", "\"\\u001f\"");
    ALLOWS("{\"enum\":[\"a\"],\"minimum\":5}", "\"a\"");
    REFUSES("{\"enum\":[\"a\"],\"minLength\":5}", "minLength beside enum");
    REFUSES("{\"enum\":[]}", "no JSON is valid");
    REFUSES("{\"const\":2,\"enum\":[1]}", "no JSON is valid");
    REFUSES("{\"enum\":1}", "enum must be an array");
}

static void test_objects(void **state)
{
    (void)state;
    const char *abc = "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2},\"c\":{\"const\":"
        "3}},"
                      "\"required\":[\"b\"],\"additionalProperties\":false}";
    ALLOWS(abc, "{\"b\":2}", "{\"a\":1,\"b\":2}", "{\"b\":2,\"c\":3}", "{\"a\":1, \"b\": 2,\"c\":3}");
    FORBIDS(abc, "{}", "{\"a\":1}", "{\"b\":2,\"a\":1}", "{,\"b\":2}", "{\"b\":2,}", "{\"b\":2,\"d\":4}",
            "{\"b\":2,\"b\":2}",
            "{\"a\":1\"b\":2}", "{\"a\":1,,\"b\":2}");
    const char *none = "{\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2}}}";
    ALLOWS(none, "{}", "{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"b\":2}");
    FORBIDS(none, "{\"x\":1}", "{,}", "{\"a\":1,}", "1");
    ALLOWS("{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}", "{}",
           "{\"a\":1,\"b\":2, \"\\n\":3}");
    FORBIDS("{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}", "{\"a\":\"\"}");
    ALLOWS("{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}", "{}");
    FORBIDS("{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}", "{\"a\":1}");
    ALLOWS("{\"required\":[\"z\"]}", "{\"z\":[1]}");
    FORBIDS("{\"required\":[\"z\"]}", "{}", "{\"y\":1}");
    ALLOWS("{\"properties\":{\"a\\\"\\u00e9\\\\\":true},\"required\":[\"a\\\"\\u00e9\\\\\"]}",
           "{\"a\\\"\xc3\xa9\\\\\":1}");
    ALLOWS("{\"properties\":{\"a\":false,\"b\":true}}", "{\"b\":1}", "{}");
    FORBIDS("{\"properties\":{\"a\":false,\"b\":true}}", "{\"a\":1}");
    REFUSES("{\"properties\":{\"a\":false},\"required\":[\"a\"]}", "no JSON is valid");
    REFUSES("{\"additionalProperties\":false,\"required\":[\"a\"]}", "no JSON is valid");
    REFUSES("{\"properties\":{\"a\":{\"properties\":{\"b\\n\":1}}}}", "#/properties/a: properties must be");
    REFUSES("{\"required\":\"a\"}", "required must be a list of names");
}

static void test_other_names(void **state)
{
    (void)state;
    const char *some = "{\"properties\":{\"name\":{\"const\":0},\"nam\":{\"const\":0},\"\\u00e9t\":{\"const\":0},\"\\"
        "u00e9u\":"
                       "{\"const\":0},\"q\\\"r\":{\"const\":0}},\"additionalProperties\":{\"const\":1}}";
    ALLOWS(some, "{\"name\":0}", "{\"names\":1}", "{\"na\":1}", "{\"\":1}", "{\"x\":1,\"y\":1}",
           "{\"nam\":0,\"namf\":1}",
           "{\"\xc3\xa9\":1}", "{\"\xc3\xa9v\":1}", "{\"\xc3\xa8t\":1}", "{\"\xf0\x9f\x98\x80\":1}", "{\"q\":1}", ""
        "{\"qr\":1}", "{\"Name\":1}",
           "{\"name\":0,\"namea\":1}");
    FORBIDS(some, "{\"name\":1}", "{\"nam\":1}", "{\"\xc3\xa9t\":1}", "{\"q\\\"r\":1}", "{\"n\\u0061me\":1}",
            "{\"x\":0}",
            "{\"x\":1,\"name\":0}", "{\"\xc3\":1}", "{\"x\":1,}");
    ALLOWS("{\"properties\":{\"\":{\"const\":0}},\"additionalProperties\":{\"const\":1}}", "{\"\":0}", "{\"a\":1}");
    FORBIDS("{\"properties\":{\"\":{\"const\":0}},\"additionalProperties\":{\"const\":1}}", "{\"\":1}");
    ALLOWS("{\"required\":[\"a\"],\"additionalProperties\":{\"const\":1}}", "{\"a\":1,\"b\":1}");
    FORBIDS("{\"required\":[\"a\"],\"additionalProperties\":{\"const\":1}}", "{\"b\":1}", "{\"a\":2}");
}

static void test_property_counts(void **state)
{
    (void)state;
    const char *one = "{\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":1}},\"minProperties\":1}";
    ALLOWS(one, "{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":1}");
    FORBIDS(one, "{}");
    ALLOWS("{\"type\":\"object\",\"minProperties\":1}", "{\"x\":1}", "{\"x\":1,\"y\":2}");
    FORBIDS("{\"type\":\"object\",\"minProperties\":1}", "{}");
    ALLOWS("{\"properties\":{\"a\":true},\"maxProperties\":1}", "{}", "{\"a\":1}");
    REFUSES("{\"properties\":{\"a\":true,\"b\":true},\"maxProperties\":1}", "maxProperties");
    REFUSES("{\"type\":\"object\",\"minProperties\":2}", "minProperties");
}

static void test_arrays(void **state)
{
    (void)state;
    ALLOWS("{\"items\":{\"type\":\"null\"}}", "[]", "[null]", "[null,null, null]");
    FORBIDS("{\"items\":{\"type\":\"null\"}}", "[1]", "[,null]", "[null,]", "null");
    ALLOWS("{\"type\":\"array\",\"items\":false}", "[]");
    FORBIDS("{\"type\":\"array\",\"items\":false}", "[1]");
    ALLOWS("{\"items\":{\"const\":1},\"minItems\":1}", "[1]", "[1,1]");
    FORBIDS("{\"items\":{\"const\":1},\"minItems\":1}", "[]");
    ALLOWS("{\"items\":{\"const\":1},\"minItems\":2,\"maxItems\":3}", "[1,1]", "[1,1,1]");
    FORBIDS("{\"items\":{\"const\":1},\"minItems\":2,\"maxItems\":3}", "[]", "[1]", "[1,1,1,1]");
    ALLOWS("{\"items\":{\"const\":1},\"maxItems\":2}", "[]", "[1]", "[1,1]");
    ALLOWS("{\"type\":\"array\",\"maxItems\":0}", "[]");
    FORBIDS("{\"type\":\"array\",\"maxItems\":0}", "[1]");
    const char *pair = "{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":{\"const\":3}}";
    ALLOWS(pair, "[]", "[1]", "[1,2]", "[1,2,3]", "[1,2,3,3]");
    FORBIDS(pair, "[2]", "[1,3]", "[1,2,2]");
    ALLOWS("{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"minItems\":2}", "[1,2]");
    FORBIDS("{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"minItems\":2}", "[1]", "[1,2,3]");
    ALLOWS("{\"prefixItems\":[{\"const\":1}],\"minItems\":3,\"maxItems\":4}", "[1,2,3]", "[1,{},[],0]");
    ALLOWS("{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"maxItems\":1}", "[]", "[1]");
    FORBIDS("{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"maxItems\":1}", "[1,2]");
    REFUSES("{\"items\":[{}]}", "items must be a schema");
    REFUSES("{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", "no JSON is valid");
    REFUSES("{\"minItems\":-1}", "minItems must be a count");
}

/* Large counts are made of powers: every number within is allowed, and none beyond. */
static void check_counts(const char *format, uint64_t least, uint64_t most, const char *open, const char *one,
                         char close)
{
    char schema[128], text[20000];
    snprintf(schema, sizeof schema, format, (unsigned long long)least, (unsigned long long)most);
    const struct grammar g = make(schema);
    size_t size = strlen(strcpy(text, open));
    for (uint64_t n = 0; n < most + 40; n++) {
        text[size] = close;
        if ((n < 300 || n % 61 == 0 || n + 3 > most) && walk_accepts(&g, text, size + 1) != (n >= least && n <= most))
            fail_msg("%s: %llu", schema, (unsigned long long)n);
        size += strlen(strcpy(text + size, n == 0 && one[0] == ',' ? one + 1 : one));
    }
    free((void *)g.ops);
}

static void test_large_counts(void **state)
{
    static const uint64_t all[][2] = {{0, 65}, {0, 100}, {3, 130}, {70, 70}, {70, 71}, {65, 200}, {0, 128}, {0, 127},
                                      {0, 256},
                                      {0, 255}, {17, 303}, {300, 1000}, {0, 4097}};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const uint64_t least = all[i][0], most = all[i][1];
        check_counts("{\"items\":{\"const\":1},\"minItems\":%llu,\"maxItems\":%llu}", least, most, "[", ",1", ']');
        check_counts("{\"minLength\":%llu,\"maxLength\":%llu}", least, most, "\"", "\xc3\xa9", '"');
    }
    ALLOWS("{\"type\":\"array\",\"maxItems\":1e9}", "[]", "[1,2]");
    ALLOWS("{\"type\":\"string\",\"maxLength\":99999999999999999}", "\"\"", "\"a\"");
    check_refused("{\"type\":\"array\",\"minItems\":1e9}", ST_FULL, "minItems is more than");
    check_refused("{\"type\":\"string\",\"minLength\":1e300}", ST_FULL, "minLength is more than");
}

static void test_strings(void **state)
{
    (void)state;
    ALLOWS("{\"minLength\":2,\"maxLength\":3}", "\"ab\"", "\"abc\"", "\"\\n\xc3\xa9\"", "\"\\ud83d\\ude00b\"",
           "\"\xf0\x9f\x98\x80xx\"");
    FORBIDS("{\"minLength\":2,\"maxLength\":3}", "\"a\"", "\"abcd\"", "\"\\n\"", "\"\xf0\x9f\x98\x80\"");
    ALLOWS("{\"type\":\"string\",\"minLength\":1}", "\"a\"", "\"aaaaaaaaa\"");
    FORBIDS("{\"type\":\"string\",\"minLength\":1}", "\"\"");
    ALLOWS("{\"type\":\"string\",\"format\":\"unknown\"}", "\"x\"");
}

static void test_formats(void **state)
{
    (void)state;
    ALLOWS("{\"format\":\"date\"}", "\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\"", "\"2023-04-30\"");
    FORBIDS("{\"format\":\"date\"}", "\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"",
            "\"2023-00-01\"",
            "\"2023-1-1\"", "2023");
    ALLOWS("{\"format\":\"time\"}", "\"23:59:59Z\"", "\"00:00:00.123+02:00\"");
    FORBIDS("{\"format\":\"time\"}", "\"24:00:00Z\"", "\"10:00Z\"", "\"10:00:00\"");
    ALLOWS("{\"format\":\"date-time\"}", "\"2024-02-29T12:30:00Z\"");
    ALLOWS("{\"format\":\"email\"}", "\"a.b+c@example.org\"");
    FORBIDS("{\"format\":\"email\"}", "\"a\"", "\"a@b\"", "\"a@-b.org\"", "\".a@b.org\"");
    ALLOWS("{\"format\":\"uuid\"}", "\"123e4567-e89b-12d3-a456-426614174000\"");
    FORBIDS("{\"format\":\"uuid\"}", "\"123e4567e89b12d3a456426614174000\"");
    ALLOWS("{\"format\":\"ipv4\"}", "\"127.0.0.1\"", "\"255.249.199.99\"");
    FORBIDS("{\"format\":\"ipv4\"}", "\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\"");
    ALLOWS("{\"format\":\"ipv6\"}", "\"2001:db8:0:0:0:0:0:1\"");
    ALLOWS("{\"format\":\"hostname\"}", "\"a-b.example.org\"", "\"x\"");
    FORBIDS("{\"format\":\"hostname\"}", "\"-a\"", "\"a-.b\"", "\"a..b\"", "\"\"");
    ALLOWS("{\"format\":\"uri\"}", "\"https://example.org:8080/a/b%20c?x=1&y=2#top\"", "\"ftp://x\"");
    FORBIDS("{\"format\":\"uri\"}", "\"example.org\"", "\"http://\"", "\"http://a b\"", "\"http://a/%2\"");
    ALLOWS("{\"format\":\"uri\",\"minLength\":1,\"maxLength\":2083}", "\"https://example.org/a\"");
    ALLOWS("{\"format\":\"duration\"}", "\"P1Y2M3DT4H5M6S\"", "\"PT5M\"", "\"P2W\"", "\"P3D\"", "\"P1Y\"");
    FORBIDS("{\"format\":\"duration\"}", "\"P\"", "\"PT\"", "\"P1H\"", "\"P1DT\"", "\"1D\"");
    REFUSES("{\"format\":\"date\",\"pattern\":\"^2\"}", "pattern beside format");
    REFUSES("{\"format\":\"email\",\"maxLength\":10}", "minLength or maxLength");
}

static void test_patterns(void **state)
{
    (void)state;
    ALLOWS("{\"pattern\":\"^[a-c]+$\"}", "\"a\"", "\"abcabc\"");
    FORBIDS("{\"pattern\":\"^[a-c]+$\"}", "\"\"", "\"d\"", "\"ad\"", "\"a\\n\"");
    ALLOWS("{\"pattern\":\"b\"}", "\"b\"", "\"abc\"", "\"\\u00e9b\\n\"");
    FORBIDS("{\"pattern\":\"b\"}", "\"\"", "\"ac\"");
    ALLOWS("{\"pattern\":\"^a|b$\"}", "\"ax\"", "\"xb\"");
    FORBIDS("{\"pattern\":\"^a|b$\"}", "\"xa\"", "\"bx\"");
    ALLOWS("{\"pattern\":\"^(?:a|bc)?d{2,3}(?<n>e)*f{2}g{1,}$\"}", "\"ddffg\"", "\"bcdddeeffggg\"", "\"addffg\"");
    FORBIDS("{\"pattern\":\"^(?:a|bc)?d{2,3}(?<n>e)*f{2}g{1,}$\"}", "\"dffg\"", "\"ddddffg\"", "\"ddfg\"", "\"ddff\"",
            "\"abcddffg\"");
    ALLOWS("{\"pattern\":\"^\\\\d\\\\w\\\\s\\\\D\\\\W\\\\S$\"}", "\"1_ a-b\"", "\"1a\\nx\\\"\xc3\xa9\"",
           "\"0Z\\tb b\"");
    FORBIDS("{\"pattern\":\"^\\\\d\\\\w\\\\s\\\\D\\\\W\\\\S$\"}", "\"a_ a-b\"", "\"1- a-b\"", "\"1__a-b\"",
            "\"1_ 1-b\"", "\"1_ aab\"",
            "\"1_ a- \"");
    ALLOWS("{\"pattern\":\"^[^a-z\\\\d\\\\]]$\"}", "\"A\"", "\"\\\"\"", "\"\xf0\x9f\x98\x80\"", "\"\\\\\"", "\"\\n\"");
    FORBIDS("{\"pattern\":\"^[^a-z\\\\d\\\\]]$\"}", "\"a\"", "\"5\"", "\"]\"", "\"\"", "\"\\\"");
    ALLOWS("{\"pattern\":\"^.\\\\.\\\\u0041\\\\x42[-a][\\\\b]?$\"}", "\"x.AB-\"", "\"\xe2\x82\xac.ABa\\b\"");
    FORBIDS("{\"pattern\":\"^.\\\\.\\\\u0041\\\\x42[-a][\\\\b]?$\"}", "\"\\n.AB-\"", "\"xxAB-\"");
    ALLOWS("{\"pattern\":\"^\\\\ud83d\\\\ude00[\\u00e9-\\u00eb]$\"}", "\"\xf0\x9f\x98\x80\xc3\xaa\"");
    ALLOWS("{\"pattern\":\"^a{70,90}$\",\"maxLength\":71}", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
           "aaaaaaaaaaaaaaaa\"");
    ALLOWS("{\"pattern\":\"\"}", "\"\"", "\"a\"");
    ALLOWS("{\"pattern\":\"^x{,2}{$\"}", "\"x{,2}{\"");
    ALLOWS("{\"pattern\":\"^a+?b*?$\"}", "\"aab\"");
}

static void test_pattern_lengths(void **state)
{
    (void)state;
    const char *name = "{\"pattern\":\"^[A-Z][a-z_]*$\",\"minLength\":2,\"maxLength\":4}";
    ALLOWS(name, "\"Ab\"", "\"Abcd\"");
    FORBIDS(name, "\"A\"", "\"Abcde\"", "\"ab\"");
    ALLOWS("{\"pattern\":\"^(ab|c)$\",\"maxLength\":2}", "\"ab\"", "\"c\"");
    ALLOWS("{\"pattern\":\"a\",\"minLength\":1}", "\"a\"");
    ALLOWS("{\"pattern\":\"^a$|^bcd+$\",\"maxLength\":3}", "\"a\"", "\"bcd\"");
    FORBIDS("{\"pattern\":\"^a$|^bcd+$\",\"maxLength\":3}", "\"bcdd\"");
    FORBIDS("{\"pattern\":\"^a$|^bcd+$\",\"maxLength\":2}", "\"bcd\"", "\"bc\"");
    REFUSES("{\"pattern\":\"^(ab|c)+$\",\"maxLength\":5}", "minLength or maxLength beside it");
    REFUSES("{\"pattern\":\"a\",\"maxLength\":5}", "minLength or maxLength beside it");
    REFUSES("{\"pattern\":\"^abc$\",\"maxLength\":2}", "minLength or maxLength beside it");
    REFUSES("{\"pattern\":\"^a{3}b*$\",\"maxLength\":2}", "no JSON is valid");
}

static void test_refused_patterns(void **state)
{
    static const char *const all[][2] = {
        {"(?=a)", "looks around"}, {"(?!a)", "looks around"}, {"(?<=a)b", "looks around"}, {"(?<!a)b", "looks around"},
        {"(?i)a", "options"}, {"(a)\\\\1", "a reference to a group"}, {"\\\\bword", "an escape that is not"},
        {"\\\\p{L}", "an escape that is not"}, {"(a", "no )"}, {"a)", "a ) too many"}, {"[a", "no ]"}, {"*a",
                                                                                                        "nothing to r"
        "epeat"},
        {"a**", "nothing to repeat"}, {"[z-a]", "a range that ends"}, {"a{3,2}", "a count"}, {"a{99999999}",
                                                                                              "too large a count"},
        {"(a*)*", "any number of what may be empty"}, {"(^a)", "at its ends only"}, {"a$b", "at its ends only"},
        {"\\\\", "a backslash"}, {"\\\\ud800", "half a character"}, {"\\\\x4", "hexadecimal"}, {"(?<a", "no )"}};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char schema[128];
        snprintf(schema, sizeof schema, "{\"properties\":{\"p\":{\"pattern\":\"%s\"}}}", all[i][0]);
        check_refused(schema, ST_USAGE, all[i][1]);
        check_refused(schema, ST_USAGE, "#/properties/p: pattern");
    }
}

/* Counts must begin where the text says it. */
static void test_counts_that_slide(void **state)
{
    static const char *const refused[] = {"[aeiou ].{900}$", "^.*[aeiou].{30}$", "^[a-z ]{0,500}[aeiou ][a-z ]{500}$",
                                          "a{20}", "^(a*b)*[ab]{12}$", "^(.*x.{9})$"};
    static const char *const fine[] = {"^[^@]+@[a-z]{2,63}$", "^.{1,500}$", "^[A-Z]{2}[0-9]{10,20}$",
                                       "^(https?://)?[a-z]{1,40}$",
                                       "^([0-9]+-)?[a-z]{20}$", "[0-9]{8}", "^([a-z]+ ){20}$"};
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char schema[128];
        snprintf(schema, sizeof schema, "{\"pattern\":\"%s\"}", refused[i]);
        REFUSES(schema, "a count of more than 8");
    }
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        char schema[128];
        struct grammar g;
        snprintf(schema, sizeof schema, "{\"pattern\":\"%s\"}", fine[i]);
        json_t *j = read_json(schema);
        assert_int_equal(schema_grammar(j, &g), ST_OK);
        json_decref(j);
        free((void *)g.ops);
    }
}

/* Every integer between, and none beyond. */
static void check_integers(const char *schema, long least, long most)
{
    const struct grammar g = make(schema);
    char text[32];
    for (long n = -1300; n <= 1300; n++) {
        snprintf(text, sizeof text, "%ld", n);
        if (walk_accepts(&g, text, strlen(text)) != (n >= least && n <= most))
            fail_msg("%s: %ld", schema, n);
    }
    free((void *)g.ops);
}

static void test_integers(void **state)
{
    (void)state;
    check_integers("{\"type\":\"integer\",\"minimum\":0,\"maximum\":0}", 0, 0);
    check_integers("{\"type\":\"integer\",\"minimum\":1}", 1, 99999);
    check_integers("{\"type\":\"integer\",\"exclusiveMinimum\":-1,\"maximum\":100}", 0, 100);
    check_integers("{\"type\":\"integer\",\"minimum\":-1234,\"maximum\":987}", -1234, 987);
    check_integers("{\"type\":\"integer\",\"minimum\":17,\"exclusiveMaximum\":1234}", 17, 1233);
    check_integers("{\"type\":\"integer\",\"minimum\":-20,\"maximum\":-3}", -20, -3);
    check_integers("{\"type\":\"integer\",\"exclusiveMaximum\":0}", -99999, -1);
    check_integers("{\"type\":\"integer\",\"minimum\":-0.5,\"maximum\":10.5}", 0, 10);
    check_integers("{\"type\":\"integer\",\"exclusiveMinimum\":9.5,\"exclusiveMaximum\":100.0}", 10, 99);
    check_integers("{\"type\":\"integer\",\"minimum\":5,\"exclusiveMinimum\":10}", 11, 99999);
    check_integers("{\"type\":\"integer\",\"minimum\":101,\"maximum\":199}", 101, 199);
    check_integers("{\"type\":\"integer\",\"minimum\":-1e300,\"maximum\":1e300}", -99999, 99999);
    ALLOWS("{\"type\":\"integer\",\"minimum\":1}", "123456789012345678");
    FORBIDS("{\"type\":\"integer\",\"minimum\":0}", "-0", "00", "01", "1.0", "1234567890123456789");
    REFUSES("{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", "no JSON is valid");
    REFUSES("{\"type\":\"integer\",\"minimum\":1e300}", "no JSON is valid");
    REFUSES("{\"type\":\"integer\",\"minimum\":\"1\"}", "minimum must be a number");
    REFUSES("{\"type\":\"integer\",\"exclusiveMinimum\":true}", "exclusiveMinimum must be a number");
    REFUSES("{\"type\":\"integer\",\"multipleOf\":5}", "multipleOf is not supported but for 1");
}

/* All of three digits behind the point, with fewer written where they are zeros, and with more zeros. */
static void check_numbers(const char *schema, double least, bool open_least, double most, bool open_most)
{
    const struct grammar g = make(schema);
    char text[32];
    for (int n = -12500; n <= 12500; n += n % 1000 > 20 && n % 1000 < 480 ? 7 : 1) {
        const double value = n / 1000.0;
        const bool within = (open_least ? value > least : value >= least) && (open_most ? value < most : value <= most);
        snprintf(text, sizeof text, "%.3f", value);
        for (size_t size = strlen(text); n != 0; size -= text[size - 2] == '.' ? 2 : 1) {
            if (walk_accepts(&g, text, size) != within)
                fail_msg("%s: %.*s", schema, (int)size, text);
            if (text[size - 1] != '0' || !memchr(text, '.', size))
                break;
        }
    }
    free((void *)g.ops);
}

static void test_numbers(void **state)
{
    (void)state;
    check_numbers("{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", 0, false, 1, false);
    check_numbers("{\"type\":\"number\",\"exclusiveMinimum\":0}", 0, true, 1e9, false);
    check_numbers("{\"type\":\"number\",\"exclusiveMinimum\":-1.5,\"exclusiveMaximum\":1.25}", -1.5, true, 1.25, true);
    check_numbers("{\"type\":\"number\",\"minimum\":0.125,\"maximum\":0.5}", 0.125, false, 0.5, false);
    check_numbers("{\"type\":\"number\",\"minimum\":2.05,\"exclusiveMaximum\":2.07}", 2.05, false, 2.07, true);
    check_numbers("{\"type\":\"number\",\"maximum\":-3}", -1e9, false, -3, false);
    check_numbers("{\"type\":\"number\",\"exclusiveMaximum\":11}", -1e9, false, 11, true);
    check_numbers("{\"type\":\"number\",\"minimum\":-10.01,\"maximum\":-9.99}", -10.01, false, -9.99, false);
    check_numbers("{\"minimum\":9,\"maximum\":11}", 9, false, 11, false);
    ALLOWS("{\"type\":\"number\",\"minimum\":0,\"maximum\":0}", "0", "0.0");
    FORBIDS("{\"type\":\"number\",\"minimum\":0}", "-1", "1e2", "00.5", "1.", "1.1234567890123456");
    FORBIDS("{\"type\":\"number\",\"exclusiveMinimum\":0}", "0", "0.0", "0.00000");
    FORBIDS("{\"type\":\"number\",\"exclusiveMaximum\":5}", "4.9999999999999999999");
    REFUSES("{\"type\":\"number\",\"minimum\":2,\"maximum\":1.5}", "no JSON is valid");
    REFUSES("{\"type\":\"number\",\"exclusiveMinimum\":1,\"maximum\":1}", "no JSON is valid");
    REFUSES("{\"type\":\"number\",\"minimum\":0.1234567890123456}", "digits is not supported");
    REFUSES("{\"type\":\"number\",\"minimum\":1e20}", "no JSON is valid");
    ALLOWS("{\"type\":\"number\",\"maximum\":1e20}", "5");
}

static void test_any_of(void **state)
{
    (void)state;
    ALLOWS("{\"anyOf\":[{\"type\":\"null\"},{\"const\":1}]}", "null", "1");
    FORBIDS("{\"anyOf\":[{\"type\":\"null\"},{\"const\":1}]}", "2", "{}");
    const char *beside = "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2}},"
                         "\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}";
    ALLOWS(beside, "{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"b\":2}");
    FORBIDS(beside, "{}");
    const char *two = "{\"allOf\":[{\"anyOf\":[{\"const\":1},{\"const\":2}]},{\"anyOf\":[{\"const\":2},{\"const\":3}]"
        "}]}";
    ALLOWS(two, "2");
    FORBIDS(two, "1", "3");
    REFUSES("{\"anyOf\":[]}", "anyOf must be a list of schemas");
    REFUSES("{\"anyOf\":[{},{\"items\":{\"uniqueItems\":true}}]}", "#/anyOf/1/items: uniqueItems is not supported");
}

static void test_one_of(void **state)
{
    (void)state;
    ALLOWS("{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"integer\"},{\"enum\":[null,true]}]}", "\"\"", "1", "true");
    const char *kinds = "{\"oneOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"}],\"$defs\":{"
                        "\"a\":{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"a\"},\"x\":{\"const\":1}}"
        ",\"required\":[\"x\"]},"
                        "\"b\":{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"b\"},\"x\":{\"const\":1}}"
        ",\"required\":[\"kind\"]}}}";
    ALLOWS(kinds, "{\"kind\":\"a\",\"x\":1}", "{\"kind\":\"b\"}", "{\"kind\":\"b\",\"x\":1}");
    FORBIDS(kinds, "{\"x\":1}", "{\"kind\":\"c\"}", "{\"kind\":\"a\"}");
    const char *either = "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"a\":true},\"required\":[\"a\"],\"additio"
        "nalProperties\":false},"
                         "{\"type\":\"object\",\"properties\":{\"b\":true},\"additionalProperties\":false}]}";
    ALLOWS(either, "{\"a\":1}", "{\"b\":1}", "{}");
    REFUSES("{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}",
            "oneOf is not supported where two may hold, as 0 and 1");
    REFUSES("{\"oneOf\":[{\"type\":\"string\"},{\"properties\":{}}]}", "oneOf is not supported where");
    REFUSES("{\"oneOf\":[{\"type\":\"array\"},{\"type\":\"array\"}]}", "oneOf is not supported where");
}

static void test_all_of(void **state)
{
    (void)state;
    const char *both = "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"minimum\":3}},\"required\":[\"a\"]},"
                       "{\"properties\":{\"a\":{\"type\":\"integer\",\"maximum\":4},\"b\":{\"const\":0}},\"required\""
        ":[\"b\"]}]}";
    ALLOWS(both, "{\"a\":3,\"b\":0}", "{\"a\":4,\"b\":0}");
    FORBIDS(both, "{\"a\":2,\"b\":0}", "{\"a\":5,\"b\":0}", "{\"a\":3}", "{\"a\":3.5,\"b\":0}");
    const char *closed = "{\"allOf\":[{\"properties\":{\"a\":true},\"additionalProperties\":false},"
                         "{\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2}}}]}";
    ALLOWS(closed, "{}", "{\"a\":1}");
    FORBIDS(closed, "{\"b\":2}", "{\"a\":2}");
    ALLOWS("{\"allOf\":[{\"type\":[\"integer\",\"string\"]},{\"type\":[\"number\",\"null\"]}]}", "1");
    FORBIDS("{\"allOf\":[{\"type\":[\"integer\",\"string\"]},{\"type\":[\"number\",\"null\"]}]}", "1.5", "null",
            "\"\"");
    ALLOWS("{\"allOf\":[{\"minItems\":1,\"prefixItems\":[{\"minimum\":1}]},{\"maxItems\":2,\"items\":{\"type\":\"inte"
           "ger\"}}]}", "[1]", "[1,0]");
    FORBIDS("{\"allOf\":[{\"minItems\":1,\"prefixItems\":[{\"minimum\":1}]},{\"maxItems\":2,\"items\":{\"type\":\"int"
            "eger\"}}]}", "[]",
            "[0]", "[1,1,1]");
    ALLOWS("{\"allOf\":[{\"minLength\":1},{\"minLength\":3},{\"maxLength\":4}]}", "\"abc\"");
    FORBIDS("{\"allOf\":[{\"minLength\":1},{\"minLength\":3},{\"maxLength\":4}]}", "\"ab\"", "\"abcde\"");
    ALLOWS("{\"$ref\":\"#/$defs/n\",\"maximum\":5,\"$defs\":{\"n\":{\"type\":\"integer\",\"minimum\":5}}}", "5");
    REFUSES("{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}", "two of pattern at once");
    REFUSES("{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "no JSON is valid");
    REFUSES("{\"allOf\":[{\"$ref\":\"#/x\"}]}", "#/allOf/0: $ref #/x is no schema");
}

static void test_references(void **state)
{
    (void)state;
    const char *list = "{\"$ref\":\"#/$defs/list\",\"$defs\":{\"list\":{\"type\":\"object\",\"properties\":{\"v\":{\""
        "type\":\"integer\"},"
                       "\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/list\"},{\"type\":\"null\"}]}},\"required\":[\"v\""
        ",\"next\"]}}}";
    ALLOWS(list, "{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}");
    FORBIDS(list, "null", "{\"v\":1,\"next\":{}}");
    ALLOWS("{\"items\":{\"$ref\":\"#\"}}", "[]", "[[],[[]]]");
    FORBIDS("{\"items\":{\"$ref\":\"#\"}}", "[1]");
    ALLOWS("{\"$ref\":\"#/definitions/a~1b%20~0c\",\"definitions\":{\"a/b ~c\":{\"const\":1}}}", "1");
    ALLOWS("{\"properties\":{\"a\":{\"$ref\":\"#/$defs/l/prefixItems/1\"}},\"$defs\":{\"l\":{\"prefixItems\":[true,"
           "{\"const\":7}]}}}", "{\"a\":7}");
    /* The one that could hold itself without end is left out. */
    ALLOWS("{\"anyOf\":[{\"const\":1},{\"$ref\":\"#/$defs/e\"}],\"$defs\":{\"e\":{\"properties\":{\"e\":{\"$ref\":\"#"
           "/$defs/e\"}},"
           "\"required\":[\"e\"]}}}", "1");
    REFUSES("{\"$ref\":\"#\"}", "no JSON is valid");
    REFUSES("{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "#: refers to itself");
    REFUSES("{\"properties\":{\"a\":{\"$ref\":\"#/$defs/a\"}},\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#/$defs/b\"},{"
            "}]},"
            "\"b\":{\"anyOf\":[{\"$ref\":\"#/$defs/a\"},{}]}}}", "#/$defs/a: refers to itself");
    REFUSES("{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", "no JSON is valid");
    check_refused("{\"allOf\":[{\"$ref\":\"#\"}]}", ST_FULL, "refers to itself");
    check_refused("{\"anyOf\":[{\"$ref\":\"#\",\"minimum\":1},{\"type\":\"null\"}]}", ST_FULL, "refers to itself");
    REFUSES("{\"$ref\":\"other.json\"}", "$ref other.json is no schema within this one");
    REFUSES("{\"$ref\":\"#/$defs/none\"}", "is no schema");
    REFUSES("{\"$ref\":\"#/$defs/x/\",\"$defs\":{\"x\":{}}}", "is no schema");
}

static void test_refused_keywords(void **state)
{
    static const char *const all[] = {
        "\"not\":{}", "\"if\":{},\"then\":{\"const\":1}", "\"patternProperties\":{\"a\":{}}", "\"propertyNames\":{\"p"
        "attern\":\"a\"}",
        "\"dependentRequired\":{\"a\":[\"b\"]}", "\"dependentSchemas\":{\"a\":{\"const\":1}}", "\"dependencies\":{\""
        "a\":[]}",
        "\"contains\":{}", "\"uniqueItems\":true", "\"unevaluatedProperties\":false", "\"unevaluatedItems\":false",
        "\"$dynamicRef\":\"#\"", "\"$recursiveRef\":\"#\"", "\"$id\":\"x\""};
    char schema[160];
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        snprintf(schema, sizeof schema, "{\"properties\":{\"a\\n\":{%s}}}", all[i]);
        check_refused(schema, ST_USAGE, "#/properties/a?: ");
        check_refused(schema, ST_USAGE, "is not supported");
    }
    ALLOWS("{\"const\":1,\"uniqueItems\":false,\"patternProperties\":{},\"propertyNames\":true,\"unevaluatedPropertie"
           "s\":true,"
           "\"if\":{},\"minContains\":3,\"$id\":\"x\",\"$schema\":\"y\",\"$defs\":{\"z\":{\"not\":{}}},\"not\":false"
        "}", "1");
}

/* --- hostile schemas: a line and an end, soon --- */

/* out = head n times, middle, tail n times; malloc'ed. */
static char *nested(const char *head, const char *middle, const char *tail, int n)
{
    char *out = malloc((strlen(head) + strlen(tail)) * (size_t)n + strlen(middle) + 1), *at = out;
    for (int i = 0; i < n; i++)
        at = stpcpy(at, head);
    at = stpcpy(at, middle);
    for (int i = 0; i < n; i++)
        at = stpcpy(at, tail);
    return out;
}

static void check_hostile(char *schema, const char *says)
{
    check_refused(schema, ST_FULL, says);
    free(schema);
}

static void test_hostile(void **state)
{
    (void)state;
    check_hostile(nested("{\"items\":", "{}", "}", 900), "schemas within each other");
    check_hostile(nested("{\"allOf\":[{\"items\":", "{}", "}]}", 300), "schemas within each other");
    check_hostile(nested("{\"anyOf\":[{},", "{}", "]}", 300), "schemas within each other");
    check_hostile(nested("{\"enum\":[1,", "1", "]}", 300), "schemas within each other");
    char *pairs = nested("{\"anyOf\":[{\"minimum\":1},{\"maximum\":2}]},", "{\"type\":\"integer\"}", "", 40);
    check_hostile(nested("{\"allOf\":[", pairs, "]}", 1), "the schema is too large");
    free(pairs);
    /* Each merge would go a level deeper, or copy all that came before. */
    char *deep = nested("{\"items\":{\"a\":1}},", "{}", "", 150000), *wide = nested("true,", "true", "", 20000);
    char *merges = nested("{},", "{}", "", 20000), *copied = malloc(strlen(wide) + strlen(merges) + 64);
    sprintf(copied, "{\"allOf\":[{\"prefixItems\":[%s]},%s]}", wide, merges);
    check_hostile(nested("{\"allOf\":[", deep, "]}", 1), "the schema is too large");
    check_hostile(copied, "the schema is too large");
    free(deep);
    free(wide);
    free(merges);
    char *values = nested("", "{\"enum\":[0", "", 1), *more = malloc(1 << 20), *at = stpcpy(more, values);
    free(values);
    for (int i = 1; i < 60000; i++)
        at += sprintf(at, ",\"%x\"", i * 2654435761u);
    strcpy(at, "]}");
    check_hostile(more, "more than 16384 ops");
    check_hostile(nested("", "{\"pattern\":\"^((((a{1000}b){1000}c){1000}d){1000}e){1000}$\",\"minLength\":1}", "", 1),
                  "pattern: its shortest");
    check_refused("{\"pattern\":\"^(((((((((((((((((((((((((((((((((((((((((((((((((((((a))))))))))))))))))))))))))))"
                  ")))))))))))))))))))))))))$\"}",
                  ST_USAGE, "too many groups");
    /* A chain of references is no depth. */
    char *chain = malloc(1 << 16), *end = stpcpy(chain, "{\"$ref\":\"#/$defs/r0\",\"$defs\":{");
    for (int i = 0; i < 500; i++)
        end += sprintf(end, "\"r%d\":{\"items\":{\"$ref\":\"#/$defs/r%d\"}},", i, i + 1);
    strcpy(end, "\"r500\":{}}}");
    ALLOWS(chain, "[[[]]]");
    free(chain);
}

/* `head`, n times `one` with a number of three digits in place of %d, and commas between them, `end`. malloc'ed. */
static char *many(const char *head, const char *one, int n, const char *end)
{
    char *text = malloc(strlen(head) + (size_t)n * (strlen(one) + 8) + strlen(end) + 1), *at = stpcpy(text, head);
    assert_non_null(text);
    for (int i = 0; i < n; i++) {
        const char *number = strstr(one, "%d");
        at += sprintf(at, "%s%.*s%03d%s", i ? "," : "", (int)(number - one), one, i, number + 2);
    }
    strcpy(at, end);
    return text;
}

/* What can be read in many ways at once, which are other ones with each letter; and what looks like it. */
static void test_many_ways(void **state)
{
    (void)state;
    check_hostile(many("{\"anyOf\":[", "{\"pattern\":\"^[0-9 ]*%d[0-9 ]*$\"}", 100, "]}"), "too many ways at once");
    check_hostile(many("{\"anyOf\":[", "{\"properties\":{\"a\":{\"pattern\":\"%d\"}}}", 100, "]}"),
                  "too many ways at once");
    /* Behind a word that is written by chance once in 3^10 times. */
    check_hostile(many("{\"anyOf\":[{\"pattern\":\"^[a-z0-9 ]*$\"},",
                       "{\"pattern\":\"^zq7zq7zq7z[0-9 ]*%d[0-9 ]*$\"}", 100, "]}"), "too many ways at once");
    check_refused("{\"pattern\":\"^.*e.{8}.{8}.{8}[0-9]\"}", ST_FULL, "too many ways at once");
    char *const fine[] = {
        many("{\"anyOf\":[", "{\"pattern\":\"^[0-9 ]*%d[0-9 ]*$\"}", 10, "]}"),
        many("{\"anyOf\":[", "{\"properties\":{\"kind\":{\"const\":\"%d\"},\"a\":{}},\"required\":[\"kind\"]}", 100,
             "]}"),
        many("{\"properties\":{", "\"%d\":{\"type\":\"string\"}", 500, "}}"),
        many("{\"enum\":[", "\"%d\"", 900, "]}"),
    };
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        const struct grammar g = make(fine[i]);
        free((void *)g.ops);
        free(fine[i]);
    }
}

static void test_memory(void **state)
{
    const char *schema =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#/$defs/a\",\"minLength\":1},\"b\":{\"$ref\":\"#/$def"
        "s/b\"},"
        "\"c\":{\"enum\":[\"x\",1.5,[2]]},\"d\":{\"type\":\"string\",\"pattern\":\"^[^a-z]{2,}(b|c)$\"}},\"required\""
        ":[\"a\"],"
        "\"additionalProperties\":{\"oneOf\":[{\"type\":\"null\"},{\"type\":\"number\",\"minimum\":0}]},"
        "\"$defs\":{\"a\":{\"type\":\"string\"},\"b\":{\"items\":{\"$ref\":\"#/$defs/b\"},\"maxItems\":100}}}";
    json_t *j = read_json(schema);
    struct grammar g = {0};
    status st;
    int failed = 0;
    (void)state;
    for (long n = 0; alloc_fail_at(n), st = schema_grammar(j, &g), alloc_failed(); n++, failed++) {
        assert_int_equal(st, ST_NOMEM);
        assert_null(g.ops);
    }
    assert_int_equal(st, ST_OK);
    assert_true(failed > 10);
    free((void *)g.ops);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_anything), cmocka_unit_test(test_any_object), cmocka_unit_test(test_rules),
        cmocka_unit_test(test_types), cmocka_unit_test(test_enum), cmocka_unit_test(test_objects),
        cmocka_unit_test(test_other_names), cmocka_unit_test(test_property_counts), cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_large_counts), cmocka_unit_test(test_strings), cmocka_unit_test(test_formats),
        cmocka_unit_test(test_patterns), cmocka_unit_test(test_pattern_lengths),
        cmocka_unit_test(test_refused_patterns),
        cmocka_unit_test(test_integers), cmocka_unit_test(test_numbers), cmocka_unit_test(test_any_of),
        cmocka_unit_test(test_one_of), cmocka_unit_test(test_all_of), cmocka_unit_test(test_references),
        cmocka_unit_test(test_counts_that_slide), cmocka_unit_test(test_refused_keywords),
        cmocka_unit_test(test_hostile), cmocka_unit_test(test_many_ways), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
