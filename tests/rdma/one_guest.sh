#!/bin/sh
# In one guest with the RDMA device rxe0, all ranks on it.
#   one_guest.sh BUILD_FOLDER VECTORS [CASE...]
set -u
. "$(dirname "$0")/library.sh"
peer=10.88.0.1

# The device works, whatever hearth does: polled, and asleep on its events.
device_polled() {
    pingpong "" -n 50
}
device_asleep() {
    pingpong "" -n 50 -e
}

[ $# -gt 0 ] || set -- device_polled device_asleep
run_cases "$@"
