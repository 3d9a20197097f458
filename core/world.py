"""From the camera's frame to one world all people share: z up, floor at 0, the camera above the origin looking along
+y.

A static camera has one rigid transform for the clip. One that turned on its place (core.panning) is first turned
back, everything is placed as that of its first frame, and every frame gets a transform of its own. Up comes from
three witnesses, each with its error: the camera is about level, people who stand are upright, and the places where
feet touched lie level (what says most when somebody walks towards or away from the camera). The floor is the lowest
level that a good part of all touches agree on. N frames, M touches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from core.contacts import CONTACT_KEYPOINTS, label_contacts
from core.feet import plant_feet
from core.panning import rotations_at
from core.records import Camera, CameraMotion, Motion, Track
from core.rigid import move_root, turn_motion
from core.rotation import matrix_to_axis_angle, matrix_to_quaternion, quaternion_to_matrix
from core.skeleton import JOINT_NAMES
from core.smooth import smooth_positions, smooth_rotations, strengths_by_joint
from core.sole import foot_lengths, sole_heights
from core.stances import find_places

LEVEL_UP = np.array([0.0, -1.0, 0.0])
_JOINT = {name: j for j, name in enumerate(JOINT_NAMES)}


@dataclass(frozen=True)
class WorldOptions:
    level_sigma: float = 0.2
    """rad: how far cameras are from level."""
    upright_sigma: float = 0.06
    """rad: how far standing people seem to lean, for the clip as a whole."""
    touch_sigma: float = 0.04
    """m: how far touches of one person are from level, one second apart."""
    touch_robust: float = 0.12
    """m: beyond this a touch is on another level (a step, a jump)."""
    straight: float = 0.6
    """rad of knee bend and of hip bend below which a person stands."""
    largest_tilt: float = 0.7
    """rad of up from the camera's y axis at most."""
    floor_share: float = 0.2
    """Part of all touches a level needs to be the floor."""
    floor_band: float = 0.15
    """m: height of such a level."""


@dataclass(frozen=True)
class Touches:
    """Where one person's feet touched, camera frame."""

    points: np.ndarray
    """[M, 3] m."""
    soles: np.ndarray
    """[M] m from each point down to the sole."""
    weight: float
    """Of each: touches of one second count as one."""


