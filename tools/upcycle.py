#!/usr/bin/env python3
"""Makes a model with experts of a dense one, to measure on real weights what sparse modes cost within experts.

    tools/upcycle.py dense.gguf experts.gguf --experts 8 --used 6

Each layer's neurons are parted into experts of equal size whose gate rows point the same way (balanced k-means, as in
MoEfication, Zhang et al., 2022). An expert's router row is the mean of its gate rows, each weighed by how much its
neuron can give, and so small that all chosen experts weigh 1 / used, to a hundredth; down projections are multiplied by
`used`. So with all experts chosen the model is the dense one, to rounding, and with fewer the neurons of the others are
left out. Rows of gate and up keep their bytes; down projections become Q8_0. Nothing is trained.

Needs numpy and gguf. The dense model is a `llama` of gates, ups and downs.
"""
import argparse

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, GGUFValueType
from gguf.quants import dequantize, quantize

LOGIT = 0.002  # deviation of router logits, so that weights of the chosen ones hardly differ
ROUNDS = 12


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def assign(nearness, width):
    """The expert of each neuron: the nearest that has room, those first that would lose most by another."""
    expert = np.full(len(nearness), -1)
    room = np.full(nearness.shape[1], width)
    best = np.sort(nearness, axis=1)
    for i in np.argsort(best[:, -2] - best[:, -1], kind="stable"):
        e = max((k for k in range(len(room)) if room[k]), key=lambda k: nearness[i, k])
        expert[i] = e
        room[e] -= 1
    return expert


def cluster(gate, experts):
    """The expert of each neuron, as many for each."""
    rows, width = unit(gate), len(gate) // experts
    centres = rows[np.random.default_rng(1).choice(len(rows), experts, replace=False)]
    for _ in range(ROUNDS):
        expert = assign(rows @ centres.T, width)
        centres = unit(np.stack([rows[expert == e].mean(axis=0) for e in range(experts)]))
    return expert


def floats(tensor):
    return dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def copy_keys(reader, writer, changed):
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture" or field.name in changed:
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind,
                             field.types[-1] if kind == GGUFValueType.ARRAY else None)


def add_layer(writer, tensors, layer, args):
    gate, up, down = (tensors.pop(f"blk.{layer}.ffn_{name}.weight") for name in ("gate", "up", "down"))
    rows, columns = floats(gate), floats(down).T
    expert = cluster(rows, args.experts)
    order = np.argsort(expert, kind="stable")
    gives = np.linalg.norm(columns, axis=1) * np.linalg.norm(floats(up), axis=1)
    router = np.stack([(rows * gives[:, None])[expert == e].mean(axis=0) for e in range(args.experts)])
    # What is normed has a square mean of one.
    router *= LOGIT / np.linalg.norm(router - router.mean(axis=0), axis=1).mean()
    shape = (args.experts, len(rows) // args.experts)
    for name, tensor in (("gate", gate), ("up", up)):
        writer.add_tensor(f"blk.{layer}.ffn_{name}_exps.weight", tensor.data[order].reshape(*shape, -1),
                          raw_dtype=tensor.tensor_type)
    mixed = (args.used * columns[order]).reshape(*shape, -1).transpose(0, 2, 1)
    q8 = GGMLQuantizationType.Q8_0
    writer.add_tensor(f"blk.{layer}.ffn_down_exps.weight", quantize(np.ascontiguousarray(mixed), q8), raw_dtype=q8)
    writer.add_tensor(f"blk.{layer}.ffn_gate_inp.weight", router.astype(np.float32))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dense")
    parser.add_argument("out")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--used", type=int, default=6)
    args = parser.parse_args()
    reader = GGUFReader(args.dense)
    arch = reader.fields["general.architecture"].contents()
    d_ff = reader.fields[f"{arch}.feed_forward_length"].contents()
    if arch != "llama" or d_ff % args.experts or d_ff // args.experts % 32:
        parser.error(f"{args.dense}: expected a llama of neurons for {args.experts} experts of 32 each, or more blocks"
                     " of 32")
    writer = GGUFWriter(args.out, arch)
    changed = {"llama.feed_forward_length": d_ff // args.experts, "llama.expert_count": args.experts,
               "llama.expert_used_count": args.used}
    copy_keys(reader, writer, changed)
    for name, value in changed.items():
        writer.add_uint32(name, value)
    tensors = {t.name: t for t in reader.tensors}
    for layer in range(reader.fields["llama.block_count"].contents()):
        add_layer(writer, tensors, layer, args)
    for tensor in tensors.values():
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
