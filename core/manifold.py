"""The Poincare ball B^n_c = {x : c|x|^2 < 1}: pure functions of points and tangent vectors, last axis n.

Curvature is -c with c > 0, given by keyword as a float or a scalar tensor (so that it can be learned).
Everything is computed in the input's precision, but never below float32: half types are widened, and autocast is
switched off inside. Values and gradients stay finite for norms from 0 to 1e3 and on the boundary.

Two forms of the same point are used by the layers: the point x itself, and its tangent vector at the origin
v = logmap0(x). `tangent_add` is Mobius addition carried out on tangent vectors; it equals
logmap0(expmap0(u) (+) expmap0(v)) but does not lose the distance to the boundary in float32.

Formulas: the hyperbolic mesh recovery paper, section II-B, and Ganea et al. 2018. Stable forms used here:
    1 + 2c<x,y> + c|y|^2          = c|x+y|^2 + (1 - c|x|^2)
    1 + 2c<x,y> + c^2|x|^2|y|^2   = c|x+y|^2 + (1 - c|x|^2)(1 - c|y|^2)
    1 - c|x (+) y|^2              = (1 - c|x|^2)(1 - c|y|^2) / that denominator
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

Curvature = float | Tensor

BOUNDARY_EPS = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Points are kept at c|x|^2 <= (1 - eps)^2."""
MAX_TANGENT = {torch.float32: 11.0, torch.float64: 40.0}
"""Largest sqrt(c)|v| of an operand that `tangent_add` tells apart: beyond it squares of 1 - c|x|^2 underflow."""
TINY = {torch.float32: 1e-36, torch.float64: 1e-300}
SERIES_BELOW = {torch.float32: 1e-3, torch.float64: 1e-6}


def _wide(function):
    """Run `function` in float32 or wider, with autocast off."""

    @functools.wraps(function)
    def wrapped(*points: Tensor, **options):
        wide = [p.float() if p.dtype in (torch.float16, torch.bfloat16) else p for p in points]
        if torch.is_autocast_enabled(points[0].device.type):
            with torch.autocast(points[0].device.type, enabled=False):
                return function(*wide, **options)
        return function(*wide, **options)

    return wrapped


def _square_norm(x: Tensor) -> Tensor:
    return (x * x).sum(-1, keepdim=True)


def _norm(x: Tensor) -> Tensor:
    """|x| [..., 1]; its gradient at 0 is 0 instead of undefined."""
    return _square_norm(x).clamp_min(TINY[x.dtype]).sqrt()


def _sqrt(c: Curvature) -> Curvature:
    return c.sqrt() if isinstance(c, Tensor) else c**0.5


def _tanh_ratio(s: Tensor) -> Tensor:
    """tanh(sqrt(s)) / sqrt(s), smooth at s = 0."""
    small = s < SERIES_BELOW[s.dtype]
    root = torch.where(small, 1.0, s).sqrt()
    series = 1 + s * (-1 / 3 + s * (2 / 15 - s * (17 / 315)))
    return torch.where(small, series, torch.tanh(root) / root)


def _artanh_ratio(s: Tensor) -> Tensor:
    """artanh(sqrt(s)) / sqrt(s) for s < 1, smooth at s = 0."""
    small = s < SERIES_BELOW[s.dtype]
    root = torch.where(small, 0.25, s).sqrt()
    series = 1 + s * (1 / 3 + s * (1 / 5 + s / 7))
    return torch.where(small, series, torch.atanh(root) / root)


@_wide
def project(x: Tensor, *, c: Curvature) -> Tensor:
    """Move points outside the ball to norm (1 - eps)/sqrt(c). x [..., n] -> [..., n]."""
    limit = (1 - BOUNDARY_EPS[x.dtype]) / _sqrt(c)
    norm = _norm(x)
    return torch.where(norm > limit, x / norm * limit, x)


@_wide
def conformal_factor(x: Tensor, *, c: Curvature) -> Tensor:
    """lambda_x = 2 / (1 - c|x|^2). x [..., n] in the ball -> [..., 1]."""
    eps = BOUNDARY_EPS[x.dtype]
    return 2 / (1 - c * _square_norm(x)).clamp_min(eps)


