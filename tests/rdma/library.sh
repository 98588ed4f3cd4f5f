# shellcheck shell=sh
# shellcheck disable=SC2034 # what is set here is used there
# What one_guest.sh and two_guests.sh share. A case is a function that says what is wrong by fail().
build=$1 vectors=$2
shift 2
failures=0

fail() {
    echo "FAILED: $case: $*"
    failures=$((failures + 1))
}

# CASE...: each, with the seconds that it took; those named on the command line if there are any
run_cases() {
    for case in "$@"; do
        begin=$(cut -d . -f 1 /proc/uptime)
        before=$failures
        $case
        result=ok
        [ $failures -eq $before ] || result=FAILED
        echo "$case: $result, $(($(cut -d . -f 1 /proc/uptime) - begin)) s"
    done
    exit $((failures > 0))
}

# FILE PATTERN; within 20 s.
wait_for() {
    tries=0
    until grep -q "$2" "$1" 2>/dev/null; do
        [ $tries -lt 200 ] || return 1
        tries=$((tries + 1))
        sleep 0.1
    done
}

# WHERE ARGUMENT...: libibverbs' own ping-pong between this guest and one that `where` starts a program on ("" for
# here).
pingpong() {
    where=$1
    shift
    # shellcheck disable=SC2086 # $where is a command and its argument, or nothing
    $where timeout 60 ibv_rc_pingpong -d rxe0 -g 1 "$@" >/tmp/server 2>&1 &
    server=$!
    tries=0
    # The server may not listen yet.
    while timeout 60 ibv_rc_pingpong -d rxe0 -g 1 "$@" "$peer" >/tmp/client 2>&1; status=$?; [ $status -eq 1 ] &&
        grep -q "connect to" /tmp/client && [ $tries -lt 50 ]; do
        tries=$((tries + 1))
        sleep 0.2
    done
    [ $status -eq 0 ] || fail "the client ended with $status: $(cat /tmp/client)"
    wait $server || fail "the server ended with $?: $(cat /tmp/server)"
}

# GUESTS RANKS MODE...: starts ranks of the verbs transport, by turns in this guest and the other; leaves the process
# ids in $ranks and what rank r printed in $meeting.r.
meetings=0
start_verbs() {
    guests=$1 n=$2
    shift 2
    meetings=$((meetings + 1))
    meeting=$work/verbs.$meetings ranks=
    mkdir "$meeting"
    for r in $(seq 0 $((n - 1))); do
        where=
        [ "$guests" -eq 1 ] || [ $((r % 2)) -eq 0 ] || where="$work/agent.sh guest2"
        $where timeout -s KILL 100 "$build/transport_verbs" "$meeting" "$r" "$n" "$@" >"$meeting.$r" 2>&1 &
        ranks="$ranks $!"
    done
}

# Every rank must have ended well: it says itself what that is.
end_verbs() {
    r=0
    for rank in $ranks; do
        wait "$rank" || fail "rank $r ended with $? (137: it hangs): $(cat "$meeting.$r")"
        r=$((r + 1))
    done
}

# Peers whose processor stands still for half a second count as gone, and an emulated one does where this machine is
# busy otherwise: who fails for that alone is asked again, twice at most.
verbs() {
    for last in no no yes; do
        start_verbs "$@"
        well=yes
        for rank in $ranks; do
            wait "$rank" || well=no
        done
        [ $well = no ] || return 0
        if [ $last = yes ] || ! grep -q "error: rank .* not answer" "$meeting".*; then
            fail "$(cat "$meeting".*)"
            return 0
        fi
        echo "($case: $(grep -h "error: rank" "$meeting".* | head -n 1); once more)"
    done
}
