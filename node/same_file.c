#include "node/same_file.h"

#include <inttypes.h>

#include "base/log.h"
#include "wire/wire.h"

static status check_chunk(const struct same_file *f, int rank, struct wire_chunk theirs)
{
    uint64_t begin, end;
    if (chunks_hash(f->chunks, f->pool, theirs.chunk) == theirs.hash)
        return ST_OK;
    const char *path = chunks_place(f->chunks, theirs.chunk, &begin, &end);
    log_error("%s: rank %d's copy differs from rank 0's between bytes %" PRIu64 " and %" PRIu64 ": one of them is "
              "damaged, copy the file again (--no-verify starts without looking)", path, rank, begin, end);
    return ST_MISMATCH;
}

status same_file_check(const struct same_file *f, int rank, const uint8_t *message, size_t n, uint32_t *next)
{
    struct wire_chunk theirs[WIRE_CHUNKS_MOST];
    uint32_t n_theirs = 0;
    if (!f->chunks)
        return ST_OK;
    log_sender(rank);
    status st = wire_chunks_decode(message, n, chunks_count(f->chunks), theirs, &n_theirs);
    if (st == ST_OK && theirs[0].chunk < *next) {
        log_error("CHUNKS message: chunk %" PRIu32 ", expected %" PRIu32 " or more", theirs[0].chunk, *next);
        st = ST_FORMAT;
    }
    log_sender(-1);
    for (uint32_t i = 0; st == ST_OK && i < n_theirs; i++) {
        st = check_chunk(f, rank, theirs[i]);
        if (f->progress)
            f->progress(f->progress_arg, "comparing", (i + 1) * CHUNK_BYTES, n_theirs * CHUNK_BYTES);
    }
    if (st == ST_OK)
        *next = theirs[n_theirs - 1].chunk + 1;
    return st;
}
