"""core.systems.tcmr: temporal encoding and integration against float64 twins, windows and clips."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from core.body import Body, load_body
from core.skeleton import JOINT_NAMES
from core.systems.contract import image_features
from tests.tcmr_support import SMALL, UPRIGHT, a_batch, a_clip, double, layer, small_net, woken


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru_oracle(gru: torch.nn.GRU, frames: list[np.ndarray]) -> np.ndarray:
    """Cho et al. 2014 in PyTorch's form, frame by frame from zeros on."""
    W, U = (np.split(double(w), 3) for w in (gru.weight_ih_l0, gru.weight_hh_l0))
    b, c = (np.split(double(w), 3) for w in (gru.bias_ih_l0, gru.bias_hh_l0))
    h = np.zeros(gru.hidden_size)
    for x in frames:
        r = sigmoid(W[0] @ x + b[0] + U[0] @ h + c[0])
        z = sigmoid(W[1] @ x + b[1] + U[1] @ h + c[1])
        n = np.tanh(W[2] @ x + b[2] + r * (U[2] @ h + c[2]))
        h = (1 - z) * n + z * h
    return h


@pytest.mark.parametrize("window", [3, 6, 7])
def test_temporal_features_follow_sections_3_1_and_3_2(body, window):
    encoder = woken(small_net(body)).encoder
    static = torch.randn(2, window, SMALL.static_dim)
    found = encoder(static)
    current = window // 2
    for b in range(2):
        f = list(double(static[b]))
        past = [f[i] for i in range(current)]
        future = [f[i] for i in range(window - 1, current, -1)]
        g_all = np.concatenate(
            (
                gru_oracle(encoder.all_forward, [*past, f[current]]),
                gru_oracle(encoder.all_backward, [*future, f[current]]),
            )
        )
        expected = (
            layer(encoder.all_to_common, np.maximum(g_all, 0)),
            layer(encoder.past_to_common, np.maximum(gru_oracle(encoder.past, past), 0)),
            layer(encoder.future_to_common, np.maximum(gru_oracle(encoder.future, future), 0)),
        )
        for one, other in zip(found, expected):
            np.testing.assert_allclose(double(one[b]), other, atol=2e-6)


def test_past_and_future_never_see_the_current_frame(body):
    encoder = woken(small_net(body)).encoder
    static = torch.randn(1, 6, SMALL.static_dim, requires_grad=True)
    reaches = []
    for output in encoder(static):
        (gradient,) = torch.autograd.grad(output.sum(), static, retain_graph=True)
        reaches.append((gradient[0].abs().sum(-1) > 0).tolist())
    assert reaches[0] == [True] * 6
    assert reaches[1] == [True] * 3 + [False] * 3
    assert reaches[2] == [False] * 4 + [True] * 2


def test_integration_follows_section_3_3(body):
    integration = woken(small_net(body)).integration
    g_all, g_past, g_future = torch.randn(3, 5, SMALL.common)
    found, attention = integration(g_all, g_past, g_future)
    for b in range(5):
        three = [double(g[b]) for g in (g_all, g_past, g_future)]
        x = np.concatenate([layer(integration.squeeze, g) for g in three])
        x = np.tanh(layer(integration.outer, np.tanh(layer(integration.inner, x))))
        scores = np.exp(layer(integration.score, x))
        a = scores / scores.sum()
        np.testing.assert_allclose(double(attention[b]), a, atol=1e-6)
        np.testing.assert_allclose(double(found[b]), sum(w * g for w, g in zip(a, three)), atol=2e-6)


@pytest.mark.parametrize("window", [5, 6])
def test_windows_lie_around_their_frames(body, window):
    net = woken(small_net(body, window=window))
    inputs, features = a_clip(body, 2, 12)
    static = net.static_features(inputs, features)
    found = net.encode(inputs, features, torch.tensor([1, 0]), torch.tensor([4, 8]))
    for i, (sequence, mid) in enumerate(((1, 4), (0, 8))):
        frames = range(mid - window // 2, mid - window // 2 + window)
        g_all, g_past, g_future = net.encoder(torch.stack([static[sequence, f] for f in frames])[None])
        integrated, attention = net.integration(g_all, g_past, g_future)
        for one, other in zip(found, (g_past, g_future, integrated, attention)):
            torch.testing.assert_close(one[i], other[0], atol=2e-6, rtol=1e-5)


def test_first_attention_is_even(body):
    net = small_net(body).eval()
    inputs, features = a_clip(body, 1, 9)
    attention = net.encode(inputs, features, torch.tensor([0]), torch.tensor([4])).attention
    torch.testing.assert_close(attention, torch.full((1, 3), 1 / 3), atol=0.02, rtol=0)


def test_static_features_are_of_the_frame_alone(body):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 2, 5)
    flat = np.concatenate((double(features[1, 3]), double(inputs[1, 3]).ravel()))
    embedding = flat[: SMALL.feature_dim]
    flat[: SMALL.feature_dim] = (embedding - embedding.mean()) / np.sqrt(embedding.var() + 1e-5)
    expected = np.maximum(layer(net.project, flat), 0)
    np.testing.assert_allclose(double(net.static_features(inputs, features)[1, 3]), expected, atol=1e-5)


