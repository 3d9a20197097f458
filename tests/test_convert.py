"""Axes and rotations of the Blender side against scipy and matrices written from the formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from addon import convert

ANGLES = [0.0, 1e-8, 1e-5, 1e-3, 1.0, np.pi - 1e-4, np.pi - 1e-9, np.pi]


def random_rotations(count: int, seed: int = 0) -> Rotation:
    return Rotation.random(count, random_state=seed)


def scipy_wxyz(rotation: Rotation) -> np.ndarray:
    return np.roll(rotation.as_quat(), 1, axis=-1)


def same_rotation(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return bool(np.minimum(np.abs(a - b).max(axis=-1), np.abs(a + b).max(axis=-1)).max() < tolerance)


@pytest.mark.parametrize("angle", ANGLES)
def test_quaternion_from_rotvec_at_every_angle(angle: float) -> None:
    axes = np.random.default_rng(1).normal(size=(20, 3))
    rotvecs = angle * axes / np.linalg.norm(axes, axis=1, keepdims=True)
    ours = convert.quaternion_from_rotvec(rotvecs)
    assert same_rotation(ours, scipy_wxyz(Rotation.from_rotvec(rotvecs)), 1e-12)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-12)
    back = convert.quaternion_from_rotvec(convert.rotvec_from_quaternion(-ours))
    assert same_rotation(back, ours, 1e-12)


def test_products_matrices_and_back() -> None:
    a, b = random_rotations(50), random_rotations(50, seed=1)
    qa, qb = scipy_wxyz(a), scipy_wxyz(b)
    assert same_rotation(convert.multiply_quaternions(qa, qb), scipy_wxyz(a * b), 1e-12)
    assert same_rotation(convert.conjugate_quaternion(qa), scipy_wxyz(a.inv()), 1e-12)
    np.testing.assert_allclose(convert.matrix_from_quaternion(qa), a.as_matrix(), atol=1e-12)
    found = convert.quaternion_from_matrix(a.as_matrix())
    assert same_rotation(found, qa, 1e-12) and (found[:, 0] >= 0).all()


def test_matrix_with_half_turns() -> None:
    for axis in np.eye(3):
        q = convert.quaternion_from_matrix(Rotation.from_rotvec(np.pi * axis).as_matrix())
        np.testing.assert_allclose(np.abs(q), [0, *axis], atol=1e-12)


def test_rest_frames() -> None:
    up, front, left = np.array([0.0, 1, 0]), np.array([0.0, 0, 1]), np.array([1.0, 0, 0])
    np.testing.assert_array_equal(convert.rest_to_blender(up), [0, 0, 1])
    np.testing.assert_array_equal(convert.rest_to_blender(front), [0, -1, 0])
    np.testing.assert_array_equal(convert.rest_to_blender(left), [1, 0, 0])
    points = np.random.default_rng(0).normal(size=(7, 3))
    np.testing.assert_array_equal(convert.blender_to_rest(convert.rest_to_blender(points)), points)
    np.testing.assert_allclose(points @ convert.REST_TO_BLENDER.T, convert.rest_to_blender(points), atol=1e-15)


def test_continuous_signs() -> None:
    turns = Rotation.from_rotvec(np.linspace(0, 9 * np.pi, 200)[:, None] * [0.0, 0.6, 0.8])
    q = scipy_wxyz(turns) * np.random.default_rng(0).choice([-1.0, 1.0], (200, 1))
    smooth = convert.make_continuous(q)
    assert (np.sum(smooth[1:] * smooth[:-1], axis=1) > 0).all()
    assert same_rotation(smooth, q, 1e-12)
    after = convert.make_continuous(q[100:], previous=smooth[99])
    np.testing.assert_array_equal(after, smooth[100:])


def test_bone_keys_deform_as_smpl_does() -> None:
    """D = G C^T for every bone, chained as Blender chains poses: pose_j = pose_p rest_p^-1 rest_j basis_j."""
    rng = np.random.default_rng(2)
    from core.skeleton import PARENTS

    axes = random_rotations(24, seed=3).as_matrix()
    poses, trans, joints = rng.normal(0, 1, (5, 24, 3)), rng.normal(size=(5, 3)), rng.normal(size=(24, 3))
    quaternions, location = convert.bone_keys_from_pose(poses, trans, joints, axes)
    basis = convert.matrix_from_quaternion(quaternions)
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    for n in range(5):
        smpl, posed = np.zeros((24, 3, 3)), np.zeros((24, 3, 3))
        for j, p in enumerate(PARENTS):
            local = Rotation.from_rotvec(poses[n, j]).as_matrix()
            smpl[j] = local if p < 0 else smpl[p] @ local
            posed[j] = axes[j] @ basis[n, j] if p < 0 else posed[p] @ axes[p].T @ axes[j] @ basis[n, j]
            np.testing.assert_allclose(posed[j] @ axes[j].T, smpl[j] @ turn.T, atol=1e-12)
        np.testing.assert_allclose(turn @ joints[0] + axes[0] @ location[n], joints[0] + trans[n], atol=1e-12)


def test_bone_keys_and_back() -> None:
    rng = np.random.default_rng(4)
    axes = random_rotations(24, seed=5).as_matrix()
    poses, trans, joints = rng.normal(0, 0.8, (9, 24, 3)), rng.normal(size=(9, 3)), rng.normal(size=(24, 3))
    back, place = convert.pose_from_bone_keys(*convert.bone_keys_from_pose(poses, trans, joints, axes), joints, axes)
    expected = Rotation.from_rotvec(poses.reshape(-1, 3)).as_rotvec().reshape(poses.shape)
    np.testing.assert_allclose(back, expected, atol=1e-10)
    np.testing.assert_allclose(place, trans, atol=1e-12)


def test_camera_axes() -> None:
    world = convert.camera_to_blender(np.eye(4))
    np.testing.assert_array_equal(world[:3, :3] @ [0, 0, -1], [0, 0, 1])
    np.testing.assert_array_equal(world[:3, :3] @ [0, 1, 0], [0, -1, 0])
    np.testing.assert_array_equal(convert.camera_to_blender(world), np.eye(4))


def test_scene_frames_snap_to_whole_frames_only_nearby() -> None:
    frames = convert.scene_frames_from_times(np.array([0.0, 0.033333, 0.0334, 0.0345, 0.05]), 1, 30.0)
    np.testing.assert_allclose(frames, [1, 2, 2, 2.035, 2.5], rtol=0, atol=1e-12)
