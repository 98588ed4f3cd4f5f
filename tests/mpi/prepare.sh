#!/bin/sh
# hearth prepare under mpirun: the same neuron file as one process makes, on every host, also after a rank was killed;
# what ranks refuse.
#   prepare.sh MPIRUN HEARTH VECTORS
set -u
mpirun=$1
hearth=$2
vectors=$3
. "$(dirname "$0")/library.sh"

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
export LD_LIBRARY_PATH="\$PWD/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec "$hearth" prepare "\$@"
END
chmod +x "$work/rank"
set -- -m tiny.gguf -f "$work/text" -c 64 -t 1 --activation relu --mlp-size 20 --epochs 8 --samples 1024

start() { # N ARGUMENT...
    n=$1
    shift
    timeout 100 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none \
        --mca odls_base_sigkill_timeout 0 -np "$n" "$work/rank" "$@" \
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
for n in 1 3 2; do
    began=$(date +%s.%N)
    ranks $n -q "$@"
    whole=$(date +%s.%N | awk -v began="$began" '{ print $1 - began }')
    [ $status -eq 0 ] || fail "$n ranks: status $status: $(cat "$work/err")"
    [ "$(grep -v '^time' "$work/out")" = "$(grep -v '^time' "$work/expected.out")" ] || fail "$n ranks: another report"
    everywhere "$n ranks" $n
done

# A probe with a GPU: counting is done by CPUs, and what a process keeps of it are the layers that it has then.
link='"us": [0.1], "gb_per_s": 10'
cpu='"cores": 1, "threads": 1, "memory_bytes": 1000000000, "gb_per_s": [20], "shared_gb_per_s": 20'
cat >"$work/probe.json" <<END
{"hearth_probe": 1, "ranks": [{"host": "a", $cpu}, {"host": "b", $cpu, "gpus": [
    {"device": "cuda:0", "name": "fast", "id": "0", "memory_bytes": 1000000000, "read_gb_per_s": 1000,
     "up_gb_per_s": 20, "down_gb_per_s": 20, "launch_us": 0.01, "wait_us": 0.01}]}],
 "sizes": [1024], "transports": [{"name": "mpi", "links": [{"from": 0, "to": 1, $link}, {"from": 1, "to": 0, $link}]}]}
END
ranks 2 -q --probe "$work/probe.json" "$@"
[ $status -eq 0 ] || fail "a probe with a GPU: status $status: $(cat "$work/err")"
everywhere "a probe with a GPU" 2

# A rank is killed, later each time; at least once when all was counted and not all fitted. The others are killed with
# it.
for victim in 0 1; do
    tries=0
    status=1
    counted=0
    while [ $status -ne 0 ] && [ $tries -lt 30 ]; do
        rm -f "$work"/pid.?
        start 2 "$@"
        pid=$work/pid.$victim
        while [ ! -s "$pid" ]; do
            sleep 0.02
        done
        sleep "$(awk -v n=$tries -v whole="$whole" 'BEGIN { print whole * (.1 + .1 * n) }')"
        kill -9 "$(cat "$pid")" 2>/dev/null
        wait $job
        status=$?
        [ $status -ne 124 ] || fail "rank $victim killed: the other hangs"
        grep -q "checkpoint: \([0-9]*\) of \1 windows counted" "$work/err" && counted=1
        tries=$((tries + 1))
    done
    [ $tries -gt 1 ] || fail "rank $victim was not killed in time"
    [ $counted -eq 1 ] || fail "rank $victim was not killed while it fitted"
    [ $status -eq 0 ] || fail "rank $victim killed: it never came to its end"
    everywhere "rank $victim killed" 2
done

# What goes wrong on another rank is said once, by rank 0.
mv "$work/host1/tiny.gguf" "$work/away"
ranks 2 -q "$@"
[ $status -eq 2 ] || [ $status -eq 1 ] || fail "no model on rank 1: status $status"
[ "$(grep -c 'error: ' "$work/err")" -eq 1 ] || fail "no model on rank 1: $(cat "$work/err")"
grep -q "error: rank 1: .*tiny.gguf.*No such file" "$work/err" || fail "no model on rank 1: $(cat "$work/err")"
mv "$work/away" "$work/host1/tiny.gguf"

# A host without OpenBLAS.
mkdir "$work/host1/lib"
head -c 200 "$work/text" >"$work/host1/lib/libopenblas.so.0"
ranks 2 -q "$@"
[ $status -eq 1 ] || [ $status -eq 2 ] || fail "no OpenBLAS on rank 1: status $status (124: it hangs)"
grep -q "error: rank 1: OpenBLAS is needed" "$work/err" || fail "no OpenBLAS on rank 1: $(cat "$work/err")"
rm -r "$work/host1/lib"

finish
