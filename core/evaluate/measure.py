"""Measures of recovered motions: against truth, and of footage without truth.

Root-aligned errors in millimetres. The detector's own landmarks can only be compared at keypoints, so `keypoint_mm`
is measured on the twelve limb keypoints, with the middle of the hips as the root, for it and for every method.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.evaluate.metrics import (
    acceleration,
    acceleration_error,
    mean_point_error,
    procrustes_error,
    root_aligned,
    rotation_angle,
)
from core.evaluate.testset import TestClip
from core.models.inputs import ImageGeometry, crop_of, view_rotation
from core.records import Camera, CameraMotion, Track
from core.skeleton import KEYPOINT_NAMES, PARENTS

LIMB_KEYPOINTS = tuple(
    KEYPOINT_NAMES.index(f"{side}_{part}")
    for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
)
HIPS = [KEYPOINT_NAMES.index("left_hip"), KEYPOINT_NAMES.index("right_hip")]
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
        "pa_mpjpe": float(procrustes_error(aligned, true_aligned).mean()),
        "mpvpe": float(mean_point_error(vertices - joints[:, :1], true_vertices - true_joints[:, :1]).mean()),
        "accel": float(acceleration_error(aligned, true_aligned).mean()) if n > 2 else float("nan"),
        "angle_deg": float(rotation_angle(rotmats, clip.rotmats[:n]).mean()),
        "sideways_mm": float((error - (error * ray).sum(-1, keepdim=True) * ray).norm(dim=-1).mean() * 1000),
        "depth_wobble": float((depth_ratio / depth_ratio.median()).sub(1).abs().mean()),
        "covered": n / len(clip.track),
    }
    return result


def keypoint_errors(keypoints: Tensor, truth: Tensor) -> dict[str, float]:
    """Errors at the limb keypoints of [N, 25, 3] twice."""
    ids = list(LIMB_KEYPOINTS)
    p = keypoints[:, ids] - keypoints[:, HIPS].mean(1, keepdim=True)
    t = truth[:, ids] - truth[:, HIPS].mean(1, keepdim=True)
    return {
        "keypoint_mm": float(mean_point_error(p, t).mean()),
        "keypoint_pa_mm": float(procrustes_error(p, t).mean()),
        "keypoint_accel": float(acceleration_error(p, t).mean()) if len(p) > 2 else float("nan"),
    }


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


def measure_footage(motion: CameraMotion, track: Track, camera: Camera, body) -> dict[str, float]:
    """What can be said of a motion without truth.

    reprojection: mean distance of projected keypoints to the detector's, confidence-weighted, as a share of the
    person's size in the image. jitter: mean acceleration of the root-aligned joints, mm/frame^2. flips: frames in
    which the trunk turns by over 60 degrees from the last. limb_asymmetry: relative difference of left and right bone
    lengths of the shape. bent_back: frames whose knees or elbows bend the wrong way by over 15 degrees.
    """
    n = len(motion.frames)
    rotmats, betas, trans = (torch.from_numpy(a) for a in (motion.rotmats, motion.betas, motion.trans))
    points = body.keypoints(rotmats, betas, trans)
    focal = torch.tensor([camera.fx, camera.fy])
    centre = torch.tensor([camera.cx, camera.cy])
    projected = points[..., :2] / points[..., 2:].clamp_min(0.05) * focal + centre
    seen = torch.from_numpy(track.keypoints[:n])
    size = crop_of(seen)[1][..., 0]
    weight = seen[..., 2] * (seen[..., 2] > 0.3)
    off = (projected - seen[..., :2]).norm(dim=-1) / size
    joints, _ = body.forward_kinematics(rotmats, betas, trans)
    bones = body.rest_joints(betas)
    lengths = (bones[1:] - bones[list(PARENTS[1:])]).norm(dim=-1)
    left = [j - 1 for j in (4, 7, 10, 16, 18, 20)]
    right = [j - 1 for j in (5, 8, 11, 17, 19, 21)]
    asymmetry = (lengths[left] - lengths[right]).abs() / lengths[left]
    turns = rotation_angle(rotmats[1:, 0], rotmats[:-1, 0]) if n > 1 else torch.zeros(1)
    return {
        "reprojection": float((off * weight).sum() / weight.sum().clamp_min(1e-6)),
        "jitter": float(acceleration(root_aligned(joints)).mean()) if n > 2 else float("nan"),
        "flips": float((turns > 60).sum()),
        "limb_asymmetry": float(asymmetry.mean()),
        "bent_back": float(_bent_back(rotmats).sum()),
        "covered": n / len(track),
    }


def _bent_back(rotmats: Tensor) -> Tensor:
    """[N] bool: a knee extends (negative turn about x) or an elbow bends backward (about y) by over 15 degrees."""
    limit = np.sin(np.radians(15))
    knees = torch.stack([rotmats[:, j, 2, 1] < -limit for j in (4, 5)])  # turn about +x moves the shin backward
    elbows = torch.stack([rotmats[:, 18, 0, 2] > limit, rotmats[:, 19, 0, 2] < -limit])
    return (knees.any(0)) | (elbows.any(0))
