#!/bin/sh
# Fails when an #include crosses the room table, uses a vendor's header outside its place, or is not written
# "room/file.h"; or when a room below cli ends the process. The table is docs/architecture.md's.
#
#   rooms_test.sh ROOT              checks the tree
#   rooms_test.sh --self-test ROOT  shows on a copy of the tree that the check finds what it is for
set -eu

rooms="base model sampling wire kernels transport sparsity placement device worker coordinator serve node prepare cli"

check() { # ROOT; prints every violation
    # shellcheck disable=SC2086 # $rooms is a list
    (cd "$1" && find $rooms tests tools -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null | sort | xargs awk '
        BEGIN {
            # Who may enter whom; a sub-folder that is named is a room of its own. "room/file.h" names one header.
            may["base"] = ""
            may["model"] = may["wire"] = may["kernels"] = may["transport"] = "base"
            may["model/jinja"] = "base model"
            may["sampling"] = "base model"
            may["sampling/schema"] = "base sampling"
            may["sparsity"] = "base model kernels"
            may["sparsity/fit"] = "base model kernels sparsity"
            may["placement"] = "base model"
            may["placement/measure"] = "base model kernels transport placement"
            may["device"] = "base model sparsity kernels"
            may["device/cpu"] = "base model sparsity kernels device"
            may["kernels/cuda"] = "base kernels"
            may["device/cuda"] = "base model sparsity kernels kernels/cuda device"
            may["worker"] = "base wire sampling transport device placement/plan.h model/chunks.h"
            may["coordinator"] = "base wire model sampling transport placement"
            may["serve"] = "base wire model model/jinja sampling sampling/schema coordinator placement/plan.h"
            may["node"] = "base model sampling wire kernels transport sparsity placement device device/cpu worker"
            may["node"] = may["node"] " coordinator"
            may["prepare"] = may["node"] " sparsity/fit placement/measure node"
            may["cli"] = may["prepare"] " prepare model/jinja serve"
            may["tests"] = may["tools"] = may["cli"] " sampling/schema kernels/cuda device/cuda cli tests tools"
            # Where a vendor header may be used, besides tests and tools.
            place["mpi.h"] = place["nccl.h"] = place["infiniband/"] = place["rdma/"] = "transport"
            place["cuda"] = "kernels/cuda device/cuda transport/nccl"
            place["immintrin.h"] = place["x86intrin.h"] = place["cpuid.h"] = place["arm_neon.h"] = "kernels"
            place["pcre2.h"] = "model"
            place["xxhash.h"] = "model sparsity node prepare"
            place["jansson.h"] = "placement model/jinja sampling/schema serve cli"
            place["microhttpd.h"] = "serve/http"
            place["curl/"] = "cli/chat_url"
            place["hwloc"] = "node"
            place["argp.h"] = "cli"
            place["cmocka.h"] = "tests"
        }
        function room_of(path,   part) {
            split(path, part, "/")
            return part[1] "/" part[2] in may ? part[1] "/" part[2] : part[1]
        }
        function starts(text, prefix) { return substr(text, 1, length(prefix)) == prefix }
        function wrong(why) { print FILENAME ":" FNR ": " why }
        function check_own(header, room,   n, i, allowed) {
            if (!(room_of(header) in may) || header !~ /^[^.\/][^\/]*\/[^.]/ || header ~ /\.\./) {
                wrong("\"" header "\" is not written \"room/file.h\"")
                return
            }
            if (room_of(header) == room)
                return
            n = split(may[room], allowed, " ")
            for (i = 1; i <= n; i++)
                if (allowed[i] == header || allowed[i] == room_of(header))
                    return
            wrong(room " may not enter " header)
        }
        function check_vendor(header, room,   v, n, i, where) {
            if (room_of(header) in may) {
                wrong("<" header "> is a header of a room and is written with quotes")
                return
            }
            if (room == "tests" || room == "tools")
                return
            for (v in place) {
                if (!starts(header, v))
                    continue
                n = split(place[v], where, " ")
                for (i = 1; i <= n; i++)
                    if (starts(FILENAME, where[i]))
                        return
                wrong("<" header "> belongs into " place[v] " only")
            }
        }
        /(^|[^A-Za-z0-9_])(_?exit|_Exit|quick_exit|abort|MPI_Abort)[ \t]*\(/ {
            room = room_of(FILENAME)
            if (room != "cli" && room != "tests" && room != "tools")
                wrong(room " may not end the process")
        }
        /^[ \t]*#[ \t]*include/ {
            header = $0
            sub(/^[ \t]*#[ \t]*include[ \t]*/, "", header)
            if (header ~ /^"[^"]+"/) {
                split(header, part, "\"")
                check_own(part[2], room_of(FILENAME))
            } else if (header ~ /^<[^>]+>/) {
                split(header, part, /[<>]/)
                check_vendor(part[2], room_of(FILENAME))
            } else {
                wrong("an include that is neither \"...\" nor <...>")
            }
        }')
}

# FILE LINE: in a copy of the tree with LINE added to FILE (made if need be), the check must find exactly that.
must_find() {
    mkdir -p "$(dirname "$copy/$1")"
    cp "$copy/$1" "$copy/saved" 2>/dev/null || : > "$copy/saved"
    printf '%s\n' "$2" >> "$copy/$1"
    found=$(check "$copy")
    cp "$copy/saved" "$copy/$1"
    case $found in
    "$1:"*) printf 'finds  %s\n' "$found" ;;
    *) printf 'MISSES %s in %s: %s\n' "$2" "$1" "$found"; failed=1 ;;
    esac
}

