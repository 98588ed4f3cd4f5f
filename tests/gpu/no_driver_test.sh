#!/bin/sh
# The plug-in as nvcc builds it, on a machine without a driver: it says so, and by default all goes on with the CPU.
# Skipped (status 77) where there is a driver.
#   no_driver_test.sh HEARTH FOLDER_OF_THE_PLUGIN VECTORS
folder=$2 vectors=$3
. "$(dirname "$0")/../cli/library.sh"
if [ -e /proc/driver/nvidia ] || ldconfig -p 2>/dev/null | grep -q 'libcuda\.so'; then
    echo "skipped: there is a driver"
    exit 77
fi
set -- run -q -m "$vectors/tiny-q5_1.gguf" -p "Once upon" -n 6 --temp 0 --ignore-eos --plugin-dir "$folder"
refuses 2 "*--device cuda: there is no NVIDIA driver on this machine*" "$@" --device cuda
hearth "$@" --device cpu
equal "exit status on the CPU" 0 "$status"
expected=$out
hearth "$@"
equal "exit status without a driver" 0 "$status"
equal "text without a driver" "$expected" "$out"
equal "standard error without a driver" "" "$err"
finish
