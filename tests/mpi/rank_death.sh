#!/bin/sh
# A rank that dies, or abandons the others, ends them all within 2 seconds of its death, and the output names it.
#   rank_death.sh MPIRUN TRANSPORT_MPI
set -u
mpirun=$1
program=$2
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# dies HOW RANK PATTERN: prints what is wrong, if anything is
dies() {
    timeout 20 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none -np 3 "$program" "$1" "$2" >"$output" 2>&1
    code=$?
    end_ns=$(date +%s%N)
    death_ns=$(sed -n 's/^died_at_ns //p' "$output")
    took_ms=$(((end_ns - ${death_ns:-0}) / 1000000))
    if [ $code -eq 124 ] || [ $code -eq 0 ]; then
        echo "$1 of rank $2 ended with status $code (124: the others hang)"
    elif [ $took_ms -gt 2000 ]; then
        echo "$1 of rank $2: the others ended after $took_ms ms"
    elif ! grep -qi "$3" "$output"; then
        echo "$1 of rank $2: no line has '$3':"
        cat "$output"
    fi
}

failed=0
for rank in 0 1 2; do
    for how in kill abandon; do
        case $how in
        kill) pattern="rank $rank .*signal 9" ;;
        abandon) pattern="rank $rank: the disk burns" ;;
        esac
        wrong=$(dies $how $rank "$pattern")
        # Once more: on a machine that is busy otherwise, one delay is no finding.
        [ -z "$wrong" ] || wrong=$(dies $how $rank "$pattern")
        [ -z "$wrong" ] || { echo "FAIL: $wrong"; failed=1; }
    done
done
[ $failed -eq 0 ] && echo "PASS: the death of each of 3 ranks ended the others within 2 s and was named"
exit $failed
