#!/bin/sh
# hearth under mpirun: every cut gives one process's text; ranks that do not agree, or die, end with a clear line.
#   cluster.sh text|large|refusals|deaths MPIRUN HEARTH VECTORS OLD_RANK
# `large` is text with the model under HEARTH_TEST_MODEL, skipped (status 77) without one; the others take a tiny model.
set -u
part=$1
mpirun=$2
hearth=$3
tiny=$4/tiny-q5_1.gguf
old_rank=$5
model=${HEARTH_TEST_MODEL:-}
. "$(dirname "$0")/library.sh"

# WHAT STATUS PATTERN: ranks() must have ended with the status, no output, and one error line like the (shell's)
# pattern.
refused() {
    errors=$(grep -c "error: " "$work/err")
    line=$(grep "error: " "$work/err")
    [ $status -eq "$2" ] || fail "$1: status $status (124: it hangs), expected $2"
    [ "$errors" -eq 1 ] || fail "$1: $errors error lines, expected 1: $(cat "$work/err")"
    [ ! -s "$work/out" ] || fail "$1: it printed something"
    # shellcheck disable=SC2254 # it is a pattern on purpose
    case $line in
    $3) ;;
    *) fail "$1: expected a line like '$3', found '$line'" ;;
    esac
}

# MODEL TOKENS: the same text from every number of ranks, cut in every way.
same_text() {
    tokens=$2
    set -- -q -m "$1" -t 1 -c 256 -n "$2" --temp 0 --ignore-eos -p "The old clock in the hall struck nine as Maria"
    "$hearth" run "$@" >"$work/expected" || fail "one process: status $?"
    [ "$(wc -c <"$work/expected")" -ge "$tokens" ] || fail "one process made too little text"
    for n in 1 2 3 4; do
        for split in shards stages both; do
            ranks "$n" "$hearth" run "$@" --split $split
            [ $status -eq 0 ] || fail "$n ranks, $split: status $status: $(cat "$work/err")"
            cmp -s "$work/expected" "$work/out" || fail "$n ranks, $split: another text"
        done
    done
    for n in 2 4; do # shards are made for --residual all
        ranks "$n" "$hearth" run "$@" --residual home
        cmp -s "$work/expected" "$work/out" || fail "$n ranks, one home: another text: $(cat "$work/err")"
    done
    ranks 3 "$hearth" run "$@" --shares 5,1,2 -b 3
    cmp -s "$work/expected" "$work/out" || fail "3 unequal ranks: another text"
}

# A program that rank $odd_rank runs with $odd and every other rank with $even, and that leaves its process id.
cat >"$work/rank" <<END
#!/bin/sh
echo \$\$ >"$work/pid.\$OMPI_COMM_WORLD_RANK"
[ "\$OMPI_COMM_WORLD_RANK" != "\$odd_rank" ] || exec "$hearth" run "\$@" \$odd
exec "$hearth" run "\$@" \$even
END
chmod +x "$work/rank"

# WHAT RANK ODD EVEN PATTERN: one of three ranks is started otherwise.
disagree() {
    export odd_rank="$2" odd="$3" even="$4"
    ranks 3 "$work/rank" -q -t 1 -n 8 --temp 0 -p x
    refused "$1 on rank $2" 2 "$5"
}

# Ranks of other releases, and ranks that look for GPUs beside others that do not: none waits for what will not come.
releases() {
    ranks 1 "$hearth" run -q -m "$tiny" -p x : -np 1 "$old_rank" : -np 1 "$hearth" run -q -m "$tiny" -p x
    refused "an older rank 1" 2 \
        "*rank 1 runs hearth 0.0.9 (protocol 7), rank 0 runs *: install the same version everywhere"
    ranks 1 "$old_rank" : -np 2 "$hearth" run -q -m "$tiny" -p x
    refused "an older rank 0" 2 "*rank [12] runs hearth *, rank 0 runs 0.0.9 (protocol 7): install the same version*"
    ranks 1 "$old_rank" gpus : -np 1 "$hearth" run -q -m "$tiny" -p x
    refused "a rank 0 that tells of GPUs first" 1 \
        "*GPUS from rank 0 where a WELCOME was expected: install the same version*"
    export odd_rank=1 odd="--device cpu" even="--device auto"
    ranks 3 "$work/rank" -q -t 1 -n 8 --temp 0 -p x -m "$tiny"
    [ $status -eq 0 ] || fail "a rank without GPUs: status $status (124: it hangs): $(cat "$work/err")"
}

