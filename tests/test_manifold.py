"""core.manifold against the formulas in float64, geoopt, gyrovector laws, and a grid of extreme norms."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from oracles import poincare

from core import manifold

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from geoopt.manifolds.stereographic import math as stereographic

CURVATURES = (1.0, 0.3, 2.5)
NORMS = (0.0, 1e-12, 1e-8, 1e-5, 1e-3, 0.031, 0.0317, 0.5, 1.0, 3.0, 10.0, 10.9, 11.1, 100.0, 1e3)


def points(count: int, c: float, *, dim: int = 5, reach: float = 0.9, dtype=torch.float64) -> torch.Tensor:
    """Points of the ball, norms up to reach/sqrt(c)."""
    direction = torch.nn.functional.normalize(torch.randn(count, dim, dtype=torch.float64), dim=-1)
    return (direction * torch.rand(count, 1, dtype=torch.float64) * reach / c**0.5).to(dtype)


def rows(function, *arrays: torch.Tensor, c: float) -> np.ndarray:
    return np.array([function(*(a[i].numpy() for a in arrays), c) for i in range(len(arrays[0]))])


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("name", ["mobius_add", "expmap", "logmap", "dist", "gyration"])
def test_binary_functions_match_formulas(name, c):
    x, y, z = (points(50, c) for _ in range(3))
    arguments = (x, y, z)[: 3 if name == "gyration" else 2]
    oracle = getattr(poincare, {"mobius_add": "add"}.get(name, name))
    ours = getattr(manifold, name)(*arguments, c=c)
    np.testing.assert_allclose(ours.numpy(), rows(oracle, *arguments, c=c), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("c", CURVATURES)
def test_unary_functions_match_formulas(c):
    x = points(50, c)
    v = torch.randn(50, 5, dtype=torch.float64)
    M = torch.randn(7, 5, dtype=torch.float64)
    small = x * 0.3
    np.testing.assert_allclose(manifold.expmap0(v, c=c), rows(poincare.expmap0, v, c=c), rtol=1e-5)
    np.testing.assert_allclose(manifold.expmap0(v / 3, c=c), rows(poincare.expmap0, v / 3, c=c), rtol=1e-12)
    np.testing.assert_allclose(manifold.logmap0(x, c=c), rows(poincare.logmap0, x, c=c), rtol=1e-12)
    expected = np.array([poincare.matvec(M.numpy(), row.numpy(), c) for row in small])
    np.testing.assert_allclose(manifold.mobius_matvec(M, small, c=c), expected, rtol=1e-7)
    factors = rows(poincare.factor, x, c=c)[:, None]
    np.testing.assert_allclose(manifold.conformal_factor(x, c=c), factors, rtol=1e-12)


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_agrees_with_geoopt(c, dtype, tolerance):
    x, y = points(200, c, reach=0.8, dtype=dtype), points(200, c, reach=0.8, dtype=dtype)
    v = torch.randn(200, 5, dtype=dtype) * 0.2
    k = torch.tensor(-c, dtype=dtype)
    close = dict(rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(manifold.mobius_add(x, y, c=c), stereographic.mobius_add(x, y, k=k), **close)
    torch.testing.assert_close(manifold.dist(x, y, c=c), stereographic.dist(x, y, k=k), **close)
    torch.testing.assert_close(manifold.expmap(x, v, c=c), stereographic.expmap(x, v, k=k), **close)
    torch.testing.assert_close(manifold.logmap(x, y, c=c), stereographic.logmap(x, y, k=k), **close)
    torch.testing.assert_close(manifold.gyration(x, y, v, c=c), stereographic.gyration(x, y, v, k=k), **close)
    torch.testing.assert_close(
        manifold.mobius_scale(x, r=0.7, c=c),
        stereographic.mobius_scalar_mul(torch.tensor(0.7, dtype=dtype), x, k=k),
        **close,
    )
    pairs = manifold.pairwise_dist(x[:20], y, c=c)
    torch.testing.assert_close(pairs, stereographic.dist(x[:20, None], y[None], k=k), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("c", CURVATURES)
def test_gyrovector_laws(c):
    x, y, z = (points(100, c, reach=0.8) for _ in range(3))
    close = dict(rtol=1e-9, atol=1e-9)
    add = manifold.mobius_add
    torch.testing.assert_close(add(-x, add(x, y, c=c), c=c), y, **close)  # left cancellation
    torch.testing.assert_close(add(x, y, c=c), manifold.gyration(x, y, add(y, x, c=c), c=c), **close)
    turned = manifold.gyration(x, y, z, c=c)
    torch.testing.assert_close(add(x, add(y, z, c=c), c=c), add(add(x, y, c=c), turned, c=c), **close)
    torch.testing.assert_close(turned.norm(dim=-1), z.norm(dim=-1), **close)  # gyrations are rotations
    torch.testing.assert_close(add(x, torch.zeros_like(x), c=c), x, **close)
    torch.testing.assert_close(manifold.expmap(x, manifold.logmap(x, y, c=c), c=c), y, **close)
    torch.testing.assert_close(manifold.expmap0(manifold.logmap0(x, c=c), c=c), x, **close)
    moved = manifold.dist(add(z, x, c=c), add(z, y, c=c), c=c)  # left translations are isometries
    torch.testing.assert_close(moved, manifold.dist(x, y, c=c), rtol=1e-6, atol=1e-8)
    length = manifold.conformal_factor(x, c=c)[:, 0] * manifold.logmap(x, y, c=c).norm(dim=-1)
    torch.testing.assert_close(length, manifold.dist(x, y, c=c), rtol=1e-7, atol=1e-9)


def test_small_curvature_is_euclidean():
    x, y = torch.randn(40, 6, dtype=torch.float64), torch.randn(40, 6, dtype=torch.float64)
    weights = torch.rand(3, 40, dtype=torch.float64)
    weights /= weights.sum(-1, keepdim=True)
    for c, tolerance in ((1e-4, 1e-2), (1e-8, 1e-6)):
        close = dict(rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(manifold.mobius_add(x, y, c=c), x + y, **close)
        torch.testing.assert_close(manifold.tangent_add(x, y, c=c), x + y, **close)
        torch.testing.assert_close(manifold.dist(x, y, c=c), 2 * (x - y).norm(dim=-1), **close)
        torch.testing.assert_close(manifold.expmap0(x, c=c), x, **close)
        torch.testing.assert_close(manifold.gyromidpoint(weights, x, c=c), weights @ x, **close)


@pytest.mark.parametrize("c", CURVATURES)
def test_midpoint_matches_formula_and_halves_a_geodesic(c):
    x = points(6, c)
    weights = torch.rand(4, 6, dtype=torch.float64)
    expected = np.array([poincare.midpoint(w.numpy(), x.numpy(), c) for w in weights])
    np.testing.assert_allclose(manifold.gyromidpoint(weights, x, c=c), expected, rtol=1e-9)
    middle = manifold.gyromidpoint(torch.full((1, 2), 0.5, dtype=torch.float64), x[:2], c=c)
    to_ends = manifold.dist(middle, x[:2], c=c)
    assert float(to_ends[0]) == pytest.approx(float(to_ends[1]), rel=1e-6)
    assert float(to_ends.sum()) == pytest.approx(float(manifold.dist(x[0], x[1], c=c)), rel=1e-6)


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("size", [1e-6, 0.1, 0.7, 2.0])
def test_tangent_add_is_mobius_addition(c, size):
    u, v = (torch.nn.functional.normalize(torch.randn(60, 4, dtype=torch.float64), dim=-1) for _ in range(2))
    u, v = u * size / c**0.5, v * size / c**0.5 * torch.rand(60, 1, dtype=torch.float64)
    points_sum = np.array(
        [poincare.logmap0(poincare.add(poincare.expmap0(a, c), poincare.expmap0(b, c), c), c)
         for a, b in zip(u.numpy(), v.numpy())]
    )  # fmt: skip
    np.testing.assert_allclose(manifold.tangent_add(u, v, c=c), points_sum, rtol=1e-6, atol=1e-9)
    single = manifold.tangent_add(u.float(), v.float(), c=c)
    np.testing.assert_allclose(single, points_sum, rtol=1e-4, atol=2e-5 * size)


def test_tangent_add_keeps_lengths_beyond_the_boundary():
    """On a line through the origin, (+) adds lengths; points would saturate in float32 at a length of 3.8."""
    u, v = torch.tensor([[6.0, 0.0]]), torch.tensor([[7.5, 0.0]])
    torch.testing.assert_close(manifold.tangent_add(u, v, c=1.0), torch.tensor([[13.5, 0.0]]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("c", [1.0, 1 / 64])
def test_values_and_gradients_are_finite(dtype, c):
    """Norms 0 to 1e3 against one another, equal and opposite points, and the boundary itself."""
    direction = torch.nn.functional.normalize(torch.randn(5, dtype=dtype), dim=-1)
    other = torch.nn.functional.normalize(torch.randn(5, dtype=dtype), dim=-1)
    ends = torch.stack([direction, -direction, other])
    first = torch.stack([n * direction for n in NORMS])[:, None, None].expand(-1, len(NORMS), 3, -1)
    second = torch.stack([n * ends for n in NORMS])[None].expand(len(NORMS), -1, -1, -1)
    for name in ("tangent_add", "mobius_add", "dist", "expmap", "logmap", "project", "gyration", "gyromidpoint",
                 "conformal_factor", "pairwise_dist"):  # fmt: skip
        u, v = first.clone().requires_grad_(), second.clone().requires_grad_()
        curvature = torch.tensor(c, dtype=dtype, requires_grad=True)
        x = manifold.expmap0(u, c=curvature)
        y = manifold.expmap0(v, c=curvature)
        if name in ("project", "conformal_factor"):
            out = getattr(manifold, name)(u if name == "project" else x, c=curvature)
        elif name == "gyromidpoint":
            out = manifold.gyromidpoint(torch.full((3, 3), 1 / 3, dtype=dtype), y, c=curvature)
        elif name == "gyration":
            out = manifold.gyration(x, y, v, c=curvature)
        else:
            pair = (u, v) if name == "tangent_add" else (x, v) if name == "expmap" else (x, y)
            out = getattr(manifold, name)(*pair, c=curvature)
        assert out.isfinite().all(), name
        gradients = torch.autograd.grad(out.sum(), (u, v, curvature), allow_unused=True)
        assert all(g.isfinite().all() for g in gradients if g is not None), name


def test_gradients_match_finite_differences():
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    u, v = (torch.randn(4, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    for size in (1e-5, 0.02, 1.0):
        for name in ("tangent_add", "mobius_add", "dist", "expmap", "logmap"):
            function = getattr(manifold, name)
            scaled = size if name == "tangent_add" else 0.3 * size

            def call(a, b, k, function=function, scaled=scaled):
                return function(a * scaled, b * scaled, c=k)

            assert torch.autograd.gradcheck(call, (u, v, c), atol=1e-5), (name, size)


def test_points_stay_inside_the_ball():
    for dtype in (torch.float32, torch.float64):
        far = torch.randn(100, 8, dtype=dtype) * 1e3
        for c in CURVATURES:
            x = manifold.expmap0(far, c=c)
            assert (c * x.square().sum(-1) < 1).all()
            assert (c * manifold.mobius_add(x, x.flip(0), c=c).square().sum(-1) < 1).all()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(half):
    u, v = torch.randn(20, 8), torch.randn(20, 8)
    expected = manifold.tangent_add(u, v, c=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = manifold.tangent_add(u, v, c=1.0)
        matrix = manifold.mobius_matvec(torch.eye(8), manifold.expmap0(u, c=1.0), c=1.0)
    assert inside.dtype == matrix.dtype == torch.float32
    torch.testing.assert_close(inside, expected, rtol=0, atol=0)
    torch.testing.assert_close(matrix, manifold.expmap0(u, c=1.0), rtol=1e-5, atol=1e-6)
    widened = manifold.tangent_add(u.to(half), v.to(half), c=1.0)
    torch.testing.assert_close(widened, manifold.tangent_add(u.to(half).float(), v.to(half).float(), c=1.0))
