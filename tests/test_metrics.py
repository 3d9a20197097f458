"""core.evaluate.metrics: known answers, and scipy's Procrustes as an oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from core.evaluate import metrics


def test_mean_point_error_of_a_known_offset():
    truth = torch.randn(3, 24, 3)
    moved = truth + torch.tensor([0.03, 0.0, 0.04])
    torch.testing.assert_close(metrics.mean_point_error(moved, truth), torch.full((3,), 50.0), rtol=1e-4, atol=0)
    aligned = metrics.mean_point_error(metrics.root_aligned(moved), metrics.root_aligned(truth))
    assert float(aligned.max()) < 1e-3


def test_procrustes_undoes_a_similarity_but_not_a_reflection():
    truth = torch.randn(6, 24, 3, dtype=torch.float64)
    R = torch.from_numpy(Rotation.random(6, rng=0).as_matrix())
    moved = 0.3 * truth @ R.transpose(-1, -2) + torch.randn(6, 1, 3)
    assert float(metrics.procrustes_error(moved, truth).max()) < 1e-9
    mirrored = moved * torch.tensor([-1.0, 1.0, 1.0])
    assert float(metrics.procrustes_error(mirrored, truth).min()) > 100


def test_procrustes_matches_scipy_least_squares():
    """Rotation.align_vectors solves the rotation; the scale follows from its own normal equation."""
    rng = np.random.default_rng(1)
    truth, predicted = rng.normal(size=(2, 5, 24, 3))
    for p, t in zip(predicted, truth):
        p0, t0 = p - p.mean(0), t - t.mean(0)
        R = Rotation.align_vectors(t0, p0)[0].as_matrix()
        turned = p0 @ R.T
        scale = (turned * t0).sum() / (turned**2).sum()
        expected = np.linalg.norm(scale * turned - t0, axis=1).mean() * 1000
        ours = metrics.procrustes_error(torch.from_numpy(p), torch.from_numpy(t))
        assert float(ours) == pytest.approx(expected, rel=1e-9)


def test_acceleration_error_of_a_parabola():
    """x = a t^2/2 against rest: the second difference is a in every frame."""
    t = torch.arange(10, dtype=torch.float64)
    moving = torch.zeros(10, 2, 3, dtype=torch.float64)
    moving[:, :, 1] = 0.5 * 0.006 * t[:, None] ** 2
    error = metrics.acceleration_error(moving, torch.zeros_like(moving))
    assert error.shape == (8,)
    torch.testing.assert_close(error, torch.full((8,), 6.0, dtype=torch.float64))
    drift = torch.ones_like(moving) * t[:, None, None]
    torch.testing.assert_close(
        metrics.acceleration_error(moving + drift, moving), torch.zeros(8, dtype=torch.float64)
    )
    torch.testing.assert_close(metrics.acceleration(moving), error)


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 30.0, 179.9, 180.0])
def test_rotation_angle(degrees):
    axis = np.array([1.0, -2.0, 0.5]) / np.linalg.norm([1.0, -2.0, 0.5])
    base = Rotation.random(rng=2)
    turned = base * Rotation.from_rotvec(axis * np.radians(degrees))
    ours = metrics.rotation_angle(torch.from_numpy(base.as_matrix()), torch.from_numpy(turned.as_matrix()))
    assert float(ours) == pytest.approx(degrees, abs=1e-6)
