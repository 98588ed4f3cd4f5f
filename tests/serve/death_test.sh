#!/bin/sh
# Two ranks under mpirun: one is killed while the server decodes, reads a prompt, embeds, or has nothing to do. Every
# open request has its error soon, and rank 0, which serves, ends with status 1: of its own, before mpirun kills it.
. "$(dirname "$0")/library.sh"
need_command curl python3 mpirun
model=$here/../vectors/tiny-q8_0.gguf

# Rank 0 leaves its status, the other its process id.
cat >"$work/rank" <<'END'
#!/bin/sh
work=$(dirname "$0")
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}" # MPI unloads plug-ins whose memory it never frees
[ "$OMPI_COMM_WORLD_RANK" = 0 ] || {
    echo $$ >"$work/pid"
    exec "$@"
}
trap : TERM # mpirun's is for hearth
"$@"
echo $? >"$work/status"
END
chmod +x "$work/rank"

# WORK "OPTION OF MPIRUN..." OPTION...
dies() {
    doing=$1
    launcher="mpirun --oversubscribe --bind-to none -np 2 $2 $work/rank"
    shift 2
    rm -f "$work/status" "$work/pid"
    serve --chat-template chatml -c 30000 --parallel 8 --no-lookup "$@"
    python3 "$here/death_test.py" "$url" "$doing" "$(cat "$work/pid")" ||
        fail "rank 1 dies: $doing $*: $(cat "$work/log")"
    tries=0
    while kill -0 "$server" 2>/dev/null && [ $tries -lt 400 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    equal "rank 0's status: $doing $*" 1 "$(cat "$work/status" 2>/dev/null)"
    stop_server
}

dies decode ""
dies decode "" --split stages
dies prompt ""
dies embed ""
dies rest ""
# Over TCP the other side's end is seen; and with time to drain, nobody waits for that.
dies decode "--mca btl tcp,self"
dies decode "--mca odls_base_sigkill_timeout 60" --drain 40

# A server that is told to stop, and whose ranks are well, ends with status 0.
launcher="mpirun --oversubscribe --bind-to none -np 2 $work/rank"
rm -f "$work/status"
serve --chat-template chatml
end_server TERM
equal "rank 0's status after SIGTERM" 0 "$(cat "$work/status" 2>/dev/null)"
finish
