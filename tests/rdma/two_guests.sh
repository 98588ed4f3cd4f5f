#!/bin/sh
# In the first of two guests that have an RDMA device rxe0 each and the wire eth0 between them.
#   two_guests.sh BUILD_FOLDER VECTORS [CASE...]
set -u
. "$(dirname "$0")/library.sh"
peer=10.88.0.2
hearth=$build/hearth
agent=$work/agent.sh # guests.sh sets $work

ranks() { # PROGRAM ARGUMENT...; one rank in each guest
    timeout 60 mpirun --allow-run-as-root -np 2 --host 10.88.0.1,10.88.0.2 --bind-to none \
        --mca plm_rsh_agent "$agent" --mca oob_tcp_if_include eth0 --mca btl_tcp_if_include eth0 "$@" \
        >/tmp/out 2>/tmp/err </dev/null
    status=$?
}

text="run -q -m $vectors/tiny-q5_1.gguf -t 1 -n 24 --temp 0 --ignore-eos -p clock"

# TRANSPORT ARGUMENT...: hearth's text over two guests, with these arguments of mpirun's before its name, is that of one
# process.
same_text() {
    transport=$1
    shift
    # shellcheck disable=SC2086 # $text is a list
    [ -s /tmp/expected ] || "$hearth" $text >/tmp/expected || fail "one process: status $?"
    # shellcheck disable=SC2086
    ranks "$@" "$hearth" $text --transport "$transport"
    [ $status -eq 0 ] || fail "status $status: $(cat /tmp/err)"
    cmp -s /tmp/expected /tmp/out || fail "another text"
}

device() {
    pingpong "$agent guest2" -n 50
}

# The transport that is MPI's, where MPI itself uses the device.
mpi_over_rdma() {
    same_text mpi --mca pml ucx --mca osc ucx --mca btl ^openib --mca opal_common_ucx_tls any \
        --mca opal_common_ucx_devices any -x UCX_TLS=rc,self -x UCX_NET_DEVICES=rxe0:1 -x UCX_IB_GID_INDEX=0
}

text_over_verbs() {
    same_text verbs --mca pml ob1 --mca btl tcp,self
}

# Links are measured over the device, and planning reads what was written.
probe() {
    ranks --mca pml ob1 --mca btl tcp,self "$hearth" probe -q -m "$vectors/tiny-q5_1.gguf" -b 8 -t 1 -o csv \
        -f /tmp/probe.json --transport verbs
    [ $status -eq 0 ] || fail "status $status: $(cat /tmp/err)"
    grep -q verbs /tmp/out || fail "no link over verbs: $(cat /tmp/out)"
    "$hearth" plan -m "$vectors/tiny-q5_1.gguf" --probe /tmp/probe.json >/tmp/planned 2>&1 ||
        fail "the plan: $(cat /tmp/planned)"
}

# The transport alone, over the wire.
conformance() {
    verbs 2 2 cases
}

# Lost packets are sent again.
loss() {
    tc qdisc add dev eth0 root netem loss 2%
    verbs 2 2 asleep 60
    tc -s qdisc show dev eth0 | grep -q "dropped [1-9]" || fail "nothing was lost: $(tc -s qdisc show dev eth0)"
    tc qdisc del dev eth0 root
}

# A rank of guest 2 that is killed is noticed, by one that writes to it and by one that does not.
killed() {
    for mode in until_failure watch; do
        start_verbs 2 2 $mode
        wait_for "$meeting.0" ready || fail "$mode: no rank 0: $(cat "$meeting.0")"
        sleep 1
        # shellcheck disable=SC2086 # it is a list
        set -- $ranks
        "$agent" guest2 pkill -9 transport_verbs
        wait "$1" || fail "$mode: rank 0 ended with $?: $(cat "$meeting.0")"
        grep -q "error: rank 1: " "$meeting.0" || fail "$mode: rank 0 said: $(cat "$meeting.0")"
    done
}

# The link goes down: both ranks notice. It comes up again when rank 0 has ended, because a virtual card whose peer
# takes nothing keeps its packets, and with them the connection of rank 1, for ever.
link_down() {
    start_verbs 2 2 until_failure
    wait_for "$meeting.0" ready || fail "no rank 0: $(cat "$meeting.0")"
    ip link set eth0 down
    tries=0
    while ! grep -q "^rank 0 of" "$meeting.0" && [ $tries -lt 300 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    ip link set eth0 up
    end_verbs
    grep -q "error: rank 1: " "$meeting.0" || fail "rank 0 said: $(cat "$meeting.0")"
    grep -q "error: rank 0: " "$meeting.1" || fail "rank 1 said: $(cat "$meeting.1")"
}

[ $# -gt 0 ] || set -- device mpi_over_rdma text_over_verbs probe conformance loss killed link_down
run_cases "$@"
