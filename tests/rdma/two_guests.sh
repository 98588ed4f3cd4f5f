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

# ARGUMENT...: hearth's text over two guests, with these arguments of mpirun's before its name, is that of one process.
same_text() {
    # shellcheck disable=SC2086 # $text is a list
    [ -s /tmp/expected ] || "$hearth" $text >/tmp/expected || fail "one process: status $?"
    # shellcheck disable=SC2086
    ranks "$@" "$hearth" $text
    [ $status -eq 0 ] || fail "status $status: $(cat /tmp/err)"
    cmp -s /tmp/expected /tmp/out || fail "another text"
}

device() {
    pingpong "$agent guest2" -n 50
}

mpi_over_tcp() {
    same_text --mca pml ob1 --mca btl tcp,self
}

# The transport that is MPI's, where MPI itself uses the device.
mpi_over_rdma() {
    same_text --mca pml ucx --mca osc ucx --mca btl ^openib --mca opal_common_ucx_tls any \
        --mca opal_common_ucx_devices any -x UCX_TLS=rc,self -x UCX_NET_DEVICES=rxe0:1 -x UCX_IB_GID_INDEX=0
}

[ $# -gt 0 ] || set -- device mpi_over_tcp mpi_over_rdma
run_cases "$@"