self_test() {
    copy=$(mktemp -d) failed=0
    trap 'rm -rf "$copy"' EXIT
    # shellcheck disable=SC2086 # $rooms is a list
    (cd "$1" && tar cf - $rooms) | (cd "$copy" && tar xf -)
    must_find worker/probe_a.c '#include "coordinator/session.h"'
    must_find coordinator/probe_b.c '#include "worker/worker.h"'
    must_find worker/probe_c.c '#include "placement/probe.h"'
    must_find worker/probe_q.c '#include "kernels/kernels.h"'
    must_find worker/probe_r.c '#include "device/cpu/cpu.h"'
    must_find device/probe_s.c '#include "device/cpu/cpu.h"'
    must_find device/cpu/probe_t.c '#include "wire/wire.h"'
    must_find model/probe_y.c '#include "model/jinja/writer.h"'
    must_find worker/probe_z.c '#include "model/jinja/writer.h"'
    must_find sparsity/probe_k.c '#include "sparsity/fit/fit.h"'
    must_find worker/probe_l.c '#include "sparsity/fit/fit.h"'
    must_find placement/probe_m.c '#include "placement/measure/ping.h"'
    must_find node/probe_n.c '#include "cli/options.h"'
    must_find prepare/probe_p.c '#include "cli/table.h"'
    must_find node/probe_o.c '    _exit(1);'
    must_find base/log.c '  #  include "model/model.h"'
    must_find cli/main.c '#include "text.h"'
    must_find cli/main.c '#include "../base/log.h"'
    must_find cli/main.c '#include "cli/../base/log.h"'
    must_find cli/main.c '#include <base/log.h>'
    must_find cli/main.c '#include HEADER'
    must_find worker/probe_d.c '#include <mpi.h>'
    must_find model/probe_e.c '#include <jansson.h>'
    must_find worker/probe_f.c '#include <immintrin.h>'
    must_find kernels/probe_g.c '#include <cuda_runtime.h>'
    must_find device/probe_u.c '#include <cuda_runtime_api.h>'
    must_find device/cpu/probe_v.c '#include "kernels/cuda/gpu.h"'
    must_find node/probe_w.c '#include "device/cuda/table.h"'
    must_find kernels/cuda/probe_x.cu '#include "device/device.h"'
    must_find transport/probe_h.c '#include "wire/wire.h"'
    must_find transport/probe_i.c '    MPI_Abort(MPI_COMM_WORLD, 1);'
    must_find worker/probe_j.c '    if (st) exit(1);'
    return $failed
}

if [ "$1" = --self-test ]; then
    self_test "$2"
else
    violations=$(check "$1")
    if [ -n "$violations" ]; then
        printf '%s\n' "$violations"
        exit 1
    fi
fi
