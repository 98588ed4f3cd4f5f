#include "serve/page.h"

#include <string.h>
#include "serve/paths.h"

/* Nothing from elsewhere, no script but the page's files, in nobody's frame: what a model writes can do nothing, even
 * if it were ever taken for markup. */
static const struct http_field fields[] = {
    {"Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "no-referrer"},
    {"Cache-Control", "no-cache"},
};

const struct page_file *page_find(const char *path)
{
    for (size_t i = 0; i < page_n_files; i++)
        if (strcmp(page_files[i].path, path) == 0)
            return &page_files[i];
    return NULL;
}

void page_get(void *arg, struct http_exchange *x)
{
    const struct page_file *f = page_find(http_path(x));
    (void)arg;
    if (f)
        http_answer(x, 200, f->type, (const char *)f->bytes, f->n, fields, sizeof fields / sizeof *fields);
    else
        http_answer(x, 404, "text/plain", "no such file\n", 13, NULL, 0);
}
