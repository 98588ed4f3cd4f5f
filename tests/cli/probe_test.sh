#!/bin/sh
# hearth probe without mpirun, and planning by probes: what is chosen, and files that are wrong.
. "$(dirname "$0")/library.sh"
tiny=$(dirname "$0")/../vectors/tiny-q5_1.gguf

hearth probe -q -t 1 -f "$work/own.json" -o json
equal "status of probe" 0 "$status"
like "probe -o json" '*"hearth_probe": 1*"host"*"gb_per_s"*"sizes": \[[0-9]*"transports"*' "$out"
equal "the file of probe" "$out" "$(cat "$work/own.json")"
hearth probe -q -t 1 -m "$tiny" -f "$work/own.json"
equal "status of probe -m" 0 "$status"
like "probe" "*| rank | host *| read_gb_per_s |*" "$out"
for batch in 1 2; do # of one token the sizes are the same twice over
    timeout 60 "$hearth" probe -q -t 1 -m "$tiny" -b $batch -f "$work/batch.json" >/dev/null
    equal "status of probe -b $batch (124: it never ends)" 0 $?
    equal "sizes of probe -b $batch" $((2 * batch)) \
        "$(sed -n 's/.*"sizes": \[\(.*\)\].*/\1/p' "$work/batch.json" | tr , '\n' | wc -l)"
done
hearth plan -q -m "$tiny" --probe "$work/own.json" --residual all
equal "status of plan by an own probe, residual stream on all ranks" 0 "$status"
hearth plan -m "$tiny" --probe "$work/own.json"
equal "status of plan by an own probe" 0 "$status"
like "plan by a probe" '*"hearth_plan": 2*"ranks": 1*' "$out"
like "estimates" "*split *ms_per_token*| shards | 0 *| true | true |*" "$err"

# MICROSECONDS GB_PER_S_OF_RANK_1: a probe of two hosts
two_hosts() {
    cat <<END
{"hearth_probe": 1, "sizes": [4096], "ranks": [
 {"host": "a", "cores": 1, "threads": 1, "memory_bytes": 8000000000, "gb_per_s": [10], "shared_gb_per_s": 10},
 {"host": "b", "cores": 1, "threads": 1, "memory_bytes": 8000000000, "gb_per_s": [$2], "shared_gb_per_s": $2}],
 "transports": [{"name": "mpi", "links": [
  {"from": 0, "to": 1, "us": [$1], "gb_per_s": 1}, {"from": 1, "to": 0, "us": [$1], "gb_per_s": 1}]}]}
END
}

# Fast links: shares as the memories are fast, which no --shares said. Slow links: rank 1 gets nothing.
two_hosts 0.001 30 >"$work/fast.json"
two_hosts 100000 30 >"$work/slow.json"
hearth plan -q -m "$tiny" --split shards --probe "$work/fast.json" -o csv
equal "status of plan by fast links" 0 "$status"
like "rows of rank 1 by fast links" "*1,cpu,none,*" "$out"
rows=$(echo "$out" | sed -n 's/^\([0-9]*\),.*/\1/p' | wc -l)
equal "ranks that the probe has" 2 "$rows"
columns=$(echo "$out" | head -n 1 | tr , '\n' | grep -n '^rows$' | cut -d : -f 1)
of_0=$(echo "$out" | sed -n 2p | cut -d , -f "$columns") of_1=$(echo "$out" | sed -n 3p | cut -d , -f "$columns")
[ "$of_1" -gt "$of_0" ] || fail "rank 1 reads three times as fast but has $of_1 rows, rank 0 $of_0"
hearth plan -m "$tiny" --probe "$work/slow.json" -o csv
equal "rows of rank 1 by slow links" 0 "$(echo "$out" | sed -n 3p | cut -d , -f "$columns")"
like "plan by slow links" "*rank 1 would make it slower and get nothing*" "$err"
hearth plan -m "$tiny" --probe "$work/slow.json" --split shards --shares 1,1
equal "status of a slow plan that is asked for" 0 "$status"
like "a slow plan that is asked for" "*warning: this plan is estimated at *" "$err"
hearth run -q -m "$tiny" --ranks 2 --probe "$work/slow.json" -p x -n 4 --temp 0
slow=$out
equal "status of run by slow links" 0 "$status"
hearth run -q -m "$tiny" --ranks 2 --probe "$work/fast.json" -p x -n 4 --temp 0
equal "the text by either" "$slow" "$out"

refuses 2 "*measured with 2 ranks, but there are 3*" run -q -m "$tiny" --ranks 3 --probe "$work/fast.json" -p x
refuses 2 "*$work/none*No such file*" plan -m "$tiny" --probe "$work/none"
head -c 200 "$work/fast.json" >"$work/cut.json"
refuses 2 "*$work/cut.json: line *" plan -m "$tiny" --probe "$work/cut.json"
sed 's/"hearth_probe": 1/"hearth_probe": 2/' "$work/fast.json" >"$work/new.json"
refuses 2 "*hearth_probe is 2, expected 1*" plan -m "$tiny" --probe "$work/new.json"
two_hosts -5 30 >"$work/negative.json"
refuses 2 "*transports?0?.links?0?.us?0? is -5, expected more than 0*" plan -m "$tiny" --probe "$work/negative.json"
refuses 2 "*$tiny: line 1*" plan -m "$tiny" --probe "$tiny"
refuses 2 "*-t takes*'none'*" probe -t none
refuses 2 "*-o takes*'xml'*" probe -o xml
refuses 2 "*'loose' belongs to no option*" probe -m x loose
refuses 2 "*$work/none*No such file*" probe -q -m "$work/none"
refuses 2 "*$work/no/such/folder*" probe -q -t 1 -f "$work/no/such/folder"
finish
