"""core.make.prior: poses from a bank, expectation maximisation on Gaussians that are known, mirror images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import multivariate_normal

from core.make import prior
from core.recover.chain import POSE_JOINTS
from core.recover.prior import DIMENSION, load_prior
from core.skeleton import JOINT_NAMES
from core.synth.motion import MotionBank

ELBOW = JOINT_NAMES.index("left_elbow"), JOINT_NAMES.index("right_elbow")


def a_bank(angles: dict[str, list[float]]) -> MotionBank:
    """Clips by split, in which the left elbow bends about y by some radians, a frame each."""
    quats = np.zeros((sum(map(len, angles.values())), 24, 4), np.float32)
    quats[..., 0] = 1
    bends = np.concatenate([np.array(a) for a in angles.values()])
    about_y = Rotation.from_rotvec(bends[:, None] * [0, 1, 0]).as_quat()
    quats[:, ELBOW[0]] = about_y[:, [3, 0, 1, 2]]
    lengths = np.array([len(a) for a in angles.values()])
    names = tuple(f"clip {i}" for i in range(len(lengths)))
    starts = np.cumsum(lengths) - lengths
    return MotionBank(quats, np.zeros((len(quats), 3), np.float32), starts, lengths, names, names, names,
                      tuple(angles), 0.8)  # fmt: skip


def test_poses_are_those_of_training_clips_and_their_mirror_images(monkeypatch):
    monkeypatch.setattr(prior, "STRIDE", 2)
    poses = prior.collect_poses(a_bank({"test": [0.9, 0.9], "train": [0.1, 0.2, 0.3], "validation": [0.8]}))
    left, right = (3 * POSE_JOINTS.index(joint) + 1 for joint in ELBOW)
    assert poses.shape == (4, DIMENSION)
    np.testing.assert_allclose(poses[:, left], [0.1, 0.3, 0, 0], atol=1e-6)
    np.testing.assert_allclose(poses[:, right], [0, 0, -0.1, -0.3], atol=1e-6)
    assert np.abs(np.delete(poses, (left, right), 1)).max() < 1e-6


def test_joints_turned_half_round_are_left_out(monkeypatch):
    monkeypatch.setattr(prior, "STRIDE", 1)
    assert len(prior.collect_poses(a_bank({"train": [0.1, 3.0, 0.2]}))) == 4


def test_the_mixture_finds_gaussians_that_are_known():
    rng = np.random.default_rng(3)
    shape = np.array([[0.3, 0.1], [0.1, 0.2]])
    drawn = np.concatenate(
        [rng.multivariate_normal([5, 0], shape, 9000), rng.multivariate_normal([0, 4], shape, 3000)]
    )
    weights, means, covariances = prior.fit_mixture(drawn, components=2)
    order = np.argsort(-weights)
    np.testing.assert_allclose(weights[order], [0.75, 0.25], atol=0.01)
    np.testing.assert_allclose(means[order], [[5, 0], [0, 4]], atol=0.03)
    for covariance in covariances:
        np.testing.assert_allclose(covariance, shape + np.eye(2) * np.deg2rad(6.0) ** 2, atol=0.02)


def test_a_pose_and_its_mirror_image_are_equally_likely():
    rng = np.random.default_rng(4)
    factor = 0.1 * rng.normal(size=(2, DIMENSION, DIMENSION))
    covariances = factor @ factor.transpose(0, 2, 1) + np.eye(DIMENSION)
    mixture = prior.mirror_mixture(np.array([0.3, 0.7]), rng.normal(size=(2, DIMENSION)), covariances)
    pose = rng.normal(size=(len(POSE_JOINTS), 3))
    partner = [name.replace("left", "R").replace("right", "left").replace("R", "right") for name in JOINT_NAMES]
    other = np.stack([pose[POSE_JOINTS.index(JOINT_NAMES.index(partner[j]))] for j in POSE_JOINTS]) * [1, -1, -1]
    logs = [
        np.logaddexp.reduce([np.log(w) + multivariate_normal(m, c).logpdf(p.ravel()) for w, m, c in zip(*mixture)])
        for p in (pose, other)
    ]
    assert mixture[0].sum() == pytest.approx(1) and logs[0] == pytest.approx(logs[1], rel=1e-9)


def test_what_is_written_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(prior, "read_bank", lambda path: a_bank({"train": [0.01 * k for k in range(200)]}))
    monkeypatch.setattr(prior, "STRIDE", 1)
    prior.build_prior("bank.npz", tmp_path / "prior.npz")
    read = load_prior(str(tmp_path / "prior.npz"))
    assert read.means.shape == (2 * prior.COMPONENTS, DIMENSION) and float(read.penalties.min()) == 0
