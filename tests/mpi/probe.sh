#!/bin/sh
# hearth probe under mpirun, and what plans, runs and benches make of it.
#   probe.sh MPIRUN HEARTH VECTORS
set -u
mpirun=$1
hearth=$2
tiny=$3/tiny-q5_1.gguf
. "$(dirname "$0")/library.sh"

# WHAT STATUS PATTERN: ranks() must have ended with the status and one error line like the (shell's) pattern.
refused() {
    line=$(grep "error: " "$work/err")
    [ $status -eq "$2" ] || fail "$1: status $status (124: it hangs), expected $2"
    [ "$(grep -c "error: " "$work/err")" -eq 1 ] || fail "$1: expected one error line: $(cat "$work/err")"
    # shellcheck disable=SC2254 # it is a pattern on purpose
    case $line in
    $3) ;;
    *) fail "$1: expected a line like '$3', found '$line'" ;;
    esac
}

for n in 2 3; do
    ranks "$n" "$hearth" probe -q -t 1 -m "$tiny" -b 4 -f "$work/$n.json"
    [ $status -eq 0 ] || fail "probe on $n ranks: status $status: $(cat "$work/err")"
    links=$(grep -c '^| mpi ' "$work/out")
    [ "$links" -eq $((n * (n - 1))) ] || fail "probe on $n ranks: $links links, expected every two ranks both ways"
    "$hearth" plan -q -m "$tiny" --probe "$work/$n.json" >"$work/plan" ||
        fail "plan by the probe of $n ranks: status $?"
    grep -q "\"ranks\": $n," "$work/plan" || fail "plan by the probe of $n ranks: another number of ranks"
    ranks "$n" "$hearth" run -q -t 1 -m "$tiny" --probe "$work/$n.json" -n 16 --temp 0 -p "An old clock"
    [ $status -eq 0 ] || fail "run by the probe of $n ranks: status $status: $(cat "$work/err")"
    cp "$work/out" "$work/text.$n"
done
"$hearth" run -q -t 1 -m "$tiny" -n 16 --temp 0 -p "An old clock" >"$work/text" || fail "one process: status $?"
for n in 2 3; do
    cmp -s "$work/text" "$work/text.$n" || fail "$n ranks, planned by a probe: another text"
done

ranks 3 "$hearth" run -q -m "$tiny" --probe "$work/2.json" -p x
refused "a probe of fewer ranks" 2 "*measured with 2 ranks, but there are 3*"
ranks 2 "$hearth" probe -q -t 1 -m "$work/none" -f "$work/4.json"
refused "no model" 2 "*$work/none*No such file*"
[ ! -e "$work/4.json" ] || fail "no model, but a probe was written"
ranks 2 "$hearth" probe -q -t 1 -f "$work/no/folder"
refused "no folder" 2 "*$work/no/folder*"

# FIELD: that of the last row of the bench
field() {
    sed -n "s/.*\"$1\": \"\{0,1\}\([^\",]*\).*/\1/p" "$work/out" | tail -n 1
}

ranks 2 "$hearth" bench -q -t 1 -m "$tiny" --split shards --residual home -p 0 -n 8 -r 2 -o json
[ $status -eq 0 ] || fail "bench on 2 ranks: status $status: $(cat "$work/err")"
[ "$(field transport)" = mpi ] || fail "bench on 2 ranks: transport $(field transport), expected mpi"
# Two layers' FFNs, and attention where its heads are cut, and the output: a request and an answer each.
awk "BEGIN { n = $(field messages_per_token)
    exit !((n == 6 || n == 10) && $(field sent_bytes_per_token) > 6 * 64) }" ||
    fail "bench on 2 ranks: $(field messages_per_token) messages of $(field sent_bytes_per_token) bytes a token"
awk "BEGIN { ms = 1000 / $(field tokens_per_s); sum = $(field compute_ms) + $(field wire_ms) + $(field wait_ms)
             exit !($(field compute_ms) >= 0 && $(field wire_ms) > 0 && $(field wait_ms) >= 0 && sum > 0.2 * ms) }" ||
    fail "bench on 2 ranks: compute $(field compute_ms), wire $(field wire_ms), wait $(field wait_ms) ms"
ranks 2 "$hearth" bench -q -t 1,2 -m "$tiny" -p 2,4 -n 2 -r 1 -o csv
[ $status -eq 0 ] || fail "bench of lists on 2 ranks: status $status: $(cat "$work/err")"
[ "$(grep -c ',mpi,' "$work/out")" -eq 6 ] || fail "bench of lists on 2 ranks: $(cat "$work/out")"
ranks 1 "$hearth" bench -q -t 1 -m "$tiny" -p 0 -n 8 -r 2 -o json
awk "BEGIN { exit !($(field wire_ms) == 0 && $(field wait_ms) == 0 && $(field messages_per_token) == 0) }" ||
    fail "bench on 1 rank: wire $(field wire_ms), wait $(field wait_ms) ms, $(field messages_per_token) messages"

finish
