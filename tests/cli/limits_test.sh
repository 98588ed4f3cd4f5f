#!/bin/sh
# Limits that the system sets: of memory, of threads, of processors. Every command works within them or says in a line
# what is missing.
. "$(dirname "$0")/library.sh"
vectors=$(cd "$(dirname "$0")/../vectors" && pwd)
tiny=$vectors/tiny-q5_1.gguf

# ---- libraries that few need ----

! readelf -d "$hearth" | grep -q openblas || fail "hearth is linked with OpenBLAS, which prepare alone needs"

# ---- ulimit -v: address space ----

# KIB ARGUMENT...: ends by itself within that much, with an error line unless all is well.
within() {
    kib=$1
    shift
    (ulimit -v "$kib" && exec timeout 20 "$hearth" "$@") >"$work/out" 2>"$work/err" </dev/null
    status=$?
    case $status in
    0) ;;
    1 | 2) grep -q "error: " "$work/err" || fail "hearth $*, $kib KiB of addresses: status $status without a word" ;;
    *) fail "hearth $*, $kib KiB of addresses: status $status (124: it hung): $(cat "$work/err")" ;;
    esac
}

# A sanitizer reserves terabytes.
if { (ulimit -v 2000000 && exec "$hearth" --version); } >/dev/null 2>&1; then
    for kib in 80000 100000 150000 200000; do
        within "$kib" --help
        equal "status of --help with $kib KiB of addresses" 0 "$status"
        within "$kib" tokenize -m "$tiny" -p hi --ids
        within "$kib" inspect "$tiny"
        within "$kib" plan -q -m "$tiny" --ranks 2
        within "$kib" run -q -m "$tiny" -t 1 -n 1 -p hi
        within "$kib" chat -q -m "$tiny" -t 1
        within "$kib" bench -m "$tiny" -t 1 -p 0 -n 1 -r 1
        within "$kib" probe -q -t 1 -f "$work/probe.json"
        within "$kib" perplexity -q -m "$tiny" -t 1 -p "a text that is short" -c 4
        within "$kib" prepare -q -m "$tiny" -t 1 -p "a text that is short"
    done
else
    echo "no limit of addresses can be set: left out"
fi

# ---- ulimit -u: threads, which only somebody who is not root can run out of ----

if [ "$(id -u)" -eq 0 ] && su -s /bin/sh nobody -c true >/dev/null 2>&1; then
    chmod 755 "$work"
    cp "$hearth" "$work/hearth"
    cp "$tiny" "$work/tiny.gguf"
    chmod 755 "$work/hearth"
    chmod 644 "$work/tiny.gguf"
    # A sanitizer looks for leaks by a thread of its own.
    for command in "tokenize -m $work/tiny.gguf -p hi --ids" "run -q -m $work/tiny.gguf -t 1 -n 1 -p hi"; do
        ASAN_OPTIONS=detect_leaks=0 su -s /bin/sh nobody -c \
            "ulimit -u 1 2>/dev/null || ulimit -p 1; exec $work/hearth $command" \
            >"$work/out" 2>"$work/err" </dev/null
        status=$?
        equal "status of '$command' where no thread can be started" 0 "$status"
    done
else
    echo "nobody cannot be had: limits of threads are left out"
fi

# ---- more threads than processors ----

taskset -c "$(taskset -cp $$ | sed 's/.*: \([0-9]*\).*/\1/')" "$hearth" run -q -m "$tiny" -t 3 -n 2 --temp 0 -p hi \
    >"$work/out" 2>"$work/err" </dev/null
equal "status of three threads on one processor" 0 $?
equal "warnings of three threads on one processor" 1 "$(grep -c "warning: .*3 threads.* on 1 processor" "$work/err")"
crowded=$(cat "$work/out")
hearth run -q -m "$tiny" -t 1 -n 2 --temp 0 -p hi
equal "the text of three threads on one processor" "$out" "$crowded"
equal "what one thread is warned of" "" "$err"
hearth run -q -m "$tiny" --ranks 64 -t 8 -n 1 -p hi
like "64 ranks of 8 threads" "*warning: *512 threads (8 a rank) on *" "$err"
hearth plan -q -m "$tiny" --ranks 2 -t 1000 # others' processors are not known here
equal "what a plan is warned of" "" "$err"

# ---- a cgroup's limits ----

# CONTROLLER FILE OF VERSION 1, OF VERSION 2: a new group in $group, the file in $knob; fails where none can be made.
make_group() {
    group=/sys/fs/cgroup/$1/hearth-test-$$ knob=$2
    [ -d "/sys/fs/cgroup/$1" ] || group=/sys/fs/cgroup/hearth-test-$$ knob=$3
    mkdir "$group" 2>/dev/null || return 1
    [ -w "$group/$knob" ] && return
    rmdir "$group"
    return 1
}

# ARGUMENT...: hearth as the only process of the group.
inside() {
    (sh -c 'echo $PPID' >"$group/cgroup.procs" && exec "$hearth" "$@") >"$work/out" 2>"$work/err" </dev/null
    status=$?
}

# The system may take a moment to see that nobody is in it any more.
remove_group() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        rmdir "$group" 2>/dev/null && return
        sleep 0.2
    done
    fail "$group stays"
}

if make_group memory memory.limit_in_bytes memory.max; then
    echo 400000000 >"$group/$knob"
    inside run -q -m "$tiny" -t 1 -c 2000000 -n 1 -p hi
    equal "status of a run that needs more than its cgroup may" 2 "$status"
    like "a run that needs more than its cgroup may" "*error: *GiB of memory needed*the cgroup's limit is 0.37*" \
        "$(cat "$work/err")"
    # Each of two ranks would find enough, both together do not.
    inside run -q -m "$tiny" -t 1 -c 800000 --ranks 2 --split stages -n 1 -p hi
    equal "status of two ranks that need more than their cgroup may" 2 "$status"
    like "two ranks that need more than their cgroup may" \
        "*error: the ranks of host * need *together (rank 0 *, rank 1 *), its cgroup's limit is 0.37*" \
        "$(cat "$work/err")"
    remove_group
else
    echo "no cgroup can be made: its limit of memory is left out"
fi
if make_group cpu cpu.cfs_quota_us cpu.max; then
    if [ "$knob" = cpu.max ]; then
        echo "100000 100000" >"$group/$knob"
    else
        echo 100000 >"$group/cpu.cfs_period_us"
        echo 100000 >"$group/$knob"
    fi
    inside bench -m "$tiny" -p 0 -n 1 -r 1 -o json
    like "threads under a quota of one processor" '*"threads": 1,*' "$(cat "$work/out")"
    inside run -m "$tiny" -q -t 2 -n 1 -p hi
    like "two threads under a quota of one processor" "*warning: *2 threads (2 a rank) on 1 processor*" \
        "$(cat "$work/err")"
    remove_group
else
    echo "no cgroup can be made: its quota of processors is left out"
fi
finish