def test_embedding_and_keypoints_count_alike_at_first(body):
    net = small_net(body, feature_dim=1152, static_dim=400)
    batch = a_batch(body, 8)
    features = torch.randn(8, 6, 1152)
    given = image_features(batch.inputs(), features)
    weight = net.project.weight
    from_embedding = (given[..., :1152] @ weight[:, :1152].T).std()
    from_keypoints = (given[..., 1152:] @ weight[:, 1152:].T).std()
    assert 0.5 < from_keypoints / from_embedding < 2


def test_first_estimate_stands_upright_and_faces_the_camera(body):
    net = small_net(body).eval()
    inputs, features = a_clip(body, 1, 9)
    estimate = net.recover(inputs, features, torch.tensor([0]), torch.tensor([4]))
    expected = torch.eye(3).repeat(24, 1, 1)
    expected[0] = UPRIGHT
    torch.testing.assert_close(estimate.rotmats[0], expected, atol=0.05, rtol=0)
    place = dict(zip(JOINT_NAMES, estimate.joints[0].tolist()))
    assert place["head"][1] < -0.4 and place["left_ankle"][1] > 0.6  # y points down
    assert place["left_wrist"][0] > 0.3 > -0.3 > place["right_wrist"][0]
    assert place["left_foot"][2] < place["left_ankle"][2]  # toes towards the camera


def test_many_frames_at_once_equal_frame_by_frame(body):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 2, 9)
    sequences = torch.tensor([0, 1, 1, 0, 1, 0])
    mids = torch.tensor([0, 8, 4, 5, 1, 8])
    together = net.recover(inputs, features, sequences, mids)
    assert together.vertices is None
    assert together.joints.shape == (6, 24, 3) and together.betas.shape == (6, 16)
    for i in range(6):
        s = sequences[i]
        alone = net.recover(inputs[s : s + 1], features[s : s + 1], torch.tensor([0]), mids[i : i + 1])
        for one, all_ in zip(alone[:3], together[:3]):
            torch.testing.assert_close(one[0], all_[i], atol=2e-6, rtol=1e-5)
    assert (together.joints[1] - together.joints[2]).norm(dim=-1).max() > 1e-3


@pytest.mark.parametrize("count", [1, 3, 9])
def test_edge_frames_are_repeated(body, count):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 1, count)
    mids = torch.arange(count)
    zeros = torch.zeros_like(mids)
    found = net.recover(inputs, features, zeros, mids)
    padded = [
        torch.cat((x[:, :1].repeat_interleave(6, 1), x, x[:, -1:].repeat_interleave(6, 1)), 1)
        for x in (inputs, features)
    ]
    expected = net.recover(*padded, zeros, mids + 6)
    torch.testing.assert_close(found.joints, expected.joints, atol=2e-6, rtol=1e-5)


def test_recover_is_the_integrated_output(body):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 2, 9)
    sequences, mids = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 7])
    theta = net.regress_all(inputs, features, sequences, mids)
    found = net.recover(inputs, features, sequences, mids)
    torch.testing.assert_close(found.rotmats, theta.rotmats[2], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(found.betas, theta.betas[2], atol=2e-6, rtol=1e-5)
    temporal = net.encode(inputs, features, sequences, mids)
    for i, feature in enumerate((temporal.past, temporal.future)):
        torch.testing.assert_close(net.regressor(feature).betas, theta.betas[i], atol=2e-6, rtol=1e-5)


def test_sequences_without_embedding(body):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 1, 6)
    found = net.recover(inputs, torch.zeros_like(features), torch.tensor([0]), torch.tensor([3]))
    assert found.joints.isfinite().all()


def test_joints_stay_exact_under_autocast(body):
    net = woken(small_net(body))
    rotmats, clip = a_batch(body).rotmats[:, 0], a_clip(body, 1, 6)
    betas = torch.randn(4, 16)
    exact = net.joints(rotmats, betas)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.joints(rotmats, betas), exact)
        found = net.recover(*clip, torch.tensor([0]), torch.tensor([3]))
    assert found.joints.dtype == found.rotmats.dtype == torch.float32


def test_configurations_that_cannot_be(body):
    with pytest.raises(ValueError, match="window must be at least 3"):
        dataclasses.replace(SMALL, window=2)
    with pytest.raises(ValueError, match="iterations"):
        dataclasses.replace(SMALL, iterations=0)
    with pytest.raises(ValueError, match="shape_components is 10, the body has 16"):
        small_net(body, shape_components=10)
