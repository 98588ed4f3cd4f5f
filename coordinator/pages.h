/* KV memory as the coordinator knows it: pages of PAGE_POSITIONS positions each, by number, the same numbers on all
 * ranks. A page belongs to the sequences that have it in their tables, as often as it was taken and shared; when the
 * last of them drops it, it is free. Nobody is told of that: the next who takes the number writes over it, in a later
 * step, and every rank runs the steps of a layer in order. One thread. */
#ifndef HEARTH_COORDINATOR_PAGES_H
#define HEARTH_COORDINATOR_PAGES_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"

enum { PAGE_POSITIONS = 64 };

static const uint32_t PAGE_NONE = UINT32_MAX;

/* Pages that hold n positions. */
static inline uint32_t pages_of(uint32_t n) { return n / PAGE_POSITIONS + (n % PAGE_POSITIONS != 0); }

struct pages;

/* n pages, 0 .. n - 1, all free. ST_NOMEM (logged). */
status pages_create(uint32_t n, struct pages **out);
void pages_free(struct pages *p); /* NULL is fine */

/* A free page becomes the caller's. False: there is none, which is for the caller to make good; *page is as it was. */
bool pages_take(struct pages *p, uint32_t *page);
/* A page that is taken gets one owner more. */
void pages_share(struct pages *p, uint32_t page);
/* One owner less; without owners it is free. */
void pages_drop(struct pages *p, uint32_t page);

/* Owners; 0: free. */
uint32_t pages_owners(const struct pages *p, uint32_t page);
uint32_t pages_count(const struct pages *p);
uint32_t pages_n_free(const struct pages *p);

#endif
