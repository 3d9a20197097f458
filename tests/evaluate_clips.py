"""A test clip with truth, the motion that makes no error on it, and float64 numpy twins of what is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from core.evaluate.testset import TestClip, build_track
from core.records import Camera, CameraMotion
from core.rotation import axis_angle_to_matrix
from core.skeleton import KEYPOINT_NAMES

LIMBS = [f"{s}_{p}" for p in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for s in ("left", "right")]


def make_clip(body, *, n: int = 12, seed: int = 0, moving: bool = False, name: str = "a") -> TestClip:
    """Somebody facing a level camera, seen without error; landmarks in camera axes; `moving`: a pose a frame."""
    generator = torch.Generator().manual_seed(seed)
    camera = Camera.from_size(1280, 720)
    poses = 0.2 * torch.randn(n if moving else 1, 24, 3, generator=generator)
    rotmats = axis_angle_to_matrix(poses).expand(n, 24, 3, 3).clone()
    rotmats[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    betas = torch.randn(16, generator=generator)
    trans = torch.tensor([0.1, 0.2, 4.0]).repeat(n, 1)
    points = body.keypoints(rotmats, betas, trans)
    keypoints = np.concatenate([project(points.numpy(), camera), np.ones((n, 25, 1))], -1).astype(np.float32)
    hips = points[:, 15:17].mean(1, keepdim=True)
    track = build_track(keypoints, (points - hips).numpy(), np.zeros((n, 4)), np.ones(n), n)
    return TestClip(name, track, camera, rotmats, betas, trans)


def motion_of(clip: TestClip, **changes) -> CameraMotion:
    """The truth as a method's result."""
    motion = CameraMotion(
        person=0,
        frames=clip.track.frames,
        rotmats=clip.rotmats.numpy(),
        trans=clip.trans.numpy(),
        betas=clip.betas.numpy(),
        confidence=clip.track.confidence,
    )
    return replace(motion, **changes)


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    points = points.astype(np.float64)
    x = camera.fx * points[..., 0] / points[..., 2] + camera.cx
    y = camera.fy * points[..., 1] / points[..., 2] + camera.cy
    return np.stack([x, y], -1)


def limbs_about_hips(keypoints: np.ndarray) -> np.ndarray:
    """[N, 12, 3] float64, one keypoint after the other."""
    keypoints = keypoints.astype(np.float64)
    middle = (keypoints[:, KEYPOINT_NAMES.index("left_hip")] + keypoints[:, KEYPOINT_NAMES.index("right_hip")]) / 2
    return np.stack([keypoints[:, KEYPOINT_NAMES.index(name)] - middle for name in LIMBS], 1)
