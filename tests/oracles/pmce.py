"""The layers of PMCE in float64 numpy, one token at a time, written from the paper's equations.

p: a module's parameters by name. n and m tokens, D token size, T frames.
"""

from __future__ import annotations

import math

import numpy as np
import torch


def arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def linear(p: dict, name: str, x: np.ndarray) -> np.ndarray:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def standardised(x: np.ndarray) -> np.ndarray:
    """Equation 4, with the epsilon of the ordinary layer norm."""
    out = np.empty_like(x)
    for i, row in enumerate(x):
        mean = sum(row) / len(row)
        out[i] = (row - mean) / math.sqrt(sum((row - mean) ** 2) / len(row) + 1e-5)
    return out


def adaptive_norm(p: dict, name: str, x: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Equations 6 and 7 on x [n, D]; the network keeps alpha - 1."""
    alpha, beta = np.split(linear(p, f"{name}.affine", f), 2)
    return (1 + alpha) * standardised(x) + beta


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """Equations 1 and 2 before W; q [n, D], k and v [m, D]."""
    out, d = np.zeros_like(q), q.shape[1] // heads
    for h in range(heads):
        s = slice(h * d, (h + 1) * d)
        for i in range(len(q)):
            scores = np.array([q[i, s] @ key for key in k[:, s]]) / math.sqrt(d)
            weights = np.exp(scores) / np.exp(scores).sum()
            out[i, s] = sum(w * value for w, value in zip(weights, v[:, s]))
    return out


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def named_attention(p: dict, name: str, queries: np.ndarray, others: np.ndarray, heads: int) -> np.ndarray:
    q, k, v = (
        linear(p, f"{name}.{part}", x) for part, x in zip(("query", "key", "value"), (queries, others, others))
    )
    return linear(p, f"{name}.out", attention(q, k, v, heads))


def mlp(p: dict, name: str, x: np.ndarray) -> np.ndarray:
    return linear(p, f"{name}.narrow", gelu(linear(p, f"{name}.widen", x)))


def half_of_block(p: dict, own: str, other: str, points: dict, f: np.ndarray, heads: int) -> np.ndarray:
    X, Y = (linear(p, f"{name}.embed", points[name]) + p[f"{name}.position"] for name in (own, other))
    query, key = adaptive_norm(p, f"{own}.norm1", X, f), adaptive_norm(p, f"{other}.norm1", Y, f)
    X = named_attention(p, f"{own}.cross_attention", query, key, heads) + X  # 8
    X = mlp(p, f"{own}.mlp1", adaptive_norm(p, f"{own}.norm2", X, f)) + X  # 9
    normed = adaptive_norm(p, f"{own}.norm3", X, f)
    X = named_attention(p, f"{own}.self_attention", normed, normed, heads) + X  # 10
    X = mlp(p, f"{own}.mlp2", adaptive_norm(p, f"{own}.norm4", X, f)) + X
    return points[own] + linear(p, f"{own}.regress", X)


def transformer_layer(p: dict, name: str, x: np.ndarray, heads: int) -> np.ndarray:
    """x [n, D]."""
    normed = standardised(x) * p[f"{name}.norm1.weight"] + p[f"{name}.norm1.bias"]
    q, k, v = np.split(linear(p, f"{name}.qkv", normed), 3, axis=1)
    x = x + linear(p, f"{name}.out", attention(q, k, v, heads))
    normed = standardised(x) * p[f"{name}.norm2.weight"] + p[f"{name}.norm2.bias"]
    return x + linear(p, f"{name}.narrow", gelu(linear(p, f"{name}.widen", normed)))


def gru(p: dict, inputs: np.ndarray, end: str) -> np.ndarray:
    """Last state of a GRU over inputs [T, n]; end names its parameters."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    h = np.zeros(p[f"gru.weight_hh_{end}"].shape[1])
    for x in inputs:
        of_x = np.split(p[f"gru.weight_ih_{end}"] @ x + p[f"gru.bias_ih_{end}"], 3)
        of_h = np.split(p[f"gru.weight_hh_{end}"] @ h + p[f"gru.bias_hh_{end}"], 3)
        reset, update = sigmoid(of_x[0] + of_h[0]), sigmoid(of_x[1] + of_h[1])
        h = (1 - update) * np.tanh(of_x[2] + reset * of_h[2]) + update * h
    return h
