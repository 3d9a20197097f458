"""core.stature: exact heights, proportions kept as a general optimiser finds them, and the picture unchanged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from core.body import load_body
from core.errors import InputError
from core.records import CameraMotion
from core.rotation import axis_angle_to_matrix
from core.stature import HOLD_M, fit_height, resize
from tests.stick_body import build_stick_body

FILE = Path(__file__).parent.parent / "weights" / "body_neutral.npz"


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Template [V, 3] and shapedirs [V, 3, 16] from the file itself."""
    with np.load(FILE) as archive:
        return archive["v_template"].astype(np.float64), archive["shapedirs"].astype(np.float64)


@pytest.fixture(scope="module")
def body():
    return load_body()


def stature(arrays, betas: np.ndarray) -> float:
    """Sole to crown of the rest pose, float64."""
    return float(np.ptp((arrays[0] + arrays[1] @ np.asarray(betas, np.float64))[:, 1]))


def some_shape(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.8, 16)


@pytest.mark.parametrize("height", [0.5, 1.2, 1.72, 2.5])
def test_the_body_has_exactly_the_height(body, arrays, height):
    for seed in range(3):
        assert stature(arrays, fit_height(body, some_shape(seed), height)) == pytest.approx(height, abs=2e-6)


def test_its_own_height_leaves_a_shape_alone(body, arrays):
    betas = some_shape(4)
    np.testing.assert_allclose(fit_height(body, betas, stature(arrays, betas)), betas, atol=1e-4)


@pytest.mark.parametrize("height", [1.5, 1.9])
def test_no_other_shape_of_that_height_is_nearer(body, arrays, height):
    """The same problem given to SLSQP, with the height as a constraint."""
    template, shapedirs = arrays
    betas = some_shape(1)
    goal = height / stature(arrays, betas) * (template + shapedirs @ betas)

    def cost(b: np.ndarray) -> float:
        off = np.square(template + shapedirs @ b - goal).sum(1).mean()
        return 1e4 * float(off + HOLD_M**2 * np.square(b - betas).sum())

    constraint = {"type": "eq", "fun": lambda b: stature(arrays, b) - height}
    best = minimize(cost, betas, method="SLSQP", constraints=[constraint], options={"maxiter": 300, "ftol": 1e-12})
    found = fit_height(body, betas, height)
    assert cost(found) <= best.fun * (1 + 1e-4)
    np.testing.assert_allclose(found, best.x, atol=0.03)


def pose(count: int, seed: int) -> CameraMotion:
    rng = np.random.default_rng(seed)
    rotmats = axis_angle_to_matrix(torch.from_numpy(rng.normal(0, 0.4, (count, 24, 3)))).numpy()
    rotmats[:, 0] = np.diag([1.0, -1, -1]) @ rotmats[:, 0]
    return CameraMotion(
        person=0,
        frames=np.arange(count, dtype=np.int32),
        rotmats=rotmats.astype(np.float32),
        trans=(rng.normal(0, 0.5, (count, 3)) + [0, 0, 5]).astype(np.float32),
        betas=some_shape(seed).astype(np.float32),
        confidence=np.ones(count, np.float32),
    )


def pixels(body, motion: CameraMotion) -> np.ndarray:
    """Keypoints as share of the focal length [N, 25, 2]."""
    points = body.keypoints(*(torch.from_numpy(a) for a in (motion.rotmats, motion.betas, motion.trans)))
    return (points[..., :2] / points[..., 2:]).numpy()


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_the_picture_stays(body, arrays, factor):
    """The feet and hands of a person 5 m away that fills 340 of 1,000 px of focal length move by a few px."""
    motion = pose(20, 2)
    motion.betas[0] = 0.3
    height = factor * stature(arrays, motion.betas)
    resized = resize(motion, body, height)
    assert np.abs(pixels(body, resized) - pixels(body, motion)).mean() * 1000 < 1.5
    np.testing.assert_array_equal(resized.rotmats, motion.rotmats)
    np.testing.assert_allclose(resized.trans[:, 2], factor * motion.trans[:, 2], rtol=0.01)


def test_an_evenly_scaled_body_stands_evenly_farther():
    """A stick whose first component is size, 5 % a unit, and the only one."""
    stick = build_stick_body()
    stick.shapedirs[..., 1:] = 0
    stick.joint_shapedirs[..., 1:] = 0
    stick.joint_template = stick.joint_template + torch.tensor([0.1, 0.2, 0.3])
    stick.v_template = stick.v_template + torch.tensor([0.1, 0.2, 0.3])
    stick.joint_shapedirs[:, :, 0] += 0.05 * torch.tensor([0.1, 0.2, 0.3])
    stick.shapedirs[:, :, 0] += 0.05 * torch.tensor([0.1, 0.2, 0.3])
    motion = pose(4, 0)
    motion.betas[:] = 0
    height = float(np.ptp(stick.v_template[:, 1].numpy()))
    resized = resize(motion, stick, 1.2 * height)
    assert resized.betas[0] == pytest.approx(4.0, abs=1e-5)
    root = np.array([0.1, 0.2, 0.3])
    after = root * (1 + 0.05 * resized.betas[0]) + resized.trans
    np.testing.assert_allclose(after, 1.2 * (root + motion.trans), atol=1e-5)


def test_a_body_without_shape_refuses():
    rigid = SimpleNamespace(
        name="rigid", v_template=np.array([[0.0, 0, 0], [0, 1.7, 0]]), shapedirs=np.zeros((2, 3, 16))
    )
    with pytest.raises(InputError, match="No shape of the body rigid is 1.5 m tall"):
        fit_height(rigid, np.zeros(10), 1.5)
