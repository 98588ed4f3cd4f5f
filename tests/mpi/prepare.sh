#!/bin/sh
# hearth prepare under mpirun: the same neuron file as one process makes, on every host, also after a rank was killed;
# what ranks refuse.
#   prepare.sh MPIRUN HEARTH VECTORS
set -u
mpirun=$1
hearth=$2
vectors=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# Every rank has a folder of its own, as on a host of its own.
for r in 0 1 2; do
    mkdir "$work/host$r"
    cp "$vectors/tiny-q8_0.gguf" "$work/host$r/tiny.gguf"
done
head -c 12000 "$vectors/text/licences.txt" >"$work/text"
cat >"$work/rank" <<END
#!/bin/sh
cd "$work/host\$OMPI_COMM_WORLD_RANK" || exit 1
echo \$\$ >"$work/pid.\$OMPI_COMM_WORLD_RANK"
exec "$hearth" prepare "\$@"
END
chmod +x "$work/rank"
set -- -m tiny.gguf -f "$work/text" -c 64 -t 1 --activation relu --mlp-size 20 --epochs 2

start() { # N ARGUMENT...
    n=$1
    shift
    timeout 100 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none -np "$n" "$work/rank" "$@" \
        >"$work/out" 2>"$work/err" </dev/null &
    job=$!
}

ranks() { # N ARGUMENT...
    start "$@"
    wait $job
    status=$?
}

# WHAT N: all of N hosts have the expected file, and nothing else is left.
everywhere() {
    for host in "$work"/host[0-$(($2 - 1))]; do
        cmp -s "$work/expected" "$host/tiny.neurons.gguf" || fail "$1: ${host##*/} has another neuron file, or none"
        ls "$host"/*.part* "$host"/*.gguf.* >/dev/null 2>&1 && fail "$1: ${host##*/} keeps $(ls "$host")"
    done
    rm -f "$work"/host?/tiny.neurons.*
}

(cd "$work/host0" && "$hearth" prepare -q "$@" >"$work/expected.out") || fail "one process: status $?"
mv "$work/host0/tiny.neurons.gguf" "$work/expected"
for n in 1 2 3; do
    ranks $n -q "$@"
    [ $status -eq 0 ] || fail "$n ranks: status $status: $(cat "$work/err")"
    [ "$(grep -v '^time' "$work/out")" = "$(grep -v '^time' "$work/expected.out")" ] || fail "$n ranks: another report"
    everywhere "$n ranks" $n
done

# A rank is killed, now this one and now that, later each time.
tries=0
status=1
while [ $status -ne 0 ] && [ $tries -lt 30 ]; do
    rm -f "$work"/pid.?
    start 2 "$@"
    pid=$work/pid.$((tries % 2))
    while [ ! -s "$pid" ]; do
        sleep 0.02
    done
    sleep "$(awk -v n=$tries 'BEGIN { print .1 + .02 * n * n }')"
    kill -9 "$(cat "$pid")" 2>/dev/null
    wait $job
    status=$?
    [ $status -ne 124 ] || fail "rank $((tries % 2)) killed: the other hangs"
    tries=$((tries + 1))
done
[ $tries -gt 1 ] || fail "no rank was killed in time"
[ $status -eq 0 ] || fail "killed ranks: it never came to its end"
everywhere "killed ranks" 2

# What goes wrong on another rank is said once, by rank 0.
mv "$work/host1/tiny.gguf" "$work/away"
ranks 2 -q "$@"
[ $status -eq 2 ] || [ $status -eq 1 ] || fail "no model on rank 1: status $status"
[ "$(grep -c 'error: ' "$work/err")" -eq 1 ] || fail "no model on rank 1: $(cat "$work/err")"
grep -q "error: rank 1: .*tiny.gguf.*No such file" "$work/err" || fail "no model on rank 1: $(cat "$work/err")"
mv "$work/away" "$work/host1/tiny.gguf"

[ $failures -eq 0 ] && echo "passed"
exit $((failures > 0))
