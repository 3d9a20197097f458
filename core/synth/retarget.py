"""Retarget source clips to the 24 joints of the body.

For every target joint, G_target = G_source A, where G are global rotations and A is a constant alignment in the rest
pose: the smallest rotation that takes the target's rest bone direction to the source's (limbs, hands), the rotation
between the two trunks' chords hip centre -> neck (trunk, collars), or none (neck, head). The source's legs are spread
by 20 degrees at rest in two groups; its feet belong to those legs, so a foot's alignment is that spread about z, and
then a pitch and roll per clip that make the sole level while the foot stands still. The body's pelvis reaches higher
up than the source's root, so spine1 turns half way to the second spine bone: the trunk then leans as far as the
source's. Half of the hand's twist moves to the forearm, where the body's skin expects it. Hands (joints 22, 23) stay
straight.

Head frames of the source differ between subjects by tens of degrees (many look at their feet while they walk);
`straighten_heads` turns all heads of a subject by one constant so that they look ahead where people do.

The root follows the hip centre, scaled by the ratio of leg lengths, y up, the floor at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from core.rotation import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
    slerp,
)
from core.skeleton import JOINT_NAMES, PARENTS
from core.synth.mocap import SourceClip, SourceSkeleton

STANDING_SPEED = 0.15
"""m/s under which a low foot counts as standing."""
LARGEST_SOLE_CORRECTION = math.radians(15)
LARGEST_FLOOR_CORRECTION = 0.15
"""Metres. A clip whose lowest sole is farther from its floor than this is climbing: its own floor is kept."""
UPRIGHT = 0.85
"""Cosine of the trunk's lean up to which a frame says how a subject's head is set."""
AHEAD_QUANTILE = 0.75
"""A subject whose head is lower than level at this quantile of its pitch is taken to be set too low."""
LARGEST_HEAD_CORRECTION = math.radians(40)
WRIST_SWING_LIMIT = math.radians(75)


@dataclass(frozen=True)
class Target:
    """Rest geometry of the body for zero betas."""

    joints: Tensor
    """[24, 3] float64."""
    soles: Tensor
    """[P, 3] float64 points under both feet at rest, left ones first."""
    sole_joints: tuple[int, ...]
    """Joint that carries each sole point: an ankle or a toe joint."""

    @property
    def leg_length(self) -> float:
        hip, knee, ankle = (self.joints[JOINT_NAMES.index(n)] for n in ("left_hip", "left_knee", "left_ankle"))
        return float((hip - knee).norm() + (knee - ankle).norm())


@dataclass(frozen=True)
class Retargeted:
    quats: Tensor
    """[T, 24, 4] float64 local rotations w x y z, y up world."""
    pelvis: Tensor
    """[T, 3] float64 position of the pelvis joint on the body with zero betas, y up, floor at 0, metres."""
    lowest_sole: Tensor
    """[T] float64 height of the lowest sole point."""


@dataclass(frozen=True)
class _Link:
    target: str
    sources: tuple[str, ...]
    """One source joint, or two whose rotations are averaged."""
    bone: tuple[str, str] | None = None
    """Target joint and source joint at the bone's far end; None for the trunk's alignment."""


def _links(group: str) -> list[_Link]:
    if group == "cmu_daz":
        trunk = [("pelvis", "hip"), ("spine1", "hip abdomen"), ("spine2", "abdomen"), ("spine3", "chest")]
        trunk += [("neck", "neck"), ("head", "head")]
        collar, arm, leg = "Collar", ("Shldr", "ForeArm", "Hand", "Hand"), ("Thigh", "Shin", "Foot", "Foot")
        hand_tip = None
    else:
        trunk = [("pelvis", "root"), ("spine1", "lowerback upperback"), ("spine2", "upperback"), ("spine3", "thorax")]
        trunk += [("neck", "lowerneck upperneck"), ("head", "head")]
        collar, arm, leg = "clavicle", ("humerus", "radius", "wrist", "hand"), ("femur", "tibia", "foot", "toes")
        hand_tip = "fingers"
    links = [_Link(target, tuple(source.split())) for target, source in trunk]
    for side in ("left", "right"):
        s = side[0]
        upper, fore, wrist, hand = (s + name for name in arm)
        thigh, shin, foot, toes = (s + name for name in leg)
        links += [
            _Link(f"{side}_collar", (s + collar,)),
            _Link(f"{side}_shoulder", (upper,), (f"{side}_elbow", fore)),
            _Link(f"{side}_elbow", (fore,), (f"{side}_wrist", wrist)),
            _Link(f"{side}_wrist", (hand,), (f"{side}_hand", s + hand_tip) if hand_tip else None),
            _Link(f"{side}_hip", (thigh,), (f"{side}_knee", shin)),
            _Link(f"{side}_knee", (shin,), (f"{side}_ankle", foot)),
            _Link(f"{side}_ankle", (foot,)),
            _Link(f"{side}_foot", (toes,)),
        ]
    return links


def smallest_rotation(start: Tensor, end: Tensor) -> Tensor:
    """Rotation [3, 3] of least angle that takes direction start [3] to end [3]."""
    start, end = start / start.norm(), end / end.norm()
    axis = torch.linalg.cross(start, end)
    sine = axis.norm()
    if sine < 1e-12:
        return torch.eye(3, dtype=start.dtype)
    return axis_angle_to_matrix(axis / sine * torch.atan2(sine, start @ end))


def alignments(skeleton: SourceSkeleton, group: str, target: Target) -> dict[str, Tensor]:
    """Return the constant alignment A [3, 3] of every target joint that follows a source joint."""
    rest, names = skeleton.rest_positions(), JOINT_NAMES
    is_daz = group == "cmu_daz"
    left, right, neck = ("lThigh", "rThigh", "neck") if is_daz else ("lfemur", "rfemur", "lowerneck")
    chord = rest[skeleton.index(neck)] - (rest[skeleton.index(left)] + rest[skeleton.index(right)]) / 2
    hips = (target.joints[names.index("left_hip")] + target.joints[names.index("right_hip")]) / 2
    trunk = smallest_rotation(target.joints[names.index("neck")] - hips, chord)
    result = {}
    for link in _links(group):
        if link.bone is not None:
            target_bone = target.joints[names.index(link.bone[0])] - target.joints[names.index(link.target)]
            start = "wrist" if link.target.endswith("wrist") else link.sources[0][1:]
            source_bone = rest[skeleton.index(link.bone[1])] - rest[skeleton.index(link.sources[0][0] + start)]
            result[link.target] = smallest_rotation(target_bone, source_bone)
        elif link.target in ("neck", "head"):
            result[link.target] = torch.eye(3, dtype=torch.float64)
        elif link.target.endswith(("ankle", "foot")):
            side = link.target[0]
            shin, foot = (side + n for n in (("Shin", "Foot") if is_daz else ("tibia", "foot")))
            bone = rest[skeleton.index(foot)] - rest[skeleton.index(shin)]
            spread = torch.atan2(bone[0], -bone[1])
            result[link.target] = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) * spread)
        elif link.target.endswith("wrist"):
            result[link.target] = result[link.target.replace("wrist", "elbow")]
        else:
            result[link.target] = trunk
    return result


def retarget(clip: SourceClip, target: Target) -> Retargeted:
    """Retarget one clip; see the module's docstring."""
    positions, source_global = clip.forward_kinematics()
    aligned = alignments(clip.skeleton, clip.group, target)
    G: list[Tensor | None] = [None] * 24
    for link in _links(clip.group):
        rotations = [source_global[:, clip.skeleton.index(name)] for name in link.sources]
        R = rotations[0] if len(rotations) == 1 else _midway(rotations[0], rotations[1])
        G[JOINT_NAMES.index(link.target)] = R @ aligned[link.target]
    _level_soles(clip, positions, G)
    for side in ("left", "right"):
        _share_twist(G, side, target)
        G[JOINT_NAMES.index(f"{side}_hand")] = G[JOINT_NAMES.index(f"{side}_wrist")]
    rotations = torch.stack(G, 1)
    local = rotations.clone()
    for j, parent in enumerate(PARENTS):
        if parent >= 0:
            local[:, j] = rotations[:, parent].transpose(-1, -2) @ rotations[:, j]
    pelvis, lowest = _place_root(clip, positions, rotations, target)
    return Retargeted(matrix_to_quaternion(local), pelvis, lowest)


