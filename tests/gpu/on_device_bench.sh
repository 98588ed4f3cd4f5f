# The section of on_device.sh that measures the whole program, which reads this: how fast hearth bench finds it, what
# hearth probe finds of the machine, what lies where.
# shellcheck shell=sh disable=SC2154 # variables of on_device.sh

# NAME MODEL OPTION...
measure() {
    what=$1 model=$2
    shift 2
    made "$model" || return
    run "$what" 60 bin/hearth bench -q -m "$work/$model.gguf" -r 3 "$@"
    row "$(speeds "$work/output")"
    [ "$result" = ok ] && { echo "$what" && grep '^|' "$work/output" && echo; } >>"$work/benches"
}

# FILE: what hearth bench printed in short: rows of its table, and behind each those of the test's devices.
speeds() {
    awk -F ' *[|] *' '
        /^[|] test/ { for (i = 2; i < NF; i++) at[$i] = i; tables++ }
        !/^[|] (pp|tg)/ { next }
        { test = $at["test"] " x " $at["sequences"]; rate = $at["read_gb_per_s"]; peak = $at["peak_read_gb_per_s"] }
        tables == 1 { order[++n] = test ": " $at["tokens_per_s"] " tok/s, " rate " GB/s"
                      if (peak > 0) order[n] = order[n] sprintf(", %.0f %% of the peak", 100 * rate / peak) }
        tables > 1 { of = $at["device"]
                     if (peak > 0) of = of sprintf(" %.0f %% of its peak,", 100 * rate / peak)
                     of = of " " $at["share_of_wait"] " of the wait"
                     devices[test] = devices[test] (devices[test] ? "; " : "") of }
        END { for (i = 1; i <= n; i++) { test = order[i]; sub(/:.*/, "", test)
                  if (devices[test]) order[i] = order[i] " (" devices[test] ")"
                  printf "%s%s", (i > 1 ? "; " : ""), order[i] } }' "$1"
}

# Of what was measured last: decoding, as a row of what the GPU's memory gives of what it can.
decoded() {
    awk -F ' *[|] *' -v name="$what" '
        /^[|] test/ { for (i = 2; i < NF; i++) at[$i] = i; tables++ }
        /^[|] tg/ && tables == 1 { rate = $at["read_gb_per_s"]; peak = $at["peak_read_gb_per_s"]
            share = peak > 0 ? sprintf("%.0f %%", 100 * rate / peak) : ""
            printf "| %s | %s | %s | %s | %s |\n", name, $at["tokens_per_s"], rate, peak, share }
        ' "$work/output" >>"$work/decoded"
}

# What the machine and its GPU can do, into $work/probe.json, by which plans are made then.
probe() {
    run "hearth probe" 40 bin/hearth probe -q -f "$work/probe.json"
    row "$(awk -F ' *[|] *' '
        /^[|] rank/ { for (i = 2; i < NF; i++) at[$i] = i; tables++ }
        !/^[|] *[0-9]/ { next }
        tables == 1 { printf "%s threads read %s GB/s", $at["threads"], $at["read_gb_per_s"] }
        tables == 2 { printf "; %s reads %s GB/s, bus %s to it, %s back, launch %s us, waited for %s us", $at["device"],
                      $at["read_gb_per_s"], $at["up_gb_per_s"], $at["down_gb_per_s"], $at["launch_us"], $at["wait_us"] }
        ' "$work/output")"
}

# NAME PERCENT: of a model's bytes.
part_of() {
    echo "$(($(stat -c %s "$work/$1.gguf" 2>/dev/null || echo 0) * $2 / 100 / 1048576))M"
}

# MODE PERCENT HOW OPTION...: the ReGLU model beside the CPU, how fast that is and what goes where.
beside() {
    mode=$1 percent=$2 how=$3
    shift 3
    set -- --device cuda --vram-budget "$(part_of "$reglu" "$percent")" --activation relu --sparse "$mode" "$@"
    measure "ReGLU, 8 layers, live 0.10, $mode, $percent % in VRAM$how" "$reglu" -p 0 -n 48 "$@"
    [ -e "$work/$reglu.gguf" ] || return
    # Of the bench's context. The plan itself is long: what it says of it is not.
    # shellcheck disable=SC2016 # the inner shell's
    run "its plan" 20 sh -c 'exec "$@" 2>&1 >"$0"' "$work/plan" bin/hearth plan -m "$work/$reglu.gguf" -c 48 "$@" || row
    { echo "$what" && cat "$work/output" && echo; } >>"$work/plans"
}

bench() {
    table "The program: hearth bench"
    : >"$work/benches"
    : >"$work/decoded"
    : >"$work/plans"
    whole="--device cuda -ngl 999"
    reglu=7b-8l-reglu-q4_0 sparse="--activation relu -p 0 -n 48 --sparse"
    # shellcheck disable=SC2086 # options
    {
        for layers in 8 32; do
            for type in q4_0 q4_k; do
                measure "7B, $layers layers, $type" 7b-${layers}l-$type $whole -p 512 -n 64 && decoded
            done
        done
        measure "7B, 32 layers, q4_0, 8 and 32 texts" 7b-32l-q4_0 $whole -p 0 -n 32 --sequences 8,32
        for mode in exact predicted; do
            measure "ReGLU, 8 layers, live 0.10, $mode, whole" $reglu $whole $sparse $mode
        done
        probe # when all models are made
        for mode in exact predicted; do
            for percent in 50 25; do
                beside $mode $percent ""
                [ ! -e "$work/probe.json" ] || beside $mode $percent ", by the probe" --probe "$work/probe.json"
            done
            measure "ReGLU, 8 layers, live 0.10, $mode, CPU alone" $reglu --device cpu $sparse $mode
        done
        measure "7B, 32 layers, q4_0, CPU alone" 7b-32l-q4_0 --device cpu -p 0 -n 16
    }
    say ""
    say "### Decoding one text, all on the GPU"
    say ""
    say "The aim is 80 % of what its memory can be read at, on an H100 60 %."
    say ""
    say "| model | tok/s | GB/s | at most | share |"
    say "|---|---:|---:|---:|---:|"
    tee -a "$report" <"$work/decoded"
    quote "What goes where" "$work/plans"
    quote "What it printed" "$work/benches"
}
