#!/usr/bin/env python3
"""Holds reference_models.py against llama.cpp on the models of make_models.py.

    pip install gguf numpy llama-cpp-python==0.3.36       (built from source, AMX off)
    python3 check_models.py [NAME...]

llama.cpp runs with weights, keys and values as F32 (a copy of the file whose tensors are dequantised), so that nothing
but the order of sums sets the two apart; and with the file as it is. Fails if the former differs by more than a
thousandth of the logits' range. Files that llama.cpp does not read are written for it with what `checked_with` says,
or the same weights in another form (`checked_as`). The last position's logits (F32) become `llama` in models.json.
"""
import ctypes
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as lc
import numpy as np

from make_families import rows
from make_models import read_entries, write_entries, write_model
from make_vectors import Llama, quiet
from models import MODELS
from reference_models import load
from rotary import N_CTX

T = gguf.GGMLQuantizationType


def as_floats(path, out):
    """A copy of the file with all tensors F32."""
    reader = gguf.GGUFReader(path)
    w = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            w.add_key_value(name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for t in reader.tensors:
        w.add_tensor(t.name, gguf.quants.dequantize(np.array(t.data), t.tensor_type).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def run(path, prompt, cache):
    llama = Llama(path, N_CTX, cache)
    found = llama.decode(prompt, 0, range(len(prompt)))
    llama.close()
    return found


def check(name, entry):
    """The largest difference as a part of the range. Puts what llama.cpp says into the entry."""
    m, prompt = MODELS[name], entry["prompt"]
    with tempfile.TemporaryDirectory() as folder:
        path, floats = Path(folder) / "a.gguf", Path(folder) / "b.gguf"
        write_model(name, path, **m.get("checked_with", {}))
        exact = load(path, cache=np.float64).logits(prompt)
        write_model(name, path, **m.get("checked_with", {}), **m.get("checked_as", {}))
        as_floats(path, floats)
        found, of_file = run(floats, prompt, lc.GGML_TYPE_F32), run(path, prompt, lc.GGML_TYPE_F16)
    if "checked_with" not in m:
        entry["llama"] = rows(found[-1:], [len(prompt) - 1])
    part = lambda of: np.abs(of - exact).max() / np.ptp(exact)
    print(f"{name}: llama.cpp differs by {part(found):.1e} of the range with F32 weights, by {part(of_file):.1e} with "
          f"the file's")
    return part(found)


def main():
    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    lc.llama_backend_init()
    entries = read_entries()
    unlike = [name for name in sys.argv[1:] or MODELS if check(name, entries[f"model-{name}.gguf"][0]) > 1e-3]
    write_entries(entries)
    sys.exit(f"unlike llama.cpp: {', '.join(unlike)}" if unlike else 0)


if __name__ == "__main__":
    main()