def straighten_heads(clips: list[Tensor]) -> list[Tensor]:
    """Turn the heads of one subject's clips (local quaternions [T, 24, 4]) by a constant yaw and pitch.

    The yaw makes the median of the head's turn against the chest zero; the pitch lifts the head until it is level at
    AHEAD_QUANTILE, and never lowers it. Measured over frames with an upright trunk.
    """
    head, chest = JOINT_NAMES.index("head"), JOINT_NAMES.index("spine3")
    pitches, yaws = [], []
    for quats in clips:
        G = _global_rotations(quaternion_to_matrix(quats))
        upright = G[:, chest, 1, 1] > UPRIGHT
        R = G[upright][:, head]
        relative = G[upright][:, chest].transpose(-1, -2) @ R
        yaws.append(torch.atan2(relative[:, 0, 2], relative[:, 2, 2]))
        pitches.append(torch.asin(R[:, 1, 2].clamp(-1, 1)))
    yaw, pitch = torch.cat(yaws), torch.cat(pitches)
    if len(yaw) < 30:
        return clips
    limit = LARGEST_HEAD_CORRECTION
    turn = torch.zeros((2, 3), dtype=yaw.dtype)
    turn[0, 1] = (-yaw.median()).clamp(-limit, limit)
    turn[1, 0] = torch.quantile(pitch, AHEAD_QUANTILE).clamp(-limit, 0)
    around, up = axis_angle_to_matrix(turn)
    result = []
    for quats in clips:
        changed = quats.clone()
        changed[:, head] = matrix_to_quaternion(quaternion_to_matrix(quats[:, head]) @ around @ up)
        result.append(changed)
    return result


