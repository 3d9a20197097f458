"""Smooth random motions with known truth, and the track a perfect detector would see of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.records import Camera, Track
from core.skeleton import JOINT_NAMES, PARENTS

FPS = 30.0
SWING = {  # joint: (mean rotation vector, amplitude) rad, all within what the joint can do
    "left_hip": ((-0.35, 0.0, 0.05), (0.35, 0.05, 0.05)),
    "right_hip": ((-0.35, 0.0, -0.05), (0.35, 0.05, 0.05)),
    "left_knee": ((0.6, 0.0, 0.0), (0.4, 0.0, 0.0)),
    "right_knee": ((0.6, 0.0, 0.0), (0.4, 0.0, 0.0)),
    "spine1": ((0.1, 0.0, 0.0), (0.05, 0.05, 0.05)),
    "spine3": ((0.0, 0.0, 0.0), (0.03, 0.08, 0.03)),
    "head": ((0.1, 0.0, 0.0), (0.1, 0.2, 0.05)),
    "left_shoulder": ((0.1, -0.4, -0.9), (0.1, 0.4, 0.3)),
    "right_shoulder": ((0.1, 0.4, 0.9), (0.1, 0.4, 0.3)),
    "left_elbow": ((0.0, -0.8, 0.35), (0.0, 0.5, 0.2)),
    "right_elbow": ((0.0, 0.8, -0.35), (0.0, 0.5, 0.2)),
}


@dataclass
class Truth:
    rotmats: np.ndarray
    """[N, 24, 3, 3] local, root in the camera frame."""
    trans: np.ndarray
    """[N, 3]."""
    joints: np.ndarray
    """[N, 24, 3] camera frame."""
    keypoints: np.ndarray
    """[N, 25, 3] camera frame."""


def rodrigues(vector: np.ndarray) -> np.ndarray:
    """[..., 3] -> [..., 3, 3], straight from the formula."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    axis = vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)
    x, y, z = np.moveaxis(axis, -1, 0)
    o = np.zeros_like(x)
    K = np.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*vector.shape[:-1], 3, 3)
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * (K @ K)


def skin_keypoints(body, rotmats: np.ndarray, trans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints [N, 24, 3] and keypoints [N, 25, 3] by plain linear blend skinning, loops and all."""
    J, vertices = body.joint_template.numpy(), body.v_template.numpy()
    weights, regressor = body.weights.numpy(), body.keypoint_regressor.numpy()
    joints, points = [], []
    for R, t in zip(rotmats, trans):
        G, at = [R[0]], [J[0] + t]
        for j in range(1, 24):
            p = PARENTS[j]
            G.append(G[p] @ R[j])
            at.append(at[p] + G[p] @ (J[j] - J[p]))
        posed = sum(weights[:, j, None] * ((vertices - J[j]) @ G[j].T + at[j]) for j in range(24))
        joints.append(at)
        points.append(regressor @ posed)
    return np.array(joints), np.array(points)


def make_truth(body, count: int = 60, *, seed: int = 0, yaw: float = 0.6, depth: float = 4.0) -> Truth:
    """A figure that sways, turns and drifts before a level camera."""
    generator = np.random.default_rng(seed)
    t = np.arange(count)[:, None] / FPS
    vectors = np.zeros((count, 24, 3))
    for name, (mean, amplitude) in SWING.items():
        speed, phase = generator.uniform(0.5, 1.1, 3), generator.uniform(0, 2 * np.pi, 3)
        vectors[:, JOINT_NAMES.index(name)] = mean + np.array(amplitude) * np.sin(2 * np.pi * speed * t + phase)
    rotmats = rodrigues(vectors)
    turn = rodrigues(np.stack([0 * t[:, 0], yaw + 0.5 * np.sin(1.5 * t[:, 0]), 0 * t[:, 0]], -1))
    rotmats[:, 0] = np.diag([1.0, -1.0, -1.0]) @ turn  # y up facing the camera
    trans = np.concatenate([0.3 * np.sin(t), 0.02 * np.sin(6 * t), depth + 0.2 * t], 1)
    joints, points = skin_keypoints(body, rotmats, trans)
    return Truth(rotmats, trans, joints, points)


CAMERA = Camera.from_size(1280, 720, 1100.0)


def make_track(truth: Truth, *, noise_px: float = 0.0, noise_m: float = 0.0, seed: int = 1) -> Track:
    """What a perfect detector (or one with white noise) sees."""
    generator = np.random.default_rng(seed)
    p = truth.keypoints
    N = len(p)
    keypoints = np.ones((N, 25, 3), np.float32)
    keypoints[..., 0] = p[..., 0] / p[..., 2] * CAMERA.fx + CAMERA.cx
    keypoints[..., 1] = p[..., 1] / p[..., 2] * CAMERA.fy + CAMERA.cy
    keypoints[..., :2] += generator.normal(0, noise_px, (N, 25, 2))
    hips = p[:, 15:17].mean(1, keepdims=True)
    # the detector's view turns with the ray to the hips, sideways
    angle = np.arctan2(hips[:, 0, 0], hips[:, 0, 2])
    turn = rodrigues(np.stack([0 * angle, -angle, 0 * angle], -1))
    landmarks = np.einsum("nab,nkb->nka", turn, p - hips) + generator.normal(0, noise_m, (N, 25, 3))
    return Track(
        person=0,
        frames=np.arange(N, dtype=np.int32),
        times=np.arange(N) / FPS,
        keypoints=keypoints,
        landmarks3d=landmarks.astype(np.float32),
        features=np.zeros((N, 1), np.float16),
        confidence=np.ones(N, np.float32),
        boxes=np.zeros((N, 4), np.float32),
    )


def procrustes_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of points a, b [N, P, 3] after the best similarity per frame (Umeyama 1991)."""
    errors = []
    for x, y in zip(a, b):
        x0, y0 = x - x.mean(0), y - y.mean(0)
        U, s, Vt = np.linalg.svd(x0.T @ y0)
        D = np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))])
        scale = (s * np.diag(D)).sum() / (x0**2).sum()
        errors.append(np.linalg.norm(scale * x0 @ U @ D @ Vt - y0, axis=1).mean())
    return float(np.mean(errors))


def mirror_track(track: Track, width: int) -> Track:
    """The track of the mirrored video: x is reflected, left is right."""
    from dataclasses import replace

    from core.skeleton import KEYPOINT_MIRROR

    keypoints = track.keypoints[:, list(KEYPOINT_MIRROR)].copy()
    keypoints[..., 0] = width - keypoints[..., 0]
    landmarks = track.landmarks3d[:, list(KEYPOINT_MIRROR)] * np.array([-1, 1, 1], np.float32)
    return replace(track, keypoints=keypoints, landmarks3d=landmarks)
