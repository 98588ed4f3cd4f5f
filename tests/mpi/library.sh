# shellcheck shell=sh
# What the tests of hearth under mpirun share; each sets $mpirun and sources this.
failures=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

ranks() { # N PROGRAM ARGUMENT...; leaves status, standard output in $work/out, standard error in $work/err
    n=$1
    shift
    timeout 120 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none -np "$n" "$@" >"$work/out" 2>"$work/err" \
        </dev/null
    status=$?
}

# Until ranks that were started in the background have printed something; 30 s at most.
wait_for_text() {
    tries=0
    while [ "$(wc -c <"$work/out")" -lt 200 ] && [ $tries -lt 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}

finish() {
    [ "$failures" -eq 0 ] || exit 1
    echo "passed"
}
