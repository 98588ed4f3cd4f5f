#!/bin/sh
# The whole program with a plug-in over the shim: whatever a GPU gets, the text is the CPU's; and what is said of GPUs
# that are none, too old or too small.
#   program_test.sh HEARTH FOLDER_OF_THE_PLUGIN VECTORS [MPIRUN]
folder=$2 vectors=$3 mpirun=${4:-}
. "$(dirname "$0")/../cli/library.sh"

# MODEL ARGUMENT...: the text, as bytes of its own.
text() {
    model=$1
    shift
    "$hearth" run -q -m "$vectors/$model.gguf" -p "Once upon" -n 6 --temp 0 --ignore-eos -b 3 "$@" 2>"$work/err" | od -c
}

# MODEL ARGUMENT...: on a GPU as on the CPU; $cpu are arguments of both.
same() {
    # shellcheck disable=SC2086 # they are several
    expected=$(text "$1" --device cpu $cpu)
    # shellcheck disable=SC2086
    found=$(text "$@" --plugin-dir "$folder" $cpu)
    equal "text of $* $cpu" "$expected" "$found"
    equal "standard error of $* $cpu" "" "$(cat "$work/err")"
}

# "HEADS" "SETS" [MORE]: a plan of one rank for models of two layers with 2 KV heads and 288 neurons.
plan() {
    cat > "$work/plan.json" <<END
{"hearth_plan": 2, "model": {"architecture": "llama", "layers": 2}, "ranks": 1,
 "holders": [{"rank": 0, "device": "cpu"}, {"rank": 0, "device": "cuda:0"}],
 "layers": [{"from": 0, "to": 2, "stage": 0, "d_ff": 288, "kv_heads": 2, "heads": [$1], "sets": [$2]}]$3}
END
}
half='{"holder": 1, "neurons": [[0, 128]]}, {"holder": 0, "neurons": [[128, 288]]}'
home=', "stages": [{"rank": 0, "device": "cuda:0"}]'

cpu=
for layers in 1 2 99; do
    same tiny-q5_1 -ngl $layers
done
same tiny-q6_k
same tiny-qwen3 --device cuda
# Families with norms behind blocks, windows, ropes, caps and factors of their own.
for model in gemma2 gemma3 granite llama-llama3 llama-linear llama-yarn mistral3 olmo2 olmo3 phi3 phi3-short \
    smollm3; do
    same model-$model -ngl 99
done
same model-gemma3 -ngl 3
same model-smollm3 -ngl 2
same model-olmo2 -ngl 1
# Experts: of all kinds of routers, beside shared ones, behind layers without any; all on the GPU, a layer of them, or a
# part of each expert, x being at home on either.
for model in glm4moe gpt-oss llama-moe-each qwen2moe qwen3moe smallthinker; do
    same model-$model -ngl 99
done
same model-qwen3moe-q4_0 -ngl 1
# "SETS" [MORE]: a plan of one rank for the last model's 5 experts of 160 neurons.
moe_plan() {
    cat > "$work/plan.json" <<END
{"hearth_plan": 2, "model": {"architecture": "qwen3moe", "layers": 2}, "ranks": 1,
 "holders": [{"rank": 0, "device": "cpu"}, {"rank": 0, "device": "cuda:0"}],
 "layers": [{"from": 0, "to": 2, "stage": 0, "d_ff": 160, "experts": 5, "experts_used": 2, "sets": [$1]}]$2}
END
}
own='{"holder": 1, "neurons": [[0, 128], [288, 480], [640, 800]]}, {"holder": 0, "neurons": [[128, 288], [480, 640]]}'
moe_plan "$own"
same model-qwen3moe-q4_0 --plan "$work/plan.json"
moe_plan "$own" "$home"
same model-qwen3moe-q4_0 --plan "$work/plan.json"
# Latent attention, whose query heads alone are cut.
for model in deepseek2 deepseek2-kv-b deepseek2-q8_0; do
    same model-$model -ngl 99
done
cat > "$work/plan.json" <<END
{"hearth_plan": 2, "model": {"architecture": "deepseek2", "layers": 2}, "ranks": 1,
 "holders": [{"rank": 0, "device": "cpu"}, {"rank": 0, "device": "cuda:0"}], "layers": [
 {"from": 0, "to": 1, "stage": 0, "d_ff": 160, "kv_heads": 4, "heads": [0, 1, 4],
  "sets": [{"holder": 0, "neurons": [[0, 160]]}]},
 {"from": 1, "to": 2, "stage": 0, "d_ff": 32, "experts": 8, "experts_used": 2, "d_shared": 64, "kv_heads": 4,
  "heads": [0, 3, 4], "sets": [{"holder": 1, "neurons": [[0, 320]]}]}]}
END
same model-deepseek2-lite --plan "$work/plan.json"
cpu="--activation relu"
same family-falcon -ngl 1
cpu=
export HEARTH_SIMT_DEVICES=2
same tiny-q4_0 --ranks 2 --device cuda
same tiny-q4_0 --ranks 2 --split stages -ngl 1
for cpu in "--sparse predicted" "--sparse predicted --split stages"; do
    same family-llama-sparse --ranks 2 --device cuda
