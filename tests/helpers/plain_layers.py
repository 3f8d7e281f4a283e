"""Layers in NumPy, one sample at a time without padding, that the rivals' equations are written down with once more."""

from __future__ import annotations

import numpy as np

Weights = dict[str, np.ndarray]


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    from math import erf

    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def lin(w: Weights, name: str, x):
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def norm(w: Weights, name: str, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return y * w[f"{name}.weight"] + w[f"{name}.bias"]


def chain(w: Weights, name: str, x, places, activation=relu):
    """Linear layers of an `nn.Sequential`, an activation between them."""
    for number, place in enumerate(places):
        x = lin(w, f"{name}.{place}", x)
        if number < len(places) - 1:
            x = activation(x)
    return x


def heads_of(q, k, v, heads: int):
    """Scaled dot-product attention, head by head, joined."""
    size = q.shape[1] // heads
    parts = []
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        parts.append(softmax(q[:, at] @ k[:, at].T / np.sqrt(size)) @ v[:, at])
    return np.concatenate(parts, axis=1)


def attend(w: Weights, name: str, target, source, heads: int):
    """Zero for a source of no steps."""
    if not len(source):
        return np.zeros((len(target), w[f"{name}.out.weight"].shape[0]))
    q, k, v = (lin(w, f"{name}.{part}", x) for part, x in (("query", target), ("key", source), ("value", source)))
    return lin(w, f"{name}.out", heads_of(q, k, v, heads))


def sinusoids(steps: int, width: int):
    table = np.zeros((steps, width))
    half = width // 2
    for step in range(steps):
        for i in range(half):
            angle = (step + 1) * np.exp(-np.log(10000) * i / (half - 1))
            table[step, i], table[step, half + i] = np.sin(angle), np.cos(angle)
    return table


def block(w: Weights, name: str, x, source, heads: int):
    """MulT's: pre-norm, the source normed by the target's norm."""
    own = norm(w, f"{name}.norms.0", x)
    x = x + attend(w, f"{name}.attention", own, own if source is None else norm(w, f"{name}.norms.0", source), heads)
    return x + lin(w, f"{name}.second", relu(lin(w, f"{name}.first", norm(w, f"{name}.norms.1", x))))


def opened(x):
    return np.sqrt(x.shape[1]) * x + sinusoids(*x.shape)


def encoder(w: Weights, name: str, x, source, heads: int, layers: int, scaled: bool = True):
    x, source = (opened(x) if scaled else x), (source if source is None or not scaled else opened(source))
    for number in range(layers):
        x = block(w, f"{name}.blocks.{number}", x, source, heads)
    return norm(w, f"{name}.norm", x)


def lstm(w: Weights, name: str, x, suffix: str = "l0"):
    """States (L, H) of one direction of one layer; `_reverse` in the suffix reads from the end."""
    hidden = w[f"{name}.weight_hh_{suffix}"].shape[1]
    h, c, states = np.zeros(hidden), np.zeros(hidden), []
    for step in x[::-1] if "reverse" in suffix else x:
        gates = w[f"{name}.weight_ih_{suffix}"] @ step + w[f"{name}.bias_ih_{suffix}"]
        gates = gates + w[f"{name}.weight_hh_{suffix}"] @ h + w[f"{name}.bias_hh_{suffix}"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    states = np.array(states).reshape(-1, hidden)
    return states[::-1] if "reverse" in suffix else states


def gru(w: Weights, name: str, x, suffix: str = "l0"):
    hidden = w[f"{name}.weight_hh_{suffix}"].shape[1]
    h, states = np.zeros(hidden), []
    for step in x[::-1] if "reverse" in suffix else x:
        a = np.split(w[f"{name}.weight_ih_{suffix}"] @ step + w[f"{name}.bias_ih_{suffix}"], 3)
        b = np.split(w[f"{name}.weight_hh_{suffix}"] @ h + w[f"{name}.bias_hh_{suffix}"], 3)
        r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
        h = (1 - z) * np.tanh(a[2] + r * b[2]) + z * h
        states.append(h)
    states = np.array(states).reshape(-1, hidden)
    return states[::-1] if "reverse" in suffix else states


def both_ways(w: Weights, name: str, x, layers: int, cell=lstm):
    """States (L, 2H) of a two-way network of several layers."""
    for layer in range(layers):
        x = np.concatenate([cell(w, name, x, f"l{layer}"), cell(w, name, x, f"l{layer}_reverse")], axis=1)
    return x


def mean(x, width: int):
    return x.mean(axis=0) if len(x) else np.zeros(width)
