#include <string.h>

#include "sampling/schema/making.h"

/* Formats, as patterns. They are narrower than their standards where those have more than anybody writes. */
#define YEAR "[12][0-9]{3}"
#define LEAP_YEAR "([12][0-9](0[48]|[2468][048]|[13579][26])|(1[26]|2[048])00)"
#define DATE                                                                                        \
    "(" YEAR "-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"         \
    "|02-(0[1-9]|1[0-9]|2[0-8]))|" LEAP_YEAR "-02-29)"
#define HOUR_MINUTE "([01][0-9]|2[0-3]):[0-5][0-9]"
#define TIME HOUR_MINUTE ":[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]" HOUR_MINUTE ")"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,38}[A-Za-z0-9])?"
#define HOST LABEL "(\\." LABEL "){0,3}"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define PATH_CHARACTER "([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
#define DAYS "[0-9]{1,9}D"
#define SECONDS "[0-9]{1,9}S"
#define MINUTES "[0-9]{1,9}M(" SECONDS ")?"
#define CLOCK "T([0-9]{1,9}H(" MINUTES ")?|" MINUTES "|" SECONDS ")"
#define MONTHS "[0-9]{1,9}M(" DAYS ")?"

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"duration", "^P([0-9]{1,9}W|([0-9]{1,9}Y(" MONTHS ")?|" MONTHS "|" DAYS ")(" CLOCK ")?|" CLOCK ")$"},
    {"email", "^[A-Za-z0-9_%+-]{1,40}(\\.[A-Za-z0-9_%+-]{1,20}){0,2}@(" LABEL "\\.){1,3}[A-Za-z]{2,12}$"},
    {"hostname", "^" HOST "$"},
    {"ipv4", "^" OCTET "(\\." OCTET "){3}$"},
    {"ipv6", "^([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}$"},
    {"uri", "^[a-z][a-z0-9+.-]{0,9}://" HOST "(:[1-9][0-9]{0,4})?(/" PATH_CHARACTER "{0,100}){0,4}"
            "(\\?(" PATH_CHARACTER "|[/?]){0,100})?(#(" PATH_CHARACTER "|[/?]){0,40})?$"},
    {"uuid", "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };
_Static_assert(PART_FORMAT + N_FORMATS == PARTS, "a part for each format");

static int find_format(const json_t *name)
{
    for (int i = 0; i < N_FORMATS; i++)
        if (name && strcmp(json_string_value(name), formats[i].name) == 0)
            return i;
    return -1;
}

/* A rule of its own where nothing else is said. */
static status make_format(struct making *k, int format, const struct where *at)
{
    uint32_t *part = &k->parts[PART_FORMAT + format];
    status st = ST_OK;
    if (*part == NOWHERE) {
        const struct aside a = aside_begin(k->m);
        st = make_pattern(k, formats[format].pattern, true, 0, ANY_COUNT, at);
        *part = aside_end(k->m, &a);
    }
    grammar_call(k->m, *part);
    return st;
}

static void make_counted(struct making *k, uint64_t least, uint64_t most)
{
    const uint32_t character = json_part(k, PART_CHARACTER);
    grammar_byte(k->m, '"', '"');
    repeat(k->m, character, least, most, &k->characters);
    grammar_byte(k->m, '"', '"');
}

status make_string(struct making *k, const json_t *flat, const struct where *at)
{
    const uint64_t least = count_of(flat, "minLength", 0), at_most = count_of(flat, "maxLength", ANY_COUNT);
    const uint64_t most = at_most > MOST_COUNT ? ANY_COUNT : at_most;
    const char *pattern = json_string_value(json_object_get(flat, "pattern"));
    const int format = find_format(json_object_get(flat, "format"));
    if (least > MOST_COUNT)
        return schema_refuse(at, ST_FULL, "minLength is more than %d", MOST_COUNT);
    if (pattern && format >= 0)
        return schema_refuse(at, ST_USAGE, "pattern beside format is not supported");
    if (least > most)
        dead_end(k->m);
    else if (pattern)
        return make_pattern(k, pattern, false, least, most, at);
    else if (format >= 0)
        return least == 0 && most == ANY_COUNT ? make_format(k, format, at)
                                               : make_pattern(k, formats[format].pattern, true, least, most, at);
    else if (least == 0 && most == ANY_COUNT)
        call_part(k, PART_STRING);
    else
        make_counted(k, least, most);
    return ST_OK;
}