done
cpu=
if [ "$mpirun" ]; then
    expected=$(text tiny-q5_1 --device cpu)
    found=$("$mpirun" --allow-run-as-root --oversubscribe --bind-to none -np 2 "$hearth" run -q -m \
        "$vectors/tiny-q5_1.gguf" -p "Once upon" -n 6 --temp 0 --ignore-eos -b 3 --device cuda --plugin-dir "$folder" \
        2>"$work/err" | od -c)
    equal "text of two processes ($(cat "$work/err"))" "$expected" "$found"
fi
export HEARTH_SIMT_DEVICES=1

# 8 sequences in one batch: how well each of their tokens is predicted.
# MODEL ARGUMENT...
score() {
    model=$1
    shift
    "$hearth" perplexity -q -m "$vectors/$model.gguf" -f "$vectors/text/licences.txt" -c 8 -b 64 --chunks 8 -o json \
        "$@" 2>"$work/err"
}
for sparse in dense predicted; do
    expected=$(score family-llama-sparse --device cpu --sparse $sparse)
    like "score of 8 sequences, $sparse" '*"perplexity": [0-9]*"scored": 24,*"windows": 8,*' "$expected"
    for layers in 1 99; do
        found=$(score family-llama-sparse -ngl $layers --plugin-dir "$folder" --sparse $sparse)
        equal "score of 8 sequences, $sparse, -ngl $layers ($(cat "$work/err"))" "$expected" "$found"
    done
done

# Models as people use them: 135 million weights, which take the shim a second or more for a token. With
# HEARTH_TEST_GPU_FULL (tests/gpu/full.sh) more of it, and a prompt of which 8 tokens run together.
whole=${HEARTH_TEST_GPU_FULL:-}
prompt="Once upon a time${whole:+ there was a small house with}"
relu_model=${HEARTH_TEST_RELU_MODEL:-}

# MODEL ARGUMENT...: the text of a model that is no vector.
text_of() {
    model=$1
    shift
    "$hearth" run -q -m "$model" -p "$prompt" -n 4 -c 128 --temp 0 --ignore-eos -b 8 "$@" 2>"$work/err" | od -c
}

# MODEL OPTION...: on a GPU as on the CPU; $both are options of either.
same_text() {
    # shellcheck disable=SC2086 # they are several
    expected=$(text_of "$1" --device cpu $both)
    # shellcheck disable=SC2086
    found=$(text_of "$@" --plugin-dir "$folder" $both)
    equal "text of $* $both" "$expected" "$found"
    equal "standard error of $* $both" "" "$(cat "$work/err")"
    [ "$expected" ] || fail "no text of $1"
}

# The plan of a rank for 30 layers with 3 KV heads and 1536 neurons: attention and the hot neurons on the GPU.
hot='[{"holder": 1, "neurons": [[0, 512]]}, {"holder": 0, "neurons": [[512, 1536]]}]'
cat > "$work/hot.json" <<END
{"hearth_plan": 2, "model": {"architecture": "llama", "layers": 30}, "ranks": 1,
 "holders": [{"rank": 0, "device": "cpu"}, {"rank": 0, "device": "cuda:0"}],
 "layers": [{"from": 0, "to": 30, "stage": 0, "d_ff": 1536, "kv_heads": 3, "heads": [0, 0, 3], "sets": $hot}]}
END

both=
if [ -f "$model" ]; then
    [ ! "$whole" ] || same_text "$model" -ngl 99
    same_text "$model" --plan "$work/hot.json"
    [ ! "$whole" ] || same_text "$model" --ranks 2 --split stages -ngl 4
else
    echo "SKIP: HEARTH_TEST_MODEL names no model"
fi
if [ -f "$relu_model" ]; then
    both="--activation relu --sparse exact"
    same_text "$relu_model" --plan "$work/hot.json"
    if [ "$whole" ]; then
        same_text "$relu_model" -ngl 99
        same_text "$relu_model" --ranks 2 --split shards -ngl 4
        hearth prepare -q -m "$relu_model" --activation relu --device cpu -c 128 --chunks 16 \
            --neurons "$work/relu.neurons.gguf" --report "$work/relu.html"
        equal "exit status of prepare ($err)" 0 "$status"
        both="--activation relu --sparse predicted --neurons $work/relu.neurons.gguf"
        same_text "$relu_model" --plan "$work/hot.json"
        same_text "$relu_model" -ngl 99
    fi
else
    echo "SKIP: HEARTH_TEST_RELU_MODEL names no model"
fi

# Attention and the first neurons on the GPU, the others on the CPU; x at home on either. Of the sparse modes too.
for cpu in "" "--sparse exact" "--sparse predicted"; do
    same family-llama-sparse -ngl 99
    plan "0, 0, 2" "$half" "$home"
    same family-llama-sparse --plan "$work/plan.json"
    plan "0, 1, 2" "$half"
    same family-llama-sparse --plan "$work/plan.json"