@_wide
def expmap0(v: Tensor, *, c: Curvature) -> Tensor:
    """tanh(sqrt(c)|v|) v / (sqrt(c)|v|): tangent vector at the origin -> point. [..., n] -> [..., n]."""
    return project(v * _tanh_ratio(c * _square_norm(v)), c=c)


@_wide
def logmap0(x: Tensor, *, c: Curvature) -> Tensor:
    """artanh(sqrt(c)|x|) x / (sqrt(c)|x|): point -> tangent vector at the origin. [..., n] -> [..., n]."""
    x = project(x, c=c)
    return x * _artanh_ratio(c * _square_norm(x))


@_wide
def mobius_add(x: Tensor, y: Tensor, *, c: Curvature) -> Tensor:
    """x (+) y of two points. [..., n], [..., n] -> [..., n]."""
    total = x + y
    c_total = c * _square_norm(total)
    gap_x = 1 - c * _square_norm(x)
    gap_y = 1 - c * _square_norm(y)
    denominator = (c_total + gap_x * gap_y).clamp_min(TINY[x.dtype])
    return project((c_total * x + gap_x * total) / denominator, c=c)


@_wide
def mobius_scale(x: Tensor, *, r: float, c: Curvature) -> Tensor:
    """r (x) x = expmap0(r logmap0(x)). [..., n] -> [..., n]."""
    return expmap0(r * logmap0(x, c=c), c=c)


@_wide
def mobius_matvec(matrix: Tensor, x: Tensor, *, c: Curvature) -> Tensor:
    """M (x) x = tanh(|Mx|/|x| artanh(sqrt(c)|x|)) Mx / (sqrt(c)|Mx|). matrix [m, n], x [..., n] -> [..., m]."""
    return expmap0(logmap0(x, c=c) @ matrix.transpose(-1, -2), c=c)


@_wide
def dist(x: Tensor, y: Tensor, *, c: Curvature) -> Tensor:
    """Geodesic distance 2/sqrt(c) artanh(sqrt(c)|(-x) (+) y|). [..., n], [..., n] -> [...].

    Evaluated as 2/sqrt(c) arsinh(sqrt(c)|x - y| / sqrt((1 - c|x|^2)(1 - c|y|^2))).
    """
    eps = BOUNDARY_EPS[x.dtype]
    gap_x = (1 - c * _square_norm(x)).clamp_min(eps)
    gap_y = (1 - c * _square_norm(y)).clamp_min(eps)
    ratio = _sqrt(c) * _norm(x - y) / (gap_x * gap_y).sqrt()
    return (2 / _sqrt(c) * torch.asinh(ratio)).squeeze(-1)


@_wide
def pairwise_dist(x: Tensor, y: Tensor, *, c: Curvature) -> Tensor:
    """All distances d_c(x_i, y_j) by one matrix product. [..., n, d], [..., m, d] -> [..., n, m].

    |x - y|^2 / (g_x g_y) = (|x|^2/g_x)/g_y + (1/g_x)(|y|^2/g_y) - 2 <x/g_x, y/g_y> with g = 1 - c|.|^2; distances
    below about 1e-3 are rounded, and their gradient is 0 where points coincide.
    """
    eps = BOUNDARY_EPS[x.dtype]
    square_x, square_y = _square_norm(x), _square_norm(y)
    inverse_x = (1 - c * square_x).clamp_min(eps).reciprocal()
    inverse_y = (1 - c * square_y).clamp_min(eps).reciprocal()
    left = torch.cat((x * (-2 * inverse_x), square_x * inverse_x, inverse_x), dim=-1)
    right = torch.cat((y * inverse_y, inverse_y, square_y * inverse_y), dim=-1)
    ratio = (c * (left @ right.transpose(-1, -2))).clamp_min(1e-10).sqrt()
    return 2 / _sqrt(c) * torch.asinh(ratio)


@_wide
def expmap(x: Tensor, v: Tensor, *, c: Curvature) -> Tensor:
    """Point reached from x with velocity v: x (+) tanh(sqrt(c) lambda_x |v|/2) v / (sqrt(c)|v|). [..., n] twice."""
    half = 0.5 * conformal_factor(x, c=c)
    step = v * half * _tanh_ratio(c * half * half * _square_norm(v))
    return mobius_add(x, project(step, c=c), c=c)


