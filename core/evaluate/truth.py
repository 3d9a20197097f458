"""What a test clip was like, frame by frame: from where and how far it was taken, how hidden, how fast, how well the
detector saw. The conditions that errors are broken down by. N frames, K = 25 keypoints, J = 24 joints; numpy.
"""

from __future__ import annotations

import numpy as np
import torch

from core.evaluate.testset import FPS, TestClip
from core.records import Camera

DIAGONAL_35_MM = 43.267
"""Diagonal of a 36 x 24 mm picture, mm."""


def true_keypoints(clip: TestClip, body) -> np.ndarray:
    """[N, K, 3] metres, camera frame, float64."""
    with torch.no_grad():
        return body.keypoints(clip.rotmats, clip.betas, clip.trans).double().numpy()


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    """[..., 3] metres -> [..., 2] px; what is nearer than 5 cm counts as 5 cm away."""
    return points[..., :2] / np.maximum(points[..., 2:], 0.05) * (camera.fx, camera.fy) + (camera.cx, camera.cy)


def frame_conditions(clip: TestClip, body) -> dict[str, np.ndarray]:
    """Condition -> [N] float64, nan where it is not known.

    view: degrees from the person's front to the camera about the trunk's own axis, 0 in front, 180 behind.
    pitch: degrees the camera looks down. focal: mm on 35 mm film, by the diagonal. occlusion: share of keypoints
    hidden or outside. speed: m/s, mean over joints, of the motion about the pelvis. shape: standing height, m. build:
    root mean square of all shape components but the first, which is size: 0 the average build, 1 an ordinary other.
    keypoint_error: mean distance of the detector's keypoints to the true ones as share of `size`, where the person
    was seen. size: what a standing person of this height would measure in the picture, px.
    """
    n, lens = len(clip.track), clip.lens
    with torch.no_grad():
        joints, _ = body.forward_kinematics(clip.rotmats, clip.betas, clip.trans)
        height = float(body.height(clip.betas))
    joints = joints.double().numpy()
    keypoints = true_keypoints(clip, body)
    to_camera = np.einsum("nij,ni->nj", clip.rotmats[:, 0].double().numpy(), -joints[:, 0])  # in the pelvis' axes
    size = lens.fy * height / np.maximum(joints[:, 0, 2], 0.05)
    off = np.linalg.norm(clip.track.keypoints[..., :2] - project(keypoints, lens), axis=-1).mean(1) / size
    unknown = np.full(n, np.nan)
    return {
        "view": np.degrees(np.abs(np.arctan2(to_camera[:, 0], to_camera[:, 2]))),
        "pitch": unknown if clip.up is None else np.degrees(np.arcsin(np.clip(-clip.up[:, 2], -1, 1))),
        "focal": np.full(n, lens.fx / np.hypot(lens.width, lens.height) * DIAGONAL_35_MM),
        "occlusion": unknown if clip.hidden is None else clip.hidden.mean(1),
        "speed": joint_speed(joints),
        "shape": np.full(n, height),
        "build": np.full(n, float(clip.betas[1:].double().square().mean().sqrt())),
        "keypoint_error": np.where(clip.track.confidence > 0, off, np.nan),
        "size": size,
    }


def joint_speed(joints: np.ndarray) -> np.ndarray:
    """Mean speed [N] m/s of joints [N, J, 3] about the first, by central differences."""
    if len(joints) < 2:
        return np.zeros(len(joints))
    about = joints - joints[:, :1]
    return np.linalg.norm(np.gradient(about, 1 / FPS, axis=0), axis=-1).mean(1)
