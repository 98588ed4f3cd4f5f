"""Rotary positions in all their scalings, in float64: part of reference_models.py."""
import math

import numpy as np

N_CTX = 128  # the context that is asked for


def yarn_ramp(n_rot, base, original, fast, slow):
    """Per pair: 1 where it turns so fast that it stays as it is, 0 where it turns as much slower as the factor says."""
    corner = lambda turns: n_rot * math.log(original / (2 * math.pi * turns)) / (2 * math.log(base))
    low, high = max(0, math.floor(corner(fast))), min(n_rot - 1, math.ceil(corner(slow)))
    return 1 - np.clip((np.arange(n_rot // 2) - low) / max(0.001, high - low), 0, 1)


def frequencies(model, i, base=None, scaled=True):
    """Of layer i: radians a position of every pair, and what cos and sin are multiplied with."""
    key, n_rot = model.key, model.n_rot
    base = base or key("rope.freq_base", 10000.0)
    f = base ** (-np.arange(0, n_rot, 2) / n_rot)
    kind = key("rope.scaling.type", "linear")
    factor = key("rope.scaling.factor", key("rope.scale_linear", 0)) or 1
    magnitude = key("rope.scaling.attn_factor", 1.0)
    if scaled and kind == "yarn":
        ramp = yarn_ramp(n_rot, base, key("rope.scaling.original_context_length"),
                         *model.yarn_betas)
        f = f * ((1 - ramp) / factor + ramp)
        magnitude *= 0.1 * math.log(factor) + 1 if model.yarn_magnitude is None else model.yarn_magnitude
    elif scaled and kind == "linear":
        f = f / factor
    return f / divisors(model), magnitude


def divisors(model):
    """Of every pair: what files give as a tensor. Of the two of phi3 that for the context that was asked for."""
    if "rope_factors_long.weight" not in model.w:
        return model.w.get("rope_freqs.weight", 1)
    long = N_CTX > model.key("rope.scaling.original_context_length", model.key("context_length"))
    return model.w["rope_factors_long.weight" if long else "rope_factors_short.weight"]


def turn(x, f, magnitude, neighbours):
    """Turns the first 2 len(f) values of [n, heads, values] by position."""
    n_rot = 2 * len(f)
    angle = np.outer(np.arange(len(x)), f)[:, None]
    cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
    a, b = ((slice(0, n_rot, 2), slice(1, n_rot, 2)) if neighbours else
            (slice(0, n_rot // 2), slice(n_rot // 2, n_rot)))
    out = x.copy()
    out[..., a], out[..., b] = x[..., a] * cos - x[..., b] * sin, x[..., a] * sin + x[..., b] * cos
    return out
