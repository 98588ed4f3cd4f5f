#!/bin/sh
# An exchange over verbs asks the system for nothing: ten times as many exchanges make as many system calls. The test's
# own sched_yield between polls and the futex of the simulated card's lock are left out. Skipped (status 77) where
# processes cannot be traced.
#   verbs_quiet.sh VERBS_TEST
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

strace -o /dev/null true 2>/dev/null || {
    echo "SKIP: no strace here, or it may not trace"
    exit 77
}

calls() { # EXCHANGES; prints how many system calls they took
    strace -f -c -U calls,name -o "$work/$1" "$verbs_test" "$1" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
    awk '$1 ~ /^[0-9]+$/ && $2 !~ /^(total|sched_yield|futex|restart_syscall)$/ { n += $1 } END { print n }' "$work/$1"
}

verbs_test=$1
few=$(calls 500) && many=$(calls 5000) || exit 1
echo "system calls: $few of 500 exchanges, $many of 5000"
[ "$few" -gt 0 ] && [ $((many - few)) -le 50 ] && exit 0 # a thread may start or sleep a little otherwise
tail -n +1 "$work/500" "$work/5000"
exit 1
