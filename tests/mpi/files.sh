#!/bin/sh
# Each rank has a copy of the model of its own: a damaged one is found, and what happens to a copy later does no harm.
#   files.sh MPIRUN HEARTH VECTORS
set -u
mpirun=$1
hearth=$2
tiny=$3/tiny-q5_1.gguf
. "$(dirname "$0")/library.sh"
export XDG_CACHE_HOME="$work/cache"

# Rank R runs with the model $work/R.gguf.
cat >"$work/rank" <<END
#!/bin/sh
exec "$hearth" run -m "$work/\$OMPI_COMM_WORLD_RANK.gguf" -t 1 "\$@"
END
chmod +x "$work/rank"

# The tiny model with so much behind it that the samples of the roll call miss nearly all of its weights.
copies() {
    for r in 0 1 2; do
        cp "$tiny" "$work/$r.gguf"
        truncate -s 70M "$work/$r.gguf"
    done
}

hole() { # FILE: 16 KiB of zeros in the midst of its weights
    dd if=/dev/zero of="$1" bs=4096 seek=$(($(wc -c <"$tiny") / 8192)) count=4 conv=notrunc status=none
}

refused() { # WHAT: status 1 or 2 (mpirun passes on that of the rank that ends first), no output, and one error line
    [ $status -eq 1 ] || [ $status -eq 2 ] || fail "$1: status $status (124: it hangs)"
    [ "$(grep -c "error: " "$work/err")" -eq 1 ] || fail "$1: expected one error line: $(cat "$work/err")"
    [ ! -s "$work/out" ] || fail "$1: it printed something"
}

damaged() {
    for rank in 0 1 2; do
        copies
        hole "$work/$rank.gguf"
        ranks 3 "$work/rank" -q -n 8 --temp 0 -p x
        refused "a hole in rank $rank's copy"
        grep -q "error: $work/0.gguf: rank [12]'s copy differs from rank 0's between bytes 0 and 67108864" \
            "$work/err" ||
            fail "a hole in rank $rank's copy: $(cat "$work/err")"
    done
    ranks 2 "$work/rank" -q -n 8 --temp 0 -p x --split stages
    [ $status -eq 0 ] || fail "rank 2 takes no part: status $status: $(cat "$work/err")"
    hole "$work/1.gguf"
    ranks 2 "$work/rank" -q -n 8 --temp 0 -p x --split stages
    refused "a hole in a stage's copy"
    ranks 2 "$work/rank" -q -n 8 --temp 0 -p x --no-verify
    [ $status -eq 0 ] || fail "a hole with --no-verify: status $status: $(cat "$work/err")"
}

remembered() {
    copies
    ranks 2 "$work/rank" -n 1 -p x
    grep -q "hashed 0.06 GiB" "$work/err" || fail "the first start hashes nothing: $(cat "$work/err")"
    ranks 2 "$work/rank" -n 1 -p x
    [ $status -eq 0 ] || fail "second start: status $status: $(cat "$work/err")"
    ! grep -q hashed "$work/err" || fail "the second start hashes again"
    for list in "$work"/cache/hearth/*.chunks; do
        echo rubbish >"$list"
    done
    ranks 2 "$work/rank" -n 1 -p x
    grep -q "hashed 0.06 GiB" "$work/err" || fail "rubbish in the cache is believed: $(cat "$work/err")"
    hole "$work/1.gguf"
    ranks 2 "$work/rank" -q -n 1 -p x
    refused "a copy that was damaged since"
    copies
    (
        unset HOME XDG_CACHE_HOME
        ranks 2 "$work/rank" -q -n 1 -p x
        exit $status
    ) || fail "without a home: status $?: $(cat "$work/err")"
}

# Copies are cut off or written over while text is made of them.
harmed() { # HOW
    copies
    set -- "$1" -q -c 2048 -n 2000 --temp 0 --ignore-eos -p "The old clock"
    how=$1
    shift
    "$hearth" run -m "$tiny" -t 1 "$@" >"$work/expected" || fail "one process: status $?"
    timeout 60 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none -np 2 "$work/rank" "$@" >"$work/out" \
        2>"$work/err" </dev/null &
    job=$!
    wait_for_text
    for r in 0 1 2; do
        case $how in
        cut) truncate -s 0 "$work/$r.gguf" ;;
        *) dd if=/dev/urandom of="$work/$r.gguf" bs=1M count=2 conv=notrunc status=none ;;
        esac
    done
    wait $job
    code=$?
    [ $code -eq 0 ] || fail "$how: status $code: $(cat "$work/err")"
    cmp -s "$work/expected" "$work/out" || fail "$how: another text"
}

damaged
remembered
harmed cut
harmed "written over"
finish
