"""Make weights/pose_prior.npz: a Gaussian mixture over everyday poses, from motion capture.

    python -m core.make.prior MOTION_BANK [OUTPUT]

The poses are those of subjects that train, every `STRIDE`th frame, and their mirror images. Fitted by
expectation maximisation from k-means++ centres; seeds fixed. `SLACK` widens every component: the mixture is to keep
poses human, not to pull them to the ones seen.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import torch

from core.recover.chain import POSE_JOINTS
from core.recover.prior import DIMENSION, PRIOR_FILE
from core.rotation import quaternion_to_axis_angle
from core.skeleton import JOINT_MIRROR, JOINT_NAMES
from core.synth.motion import MotionBank, read_bank

COMPONENTS = 8
"""Half of what is written: each has its mirror image beside it. Twice as many know held-out poses less well."""
STRIDE = 20
SLACK = np.deg2rad(6.0)
SEED = 20
CREDIT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)


def collect_poses(bank: MotionBank, split: str = "train") -> np.ndarray:
    """Rotation vectors of POSE_JOINTS, [N, D] float64, the mirror images after the originals."""
    frames = np.concatenate([np.arange(bank.frames(i).start, bank.frames(i).stop, STRIDE) for i in bank.clips(split)])
    poses = quaternion_to_axis_angle(torch.from_numpy(bank.quats[frames]).double())  # [N, 24, 3]
    mirrored = poses[:, list(JOINT_MIRROR)] * torch.tensor([1.0, -1.0, -1.0], dtype=poses.dtype)
    both = torch.cat([poses, mirrored])[:, list(POSE_JOINTS)]
    both = both[both.norm(dim=-1).amax(1) < 2.9]  # a head or ankle turned half round is a glitch of the source
    return both.reshape(len(both), DIMENSION).numpy()


def fit_mixture(poses: np.ndarray, *, components: int, iterations: int = 40) -> tuple[np.ndarray, ...]:
    """Expectation maximisation -> weights [C], means [C, D], covariances [C, D, D]."""
    generator = np.random.default_rng(SEED)
    count, D = poses.shape
    centres = [poses[generator.integers(count)]]
    for _ in range(components - 1):  # k-means++
        nearest = np.min([((poses - c) ** 2).sum(1) for c in centres], axis=0)
        centres.append(poses[generator.choice(count, p=nearest / nearest.sum())])
    means = np.stack(centres)
    covariances = np.repeat(np.cov(poses.T)[None], components, 0) + np.eye(D) * SLACK**2
    weights = np.full(components, 1 / components)
    for _ in range(iterations):
        logs = np.empty((count, components))
        for c in range(components):
            factor = np.linalg.cholesky(covariances[c])
            white = np.linalg.solve(factor, (poses - means[c]).T)
            logs[:, c] = np.log(weights[c]) - (white**2).sum(0) / 2 - np.log(np.diag(factor)).sum()
        logs -= logs.max(1, keepdims=True)
        share = np.exp(logs)
        share /= share.sum(1, keepdims=True)
        total = share.sum(0) + 1e-9
        weights = total / total.sum()
        means = share.T @ poses / total[:, None]
        for c in range(components):
            centred = poses - means[c]
            covariances[c] = (share[:, c, None] * centred).T @ centred / total[c] + np.eye(D) * SLACK**2
    return weights, means, covariances


def mirror_mixture(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> tuple[np.ndarray, ...]:
    """The mixture and its mirror image, half each, so that left and right are exactly alike."""
    mirrored = [POSE_JOINTS.index(JOINT_MIRROR[j]) for j in POSE_JOINTS]
    joints = np.arange(DIMENSION).reshape(-1, 3)[mirrored].reshape(-1)
    sign = np.tile([1.0, -1.0, -1.0], len(POSE_JOINTS))
    other = covariances[:, joints][:, :, joints] * sign[:, None] * sign
    return (
        np.concatenate([weights, weights]) / 2,
        np.concatenate([means, means[:, joints] * sign]),
        np.concatenate([covariances, other]),
    )


def build_prior(bank: str | Path, output: str | Path = PRIOR_FILE) -> None:
    """Fit the mixture to a motion bank and write it."""
    poses = collect_poses(read_bank(bank))
    weights, means, covariances = mirror_mixture(*fit_mixture(poses, components=COMPONENTS))
    order = np.argsort(-weights)
    factors = np.linalg.cholesky(covariances)
    np.savez_compressed(
        output,
        weights=weights[order].astype(np.float32),
        means=means[order].astype(np.float32),
        factors=factors[order].astype(np.float32),
        joint_names=np.array([JOINT_NAMES[j] for j in POSE_JOINTS]),
        credit=np.array(CREDIT),
    )
    logging.getLogger(__name__).info("%d poses, weights %s", len(poses), np.round(weights[order], 3))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    build_prior(*sys.argv[1:3])
