"""core.systems.regressor: feedback, the mean person and the weak projection against float64 twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.body import Body, load_body
from core.models.coarse_body import known_coarse_body
from core.systems.regressor import IterativeRegressor, mean_parameters, project_weakly
from tests.tcmr_support import SMALL, UPRIGHT, double, layer, small_net


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def test_regressor_feeds_back_what_it_said(body):
    coarse = known_coarse_body(body, torch.arange(3), torch.zeros(1, 3, dtype=torch.int32))
    start = mean_parameters(coarse, 16)
    torch.manual_seed(1)
    regressor = IterativeRegressor(7, 9, start, iterations=3, dropout=0.0)
    with torch.no_grad():
        for decoder in regressor.decoders:
            decoder.weight.normal_(std=0.2)
            decoder.bias.normal_(std=0.2)
    features = torch.randn(4, 7)
    theta = regressor(features)
    for b in range(4):
        current = [double(part).ravel() for part in start]
        for _ in range(3):
            x = np.concatenate((double(features[b]), *current))
            x = np.maximum(layer(regressor.outer, np.maximum(layer(regressor.inner, x), 0)), 0)
            current = [part + layer(decoder, x) for part, decoder in zip(current, regressor.decoders)]
        for part, expected in zip(theta, current):
            np.testing.assert_allclose(double(part[b]).ravel(), expected, atol=1e-5)


def test_dropout_is_for_training_only(body):
    net = small_net(body, dropout=0.5)
    with torch.no_grad():
        for decoder in net.regressor.decoders:
            decoder.weight.normal_(std=0.2)
    features = torch.randn(3, SMALL.common)
    one, other = (net.regressor(features).rotations6d for _ in range(2))
    assert (one - other).abs().max() > 1e-3
    net.eval()
    assert torch.equal(net.regressor(features).rotations6d, net.regressor(features).rotations6d)


def test_mean_camera_fills_the_crop(body):
    coarse = known_coarse_body(body, torch.arange(3), torch.zeros(1, 3, dtype=torch.int32))
    mean = mean_parameters(coarse, 16)
    joints = (coarse.joints - coarse.joints[0]) @ UPRIGHT.T
    seen = project_weakly(joints, mean.camera, torch.zeros(2))
    torch.testing.assert_close(seen[:, 1].aminmax(), torch.return_types.aminmax((-torch.ones(()), torch.ones(()))))
    assert mean.rotmats.shape == (24, 3, 3) and mean.betas.shape == (16,)


def test_projection_is_the_pinhole_of_a_body_far_away():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.4, (25, 3))
    centre = np.array([0.5, -0.3, 1.0]) * 200  # far to the side, 200 m away
    placed = points + centre
    pinhole = 3000 * placed[:, :2] / placed[:, 2:]
    crop_middle, crop_size = 3000 * np.array([0.5, -0.3]), 40.0
    expected = 2 * (pinhole - crop_middle) / crop_size
    camera = torch.tensor([2 * 3000 / 200 / crop_size, 0.0, 0.0])
    ray = torch.tensor([0.5, -0.3])
    found = project_weakly(torch.from_numpy(points).float(), camera, ray)
    np.testing.assert_allclose(double(found), expected, atol=0.01)
    straight = project_weakly(torch.from_numpy(points).float(), camera, torch.zeros(2))
    assert np.abs(double(straight) - expected).max() > 0.2  # what the ray is for


def test_projection_by_hand():
    points = torch.tensor([[0.5, -0.25, 2.0], [0.0, 0.0, 0.0]])
    found = project_weakly(points, torch.tensor([2.0, 0.1, -0.3]), torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(found, torch.tensor([[0.1, -2.8], [0.1, -0.3]]))
