"""Transformer layers on the Poincare ball: HLinear, HGELU, HAdaLN, attention (HCA, HSA) and HMLP.

A point x of the ball is carried as its tangent vector v = logmap0(x) from layer to layer. This is the same
network, because each layer of the paper (section II-B) is written in terms of expmap0 and logmap0:
    W (x) x = expmap0(W v),   HGELU(x) = expmap0(GELU(v)),   HAdaLN(x, f) = expmap0(AdaLN(v, f)),
and only the additions (+), the distances and the midpoints need points. It saves the maps back and forth and
their rounding at the boundary. Every forward takes the curvature c (a float or a scalar tensor, > 0); c = None
gives the Euclidean twin, which is also the limit c -> 0.

Shapes: B batch, n and m tokens, D token size, H heads, F size of the prior f.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from core import manifold
from core.manifold import Curvature

ATTENTION_FORMS = ("distance", "tangent")


def hyperbolic_add(u: Tensor, v: Tensor, c: Curvature | None) -> Tensor:
    """x (+) y on tangent vectors; u + v where c is None. [..., D], [..., D] -> [..., D]."""
    return u + v if c is None else manifold.tangent_add(u, v, c=c)


class HLinear(nn.Module):
    """HLinear(x) = (W (x) x) (+) expmap0(b). [..., n_in] -> [..., n_out]."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.zeros(n_out))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, v: Tensor, c: Curvature | None) -> Tensor:
        if c is None:
            return functional.linear(v, self.weight, self.bias)
        return manifold.tangent_add(functional.linear(v, self.weight), self.bias, c=c)


class HGELU(nn.Module):
    """expmap0 . GELU . logmap0. [..., D] -> [..., D]; the same for every curvature on tangent vectors."""

    def forward(self, v: Tensor) -> Tensor:
        return functional.gelu(v, approximate="tanh")


class HAdaLN(nn.Module):
    """expmap0(alpha(f) * (v - mean)/std + beta(f)) with v = logmap0(x): PMCE equation 6 in the tangent space.

    x [B, n, D], f [B, F] -> [B, n, D].
    """

    def __init__(self, dim: int, prior_dim: int):
        super().__init__()
        self.dim = dim
        self.affine = nn.Linear(prior_dim, 2 * dim)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)

    def forward(self, v: Tensor, f: Tensor) -> Tensor:
        alpha, beta = self.affine(f).float().unsqueeze(1).chunk(2, dim=-1)  # [B, 1, D] each
        return torch.addcmul(beta, functional.layer_norm(v.float(), (self.dim,)), 1 + alpha)


class HMLP(nn.Module):
    """HLinear, HGELU, HLinear. [..., D] -> [..., D]."""

    def __init__(self, dim: int, ratio: float):
        super().__init__()
        hidden = int(dim * ratio)
        self.widen = HLinear(dim, hidden)
        self.act = HGELU()
        self.narrow = HLinear(hidden, dim)

    def forward(self, v: Tensor, c: Curvature | None) -> Tensor:
        return self.narrow(self.act(self.widen(v, c)), c)


class HAttention(nn.Module):
    """Multi-head attention between points of the ball; each head has a ball of its own, of D/H dimensions.

    Form "distance": weights softmax(-beta d_c(q, k)) with a learned beta > 0 per head, values gathered by the
    gyromidpoint. Form "tangent": scaled dot product of logmap0(q) and logmap0(k), tangent mean of the values.
    queries [B, n, D], keys_values [B, m, D] -> [B, n, D].
    """

    def __init__(self, dim: int, heads: int, form: str):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} dimensions")
        if form not in ATTENTION_FORMS:
            raise ValueError(f"attention form {form!r} is not one of {ATTENTION_FORMS}")
        self.heads, self.form = heads, form
        self.query = HLinear(dim, dim)
        self.key = HLinear(dim, dim)
        self.value = HLinear(dim, dim)
        self.out = HLinear(dim, dim)
        if form == "distance":
            self.log_beta = nn.Parameter(torch.zeros(heads))

    def _split(self, v: Tensor) -> Tensor:
        return v.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, n, D/H]

    def forward(self, queries: Tensor, keys_values: Tensor, c: Curvature | None) -> Tensor:
        q = self._split(self.query(queries, c))
        k = self._split(self.key(keys_values, c))
        v = self._split(self.value(keys_values, c))
        if self.form == "tangent":
            if q.device.type == "cpu" and q.dtype == torch.bfloat16:  # faster in float32, above all to differentiate
                q, k, v = q.float(), k.float(), v.float()
            gathered = functional.scaled_dot_product_attention(q, k, v)
        else:
            beta = self.log_beta.exp()[:, None, None]
            gathered = _distance_attention(q, k, v, beta, c)
        return self.out(gathered.transpose(1, 2).flatten(2), c)


def _distance_attention(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, c: Curvature | None) -> Tensor:
    """softmax(-beta d_c(q, k)) gathering v by the gyromidpoint; all in float32.

    q [B, H, n, d], k and v [B, H, m, d] tangent vectors -> [B, H, n, d].
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (q, k, v))
        if c is None:
            weights = torch.softmax(-2 * beta * _euclidean_distances(q, k), dim=-1)
            return weights @ v
        x, y = manifold.expmap0(q, c=c), manifold.expmap0(k, c=c)
        weights = torch.softmax(-beta * manifold.pairwise_dist(x, y, c=c), dim=-1)
        return manifold.tangent_midpoint(weights, manifold.expmap0(v, c=c), c=c)


def _euclidean_distances(q: Tensor, k: Tensor) -> Tensor:
    """|q_i - k_j|, with a gradient of 0 where they coincide. [..., n, d], [..., m, d] -> [..., n, m]."""
    squares = (q * q).sum(-1, keepdim=True) + (k * k).sum(-1).unsqueeze(-2) - 2 * q @ k.transpose(-1, -2)
    return squares.clamp_min(1e-12).sqrt()
