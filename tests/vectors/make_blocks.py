#!/usr/bin/env python3
"""Writes blocks.gguf: blocks of every quantised type, and what the gguf package says that they hold, to the last bit.

    pip install gguf numpy && python3 make_blocks.py

Tensor TYPE has the blocks, one to a row of its width, TYPE.f32 their values. Codes are random, scales too, but finite.
"""
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

from make_tiny import PARTS, halves

HERE = Path(__file__).resolve().parent
BLOCKS = 8
MORE_PARTS = {
    T.Q4_0: ("d", 16), T.Q4_1: ("d", "dmin", 16), T.Q5_0: ("d", 4, 16), T.Q5_1: ("d", "dmin", 4, 16), T.Q8_0: ("d", 32),
    T.MXFP4: ("e", 16),
}


def blocks_of(parts, rng):
    columns = []
    for part in parts:
        if part == "e":  # the exponent of MXFP4: subnormal, ordinary, the largest
            columns.append(np.array([[0], [1], [2], [3], [100], [127], [140], [250]], np.uint8))
        elif isinstance(part, str):  # ordinary and subnormal, of both signs
            columns.append(halves(rng.standard_normal(BLOCKS) * np.where(np.arange(BLOCKS) % 4, 1, 1e-6)))
        else:
            columns.append(rng.integers(0, 256, (BLOCKS, part), np.uint8))
    return np.hstack(columns)


def main():
    w = gguf.GGUFWriter(HERE / "blocks.gguf", "llama")
    for kind, parts in sorted({**PARTS, **MORE_PARTS}.items()):
        blocks = blocks_of(parts, np.random.default_rng(int(kind)))
        w.add_tensor(kind.name, blocks, raw_dtype=kind)
        w.add_tensor(kind.name + ".f32", gguf.quants.dequantize(blocks, kind).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