def place_in_world(
    motions: list[CameraMotion],
    tracks: list[Track],
    camera: Camera,
    body,
    options: WorldOptions = WorldOptions(),
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and translation [3] m with x_world = R @ x_cam + t, shared by everybody and all frames.

    tracks are those of the motions, frame by frame. Without any frame: a level camera 1.5 m up.
    """
    spans = [(motion, track) for motion, track in zip(motions, tracks) if len(motion.frames)]
    if not spans:
        return rotation_from_up(LEVEL_UP), np.array([0.0, 0.0, 1.5])
    touches, axes = [], []
    for motion, track in spans:
        joints, points = pose_body(motion, body)
        axes.append(standing_axes(joints, motion.confidence, options))
        level = points[:, list(CONTACT_KEYPOINTS)] @ rotation_from_up(LEVEL_UP).T
        feet = label_contacts(level, track.times) > 0.5
        feet &= (track.keypoints[:, list(CONTACT_KEYPOINTS), 2] > 0.3) & (motion.confidence > 0)[:, None]
        seconds = max(float(np.median(np.diff(track.times))), 1e-3) * 2 if len(track) > 1 else 1.0
        soles = np.broadcast_to(sole_heights(body, motion.betas), feet.shape)[feet]
        touches.append(Touches(points[:, list(CONTACT_KEYPOINTS)][feet], soles, min(seconds, 1.0)))
    R = rotation_from_up(estimate_up(touches, np.concatenate(axes), options))
    heights = [touch.points @ R[2] - touch.soles for touch in touches]
    if not sum(map(len, heights)):  # nobody stands: the lowest foot is taken to
        lowest = min(float((pose_body(m, body)[1][:, list(CONTACT_KEYPOINTS)] @ R[2]).min()) for m, _ in spans)
        return R, np.array([0.0, 0.0, -lowest])
    return R, np.array([0.0, 0.0, -_floor_height(np.concatenate(heights), options)])


def rotation_from_up(up: np.ndarray) -> np.ndarray:
    """R_world_from_cam [3, 3] for the direction of up [3] in the camera frame; the view goes along world +y."""
    up = up / np.linalg.norm(up)
    forward = np.array([0.0, 0.0, 1.0]) - up * up[2]
    forward = forward / np.linalg.norm(forward)
    return np.stack([np.cross(forward, up), forward, up])


def pose_body(motion: CameraMotion, body) -> tuple[np.ndarray, np.ndarray]:
    """Joints [N, 24, 3] and keypoints [N, 25, 3] of a motion in the camera frame, float64 m."""
    with torch.no_grad():
        device = body.v_template.device
        rotmats, betas, trans = (
            torch.as_tensor(a, dtype=body.v_template.dtype, device=device)
            for a in (motion.rotmats, motion.betas, motion.trans)
        )
        joints, _ = body.forward_kinematics(rotmats, betas, trans)
        points = body.keypoints(rotmats, betas, trans)
    return joints.cpu().double().numpy(), points.cpu().double().numpy()


def standing_axes(joints: np.ndarray, confidence: np.ndarray, options: WorldOptions) -> np.ndarray:
    """Directions [M, 3] from ankles to neck in the frames (of joints [N, 24, 3]) where a person stands straight."""

    def middle(name: str) -> np.ndarray:
        return (joints[:, _JOINT[f"left_{name}"]] + joints[:, _JOINT[f"right_{name}"]]) / 2

    def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1))

    trunk = joints[:, _JOINT["neck"]] - middle("hip")
    bends = []
    for side in ("left", "right"):
        hip, knee, ankle = (joints[:, _JOINT[f"{side}_{name}"]] for name in ("hip", "knee", "ankle"))
        bends += [angle(hip - knee, knee - ankle), angle(trunk, hip - knee)]
    stands = (np.stack(bends) < options.straight).all(0) & (confidence > 0.3)
    axis = joints[:, _JOINT["neck"]] - middle("ankle")
    axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    return axis[stands & (axis @ LEVEL_UP > np.cos(options.largest_tilt))]


def estimate_up(touches: list[Touches], axes: np.ndarray, options: WorldOptions) -> np.ndarray:
    """Up in the camera frame, a unit vector [3]: least squares over (a, b) in up ~ (a, -1, b), robust in touches."""
    tilt = np.zeros(2)
    for _ in range(10):
        H = np.eye(2) / options.level_sigma**2
        g = np.zeros(2)
        if len(axes) >= 5:
            lean = np.median(axes[:, [0, 2]] / -axes[:, 1:2], axis=0)
            H += np.eye(2) / options.upright_sigma**2
            g += lean / options.upright_sigma**2
        for touch in touches:
            if len(touch.points) < 4:
                continue
            ground, height = touch.points[:, [0, 2]], -touch.points[:, 1] - touch.soles
            level = height + ground @ tilt
            weight = np.full(len(level), touch.weight)
            off = level - np.median(level)
            weight *= (options.touch_robust**2 / (options.touch_robust**2 + off**2)) ** 2  # Geman-McClure
            centre = (weight[:, None] * ground).sum(0) / weight.sum()
            spread = ground - centre
            rise = height - (weight * height).sum() / weight.sum()
            H += (weight[:, None] * spread).T @ spread / options.touch_sigma**2
            g -= (weight[:, None] * spread).T @ rise / options.touch_sigma**2
        tilt = np.linalg.solve(H, g)
    limit = np.tan(options.largest_tilt)
    tilt *= min(1.0, limit / max(float(np.linalg.norm(tilt)), 1e-9))
    up = np.array([tilt[0], -1.0, tilt[1]])
    return up / np.linalg.norm(up)


def _floor_height(heights: np.ndarray, options: WorldOptions) -> float:
    """Median of the lowest band of heights [M] m that holds a good part of them."""
    heights = np.sort(heights)
    counts = np.searchsorted(heights, heights + options.floor_band, side="right") - np.arange(len(heights))
    start = int(np.flatnonzero(counts >= options.floor_share * len(heights))[0])
    return float(np.median(heights[start : start + counts[start]]))


def to_motion(
    motion: CameraMotion,
    track: Track,
    camera: Camera,
    body,
    R_world_from_cam: np.ndarray,
    t_world_from_cam: np.ndarray,
) -> Motion:
    """The records of one person in the world: R [3, 3] or [N, 3, 3], t [3] or [N, 3]. Contacts are left at 0."""
    N = len(motion.frames)
    R = np.broadcast_to(np.asarray(R_world_from_cam, np.float64), (N, 3, 3))
    t = np.broadcast_to(np.asarray(t_world_from_cam, np.float64), (N, 3))
    rotmats, trans = move_root(motion, body, R, t)
    poses = matrix_to_axis_angle(torch.from_numpy(rotmats)).numpy().reshape(N, 72)
    return Motion(
        person=motion.person,
        frames=motion.frames,
        times=track.times,
        poses=poses.astype(np.float32),
        trans=trans.astype(np.float32),
        betas=motion.betas,
        joints_cam=pose_body(motion, body)[0].astype(np.float32),
        keypoints2d=track.keypoints,
        confidence=motion.confidence,
        camera=camera,
        R_world_from_cam=np.ascontiguousarray(R, np.float32),
        t_world_from_cam=np.ascontiguousarray(t, np.float32),
        contacts=np.zeros((N, 4), np.float32),
    )


def smooth_camera_motion(
    motion: CameraMotion, times: np.ndarray, strength_s: float, by_limb: dict[str, float] | None = None
) -> CameraMotion:
    """A motion smoothed by strength_s seconds, or by_limb's (smooth.LIMBS -> s); "root" also holds for the path.
    What gets 0 stays as it is to the bit."""
    strengths = strengths_by_joint(strength_s, by_limb)
    if not strengths.any():
        return motion
    quaternions = matrix_to_quaternion(torch.from_numpy(motion.rotmats.astype(np.float64))).numpy()
    smoothed = quaternion_to_matrix(torch.from_numpy(smooth_rotations(quaternions, times, strengths))).numpy()
    rotmats = np.where(strengths[:, None, None] > 0, smoothed, motion.rotmats)
    trans = smooth_positions(motion.trans, times, strengths[0])
    return replace(motion, rotmats=rotmats.astype(np.float32), trans=trans.astype(np.float32))


def place(
    motions: list[CameraMotion],
    tracks: list[Track],
    camera: Camera,
    body,
    *,
    smoothing_s: float = 0.0,
    by_limb: dict[str, float] | None = None,
    lock_feet: bool = True,
    turns: dict[int, np.ndarray] | None = None,
) -> list[Motion]:
    """Everybody smoothed, in one world with a floor, with contacts; with lock_feet, planted feet are held still and
    soles kept out of the floor, and the contacts are of what is held. turns: of a panning camera, by frame
    (`core.panning.track_camera`). smoothing_s, by_limb: see `smooth_camera_motion`."""
    to_first = [rotations_at(turns, m.frames) if turns and len(m) else None for m in motions]
    motions = [m if C is None else turn_motion(m, C, body) for m, C in zip(motions, to_first)]
    motions = [smooth_camera_motion(m, track.times, smoothing_s, by_limb) for m, track in zip(motions, tracks)]
    R, t = place_in_world(motions, tracks, camera, body)
    placed = []
    for motion, track, C in zip(motions, tracks, to_first):
        feet = pose_body(motion, body)[1][:, list(CONTACT_KEYPOINTS)] @ R.T + t
        heights = sole_heights(body, motion.betas)
        contacts = label_contacts(feet, track.times, on_floor=heights)
        R_of_frame = R if C is None else R @ C
        motion = motion if C is None else turn_motion(motion, C.transpose(0, 2, 1), body)
        if lock_feet and len(track):
            places = find_places(feet, contacts, track.times, heights, foot_lengths(body, motion.betas))
            contacts = np.where(places.planted, np.maximum(contacts, 0.51), np.minimum(contacts, 0.49))
            motion = plant_feet(motion, track, camera, body, places, R_of_frame, t)
        placed.append(
            replace(to_motion(motion, track, camera, body, R_of_frame, t), contacts=contacts.astype(np.float32))
        )
    return placed
