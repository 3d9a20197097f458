"""Feet and floor of a motion in the world: sliding of planted feet, and how deep feet sink into the floor."""

from __future__ import annotations

import numpy as np
import torch

from core.contacts import CONTACT_KEYPOINTS
from core.records import Motion
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES

FOOT_JOINTS = [JOINT_NAMES.index(f"{side}_{part}") for side in ("left", "right") for part in ("ankle", "foot")]


def measure_ground(motion: Motion, body) -> dict[str, float]:
    """foot_slide: mean horizontal speed, mm/s, of heels and toes between frames that both label them as touching.
    planted_pct: share of frames with any touch. sunk_mm: the deepest any vertex of the feet is under z = 0;
    sunk_mean_mm: the mean over frames of how deep the deepest is."""
    if not len(motion):
        return {}
    with torch.no_grad():
        rotmats = axis_angle_to_matrix(torch.from_numpy(motion.poses).unflatten(-1, (24, 3)))
        betas, trans = torch.from_numpy(motion.betas), torch.from_numpy(motion.trans)
        points = body.keypoints(rotmats, betas, trans)[:, list(CONTACT_KEYPOINTS)].double().numpy()
        feet = (body.weights[:, FOOT_JOINTS].sum(-1) > 0.5).nonzero()[:, 0]
        lowest = body.skin(rotmats, betas, trans, vertex_ids=feet)[0][..., 2].amin(1)
    touching = motion.contacts > 0.5
    return {
        "foot_slide": slide(points, touching, motion.times),
        "planted_pct": float(touching.any(1).mean() * 100),
        "sunk_mm": float((-lowest).clamp_min(0).max() * 1000),
        "sunk_mean_mm": float((-lowest).clamp_min(0).mean() * 1000),
    }


def slide(points: np.ndarray, touching: np.ndarray, times: np.ndarray) -> float:
    """Mean horizontal speed, mm/s, of points [N, P, 3] m (z up) over the steps from one touching frame to the next
    (touching [N, P] bool, times [N] s); nan without any."""
    both = touching[1:] & touching[:-1]
    if not both.any():
        return float("nan")
    step = np.linalg.norm(np.diff(points[..., :2], axis=0), axis=-1) / np.diff(times)[:, None]
    return float(step[both].mean() * 1000)
