"""core.layers against the paper's formulas on points of the ball, and against the Euclidean limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import poincare

from core import layers, manifold

DIM, HEADS = 8, 2


def to_points(v: torch.Tensor, c: float) -> np.ndarray:
    return np.array([poincare.expmap0(row, c) for row in v.detach().numpy()])


def double(module: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return module.double()


def weights_of(layer: layers.HLinear) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


@pytest.mark.parametrize("c", [1.0, 0.1])
def test_hlinear_is_matvec_then_mobius_bias(c):
    layer = double(layers.HLinear(DIM, 5))
    v = torch.randn(30, DIM, dtype=torch.float64) * 0.5
    expected = np.array([poincare.linear(*weights_of(layer), x, c) for x in to_points(v, c)])
    np.testing.assert_allclose(to_points(layer(v, c), c), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("c", [1.0, 0.1])
@pytest.mark.parametrize("form", layers.ATTENTION_FORMS)
def test_attention_matches_formulas(form, c):
    attention = double(layers.HAttention(DIM, HEADS, form))
    queries = torch.randn(2, 5, DIM, dtype=torch.float64) * 0.4
    context = torch.randn(2, 7, DIM, dtype=torch.float64) * 0.4
    beta = None
    if form == "distance":
        torch.nn.init.normal_(attention.log_beta)
        beta = attention.log_beta.exp().detach().numpy()
    maps = {name: weights_of(getattr(attention, name)) for name in ("query", "key", "value", "out")}
    out = attention(queries, context, c)
    for i in range(2):
        expected = poincare.attention(to_points(queries[i], c), to_points(context[i], c), maps, HEADS, c, beta)
        np.testing.assert_allclose(to_points(out[i], c), expected, rtol=1e-5, atol=1e-8)


def test_hgelu_and_hmlp_follow_their_definitions():
    c = 0.6
    mlp = double(layers.HMLP(DIM, 2))
    v = torch.randn(20, DIM, dtype=torch.float64) * 0.5
    rows = []
    for x in to_points(v, c):
        hidden = poincare.logmap0(poincare.linear(*weights_of(mlp.widen), x, c), c)
        gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        rows.append(poincare.linear(*weights_of(mlp.narrow), poincare.expmap0(gelu, c), c))
    np.testing.assert_allclose(to_points(mlp(v, c), c), np.array(rows), rtol=1e-6, atol=1e-9)


def test_hadaln_normalises_in_the_tangent_space_and_depends_on_the_prior():
    norm = layers.HAdaLN(DIM, 3).double()
    torch.nn.init.normal_(norm.affine.weight)
    v, f = torch.randn(2, 6, DIM, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    W, b = norm.affine.weight.detach().numpy(), norm.affine.bias.detach().numpy()
    for i in range(2):
        scale, beta = np.split(W @ f[i].numpy() + b, 2)
        x = v[i].numpy()
        standard = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        expected = (1 + scale) * standard + beta
        # the layer computes in float32
        np.testing.assert_allclose(norm(v, f)[i].detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", layers.ATTENTION_FORMS)
def test_small_curvature_approaches_the_euclidean_twin(form):
    attention, mlp = double(layers.HAttention(DIM, HEADS, form)), double(layers.HMLP(DIM, 2))
    v, w = torch.randn(2, 5, DIM, dtype=torch.float64), torch.randn(2, 7, DIM, dtype=torch.float64)
    limit = attention(v, w, None), mlp(v, None)
    distances = []
    for c in (1e-1, 1e-2, 1e-3, 1e-6):
        ours = attention(v, w, c), mlp(v, c)
        distances.append(max(float((a - b).detach().abs().max()) for a, b in zip(ours, limit)))
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 1e-3 and distances[-1] < 1e-4


def test_euclidean_distance_form_is_ordinary_attention():
    attention = layers.HAttention(DIM, 1, "distance").double()
    v, w = torch.randn(1, 5, DIM, dtype=torch.float64), torch.randn(1, 7, DIM, dtype=torch.float64)
    q, k = attention.query(v, None), attention.key(w, None)
    weights = torch.softmax(-2 * torch.cdist(q, k), dim=-1)
    expected = attention.out(weights @ attention.value(w, None), None)
    torch.testing.assert_close(attention(v, w, None), expected)


@pytest.mark.parametrize("form", layers.ATTENTION_FORMS)
def test_batch_equals_single_and_order_of_keys_is_free(form):
    attention = layers.HAttention(DIM, HEADS, form)
    v, w = torch.randn(3, 5, DIM), torch.randn(3, 7, DIM)
    together = attention(v, w, 1.0)
    for i in range(3):
        torch.testing.assert_close(attention(v[i : i + 1], w[i : i + 1], 1.0)[0], together[i], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention(v, w.flip(1), 1.0), together, rtol=1e-4, atol=1e-5)


def test_addition_is_mobius_or_euclidean():
    u, v = torch.randn(4, DIM), torch.randn(4, DIM)
    torch.testing.assert_close(layers.hyperbolic_add(u, v, None), u + v, rtol=0, atol=0)
    x, y = manifold.expmap0(u.double() * 0.3, c=1.0), manifold.expmap0(v.double() * 0.3, c=1.0)
    expected = manifold.logmap0(manifold.mobius_add(x, y, c=1.0), c=1.0)
    torch.testing.assert_close(layers.hyperbolic_add(u.double() * 0.3, v.double() * 0.3, 1.0), expected)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="heads"):
        layers.HAttention(8, 3, "tangent")
    with pytest.raises(ValueError, match="form"):
        layers.HAttention(8, 2, "cosine")


def test_gradients_reach_every_parameter_under_autocast():
    attention = layers.HAttention(DIM, HEADS, "distance")
    v = torch.randn(2, 5, DIM)
    with torch.autocast("cpu", torch.bfloat16):
        attention(v, v, torch.tensor(0.5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in attention.parameters())
