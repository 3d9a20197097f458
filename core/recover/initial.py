"""A first guess of pose and place, frame by frame, in closed form from the detector's 3D landmarks.

The trunk's two frames come from hips and shoulders, the head's from ears and nose; arms and legs swing from their
parent to the observed direction, turned about the bone so that elbow and knee bend as hinges; the place in front of
the camera is the least-squares translation that projects the posed keypoints on the detected ones. Frames without
evidence are interpolated. N frames, K keypoints; camera axes; float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.recover.chain import Shaped, pose_chain
from core.recover.limits import ELBOW_TILT
from core.rotation import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    nearest_rotation,
    quaternion_to_matrix,
    slerp,
)
from core.skeleton import JOINT_COUNT, JOINT_NAMES, KEYPOINT_NAMES

_POINT = {name: i for i, name in enumerate(KEYPOINT_NAMES)}
_JOINT = {name: i for i, name in enumerate(JOINT_NAMES)}
LARGEST_SPINE_TWIST = 1.4
"""rad between pelvis and shoulders; more is a detector's error."""
LARGEST_HEAD_TURN = 1.3
LARGEST_FOOT_SWING = 0.8
LARGEST_HAND_SWING = 1.0
LARGEST_BONE_TWIST = 1.4
NEIGHBOURS = 5
"""Frames to both sides that a root rotation should agree with."""
OUTLIER_ANGLE = 0.9
"""rad from them at which it is taken for wrong."""
ROBUST_PASSES = 6
LEAST_AMBIGUOUS_TURN = 1.2
"""rad across a gap from which the other way round is considered."""
TURNING_FRAMES = 4
"""Seen frames over which the turning before and after a gap is measured."""


def smallest_rotation(start: Tensor, end: Tensor) -> Tensor:
    """Rotation [N, 3, 3] of least angle that takes directions start [N, 3] to end [N, 3]."""
    start, end = _unit(start), _unit(end)
    axis = torch.linalg.cross(start, end)
    sine, cosine = axis.norm(dim=-1, keepdim=True), (start * end).sum(-1, keepdim=True)
    spare = torch.zeros_like(axis).scatter(-1, start.abs().argmin(-1, keepdim=True), 1.0)
    spare = _unit(torch.linalg.cross(start, spare))
    axis = torch.where(sine > 1e-9, axis / sine.clamp_min(1e-9), spare)
    return axis_angle_to_matrix(axis * torch.atan2(sine, cosine))


def _unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=-1, keepdim=True).clamp_min(1e-9)


def _frame(main: Tensor, helper: Tensor) -> Tensor:
    """Rotation [N, 3, 3] whose y is along main and whose x is as near to helper as it can be."""
    y = _unit(main)
    x = _unit(helper - (helper * y).sum(-1, keepdim=True) * y)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def _limited(rotmats: Tensor, largest: float, share: float = 1.0) -> Tensor:
    """The same rotation with its angle cut at `largest`, then multiplied by `share`."""
    vector = matrix_to_axis_angle(rotmats)
    angle = vector.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    return axis_angle_to_matrix(vector * (largest / angle).clamp_max(1.0) * share)


