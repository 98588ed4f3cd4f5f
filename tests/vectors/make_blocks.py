#!/usr/bin/env python3
"""Writes blocks.gguf: blocks of every quantised type, and what the gguf package says that they hold, to the last bit.

    pip install gguf numpy && python3 make_blocks.py

Tensor TYPE has the blocks, one to a row of its width, TYPE.f32 their values. Codes are random, scales too, but finite;
each point of a grid comes up.
"""
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

from make_tiny import PARTS, halves, quarters

HERE = Path(__file__).resolve().parent
BLOCKS = 8
MORE_PARTS = {
    T.Q4_0: ("d", 16), T.Q4_1: ("d", "dmin", 16), T.Q5_0: ("d", 4, 16), T.Q5_1: ("d", "dmin", 4, 16), T.Q8_0: ("d", 32),
    T.MXFP4: ("e", 16),
}


# How many points a grid has, a block numbers.
GRIDS = {T.IQ2_XXS: (256, 32), T.IQ2_XS: (512, 32), T.IQ2_S: (1024, 32), T.IQ3_XXS: (256, 64), T.IQ3_S: (512, 64),
         T.IQ1_S: (2048, 32)}


def number_points(kind, blocks):
    """Gives the blocks all numbers of points, one after the other."""
    n = np.arange(GRIDS[kind][0]).reshape(len(blocks), 8, -1)  # of each 32 weights 4 or 8
    low, high = (n & 255).astype(np.uint8), n >> 8
    shifts = np.arange(n.shape[2])
    if kind == T.IQ2_XXS:
        fours = blocks[:, 2:].copy().reshape(n.shape[:2] + (8,))
        fours[..., :4] = low
        blocks[:, 2:] = fours.reshape(len(blocks), -1)
    elif kind == T.IQ2_XS:
        words = blocks[:, 2:66].copy().view(np.uint16).reshape(n.shape)
        blocks[:, 2:66] = (words & 0xfe00 | n).astype(np.uint16).reshape(len(blocks), -1).view(np.uint8)
    else:
        blocks[:, 2:2 + 8 * n.shape[2]] = low.reshape(len(blocks), -1)
    if kind == T.IQ2_S:
        blocks[:, 66:74] = (high << 2 * shifts).sum(-1)
    elif kind == T.IQ3_S:
        blocks[:, 66:74] = (high << shifts).sum(-1)
    elif kind == T.IQ1_S:
        words = blocks[:, 34:].copy().view(np.uint16)
        blocks[:, 34:] = (words & 0xf000 | (high << 3 * shifts).sum(-1)).astype(np.uint16).view(np.uint8)


def blocks_of(parts, rng, count):
    d = rng.standard_normal(count) * np.where(np.arange(count) % 4, 1, 1e-6)  # ordinary and subnormal, of both signs
    columns = []
    for part in parts:
        if part == "e":  # the exponent of MXFP4: subnormal, ordinary, the largest
            columns.append(np.array([[0], [1], [2], [3], [100], [127], [140], [250]], np.uint8))
        elif isinstance(part, str):
            columns.append(quarters(d, rng) if part == "d4" else halves(d if part == "d" else 2 * d[::-1]))
        else:
            columns.append(rng.integers(0, 256, (count, part), np.uint8))
    return np.hstack(columns)


def main():
    w = gguf.GGUFWriter(HERE / "blocks.gguf", "llama")
    for kind, parts in sorted({**PARTS, **MORE_PARTS}.items()):
        points, numbers = GRIDS.get(kind, (BLOCKS, 1))
        blocks = blocks_of(parts, np.random.default_rng(int(kind)), points // numbers)
        if kind in GRIDS:
            number_points(kind, blocks)
        w.add_tensor(kind.name, blocks, raw_dtype=kind)
        w.add_tensor(kind.name + ".f32", gguf.quants.dequantize(blocks, kind).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
