#!/bin/sh
# deploy/lab/lab.sh: the hosts reach each other over the bandwidth that was asked for and no more, hearth's text over
# them is one process's, and nothing is left however it ends. Skipped (status 77) where namespaces cannot be made, which
# HEARTH_REQUIRE_LABS=1 forbids.
#   lab_test.sh HEARTH VECTORS
set -u
here=$(cd "$(dirname "$0")" && pwd)
lab=$here/../../deploy/lab/lab.sh
hearth=$1
tiny=$2/tiny-q5_1.gguf
failures=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tmp"
export TMPDIR="$work/tmp" # of the lab: what it leaves there is noticed

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

export HEARTH_LAB_TEST=$$ # every process of a lab of this test has it in its environment

nothing_left() { # AFTER_WHAT; of the lab whose process was $job
    ip netns list | grep "hearthlab$job-" && fail "after $1 there are namespaces"
    [ -z "$(ls "$TMPDIR")" ] || fail "after $1 there are files: $(ls "$TMPDIR")"
    for process in /proc/[0-9]*; do
        [ "$process" = "/proc/$$" ] || ! grep -qsz "^HEARTH_LAB_TEST=$$\$" "$process/environ" ||
            [ "$(readlink "$process/ns/net")" = "$(readlink /proc/$$/ns/net)" ] ||
            fail "after $1 there is a process: $(tr '\0' ' ' <"$process/cmdline")"
    done
}

run() { # ARGUMENT...; leaves status, $work/out and $work/err
    sh "$lab" "$@" >"$work/out" 2>"$work/err" </dev/null &
    job=$!
    wait $job
    status=$?
}

# Both directions together: 0.5 to 1.05 times the bandwidth, whatever the machine does otherwise.
bandwidth() {
    run -n 2 -b 100mbit python3 "$here/bytes.py" 3000000
    [ $status -eq 0 ] || fail "two hosts do not exchange bytes: status $status: $(cat "$work/err")"
    awk '$2 * 8 / 100e6 > 0.5 && $2 * 8 / 100e6 < 1.05 { right++ } END { exit right != 2 }' "$work/out" ||
        fail "at 100 Mbit/s the bytes per second were: $(cat "$work/out")"
}

text() {
    set -- "$hearth" run -q -m "$tiny" -t 1 -n 64 --temp 0 --ignore-eos -p "The old clock in the hall"
    "$@" >"$work/expected" || fail "one process: status $?"
    for n in 1 2 3; do
        run -n $n -b 1gbit -- "$@"
        [ $status -eq 0 ] || fail "$n hosts: status $status: $(cat "$work/err")"
        cmp -s "$work/expected" "$work/out" || fail "$n hosts: another text"
    done
    # The inputs of 2 layers for 64 tokens at least pass the wire: ranks do not meet in shared memory.
    # shellcheck disable=SC2016 # the ranks' own shells expand it
    run -n 2 sh -c '"$@" >/dev/null && cat /sys/class/net/eth0/statistics/tx_bytes' counted "$@"
    awk '$1 > 12000 { n++ } END { exit n != 2 }' "$work/out" || fail "the wire carried (bytes): $(cat "$work/out")"
}

endings() {
    run -n 2 true
    [ $status -eq 0 ] || fail "true: status $status"
    run -n 3 sh -c 'exit 3'
    [ $status -eq 3 ] || fail "a command with status 3: status $status"
    nothing_left "a failure"
    echo "a line" | sh "$lab" cat >"$work/out" || fail "cat: status $?"
    [ "$(cat "$work/out")" = "a line" ] || fail "standard input does not reach rank 0: $(cat "$work/out")"
    for signal in TERM INT HUP; do
        # A shell's background job ignores INT, and a trap cannot change that: env can.
        : >"$work/out"
        env --default-signal=INT sh "$lab" -n 2 sh -c 'echo up; sleep 60' >"$work/out" 2>"$work/err" &
        job=$!
        tries=0
        while [ "$(grep -c up "$work/out")" -lt 2 ] && [ $tries -lt 300 ]; do
            sleep 0.1
            tries=$((tries + 1))
        done
        kill -$signal $job
        wait $job
        status=$?
        [ $status -gt 128 ] || fail "after SIG$signal: status $status"
        nothing_left "SIG$signal"
    done
}

# Two labs at once do not disturb each other.
together() {
    sh "$lab" -n 2 -b 10gbit sh -c 'sleep 1; hostname' >"$work/one" 2>&1 &
    other=$!
    run -n 3 -b 1gbit hostname
    [ "$(sort "$work/out" | tr '\n' ' ')" = "host1 host2 host3 " ] || fail "beside another lab: $(cat "$work/out")"
    wait $other || fail "the other lab: status $?"
    [ "$(sort "$work/one" | tr '\n' ' ')" = "host1 host2 " ] || fail "the other lab: $(cat "$work/one")"
    nothing_left "a lab beside another"
    job=$other
    nothing_left "the other lab"
}

refused() { # PATTERN ARGUMENT...
    pattern=$1
    shift
    run "$@"
    [ $status -eq 2 ] || fail "lab.sh $*: status $status, expected 2"
    # shellcheck disable=SC2254 # it is a pattern on purpose
    case $(cat "$work/err") in
    $pattern) ;;
    *) fail "lab.sh $*: expected '$pattern', found '$(cat "$work/err")'" ;;
    esac
}

refusals() {
    refused "lab.sh: error: *hosts is '0'*" -n 0 true
    refused "lab.sh: error: *hosts is '251'*" -n 251 true
    refused "lab.sh: error: *bandwidth is '10'*" -b 10 true
    refused "lab.sh: error: *bandwidth is '0mbit'*" -b 0mbit true
    refused "lab.sh: error: *no option '-z'*" -z
    refused "lab.sh: error: *no command*" -n 2
    run --help
    [ $status -eq 0 ] || fail "--help: status $status"
    grep -q "^Usage: " "$work/out" || fail "--help: $(cat "$work/out")"
}

refusals
run -n 1 true
if [ $status -eq 77 ]; then
    cat "$work/err"
    [ "${HEARTH_REQUIRE_LABS:-0}" = 1 ] && exit 1
    echo "skipped: no network namespaces here"
    exit 77
fi
endings
bandwidth
text
together
[ $failures -eq 0 ] && echo "passed"
exit $((failures > 0))
