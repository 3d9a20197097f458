"""The Poincare ball as the paper prints it (sections II-B and II-C), one vector at a time, float64, no safeguards."""

from __future__ import annotations

import math

import numpy as np


def add(x: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    xy, xx, yy = float(x @ y), float(x @ x), float(y @ y)
    return ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c * c * xx * yy)


def expmap0(v: np.ndarray, c: float) -> np.ndarray:
    n = math.sqrt(c) * np.linalg.norm(v)
    return v.copy() if n == 0 else math.tanh(n) * v / n


def logmap0(x: np.ndarray, c: float) -> np.ndarray:
    n = math.sqrt(c) * np.linalg.norm(x)
    return x.copy() if n == 0 else math.atanh(n) * x / n


def matvec(M: np.ndarray, x: np.ndarray, c: float) -> np.ndarray:
    Mx = M @ x
    nx, nMx, s = np.linalg.norm(x), np.linalg.norm(Mx), math.sqrt(c)
    return np.zeros_like(Mx) if nMx == 0 else math.tanh(nMx / nx * math.atanh(s * nx)) * Mx / (s * nMx)


def factor(x: np.ndarray, c: float) -> float:
    return 2 / (1 - c * float(x @ x))


def dist(x: np.ndarray, y: np.ndarray, c: float) -> float:
    return 2 / math.sqrt(c) * math.atanh(math.sqrt(c) * float(np.linalg.norm(add(-x, y, c))))


def expmap(x: np.ndarray, v: np.ndarray, c: float) -> np.ndarray:
    n, s = np.linalg.norm(v), math.sqrt(c)
    return x.copy() if n == 0 else add(x, math.tanh(s * factor(x, c) * n / 2) * v / (s * n), c)


def logmap(x: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    u = add(-x, y, c)
    n, s = np.linalg.norm(u), math.sqrt(c)
    return u if n == 0 else 2 / (s * factor(x, c)) * math.atanh(s * n) * u / n


def gyration(u: np.ndarray, v: np.ndarray, w: np.ndarray, c: float) -> np.ndarray:
    return add(-add(u, v, c), add(u, add(v, w, c), c), c)


def midpoint(weights: np.ndarray, x: np.ndarray, c: float) -> np.ndarray:
    """weights [k], x [k, n] -> [n]."""
    factors = np.array([factor(row, c) for row in x])
    m = (weights * factors) @ x / float(weights @ (factors - 1))
    n, s = np.linalg.norm(m), math.sqrt(c)
    return math.tanh(0.5 * math.atanh(s * n)) * m / (s * n)


def linear(W: np.ndarray, b: np.ndarray, x: np.ndarray, c: float) -> np.ndarray:
    """HLinear(x) = (W (x) x) (+) expmap0(b)."""
    return add(matvec(W, x, c), expmap0(b, c), c)


def attention(
    queries: np.ndarray,
    keys_values: np.ndarray,
    layers: dict[str, tuple[np.ndarray, np.ndarray]],
    heads: int,
    c: float,
    beta: np.ndarray | None,
) -> np.ndarray:
    """Hyperbolic attention of one sample, heads one after another.

    queries [n, D], keys_values [m, D] are points; layers holds W, b of query, key, value, out; beta [heads] selects
    the distance form, None the tangent form. Heads take their share of the coordinates in the tangent space.
    Returns points [n, D].
    """
    projected = {
        name: np.array([logmap0(linear(*layers[name], row, c), c) for row in rows])
        for name, rows in (("query", queries), ("key", keys_values), ("value", keys_values))
    }
    size = queries.shape[1] // heads
    gathered = np.zeros_like(queries)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        q, k, v = (projected[name][:, part] for name in ("query", "key", "value"))
        for i in range(len(q)):
            if beta is None:
                scores = k @ q[i] / math.sqrt(size)
            else:
                scores = np.array([-beta[h] * dist(expmap0(q[i], c), expmap0(key, c), c) for key in k])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            if beta is None:
                gathered[i, part] = weights @ v
            else:
                points = np.array([expmap0(row, c) for row in v])
                gathered[i, part] = logmap0(midpoint(weights, points, c), c)
    return np.array([linear(*layers["out"], expmap0(row, c), c) for row in gathered])
