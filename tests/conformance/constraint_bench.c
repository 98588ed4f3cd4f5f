/* How long one thread takes for the mask of a vocabulary: the first one of a state, and on average over a text; and
 * what schemas can do that mean no good, over texts of tokens taken at random.
 *
 * constraint_bench MODEL.gguf */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sampling/constraint.h"
#include "sampling/schema/schema.h"
#include "tests/unit/json_grammar.h"

enum { RUNS = 5 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* {"title": "...", "tags": [...]}, its string of at most 200 characters: states that never come again. */
static struct grammar bounded_grammar(void)
{
    struct grammar_maker m = {0};
    struct json_rules r;
    struct grammar g = {0};
    uint32_t ends[200];
    const uint32_t begin = grammar_jump(&m, UINT32_MAX);
    json_rules(&m, &r);
    grammar_patch(&m, begin, grammar_here(&m));
    json_text(&m, "{\"title\": \"");
    for (int i = 0; i < 200; i++) {
        ends[i] = json_perhaps(&m);
        grammar_call(&m, r.character);
    }
    for (int i = 0; i < 200; i++)
        grammar_patch(&m, ends[i], grammar_here(&m));
    json_text(&m, "\",\"tags\": ");
    grammar_call(&m, r.value);
    json_text(&m, "}");
    grammar_return(&m);
    grammar_made(&m, &g);
    return g;
}

/* A string without one letter, of which not all plain tokens are. */
static struct grammar lipogram(void)
{
    struct grammar_maker m = {0};
    struct grammar g = {0};
    json_text(&m, "\"");
    const uint32_t end = json_perhaps(&m), other = json_perhaps(&m);
    grammar_characters(&m, ' ', '!');
    grammar_jump(&m, end);
    grammar_patch(&m, other, grammar_here(&m));
    const uint32_t again = json_perhaps(&m);
    grammar_characters(&m, '#', 'd');
    grammar_jump(&m, end);
    grammar_patch(&m, again, grammar_here(&m));
    grammar_characters(&m, 'f', 0x10FFFF);
    grammar_jump(&m, end);
    grammar_patch(&m, end, grammar_here(&m));
    json_text(&m, "\"");
    grammar_return(&m);
    grammar_made(&m, &g);
    return g;
}

/* s = [s] | [s] | a string: twice as many ways to read it with each bracket. */
static struct grammar ambiguous(void)
{
    struct grammar_maker m = {0};
    struct json_rules r;
    struct grammar g = {0};
    const uint32_t begin = grammar_jump(&m, UINT32_MAX);
    json_rules(&m, &r);
    const uint32_t rule = grammar_here(&m);
    grammar_patch(&m, begin, rule);
    for (int i = 0; i < 2; i++) {
        const uint32_t other = json_perhaps(&m);
        json_text(&m, "[");
        grammar_call(&m, rule);
        json_text(&m, "]");
        grammar_return(&m);
        grammar_patch(&m, other, grammar_here(&m));
    }
    grammar_call(&m, r.string);
    grammar_return(&m);
    grammar_made(&m, &g);
    return g;
}

/* An e somewhere, and 40 letters behind it: where it may have been is a state of its own for every text. */
static struct grammar counted(void)
{
    struct grammar_maker m = {0};
    struct grammar g = {0};
    const uint32_t end = json_perhaps(&m);
    grammar_byte(&m, ' ', '~');
    grammar_jump(&m, end);
    grammar_patch(&m, end, grammar_here(&m));
    json_text(&m, "e");
    for (int i = 0; i < 40; i++)
        grammar_byte(&m, ' ', '~');
    grammar_return(&m);
    grammar_made(&m, &g);
    return g;
}

/* The text by its own tokens, a mask before each, RUNS times from the very beginning; cold: nothing is known of the
 * grammar when the last of the text's masks is made. */
static void measure(const struct tokenizer *t, struct constraint *c, const struct grammar *g, const char *name,
                    const char *text)
{
    int32_t *ids;
    size_t n, n_masks = 0;
    double first = 0, worst = 0, all = 0;
    if (tokenizer_encode(t, text, strlen(text), false, false, &ids, &n) != ST_OK)
        abort();
    for (int run = 0; run < RUNS; run++) {
        constraint_begin(c, g);
        for (size_t i = 0; i < n; i++)
            constraint_accept(c, ids[i]);
        double start = now_us();
        constraint_mask(c);
        first += now_us() - start;
        constraint_begin(c, g);
        for (size_t i = 0; i <= n; i++) {
            start = now_us();
            const uint64_t *mask = constraint_mask(c);
            const double took = now_us() - start;
            all += took;
            worst = took > worst ? took : worst;
            n_masks++;
            if (i < n && !(mask[ids[i] / 64] >> ids[i] % 64 & 1))
                printf("%s: token %zu of the text is not allowed\n", name, i);
            if (i < n)
                constraint_accept(c, ids[i]);
        }
    }
    printf("%-28s cold %7.1f us, over a text of %3zu tokens: mean %6.1f us, longest %7.1f us\n", name, first / RUNS, n,
           all / (double)n_masks, worst);
    free(ids);
}

/* --- schemas --- */

/* {"anyOf": [n schemas]}, each `one` with three letters of its own in place of every #; they may be alike. */
static json_t *any_of(int n, const char *one)
{
    json_t *all = json_array();
    char text[2000];
    for (int i = 0; i < n; i++) {
        char word[4] = {(char)('a' + i % 26), (char)('a' + i / 26 % 26), (char)('a' + i * 7 % 26), 0};
        size_t at = 0;
        for (const char *c = one; *c && at + sizeof word < sizeof text; c++) {
            memcpy(text + at, *c == '#' ? word : c, *c == '#' ? 3 : 1);
            at += *c == '#' ? 3 : 1;
        }
        text[at] = '\0';
        json_array_append_new(all, json_loads(text, 0, NULL));
    }
    return json_pack("{so}", "anyOf", all);
}

/* An object with n properties, none of which must be there. */
static json_t *many_properties(int n)
{
    json_t *all = json_object();
    for (int i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "%c%c%d", 'a' + i % 26, 'a' + i / 26 % 26, i);
        json_object_set_new(all, name, json_pack("{ss}", "type", "string"));
    }
    return json_pack("{ss so}", "type", "object", "properties", all);
}

