/* The page for people: the files of serve/page, which are part of the program. They need no key and no model: the page
 * asks for the one, and says that the other is being loaded. */
#ifndef HEARTH_SERVE_PAGE_H
#define HEARTH_SERVE_PAGE_H

#include <stddef.h>

struct page_file {
    const char *path;           /* "/", "/page/app.js" */
    const char *type;           /* of its content */
    const unsigned char *bytes; /* [n] */
    size_t n;
};
extern const struct page_file page_files[]; /* made by cmake/page.cmake */
extern const size_t page_n_files;

/* NULL: the page has no such file. */
const struct page_file *page_find(const char *path);
#endif
