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

# The transport over it.
conformance_2() {
    verbs 1 2 cases
}
conformance_3() {
    verbs 1 3 cases
}
polled() {
    verbs 1 2 polled 100
}
asleep() {
    verbs 1 2 asleep 100
}

# A write with a wrong key ends both sides: one is refused, the other finds its connection broken.
wrong_key() {
    verbs 1 2 wrong_key 20
    grep -q "error: rank 0: it refuses what is written to it" "$meeting.1" || fail "rank 1 said: $(cat "$meeting.1")"
    grep -q "error: rank 1: " "$meeting.0" || fail "rank 0 said: $(cat "$meeting.0")"
}

# Too little memory may be locked: that is said in one line.
memory_limit() {
    limited="setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock sh -c"
    $limited "ulimit -l 64 && exec $build/transport_verbs $work 0 1 cases" >/tmp/limited 2>&1 &&
        fail "it ran with 64 KiB of locked memory"
    grep -q "error: .*cannot lock memory.*ulimit -l" /tmp/limited || fail "it said: $(cat /tmp/limited)"
    [ "$(grep -c error: /tmp/limited)" -eq 1 ] || fail "more than one error: $(cat /tmp/limited)"
}

# A rank that is killed is noticed, by one that writes to it and by one that does not.
killed() {
    for mode in until_failure watch; do
        start_verbs 1 2 $mode
        wait_for "$meeting.1" ready || fail "$mode: no rank 1: $(cat "$meeting.1")"
        pid=$(pgrep -f "transport_verbs $meeting 1 2" | tail -n 1)
        kill -9 "$pid"
        # shellcheck disable=SC2086 # it is a list
        set -- $ranks
        wait "$1" || fail "$mode: rank 0 ended with $?: $(cat "$meeting.0")"
        grep -q "error: rank 1: it does not answer" "$meeting.0" || fail "$mode: rank 0 said: $(cat "$meeting.0")"
    done
}

[ $# -gt 0 ] || set -- device_polled device_asleep conformance_2 conformance_3 polled asleep wrong_key memory_limit \
    killed
run_cases "$@"
