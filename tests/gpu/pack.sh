#!/bin/sh
# Makes a folder with everything that a machine with a GPU needs to check hearth: nothing is compiled or fetched there.
#
#   sh tests/gpu/pack.sh FOLDER [CAPABILITIES]       e.g. 90; default: all from 80 to 120
#
# A GPU newer than 12.0 translates the intermediate code when it first starts.
#
# Then, on that machine, in the folder: sh on_device.sh REPORT. Its C library must not be older than this machine's.
set -eu
case ${1:-} in
'' | -*)
    echo "usage: pack.sh FOLDER [CAPABILITIES]" >&2
    exit 2
    ;;
esac
mkdir -p "$1"
folder=$(cd "$1" && pwd)
capabilities=${2:-80;86;89;90;100;120}
most_mb=60
cd "$(dirname "$0")/../.."

# The program without MPI needs nothing but libc. The plug-in and the tests find their libraries beside themselves, and
# so do these theirs (an old RPATH holds for them too, a RUNPATH would not).
build() { # FOLDER TARGETS OPTION...
    into=build/$1 targets=$2
    shift 2
    mkdir -p build
    # shellcheck disable=SC2086 # targets are a list
    if ! { cmake -G Ninja -S . -B "$into" -DCMAKE_BUILD_TYPE=Release "$@" &&
           cmake --build "$into" --target $targets; } >"$into.log" 2>&1; then
        cat "$into.log" >&2
        echo "pack.sh: the build failed" >&2
        exit 1
    fi
}
build pack-program "hearth hearth-synth" -DHEARTH_MPI=OFF -DHEARTH_CUDA=OFF
# shellcheck disable=SC2016 # the loader knows $ORIGIN
build pack-gpu cuda_tests -DHEARTH_CUDA=ON "-DHEARTH_CUDA_ARCHITECTURES=$capabilities" \
    -DCMAKE_CUDA_FLAGS=--compress-mode=size \
    '-DCMAKE_BUILD_RPATH=$ORIGIN/../lib' -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags \
    -DCMAKE_MODULE_LINKER_FLAGS=-Wl,--disable-new-dtags

rm -rf "${folder:?}/bin" "${folder:?}/lib" "${folder:?}/tests"
mkdir -p "$folder/bin" "$folder/lib" "$folder/tests/vectors"
cp build/pack-program/hearth build/pack-program/hearth-synth "$folder/bin"
for program in build/pack-gpu/libhearth_cuda.so build/pack-gpu/cuda_*; do
    if [ -f "$program" ]; then # a folder of CMake's is not
        cp "$program" "$folder/bin"
    fi
done
strip "$folder"/bin/*

# All but the C library's own, which must be of the machine that runs it, and the driver's.
for program in "$folder"/bin/*; do
    ldd "$program" | sed -n 's/^[[:space:]]*\([^ ]*\) => \(\/[^ ]*\) .*/\1 \2/p'
done | sort -u | while read -r name path; do
    case $name in
    libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | ld-linux* | libcuda.so.*) ;;
    *) cp -L "$path" "$folder/lib/$name" ;;
    esac
done
strip "$folder"/lib/* 2>/dev/null || true

cp tests/vectors/*.gguf tests/vectors/families.json tests/vectors/tiny.json "$folder/tests/vectors"
cp -r tests/vectors/text "$folder/tests/vectors"
cp tests/gpu/on_device.sh tests/gpu/on_device_bench.sh "$folder"
git describe --always --dirty >"$folder/version" 2>/dev/null || echo unknown >"$folder/version"

# A third of the size; on_device.sh unpacks them.
tar -C "$folder" -czf "$folder/programs.tar.gz" bin lib
rm -rf "${folder:?}/bin" "${folder:?}/lib"

mb=$(du -sm "$folder" | cut -f1)
echo "$folder: $mb MB, for $capabilities"
[ "$mb" -le $most_mb ] || {
    echo "pack.sh: more than $most_mb MB: name fewer capabilities" >&2
    exit 1
}