def _global_rotations(local: Tensor) -> Tensor:
    """Local [T, 24, 3, 3] -> global rotations."""
    G = [local[:, 0]]
    for j, parent in enumerate(PARENTS[1:], 1):
        G.append(G[parent] @ local[:, j])
    return torch.stack(G, 1)


def forward_kinematics(rotations: Tensor, pelvis: Tensor, target: Target) -> Tensor:
    """Global rotations [T, 24, 3, 3] and pelvis [T, 3] -> joint positions [T, 24, 3]."""
    positions = [pelvis]
    for j, parent in enumerate(PARENTS[1:], 1):
        positions.append(positions[parent] + rotations[:, parent] @ (target.joints[j] - target.joints[parent]))
    return torch.stack(positions, 1)


def _midway(a: Tensor, b: Tensor) -> Tensor:
    return quaternion_to_matrix(slerp(matrix_to_quaternion(a), matrix_to_quaternion(b), 0.5))


def _level_soles(clip: SourceClip, positions: Tensor, G: list[Tensor]) -> None:
    """Turn both joints of each foot by the constant that makes the sole level where the foot stands."""
    foot = "Foot" if clip.group == "cmu_daz" else "foot"
    for side in ("left", "right"):
        ankle, toes = (JOINT_NAMES.index(f"{side}_{name}") for name in ("ankle", "foot"))
        point = positions[:, clip.skeleton.index(side[0] + foot)]
        speed = torch.zeros(len(point), dtype=point.dtype)
        speed[1:] = (point[1:] - point[:-1]).norm(dim=-1) * 30
        height = point[:, 1] - clip.floor
        stands = (speed < STANDING_SPEED) & (height < torch.quantile(height, 0.3))
        if int(stands.sum()) < 8:
            continue
        up = G[ankle][stands].transpose(-1, -2)[..., 1]  # the world's up in the foot's own axes
        up = up.median(0).values
        correction = smallest_rotation(torch.tensor([0.0, 1.0, 0.0], dtype=up.dtype), up)
        turn = matrix_to_axis_angle(correction)
        angle = float(turn.norm())
        if angle > LARGEST_SOLE_CORRECTION:
            correction = axis_angle_to_matrix(turn * (LARGEST_SOLE_CORRECTION / angle))
        G[ankle] = G[ankle] @ correction
        G[toes] = G[toes] @ correction


def _share_twist(G: list[Tensor], side: str, target: Target) -> None:
    """Limit the hand's swing against the forearm and move half of its twist into the forearm."""
    elbow, wrist = (JOINT_NAMES.index(f"{side}_{name}") for name in ("elbow", "wrist"))
    bone = target.joints[wrist] - target.joints[elbow]
    axis = bone / bone.norm()
    q = matrix_to_quaternion(G[elbow].transpose(-1, -2) @ G[wrist])
    along = (q[:, 1:] * axis).sum(-1)
    twist = 2 * torch.atan2(along, q[:, 0])
    twist = torch.remainder(twist + math.pi, 2 * math.pi) - math.pi
    twist_matrix = axis_angle_to_matrix(twist[:, None] * axis)
    swing = matrix_to_axis_angle(quaternion_to_matrix(q) @ twist_matrix.transpose(-1, -2))
    angle = swing.norm(dim=-1, keepdim=True)
    swing = swing * (WRIST_SWING_LIMIT / angle.clamp_min(WRIST_SWING_LIMIT))
    half = axis_angle_to_matrix(twist[:, None] * axis / 2)
    hand = G[elbow] @ axis_angle_to_matrix(swing) @ twist_matrix
    G[elbow] = G[elbow] @ half
    G[wrist] = hand


def _place_root(clip: SourceClip, positions: Tensor, rotations: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Scale the hip centre's path, put the floor at 0, centre the path; return pelvis and lowest sole height."""
    is_daz = clip.group == "cmu_daz"
    names = ("Thigh", "Shin", "Foot") if is_daz else ("femur", "tibia", "foot")
    thigh, shin, foot = (clip.skeleton.index("l" + name) for name in names)
    rest = clip.skeleton.rest_offsets
    scale = target.leg_length / float(rest[shin].norm() + rest[foot].norm())
    hips = (positions[:, thigh] + positions[:, clip.skeleton.index("r" + names[0])]) / 2
    hips = hips - torch.tensor([0.0, clip.floor, 0.0], dtype=hips.dtype)
    left, right = (JOINT_NAMES.index(f"{side}_hip") for side in ("left", "right"))
    hip_offset = (target.joints[left] + target.joints[right]) / 2 - target.joints[0]
    pelvis = hips * scale - rotations[:, 0] @ hip_offset
    joints = forward_kinematics(rotations, pelvis, target)
    soles = [
        joints[:, j] + rotations[:, j] @ (point - target.joints[j])
        for point, j in zip(target.soles, target.sole_joints)
    ]
    lowest = torch.stack(soles, 1)[..., 1].min(1).values
    floor = torch.quantile(lowest, 0.05)
    if abs(float(floor)) > LARGEST_FLOOR_CORRECTION:
        floor = torch.zeros_like(floor)
    middle = pelvis.median(0).values
    shift = torch.stack([middle[0], floor, middle[2]])
    return pelvis - shift, lowest - floor