/* Texts of tokens that the masks allow, taken at random. */
static void measure_schema(const struct token_trie *trie, struct constraint *c, json_t *schema, const char *name)
{
    enum { TEXTS = 10, TOKENS = 30 };
    const double begin = now_us();
    struct grammar g;
    uint64_t random = 1;
    double all = 0, worst = 0;
    size_t n_masks = 0, over = 0;
    if (schema_grammar(schema, &g) != ST_OK) {
        printf("%-28s is refused in %.2f ms\n", name, (now_us() - begin) * 1e-3);
        json_decref(schema);
        return;
    }
    const double made = now_us() - begin;
    for (int text = 0; text < TEXTS && now_us() - begin < 1e6; text++) {
        constraint_begin(c, &g);
        for (int i = 0; i < TOKENS && now_us() - begin < 1e6; i++) {
            const double start = now_us();
            const uint64_t *mask = constraint_mask(c);
            const double took = now_us() - start;
            const int32_t n_words = (token_trie_n_vocab(trie) + 63) / 64;
            uint32_t n = 0;
            all += took;
            worst = took > worst ? took : worst;
            over += took > 1000;
            n_masks++;
            for (int32_t w = 0; w < n_words; w++)
                n += (uint32_t)__builtin_popcountll(mask[w]);
            random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
            uint32_t which = (uint32_t)(random >> 33) % n;
            int32_t token = 0;
            while (!(mask[token / 64] >> token % 64 & 1) || which-- > 0)
                token++;
            constraint_accept(c, token);
        }
    }
    printf("%-28s %5u ops in %.2f ms, mean %7.1f us, longest %8.1f us, over 1 ms %4.1f %%\n", name, g.n_ops,
           made * 1e-3, all / (double)n_masks, worst, 100.0 * (double)over / (double)n_masks);
    free((void *)g.ops);
    json_decref(schema);
}