@_wide
def logmap(x: Tensor, y: Tensor, *, c: Curvature) -> Tensor:
    """Velocity at x that reaches y: 2/(sqrt(c) lambda_x) artanh(sqrt(c)|u|) u/|u| with u = (-x) (+) y."""
    u = mobius_add(-x, y, c=c)
    return 2 / conformal_factor(x, c=c) * u * _artanh_ratio(c * _square_norm(u))


@_wide
def gyration(u: Tensor, v: Tensor, w: Tensor, *, c: Curvature) -> Tensor:
    """gyr[u, v] w = -(u (+) v) (+) (u (+) (v (+) w)), in closed form (Ungar), linear in w. [..., n] each."""
    uv, uw, vw = (u * v).sum(-1, keepdim=True), (u * w).sum(-1, keepdim=True), (v * w).sum(-1, keepdim=True)
    u2, v2 = _square_norm(u), _square_norm(v)
    a = -c * c * uw * v2 + c * vw + 2 * c * c * uv * vw
    b = -c * c * vw * u2 - c * uw
    d = c * _square_norm(u + v) + (1 - c * u2) * (1 - c * v2)
    return w + 2 * (a * u + b * v) / d.clamp_min(TINY[w.dtype])


@_wide
def gyromidpoint(weights: Tensor, x: Tensor, *, c: Curvature) -> Tensor:
    """Weighted midpoint 1/2 (x) sum_j w_j lambda_j x_j / sum_j w_j (lambda_j - 1).

    weights [..., m, k], not negative; x [..., k, n] points -> [..., m, n].
    """
    return expmap0(tangent_midpoint(weights, x, c=c), c=c)


@_wide
def tangent_midpoint(weights: Tensor, x: Tensor, *, c: Curvature) -> Tensor:
    """logmap0 of `gyromidpoint`. weights [..., m, k]; x [..., k, n] points -> [..., m, n] tangent vectors."""
    factor = conformal_factor(x, c=c)
    numerator = weights @ (factor * x)
    denominator = (weights @ (factor - 1)).clamp_min(TINY[x.dtype])
    return 0.5 * logmap0(numerator / denominator, c=c)


@_wide
def tangent_add(u: Tensor, v: Tensor, *, c: Curvature) -> Tensor:
    """logmap0(expmap0(u) (+) expmap0(v)) for tangent vectors at the origin. [..., n], [..., n] -> [..., n].

    1 - c|x|^2 is sech^2(sqrt(c)|u|) there, taken from u directly, so that vectors up to sqrt(c)|u| = 11 in float32
    keep their length where points would already be rounded to the boundary.
    """
    limit = MAX_TANGENT[u.dtype]
    s_u, s_v = c * _square_norm(u), c * _square_norm(v)
    ratio_u, ratio_v = _tanh_ratio(s_u), _tanh_ratio(s_v)
    # gaps: sech^2 = 1/cosh^2, of lengths clamped so that the product stays a normal number
    gap_x = torch.cosh(s_u.clamp(TINY[u.dtype], limit * limit).sqrt()).square().reciprocal()
    gap_y = torch.cosh(s_v.clamp(TINY[u.dtype], limit * limit).sqrt()).square().reciprocal()
    c_total = c * _square_norm(ratio_u * u + ratio_v * v)
    denominator = c_total + gap_x * gap_y
    s_z = (c_total / denominator).clamp_max(1.0)  # c|x (+) y|^2, without cancellation
    # artanh(n) = log(1 + n) - log(1 - n^2)/2 with 1 - n^2 = gap_x gap_y / denominator
    small = s_z < 0.25
    root = torch.where(small, 1.0, s_z).sqrt()
    gap_z = torch.where(small, 0.5, gap_x * gap_y / denominator).clamp(TINY[u.dtype], 1.0)
    far = (torch.log1p(root) - 0.5 * torch.log(gap_z)) / root
    near = _artanh_ratio(torch.where(small, s_z, 0.0))
    length = torch.where(small, near, far) / denominator
    # z = (c|x+y|^2 x + gap_x (x + y)) / denominator, written as a combination of u and v
    return (length * (c_total + gap_x) * ratio_u) * u + (length * gap_x * ratio_v) * v
