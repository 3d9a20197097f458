"""core.systems.posture.decoder: its parts against numpy written from the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.systems.posture.decoder import (
    GraphBlock,
    GraphTransformerLayer,
    farthest_points,
    graph_average,
    patch_average,
    step_sinusoids,
)


def test_step_embedding_is_sinusoidal():
    found = step_sinusoids(torch.tensor([1, 7]), 8)
    for row, k in zip(found, (1, 7)):
        angles = [k / 10000 ** (i / 3) for i in range(4)]
        wanted = [np.sin(a) for a in angles] + [np.cos(a) for a in angles]
        np.testing.assert_allclose(row.numpy(), wanted, atol=1e-6)


def test_graph_average_and_patches_by_hand():
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]], dtype=torch.int32)
    third, quarter = 1 / 3, 1 / 4
    wanted = torch.tensor([[third, third, third, 0], [quarter] * 4, [quarter] * 4, [0, third, third, third]])
    torch.testing.assert_close(graph_average(faces, 4), wanted)
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 0, 0], [10, 0, 0]])
    assert farthest_points(line, 3).tolist() == [4, 0, 2]
    wanted = torch.tensor([[0, 0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0, 0], [0, 0, 1.0, 0, 0]])
    # the second point is as far from the first as from the third: it goes with the one chosen before
    torch.testing.assert_close(patch_average(line, 3), wanted)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def _linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


@pytest.mark.parametrize("patches", [0, 2])
def test_layer_is_attention_graph_block_and_feed_forward(patches):
    torch.manual_seed(0)
    layer = GraphTransformerLayer(8, 2, 2.0)
    x = torch.randn(2, 5, 8)
    average = torch.softmax(torch.randn(5, 5), 1)
    means = torch.softmax(torch.randn(patches, 5), 1) if patches else None
    found = layer(x, average, means).detach().numpy()
    for b in range(2):
        own = x[b].double().numpy()
        normed = _norm(own)
        read = normed if means is None else means.double().numpy() @ normed
        q, kv = _linear(layer.query, normed), _linear(layer.key_value, read)
        k, v = kv[:, :8], kv[:, 8:]
        mixed = np.zeros((5, 8))
        for i in range(5):
            for head in (slice(0, 4), slice(4, 8)):
                scores = np.exp([q[i, head] @ k[j, head] / 2 for j in range(len(read))])
                mixed[i, head] = sum(s * v[j, head] for j, s in enumerate(scores / scores.sum()))
        own = own + _linear(layer.out, mixed)
        block: GraphBlock = layer.graph
        y = _linear(block.mix, _gelu(_norm(_linear(block.narrow, _gelu(_norm(own))))))
        y = np.array([sum(average[i, j].item() * y[j] for j in range(5)) for i in range(5)])
        own = own + _linear(block.widen, _gelu(_norm(y)))
        own = own + _linear(layer.narrow, _gelu(_linear(layer.widen, _norm(own))))
        np.testing.assert_allclose(found[b], own, atol=2e-5)


def test_heads_must_divide_the_layer():
    with pytest.raises(ValueError, match="3 heads do not divide 8"):
        GraphTransformerLayer(8, 3, 2.0)