static void measure_schemas(const struct token_trie *trie, struct constraint *c)
{
    measure_schema(trie, c, any_of(100, "{\"pattern\": \"^[a-z ]*#[a-z ]*$\"}"), "100 words, one somewhere");
    measure_schema(trie, c, any_of(10, "{\"pattern\": \"^[a-z ]*#[a-z ]*$\"}"), "10 words, one somewhere");
    measure_schema(trie, c, any_of(100, "{\"pattern\": \"#.*[aeiou].*#\"}"), "100 words, twice");
    measure_schema(trie, c, any_of(30, "{\"pattern\": \"^.*#.{8}[0-9]\"}"), "30 words, counted");
    measure_schema(trie, c, any_of(26, "{\"pattern\": \"^.*[^aeiou].{8}.{8}[0-9]\"}"), "counted alike");
    measure_schema(trie, c, json_loads("{\"pattern\": \"^.*e.{8}.{8}.{8}.{8}.{8}.{8}[0-9]\"}", 0, NULL), "counted far");
    measure_schema(trie, c, any_of(5, "{\"pattern\": \"#\"}"), "5 words");
    measure_schema(trie, c, any_of(20, "{\"pattern\": \"#\"}"), "20 words");
    measure_schema(trie, c, any_of(20, "{\"pattern\": \"^#.*[0-9]$\"}"), "20 beginnings");
    measure_schema(trie, c, json_loads("{\"pattern\": \"[0-9]{3}-[0-9]{3}-[0-9]{4}\"}", 0, NULL), "a number somewhere");
    measure_schema(trie, c, json_loads("{\"pattern\": \"^.*e.{8}[0-9]\"}", 0, NULL), "counted");
    measure_schema(trie, c, json_loads("{\"pattern\": \"^.*e.{8}.{6}[0-9]\"}", 0, NULL), "counted to 14");
    measure_schema(trie, c, json_loads("{\"pattern\": \"^.*e.{8}.{8}.{8}[0-9]\"}", 0, NULL), "counted to 24");
    measure_schema(trie, c, any_of(20, "{\"properties\": {\"name\": {\"pattern\": \"^#[a-z]*$\"}},"
                                        "\"required\": [\"name\"]}"), "20 objects of one name");
    measure_schema(trie, c, any_of(50, "{\"properties\": {\"kind\": {\"const\": \"#\"}, \"value\": {}},"
                                        "\"required\": [\"kind\", \"value\"]}"), "50 kinds of objects");
    measure_schema(trie, c, any_of(200, "{\"type\": \"object\", \"properties\": {\"name\": {\"pattern\": \"#\"}},"
                                        "\"required\": [\"name\"]}"), "200 objects of one name");
    measure_schema(trie, c, many_properties(500), "500 properties");
    measure_schema(trie, c, json_loads("{\"$defs\": {\"s\": {\"anyOf\": [{\"type\": \"array\", \"items\": {\"$ref\": "
                                       "\"#/$defs/s\"}}, {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/s\"}},"
                                       "{\"pattern\": \"a.*b\"}]}}, \"$ref\": \"#/$defs/s\"}", 0, NULL),
                   "arrays, in two ways");
    measure_schema(trie, c, json_loads("{\"type\": \"array\", \"items\": {}, \"minItems\": 900, \"maxItems\": 1000}",
                                       0, NULL), "1000 of anything");
    measure_schema(trie, c, json_loads("{\"type\": \"string\", \"minLength\": 900, \"maxLength\": 1000}", 0, NULL),
                   "1000 characters");
    measure_schema(trie, c, json_loads("{\"format\": \"uri\"}", 0, NULL), "an address");
}

int main(int argc, char **argv)
{
    struct gguf *file;
    struct tokenizer *t;
    struct token_trie *trie;
    struct arena a;
    if (argc != 2 || gguf_open(argv[1], &file) != ST_OK || tokenizer_create(file, &t) != ST_OK)
        return 2;
    double start = now_us();
    if (token_trie_create(t, &trie) != ST_OK)
        return 1;
    printf("%d tokens, their trie in %.0f ms\n", token_trie_n_vocab(trie), (now_us() - start) * 1e-3);
    arena_dry(&a);
    constraint_lay(trie, GRAMMAR_OPS, &a);
    if (arena_map(&a, a.used) != ST_OK)
        return 1;
    struct constraint *c = constraint_lay(trie, GRAMMAR_OPS, &a);
    printf("a constraint: %.2f MB\n", (double)a.used * 1e-6);
    const struct grammar json = json_grammar(), bounded = bounded_grammar(), letters = lipogram(),
                         twice = ambiguous(), places = counted();
    measure(t, c, &json, "any JSON: beginning", "");
    measure(t, c, &json, "any JSON: in a string", "\"The quick brown fox jumps over the lazy dog, and then it");
    measure(t, c, &json, "any JSON: in an object",
            "{\"name\": \"Ada\",\"born\": 1815,\"wrote\": [\"Notes\", {\"on\": null}],");
    measure(t, c, &json, "any JSON: in a number", "[12, 3.25, 4");
    measure(t, c, &bounded, "bounded: in the string", "{\"title\": \"The quick brown fox jumps over the lazy");
    measure(t, c, &bounded, "bounded: behind it", "{\"title\": \"The quick brown fox\",\"tags\": [\"fox\"");
    free((void *)json.ops);
    measure(t, c, &letters, "all letters but one", "\"A void of solid words");
    measure(t, c, &twice, "hostile: ambiguous", "[[[[[[[[[[[[[[[[[[[[\"The quick");
    measure(t, c, &places, "hostile: counted", "There are seven bees here, we see them");
    measure_schemas(trie, c);
    free((void *)twice.ops);
    free((void *)places.ops);
    free((void *)bounded.ops);
    free((void *)letters.ops);
    arena_unmap(&a);
    token_trie_free(trie);
    tokenizer_free(t);
    gguf_close(file);
    return 0;
}
