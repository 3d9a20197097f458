"""Rotation conversions against scipy, their inverses, and gradients against central differences in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from core import rotation

ANGLES = (0.0, 1e-8, 1e-4, 9.9e-3, 1.01e-2, 0.5, math.pi / 2, 2.5, math.pi - 1e-4, math.pi)


def _axes() -> np.ndarray:
    rng = np.random.default_rng(3)
    axes = np.concatenate([np.eye(3), -np.eye(3), rng.normal(size=(40, 3))])
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def _vectors(angle: float) -> torch.Tensor:
    return torch.from_numpy(_axes() * angle)


def _same_up_to_sign(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.minimum(np.abs(a - b).max(-1), np.abs(a + b).max(-1))


@pytest.mark.parametrize("angle", [*ANGLES, 4.0, 7.0])
def test_axis_angle_to_matrix_is_scipys(angle):
    v = _vectors(angle)
    expected = Rotation.from_rotvec(v.numpy()).as_matrix()
    np.testing.assert_allclose(rotation.axis_angle_to_matrix(v).numpy(), expected, atol=3e-15)
    single = rotation.axis_angle_to_matrix(v.float()).double().numpy()
    np.testing.assert_allclose(single, expected, atol=2e-6)


@pytest.mark.parametrize("angle", ANGLES)
def test_matrix_to_axis_angle_is_scipys(angle):
    v = _vectors(angle).numpy()
    matrix = torch.from_numpy(Rotation.from_rotvec(v).as_matrix())
    found = rotation.matrix_to_axis_angle(matrix).numpy()
    error = np.abs(found - v).max(-1) if angle < math.pi else _same_up_to_sign(found, v)
    assert error.max() < 1e-14
    assert np.linalg.norm(found, axis=-1).max() <= math.pi + 1e-14


@pytest.mark.parametrize("angle", ANGLES)
def test_quaternions_are_scipys(angle):
    v = _vectors(angle).numpy()
    r = Rotation.from_rotvec(v)
    expected = r.as_quat(scalar_first=True)
    found = rotation.matrix_to_quaternion(torch.from_numpy(r.as_matrix())).numpy()
    direct = rotation.axis_angle_to_quaternion(torch.from_numpy(v)).numpy()
    assert _same_up_to_sign(found, expected).max() < 1e-15 * 4
    assert _same_up_to_sign(direct, expected).max() < 1e-15 * 4
    assert found[:, 0].min() >= 0 and direct[:, 0].min() >= 0
    back = rotation.quaternion_to_matrix(torch.from_numpy(3.0 * expected)).numpy()
    np.testing.assert_allclose(back, r.as_matrix(), atol=4e-15)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 3e-6)])
@pytest.mark.parametrize("angle", ANGLES)
def test_every_conversion_and_back(angle, dtype, tolerance):
    matrix = torch.from_numpy(Rotation.from_rotvec(_vectors(angle).numpy()).as_matrix()).to(dtype)
    for there, back in (
        (rotation.matrix_to_axis_angle, rotation.axis_angle_to_matrix),
        (rotation.matrix_to_quaternion, rotation.quaternion_to_matrix),
        (rotation.matrix_to_rotation_6d, rotation.rotation_6d_to_matrix),
    ):
        again = back(there(matrix))
        assert again.dtype == dtype
        assert (again - matrix).abs().max() < tolerance, there.__name__


def test_tiny_angles_survive_in_float32():
    v = _vectors(1e-8).float()
    back = rotation.matrix_to_axis_angle(rotation.axis_angle_to_matrix(v))
    np.testing.assert_allclose(back.numpy(), v.numpy(), rtol=1e-5, atol=1e-14)


def test_leading_dimensions_equal_single():
    v = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 4, 3)))
    batch = rotation.axis_angle_to_matrix(v)
    assert batch.shape == (2, 3, 4, 3, 3)
    assert torch.equal(batch[1, 2, 3], rotation.axis_angle_to_matrix(v[1, 2, 3]))
    q = rotation.matrix_to_quaternion(batch)
    assert torch.equal(q[1, 2, 3], rotation.matrix_to_quaternion(batch[1, 2, 3]))
    d6 = rotation.matrix_to_rotation_6d(batch)
    torch.testing.assert_close(d6[1, 2, 3], torch.cat([batch[1, 2, 3, :, 0], batch[1, 2, 3, :, 1]]))
    assert rotation.rotation_6d_to_matrix(d6).shape == batch.shape
    assert rotation.matrix_to_axis_angle(batch[:0]).shape == (0, 3, 4, 3)


def test_6d_is_gram_schmidt_of_columns():
    rng = np.random.default_rng(5)
    raw = rng.normal(size=(50, 6))
    x = raw[:, :3] / np.linalg.norm(raw[:, :3], axis=1, keepdims=True)
    y = raw[:, 3:] - (x * raw[:, 3:]).sum(1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    expected = np.stack([x, y, np.cross(x, y)], -1)
    np.testing.assert_allclose(rotation.rotation_6d_to_matrix(torch.from_numpy(raw)).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize(
    "raw",
    [[0] * 6, [0, 0, 0, 0, 1, 0], [0, 2, 0, 0, 3, 0], [0.3, 0.2, -0.7, -0.6, -0.4, 1.4], [1, 0, 0, 0, 0, 0]],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_6d_is_still_a_rotation_with_finite_gradient(raw, dtype):
    d6 = torch.tensor(raw, dtype=dtype, requires_grad=True)
    matrix = rotation.rotation_6d_to_matrix(d6)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3, dtype=dtype), atol=1e-5, rtol=0)
    assert torch.linalg.det(matrix) > 0.99
    (gradient,) = torch.autograd.grad(matrix.sum(), d6)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 9.9e-3, 0.05, 1.0, 2.6, 3.0])
def test_slerp_is_scipys(angle):
    rng = np.random.default_rng(11)
    start = Rotation.random(30, random_state=1)
    turn = Rotation.from_rotvec(_axes()[rng.integers(0, 40, 30)] * angle)
    end = start * turn
    q0, q1 = (torch.from_numpy(r.as_quat(scalar_first=True)) for r in (start, end))
    for fraction in (0.0, 0.25, 0.5, 1.0):
        expected = (start * Rotation.from_rotvec(turn.as_rotvec() * fraction)).as_matrix()
        found = rotation.slerp(q0, q1, fraction)
        np.testing.assert_allclose(rotation.quaternion_to_matrix(found).numpy(), expected, atol=2e-14)
        assert found[:, 0].min() >= 0
    fractions = torch.linspace(0, 1, 30, dtype=torch.float64)
    each = torch.stack([rotation.slerp(a, b, float(f)) for a, b, f in zip(q0, q1, fractions)])
    torch.testing.assert_close(rotation.slerp(q0, q1, fractions), each)


def _numeric_gradient(function, x: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        shift = torch.zeros_like(x).view(-1)
        shift[i] = step
        shift = shift.view_as(x)
        gradient.view(-1)[i] = (function(x + shift) - function(x - shift)) / (2 * step)
    return gradient


@pytest.mark.parametrize("angle", [0.0, 1e-8, 9.99e-3, 1.0, math.pi - 1e-4, math.pi])
@pytest.mark.parametrize("axis", [0, 6, 9])
def test_gradients_are_central_differences(angle, axis):
    weight = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 3)))
    v = torch.from_numpy(_axes()[axis] * angle)

    def through_matrix(x):
        return (rotation.axis_angle_to_matrix(x) * weight).sum()

    def through_quaternion(x):
        return (rotation.quaternion_to_matrix(rotation.axis_angle_to_quaternion(x)) * weight).sum()

    def there_and_back(x):
        again = rotation.axis_angle_to_matrix(rotation.matrix_to_axis_angle(rotation.axis_angle_to_matrix(x)))
        return (again * weight).sum()

    def six(x):
        return (rotation.rotation_6d_to_matrix(rotation.matrix_to_rotation_6d(rotation.axis_angle_to_matrix(x)))
                * weight).sum()  # fmt: skip

    for function in (through_matrix, through_quaternion, there_and_back, six):
        x = v.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(x), x)
        torch.testing.assert_close(gradient, _numeric_gradient(function, v), atol=1e-8, rtol=1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-2, math.pi - 1e-4, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_gradients_are_finite(angle, dtype):
    v = _vectors(angle).to(dtype).requires_grad_()
    matrix = rotation.axis_angle_to_matrix(v)
    quaternion = rotation.matrix_to_quaternion(matrix)
    middle = rotation.slerp(quaternion, quaternion.roll(1, 0), 0.3)
    total = (
        rotation.matrix_to_axis_angle(matrix).sum() + middle.sum() + rotation.slerp(quaternion, quaternion, 0.5).sum()
    )
    (gradient,) = torch.autograd.grad(total, v)
    assert torch.isfinite(gradient).all()