def guess_rotations(points: Tensor, shaped: Shaped) -> Tensor:
    """Local rotations [N, J, 3, 3] (root: camera frame) from root-relative 3D keypoints [N, K, 3] in camera axes."""
    N = len(points)
    eye = torch.eye(3, dtype=torch.float64).expand(N, 3, 3)
    rest = pose_chain(
        shaped, eye[:1, None].expand(1, JOINT_COUNT, 3, 3), torch.zeros(1, 3, dtype=torch.float64)
    ).points
    local = eye[:, None].repeat(1, JOINT_COUNT, 1, 1)

    def trunk(p: Tensor, hips: float) -> Tensor:
        up = p[:, _POINT["left_shoulder"]] + p[:, _POINT["right_shoulder"]]
        up = up - p[:, _POINT["left_hip"]] - p[:, _POINT["right_hip"]]
        across_hips = p[:, _POINT["left_hip"]] - p[:, _POINT["right_hip"]]
        across_shoulders = p[:, _POINT["left_shoulder"]] - p[:, _POINT["right_shoulder"]]
        return _frame(up, hips * _unit(across_hips) + (1 - hips) * _unit(across_shoulders))

    def head(p: Tensor) -> Tensor:
        left, right = p[:, _POINT["left_ear"]], p[:, _POINT["right_ear"]]
        forward, across = p[:, _POINT["nose"]] - (left + right) / 2, left - right
        return _frame(torch.linalg.cross(forward, across), across)

    local[:, 0] = trunk(points, 0.7) @ trunk(rest, 0.7).transpose(1, 2)
    chest = trunk(points, 0.0) @ trunk(rest, 0.0).transpose(1, 2)
    third = _limited(local[:, 0].transpose(1, 2) @ chest, LARGEST_SPINE_TWIST, 1 / 3)
    for name in ("spine1", "spine2", "spine3"):
        local[:, _JOINT[name]] = third
    chest = local[:, 0] @ third @ third @ third
    face = head(points) @ head(rest).transpose(1, 2)
    half = _limited(chest.transpose(1, 2) @ face, LARGEST_HEAD_TURN, 1 / 2)
    local[:, _JOINT["neck"]] = local[:, _JOINT["head"]] = half
    for side, sign in (("left", 1.0), ("right", -1.0)):
        hinge = torch.tensor(
            [0.0, -sign * torch.cos(torch.tensor(ELBOW_TILT)), sign * torch.sin(torch.tensor(ELBOW_TILT))],
            dtype=torch.float64,
        )
        arm = _bend(points, rest, chest, local, (f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"), hinge)
        hand = ((f"{side}_index", f"{side}_pinky"), f"{side}_wrist")
        local[:, _JOINT[f"{side}_wrist"]] = _swing(points, rest, arm, *hand, LARGEST_HAND_SWING)
        hinge = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        leg = _bend(points, rest, local[:, 0], local, (f"{side}_hip", f"{side}_knee", f"{side}_ankle"), hinge)
        foot = ((f"{side}_toe",), f"{side}_heel")
        local[:, _JOINT[f"{side}_ankle"]] = _swing(points, rest, leg, *foot, LARGEST_FOOT_SWING)
    return local


def _bend(
    points: Tensor, rest: Tensor, parent: Tensor, local: Tensor, names: tuple[str, str, str], hinge: Tensor
) -> Tensor:
    """Set the local rotations of a limb's two joints in `local`; return the lower bone's global rotation [N, 3, 3].

    parent [N, 3, 3]: global rotation of the limb's parent; hinge [3]: axis of positive flexion at rest.
    """
    top, middle, end = (_POINT[name] for name in names)
    upper0, lower0 = rest[:, middle] - rest[:, top], rest[:, end] - rest[:, middle]
    upper = parent.transpose(1, 2) @ (points[:, middle] - points[:, top])[..., None]
    swing = smallest_rotation(upper0.expand(len(points), 3), upper[..., 0])
    lower = ((parent @ swing).transpose(1, 2) @ (points[:, end] - points[:, middle])[..., None])[..., 0]
    axis = _unit(upper0)
    hinge = _unit(hinge - (hinge * axis).sum(-1, keepdim=True) * axis)
    outwards = torch.linalg.cross(hinge, axis)  # where flexion takes the lower bone
    along_hinge, along_out = (lower * hinge).sum(-1), (lower * outwards).sum(-1)
    across = torch.hypot(along_hinge, along_out) / lower.norm(dim=-1).clamp_min(1e-9)
    twist = torch.atan2(along_hinge, along_out)
    # a nearly straight limb says little of its twist, and a limb bent backwards is a straight one with noise
    twist = torch.where(twist.abs() > LARGEST_BONE_TWIST + 0.6, torch.zeros_like(twist), twist)
    twist = twist.clamp(-LARGEST_BONE_TWIST, LARGEST_BONE_TWIST) * ((across - 0.15) / 0.35).clamp(0, 1)
    # turning by +t about axis takes `outwards` to cos t outwards + sin t (axis x outwards); axis x outwards = hinge
    swing = swing @ axis_angle_to_matrix(axis * twist[:, None])
    lower = ((parent @ swing).transpose(1, 2) @ (points[:, end] - points[:, middle])[..., None])[..., 0]
    bend0 = torch.atan2((lower0 * outwards).sum(-1), (lower0 * axis).sum(-1))
    bend = torch.atan2((lower * outwards).sum(-1), (lower * axis).sum(-1)) - bend0
    flexion = axis_angle_to_matrix(hinge * bend.clamp(0.0, 2.6)[:, None])
    local[:, _JOINT[names[0]]], local[:, _JOINT[names[1]]] = swing, flexion
    return parent @ swing @ flexion


def _swing(points: Tensor, rest: Tensor, parent: Tensor, ends: tuple[str, ...], start: str, largest: float) -> Tensor:
    """Local rotation [N, 3, 3] of the last bone, from `start` to the middle of `ends`."""

    def direction(p: Tensor) -> Tensor:
        return sum(p[:, _POINT[name]] for name in ends) / len(ends) - p[:, _POINT[start]]

    seen = (parent.transpose(1, 2) @ direction(points)[..., None])[..., 0]
    return _limited(smallest_rotation(direction(rest).expand(len(points), 3), seen), largest)


def guess_translation(points: Tensor, rays: Tensor, confidence: Tensor) -> Tensor:
    """Least-squares translation [N, 3] m that makes points [N, K, 3] project on rays [N, K, 2], by confidence [N, K].

    (p_x + t_x) - r_x (p_z + t_z) = 0 and likewise y: linear in t. Depth is kept in 0.5 .. 100 m.
    """
    weight = confidence.clamp_min(1e-6)
    total = weight.sum(1)
    mean_ray = (weight[..., None] * rays).sum(1) / total[:, None]
    rhs = rays * points[..., 2:] - points[..., :2]  # t_xy - r t_z = rhs
    mean_rhs = (weight[..., None] * rhs).sum(1) / total[:, None]
    centred_ray, centred_rhs = rays - mean_ray[:, None], rhs - mean_rhs[:, None]
    top = -(weight[..., None] * centred_ray * centred_rhs).sum((1, 2))
    bottom = (weight[..., None] * centred_ray.square()).sum((1, 2)).clamp_min(1e-12)
    depth = (top / bottom).clamp(0.5, 100.0)
    return torch.cat([mean_rhs + mean_ray * depth[:, None], depth[:, None]], 1)


def drop_outliers(root: Tensor, usable: Tensor) -> Tensor:
    """Root rotations [N, 3, 3] with those replaced that disagree with the frames around them.

    A single wrong one can make the path from the frames before it to those after it wind once around, which no
    descent undoes. The reference is a robust mean of the usable frames within NEIGHBOURS, in the chordal metric.
    """
    N = len(root)
    if N < 3:
        return root
    offsets = torch.arange(-NEIGHBOURS, NEIGHBOURS + 1)
    index = (torch.arange(N)[:, None] + offsets).clamp(0, N - 1)
    nearby = root[index]  # [N, W, 3, 3]
    sure = usable[index].to(root.dtype)
    weight = sure
    for _ in range(ROBUST_PASSES):
        mean = nearest_rotation((weight[..., None, None] * nearby).sum(1))
        squared = (nearby - mean[:, None]).square().sum((2, 3)) / 2  # about the squared angle
        weight = sure / (OUTLIER_ANGLE**2 / 4 + squared)
    angle = matrix_to_axis_angle(mean.transpose(1, 2) @ root).norm(dim=-1)
    return torch.where((angle > OUTLIER_ANGLE)[:, None, None] & (sure.sum(1) > 2)[:, None, None], mean, root)


def fill_gaps(rotmats: Tensor, trans: Tensor, times: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """Replace frames where usable [N] is False by interpolation in time; the ends hold the nearest usable frame."""
    known = usable.nonzero().squeeze(1)
    if len(known) == 0 or len(known) == len(usable):
        return rotmats, trans
    index = torch.arange(len(usable))
    after = torch.searchsorted(known, index).clamp_max(len(known) - 1)
    before = (torch.searchsorted(known, index, right=True) - 1).clamp_min(0)
    before, after = known[before], known[after]
    span = times[after] - times[before]
    fraction = torch.where(span > 0, (times - times[before]) / span.clamp_min(1e-9), torch.zeros_like(times))
    quats = matrix_to_quaternion(rotmats)
    mixed = slerp(quats[before], quats[after], fraction[:, None].expand(-1, rotmats.shape[1]))
    mixed[:, 0] = matrix_to_quaternion(_turn_on(rotmats[:, 0], times, known, before, after, fraction))
    moved = trans[before] + fraction[:, None] * (trans[after] - trans[before])
    keep = usable[:, None]
    return torch.where(keep[..., None, None], rotmats, quaternion_to_matrix(mixed)), torch.where(keep, trans, moved)


def _turn_on(root: Tensor, times: Tensor, known: Tensor, before: Tensor, after: Tensor, fraction: Tensor) -> Tensor:
    """Root rotations [N, 3, 3] across gaps, the way round that agrees with the turning before and after.

    Who is lost in the middle of a somersault comes out of it having turned on, not back.
    """
    turn = matrix_to_axis_angle(root[before].transpose(1, 2) @ root[after])
    angle = turn.norm(dim=-1, keepdim=True)
    other = turn * (1 - 2 * torch.pi / angle.clamp_min(1e-6))
    span = (times[after] - times[before])[:, None]
    rank = torch.searchsorted(known, before)
    earlier = known[(rank - TURNING_FRAMES).clamp_min(0)]
    later = known[(torch.searchsorted(known, after) + TURNING_FRAMES).clamp_max(len(known) - 1)]
    speeds = []
    for first, last in ((earlier, before), (after, later)):
        step = (times[last] - times[first])[:, None]
        speeds.append(matrix_to_axis_angle(root[first].transpose(1, 2) @ root[last]) / step.clamp_min(1e-3))
    expected = (speeds[0] + speeds[1]) / 2 * span
    is_long = (angle > LEAST_AMBIGUOUS_TURN) & (
        (other - expected).norm(dim=-1, keepdim=True) < (turn - expected).norm(dim=-1, keepdim=True)
    )
    turn = torch.where(is_long, other, turn)
    return root[before] @ axis_angle_to_matrix(turn * fraction[:, None])
