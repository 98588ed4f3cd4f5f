#!/bin/sh
# The whole program with GPUs over the shim, joined by what stands in for NCCL: the text is the CPU's.
#   program_test.sh HEARTH FOLDER_OF_THE_PLUGIN VECTORS FOLDER_OF_NCCL
folder=$2 vectors=$3 nccl=$4
. "$(dirname "$0")/../cli/library.sh"

text() {
    "$hearth" run -m "$vectors/tiny-q5_1.gguf" -p "Once upon" -n 6 --temp 0 --ignore-eos "$@" 2>"$work/err" | od -c
}

expected=$(text --device cpu)
export HEARTH_SIMT_DEVICES=2 NCCL_STAND_IN_DEVICES=2 LD_LIBRARY_PATH="$nccl"
for batch in 1 3 64; do
    found=$(text --ranks 2 --split stages --device cuda --plugin-dir "$folder" -b $batch)
    equal "text of chunks of $batch" "$expected" "$found"
    like "what is said" "*hidden states between GPUs go through NCCL*" "$(cat "$work/err")"
done
found=$(text --ranks 2 --split stages --device cuda --plugin-dir "$folder" --transport mpi)
equal "text without NCCL" "$expected" "$found"
like "what is said" "*go through pinned memory of the hosts: rank 0: --transport mpi*" "$(cat "$work/err")"
finish
