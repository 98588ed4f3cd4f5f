#!/bin/sh
# A rank that dies, or abandons the others, ends them all within 2 seconds, and the output names it.
#   rank_death.sh MPIRUN TRANSPORT_MPI
set -u
mpirun=$1
program=$2
output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=0

# dies HOW RANK PATTERN
dies() {
    # The ranks wait for ever: the time from the death to the end is what mpirun takes, its start-up included here, for
    # which a second more is granted.
    timeout 3 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none -np 3 "$program" "$1" "$2" >"$output" 2>&1
    code=$?
    if [ $code -eq 124 ] || [ $code -eq 0 ]; then
        echo "FAIL: $1 of rank $2 ended with status $code (124: not within the time)"
        failed=1
    fi
    if ! grep -qi "$3" "$output"; then
        echo "FAIL: $1 of rank $2: no line has '$3':"
        cat "$output"
        failed=1
    fi
}

for rank in 0 1 2; do
    dies kill $rank "rank $rank .*signal 9"
    dies abandon $rank "rank $rank: the disk burns"
done
[ $failed -eq 0 ] && echo "PASS: the death of each of 3 ranks ended the others and was named"
exit $failed
