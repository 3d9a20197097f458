"""What can be said of a motion, or of the detector's landmarks, without truth.

What both rows share is measured on the twelve limb keypoints about the middle of the hips, over frames in which the
person was seen. N frames, K = 25 keypoints. What the columns mean is listed in README.md.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.evaluate.measure import HIPS, LIMB_KEYPOINTS, detector_keypoints
from core.evaluate.metrics import MM, acceleration, root_aligned
from core.evaluate.trunk import find_flips, left_axis, longest_run
from core.records import Camera, CameraMotion, Track
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES

SURE = 0.5
"""Confidence above which a keypoint counts."""
LARGEST_S, LARGEST_PERCENTILE = 1.0, 90
LIMBS = (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
LIMB_NAMES = tuple((f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in LIMBS)
"""Left limbs, then the right ones in the same order."""


def measure_footage(motion: CameraMotion, track: Track, camera: Camera, body) -> dict[str, float]:
    """Measures of a method's motion; it covers the first frames of the track."""
    n = len(motion.frames)
    rotmats, betas, trans = (torch.from_numpy(a) for a in (motion.rotmats, motion.betas, motion.trans))
    with torch.no_grad():
        points = body.keypoints(rotmats, betas, trans)
        joints, _ = body.forward_kinematics(rotmats, betas, trans)
    seen = track.confidence[:n] > 0
    off = reprojection_errors(points.numpy(), track, camera)
    return {
        "reprojection": float(np.median(off)) if len(off) else float("nan"),
        "reprojection_90": float(np.percentile(off, 90)) if len(off) else float("nan"),
        "jitter_24": float(acceleration(root_aligned(joints)).mean()) if n > 2 else float("nan"),
        "bent_back": float(_bent_back(rotmats).sum()),
        "covered": n / len(track),
        **_shared(points.numpy(), track.times[:n], seen),
        **limb_steadiness(_joint_lengths(joints.double().numpy()), seen),
    }


def measure_landmarks(track: Track, camera: Camera) -> dict[str, float]:
    """The same of the detector's own world landmarks, as far as they tell."""
    points, seen = detector_keypoints(track, camera).numpy(), track.confidence > 0
    ends = [[KEYPOINT_NAMES.index(pair[k]) for pair in LIMB_NAMES] for k in (0, 1)]
    lengths = np.linalg.norm(points[:, ends[0]].astype(np.float64) - points[:, ends[1]], axis=-1)
    shared = _shared(points, track.times, seen)
    return {**shared, **limb_steadiness(lengths, seen), "covered": float(seen.mean())}


def motion_keypoints(motion: CameraMotion, body) -> Tensor:
    """All keypoints [N, K, 3] of a motion in camera axes."""
    with torch.no_grad():
        return body.keypoints(*(torch.from_numpy(a) for a in (motion.rotmats, motion.betas, motion.trans)))


def reprojection_errors(points: np.ndarray, track: Track, camera: Camera) -> np.ndarray:
    """Distances [M] of projected points [n, K, 3] to the detector's keypoints of confidence over SURE, as share of
    the person's height in the picture."""
    n = len(points)
    points = points.astype(np.float64)
    projected = points[..., :2] / np.maximum(points[..., 2:], 0.05) * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    keypoints = track.keypoints[:n].astype(np.float64)
    off = np.linalg.norm(projected - keypoints[..., :2], axis=-1) / person_sizes(track)[:n, None]
    return off[keypoints[..., 2] > SURE]


def person_sizes(track: Track) -> np.ndarray:
    """Height of the person in the picture [N], px, however they bend: the larger side of the box around the
    keypoints of confidence over SURE, its 90th percentile over the frames within LARGEST_S."""
    xy, sure = track.keypoints[..., :2].astype(np.float64), track.keypoints[..., 2:] > SURE
    low, high = np.where(sure, xy, np.inf).min(1), np.where(sure, xy, -np.inf).max(1)
    side = (high - low).max(-1)
    usable = sure[..., 0].sum(1) >= 6
    if not usable.any():
        return np.ones(len(side))
    times, known = track.times, track.times[usable]
    sizes = []
    for t in times:
        near = np.abs(known - t) <= max(LARGEST_S, np.abs(known - t).min()) + 1e-6
        sizes.append(np.percentile(side[usable][near], LARGEST_PERCENTILE))
    return np.maximum(sizes, 1.0)


def _shared(points: np.ndarray, times: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    limbs = points[:, list(LIMB_KEYPOINTS)].astype(np.float64) - points[:, HIPS].mean(1, keepdims=True)
    flipped = find_flips(left_axis(points), times, seen)
    return {
        "jitter": seen_acceleration(limbs, seen),
        "flipped_pct": float(flipped[seen].mean() * 100) if seen.any() else float("nan"),
        "longest_flip": float(longest_run(flipped)),
    }


def seen_acceleration(points: np.ndarray, seen: np.ndarray) -> float:
    """Mean norm of second differences, mm/frame^2, of points [N, P, 3] m where three frames in a row are seen."""
    three = seen[2:] & seen[1:-1] & seen[:-2]
    if not three.any():
        return float("nan")
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    return float(np.linalg.norm(second[three], axis=-1).mean() * MM)


def limb_steadiness(lengths: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Of lengths [N, 8] of LIMB_NAMES: std over time by mean, and difference of left and right means, both in per
    cent and averaged over the limbs."""
    lengths = lengths[seen]
    if not len(lengths):
        return {}
    mean = lengths.mean(0)
    left, right = mean[: len(LIMBS)], mean[len(LIMBS) :]
    return {
        "limb_variation_pct": float((lengths.std(0) / mean).mean() * 100),
        "limb_asymmetry_pct": float((2 * np.abs(left - right) / (left + right)).mean() * 100),
    }


def _joint_lengths(joints: np.ndarray) -> np.ndarray:
    """Lengths [N, 8] of LIMB_NAMES from joints [N, 24, 3]."""
    ends = [[JOINT_NAMES.index(pair[k]) for pair in LIMB_NAMES] for k in (0, 1)]
    return np.linalg.norm(joints[:, ends[0]] - joints[:, ends[1]], axis=-1)


def _bent_back(rotmats: Tensor) -> Tensor:
    """[N] bool: a knee extends (negative turn about x) or an elbow bends backward (about y) by over 15 degrees."""
    limit = np.sin(np.radians(15))
    knees = torch.stack([rotmats[:, j, 2, 1] < -limit for j in (4, 5)])  # turn about +x moves the shin backward
    elbows = torch.stack([rotmats[:, 18, 0, 2] > limit, rotmats[:, 19, 0, 2] < -limit])
    return (knees.any(0)) | (elbows.any(0))