done
cpu="--sparse exact"
same family-opt -ngl 1
same family-bamboo-sparse -ngl 99

# What is measured: of two processes each has the GPU in its turn; one that fails is named, and left out.
hearth probe -q -t 1 -f "$work/one.json" --plugin-dir "$folder"
equal "status of probe" 0 "$status"
like "the GPU that probe measures" "*| cuda:0 | SIMT shim 0 | *2.00 |*" "$out"
like "its file" '*"gpus"*"device": "cuda:0"*"read_gb_per_s": [0-9]*"wait_us": [0-9]*' "$(cat "$work/one.json")"
hearth plan -q -m "$vectors/tiny-q5_1.gguf" --device cpu --probe "$work/one.json"
equal "status of plan by it" 0 "$status"

# bench says of the GPU what it reads, beside the most that it can: as measured before it begins, or by a probe.
# ROW FIELD: of the table that bench printed last.
of_bench() {
    echo "$out" | awk -F ' *[|] *' -v row="$1" -v field="$2" '
        /^[|] test/ { for (i = 2; i < NF; i++) at[$i] = i; n++ }
        /^[|] (pp|tg)/ && n == row { print $at[field]; exit }'
}
sed 's/"read_gb_per_s": [0-9.]*/"read_gb_per_s": 123.5/' "$work/one.json" >"$work/known.json"
for by in "" "--probe $work/known.json"; do
    # shellcheck disable=SC2086 # an option and its value
    hearth bench -q -m "$vectors/tiny-q5_1.gguf" -t 1 -p 4 -n 1 -r 1 -ngl 99 --plugin-dir "$folder" $by
    equal "device of bench $by ($err)" cuda:0 "$(of_bench 2 device)"
    like "its peak" "[0-9]*.[0-9]*" "$(of_bench 2 peak_read_gb_per_s)"
    equal "peak of all that computes" "$(of_bench 2 peak_read_gb_per_s)" "$(of_bench 1 peak_read_gb_per_s)"
done
equal "peak of the GPU by the probe" 123.5 "$(of_bench 2 peak_read_gb_per_s)"
hearth bench -q -m "$vectors/tiny-q5_1.gguf" -t 1 -p 0 -n 1 -r 1 --device cpu
equal "tables of bench of a CPU" 1 "$(echo "$out" | grep -c "^| test")"

export HEARTH_SIMT_FAIL=40
hearth probe -q -t 1 -f "$work/fails.json" --plugin-dir "$folder"
equal "status of probe of a GPU that fails" 0 "$status"
like "a GPU that fails" "*warning: cuda:0 cannot be *: * (*): it is left out*" "$err"
unset HEARTH_SIMT_FAIL
equal "a GPU that failed in the file" 0 "$(grep -c cuda "$work/fails.json")"
if [ "$mpirun" ]; then
    "$mpirun" --allow-run-as-root --oversubscribe --bind-to none -np 2 "$hearth" probe -q -t 1 -f "$work/two.json" \
        --plugin-dir "$folder" >"$work/out" 2>"$work/err" || fail "probe of two processes: $(cat "$work/err")"
    equal "GPUs of two processes" 2 "$(grep -c "| cuda:0 | SIMT shim 0 |" "$work/out")"
fi

# What stands in the way.
refuse() {
    pattern=$1
    shift
    refuses 2 "$pattern" run -q -m "$vectors/tiny-q5_1.gguf" -p x --plugin-dir "$folder" "$@"
}
hearth plan -q -m "$vectors/tiny-q5_1.gguf" --plugin-dir "$folder" -o csv
like "plan" "*0,cpu,none,0,0,*0,cuda:0,0-1,*" "$out"
refuse "*cuda:0 (SIMT shim 0) need * MiB*the budget is 0.0*" --vram-budget 1K
refuse "*every GPU of rank 1 is another rank's*" --ranks 2 --device cuda
export HEARTH_SIMT_CAPABILITY=61
refuse "*--device cuda: cuda:0, SIMT shim 0, has compute capability 6.1, hearth needs 7.5*" --device cuda
unset HEARTH_SIMT_CAPABILITY
export HEARTH_SIMT_DRIVER=11040
too_old="the NVIDIA driver is too old: it knows CUDA 11.4, the plug-in needs 12.*; install a newer driver"
refuse "*--device cuda: $too_old" --device cuda
cpu=
same tiny-q5_1
export HEARTH_SIMT_DRIVER=0
refuse "*--device cuda: there is no NVIDIA driver on this machine*" --device cuda
same tiny-q5_1
unset HEARTH_SIMT_DRIVER
export HEARTH_SIMT_DEVICES=0
refuse "*--device cuda: there is no NVIDIA GPU on this machine*" --device cuda
export CUDA_VISIBLE_DEVICES=
refuse "*--device cuda: CUDA_VISIBLE_DEVICES is '', which hides every GPU*" --device cuda
cpu=
same tiny-q5_1
finish