flip_byte() { # FILE OFFSET
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\$(printf %o $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

refusals() {
    cp "$tiny" "$work/flipped.gguf"
    flip_byte "$work/flipped.gguf" $(($(wc -c <"$tiny") - 100))
    cp "$tiny" "$work/longer.gguf"
    printf 'x' >>"$work/longer.gguf"
    "$hearth" plan -q -m "$tiny" --ranks 3 --split stages >"$work/plan.json" || fail "no plan"
    good="-m $tiny"
    disagree "another byte" 1 "-m $work/flipped.gguf" "$good" "*rank 1 has another model file: hash*"
    disagree "another byte" 2 "-m $work/flipped.gguf" "$good" "*rank 2 has another model file: hash*"
    disagree "another size" 0 "-m $work/longer.gguf" "$good" "*rank [12] has another model file: * bytes*"
    disagree "another plan" 2 "$good --plan $work/plan.json" "$good" "*rank 2 has another plan*"
    disagree "another context" 1 "$good -c 100" "$good -c 128" "*rank 1 was started with a context of 100 *"
    disagree "another batch" 0 "$good -b 7" "$good -b 8" "*rank [12] was started with * batch of *"
    disagree "no file" 0 "-m $work/none.gguf" "$good" "*$work/none.gguf*No such file*"
    disagree "no file" 1 "-m $work/none.gguf" "$good" "*rank 1: *$work/none.gguf*No such file*"
    disagree "no file" 2 "-m $work/none.gguf" "$good" "*rank 2: *$work/none.gguf*No such file*"
    disagree "no model" 1 "-m $work/rank" "$good" "*rank 1: $work/rank*"
    disagree "a budget" 0 "$good --ram-budget 4K" "$good" "*memory needed*, the budget is *"
    disagree "a budget" 2 "$good --ram-budget 4K" "$good" "*rank 2: *memory needed*, the budget is *"
    ranks 3 "$hearth" run -q -m "$tiny" -p x --ram-budget 4K
    refused "a budget on all ranks" 2 "*memory needed*, the budget is *"
    ranks 3 "$hearth" run -q -m "$tiny" -p x --shares 1,2
    refused "too few shares" 2 "*--shares*"
    releases
}

budget_of_large() {
    # Rank 1 holds nine tenths of the neurons, more than its budget; rank 0's part fits.
    ranks 2 "$hearth" run -q -m "$model" -p x -c 64 --split both --shares 1,9 --ram-budget 64M
    refused "a budget that rank 1 exceeds" 2 "*rank 1: 0.[0-9]* GiB of memory needed*, the budget is 0.06*"
}

# RANK: prints what is wrong with the end of the others after this one was killed while it ran.
kill_rank() {
    rm -f "$work"/pid.*
    : >"$work/out"
    export odd_rank=none odd="" even=""
    timeout 60 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none -np 3 "$work/rank" -q -m "$tiny" -t 1 \
        -c 60000 -n 50000 --ignore-eos -p x >"$work/out" 2>"$work/err" </dev/null &
    job=$!
    wait_for_text
    begin_ns=$(date +%s%N)
    kill -9 "$(cat "$work/pid.$1")" || echo "rank $1 had ended already"
    wait $job
    code=$?
    took_ms=$((($(date +%s%N) - begin_ns) / 1000000))
    if [ $code -eq 124 ] || [ $code -eq 0 ]; then
        echo "rank $1 killed: status $code (124: the others hang)"
    elif [ $took_ms -gt 2000 ]; then
        echo "rank $1 killed: the others ended after $took_ms ms"
    elif ! grep -q "rank $1 .*signal 9" "$work/err"; then
        echo "rank $1 killed: no line names it: $(cat "$work/err")"
    fi
    # mpirun does not wait until the system has taken back all of a process that it has killed.
    for r in 0 1 2; do
        while lives "$r" && [ $((($(date +%s%N) - begin_ns) / 1000000)) -le 2000 ]; do
            sleep 0.05
        done
        lives "$r" && echo "rank $1 killed: rank $r lives on"
    done
}

lives() { # RANK
    grep -q "^State:[[:space:]]*[^ZX[:space:]]" "/proc/$(cat "$work/pid.$1")/status" 2>/dev/null
}

deaths() {
    for rank in 0 1 2; do
        wrong=$(kill_rank $rank)
        # Once more: on a machine that is busy otherwise, one delay is no finding.
        [ -z "$wrong" ] || wrong=$(kill_rank $rank)
        [ -z "$wrong" ] || fail "$wrong"
    done
}

large() {
    if [ ! -f "$model" ]; then
        echo "skipped: HEARTH_TEST_MODEL names no model"
        exit 77
    fi
    same_text "$model" 32
    budget_of_large
}

case $part in
text) same_text "$tiny" 128 ;;
large) large ;;
refusals) refusals ;;
deaths) deaths ;;
*) fail "there is no part '$part'" ;;
esac
finish
