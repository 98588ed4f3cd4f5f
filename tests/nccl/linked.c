/* transport/nccl*.c against the real NCCL and CUDA runtime: their headers' prototypes are those of the table, the
 * libraries have every function, and opening them says that there is no GPU, or connects to it where there is one. */
#include <stdio.h>

#include "base/log.h"
#include "transport/nccl.h"
#include "transport/nccl_library.h"

#define FUNCTION(name) .name = name,

int main(void)
{
    const struct nccl_library linked = {CUDA_CALLS(FUNCTION) NCCL_CALLS(FUNCTION)};
    const struct transport_config config = {0};
    const struct nccl_options options = {.kinds = 1, .peers = 1};
    struct log_catcher catcher = {0};
    struct transport *control, *t;
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess || !linked.ncclSend || transport_inproc_open(&config, 1, &control))
        return 1;
    log_catch(&catcher);
    status st = transport_nccl_open(&config, &options, control, &t);
    log_catch(NULL);
    if (st == ST_OK) {
        st = transport_connect(t);
        transport_close(t);
        printf("NCCL %d on a GPU: %s\n", version, status_name(st));
        return st != ST_OK;
    }
    transport_close(control);
    printf("NCCL %d: %s\n", version, catcher.first_error);
    return st != ST_UNSUPPORTED;
}
