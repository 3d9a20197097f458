"""Errors of recovered motions, and of the detector's own landmarks, against truth.

Root-aligned errors in millimetres. The detector's own landmarks can only be compared at keypoints, so `keypoint_mm`
is measured on the twelve limb keypoints, with the middle of the hips as the root, for it and for every method.
README.md lists what the columns mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.evaluate.metrics import (
    acceleration_error,
    mean_point_error,
    procrustes_error,
    root_aligned,
    rotation_angle,
    scale_error,
    turn_error,
)
from core.evaluate.testset import TestClip
from core.evaluate.trunk import left_axis, longest_run, true_flips
from core.models.inputs import ImageGeometry, crop_of, view_rotation
from core.records import Camera, CameraMotion, Track
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES, PARENTS

LIMB_KEYPOINTS = tuple(
    KEYPOINT_NAMES.index(f"{side}_{part}")
    for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
)
HIPS = [KEYPOINT_NAMES.index("left_hip"), KEYPOINT_NAMES.index("right_hip")]
LIMB_ENDS = [
    JOINT_NAMES.index(f"{side}_{part}") for part in ("knee", "ankle", "elbow", "wrist") for side in ("left", "right")
]
"""Joints at the far ends of thighs, shins, upper arms and forearms."""
VERTEX_STRIDE = 7


def measure_motion(motion: CameraMotion, clip: TestClip, body) -> dict[str, float]:
    """Errors of a motion on a test clip. `covered` is the share of its frames that the method gave."""
    n = len(motion.frames)
    rotmats, betas, trans = (torch.from_numpy(a) for a in (motion.rotmats, motion.betas, motion.trans))
    ids = torch.arange(0, body.vertex_count, VERTEX_STRIDE)
    vertices, joints = body.skin(rotmats, betas, trans, vertex_ids=ids)
    true_vertices, true_joints = body.skin(clip.rotmats[:n], clip.betas, clip.trans[:n], vertex_ids=ids)
    keypoints = body.keypoints(rotmats, betas, trans)
    true_keypoints = body.keypoints(clip.rotmats[:n], clip.betas, clip.trans[:n])
    result = keypoint_errors(keypoints, true_keypoints)
    aligned, true_aligned = root_aligned(joints), root_aligned(true_joints)
    error, true_root = joints[:, 0] - true_joints[:, 0], true_joints[:, 0]
    ray = torch.nn.functional.normalize(true_root, dim=-1)
    depth_ratio = (joints[:, 0] * ray).sum(-1) / true_root.norm(dim=-1)
    result |= {
        "mpjpe": float(mean_point_error(aligned, true_aligned).mean()),
        "scale_mpjpe": float(scale_error(aligned, true_aligned).mean()),
        "turn_mpjpe": float(turn_error(aligned, true_aligned).mean()),
        "pa_mpjpe": float(procrustes_error(aligned, true_aligned).mean()),
        "mpvpe": float(mean_point_error(vertices - joints[:, :1], true_vertices - true_joints[:, :1]).mean()),
        "accel": float(acceleration_error(aligned, true_aligned).mean()) if n > 2 else float("nan"),
        "angle_deg": float(rotation_angle(rotmats, clip.rotmats[:n]).mean()),
        "sideways_mm": float((error - (error * ray).sum(-1, keepdim=True) * ray).norm(dim=-1).mean() * 1000),
        "depth_wobble": float((depth_ratio / depth_ratio.median()).sub(1).abs().mean()),
        **shape_errors(betas, clip.betas, body),
        "covered": n / len(clip.track),
    }
    return result


def shape_errors(betas: Tensor, truth: Tensor, body) -> dict[str, float]:
    """Of shapes [S]: height_mm, the error of the standing height; limb_ratio_pct, the mean relative error of the
    lengths of thighs, shins, upper arms and forearms as shares of the height."""
    heights = [float(body.height(b)) for b in (betas, truth)]
    ratios = []
    for shape, height in zip((betas, truth), heights):
        joints = body.rest_joints(shape)
        parents = [PARENTS[j] for j in LIMB_ENDS]
        ratios.append((joints[LIMB_ENDS] - joints[parents]).norm(dim=-1) / height)
    return {
        "height_mm": abs(heights[0] - heights[1]) * 1000,
        "limb_ratio_pct": float((ratios[0] / ratios[1] - 1).abs().mean() * 100),
    }


def keypoint_errors(keypoints: Tensor, truth: Tensor) -> dict[str, float]:
    """Errors at the limb keypoints of [N, 25, 3] twice, and frames whose trunk is back to front."""
    flipped = true_flips(left_axis(keypoints.numpy()), left_axis(truth.numpy()))
    p, t = about_hips(keypoints), about_hips(truth)
    return {
        "keypoint_mm": float(mean_point_error(p, t).mean()),
        "keypoint_pa_mm": float(procrustes_error(p, t).mean()),
        "keypoint_accel": float(acceleration_error(p, t).mean()) if len(p) > 2 else float("nan"),
        "flipped_pct": float(flipped.mean() * 100) if len(flipped) else float("nan"),
        "longest_flip": float(longest_run(flipped)),
    }


def about_hips(keypoints: Tensor) -> Tensor:
    """Limb keypoints [N, 12, 3] about the middle of the hips, from all keypoints [N, 25, 3]."""
    return keypoints[:, list(LIMB_KEYPOINTS)] - keypoints[:, HIPS].mean(1, keepdim=True)


def measure_detector(clip: TestClip, body) -> dict[str, float]:
    """The detector's own world landmarks against the truth, turned to camera axes, on the frames it saw."""
    seen = torch.from_numpy(clip.track.confidence > 0)
    landmarks = detector_keypoints(clip.track, clip.camera)
    truth = body.keypoints(clip.rotmats, clip.betas, clip.trans)
    result = keypoint_errors(landmarks[seen], truth[seen])
    return result | {"covered": float(seen.float().mean())}


def detector_keypoints(track: Track, camera: Camera) -> Tensor:
    """World landmarks [N, 25, 3] in camera axes."""
    keypoints = torch.from_numpy(track.keypoints)
    sizes = (torch.full((1, 1), float(v)) for v in (camera.width, camera.height, camera.fx))
    view = view_rotation(crop_of(keypoints)[0].squeeze(-2), ImageGeometry(*sizes))
    return torch.from_numpy(track.landmarks3d) @ view.transpose(-1, -2)
