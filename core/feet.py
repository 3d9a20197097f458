"""Lock planted feet: small corrections of root and legs that hold feet where they stand and keep soles out of the
floor, with the figure staying where the picture has it.

The corrections d of all frames are found at once as the least squares of

    |d / slack|^2 + |d'' / bend|^2          small and smooth: they come before a foot lands and go after it left
    |foot - place|^2 / tight^2              planted heels and toes stay at their places (core.stances)
    |level - sole|^2 / floor^2              of every sole vertex that is below what carries it; none is pulled down
    |seen - projected|^2 / image^2          every keypoint of the body, at its depth, disbelieved when far off
    |flexion|^2 / knee^2                    of a knee that would bend backward

by Gauss-Newton, in windows with margins. N frames, D unknowns per frame: rotations of root and legs, then the
translation; K = 25 keypoints, S sole vertices; camera frame unless said; float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.contacts import CONTACT_KEYPOINTS
from core.records import Camera, CameraMotion, Track
from core.recover.banded import solve_banded
from core.recover.chain import Shaped, differentiate_points, pose_chain, shape_chain
from core.recover.fit import one_thread
from core.recover.terms import REFERENCE_STEP, difference_band
from core.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from core.skeleton import JOINT_NAMES, KEYPOINT_COUNT
from core.sole import build_sole_chain
from core.stances import PAIRS, Places

_SLACK = {  # rad along the joint's x, y, z
    "pelvis": (0.02, 0.02, 0.02),
    "left_hip": (0.12, 0.08, 0.08),
    "right_hip": (0.12, 0.08, 0.08),
    "left_knee": (0.2, 0.004, 0.004),
    "right_knee": (0.2, 0.004, 0.004),
    "left_ankle": (0.15, 0.1, 0.1),
    "right_ankle": (0.15, 0.1, 0.1),
}
JOINTS = tuple(JOINT_NAMES.index(name) for name in _SLACK)
_KNEES = [JOINT_NAMES.index(f"{side}_knee") for side in ("left", "right")]
_KNEE_TURNS = [3 * JOINTS.index(knee) for knee in _KNEES]
"""Where the flexions of the knees are among the unknowns."""


@dataclass(frozen=True)
class PlantOptions:
    tight: float = 0.001
    """m along the floor that a planted point may be off its place."""
    slip: float = 0.004
    """m along the foot that a heel may be off its place while its toe is planted: a heel that rises comes nearer."""
    upright: float = 0.006
    """m by which it may be too high or too low."""
    floor: float = 0.003
    """m that a sole may sink."""
    release: float = 0.01
    """m that a sole which had to be lifted may be too high: without it steps lift and drop it in turn."""
    image: float = 0.017
    """m at the person's depth that a keypoint may be off what was seen."""
    image_robust: float = 0.06
    """m beyond which what was seen is disbelieved."""
    stay: float = 0.06
    """m at the person's depth that a keypoint may move in the picture, seen or not."""
    trans: float = 0.2
    """m the root may move."""
    knee: float = 0.02
    """rad that a knee may bend backward, or farther backward than it did."""
    turn_acceleration: float = 12.0
    """rad/s^2 of the corrections."""
    trans_acceleration: tuple[float, float, float] = (0.6, 0.6, 0.3)
    """m/s^2 of the corrections; depth last: the picture hardly resists there, and with every step the body would
    swing away from the foot it stands on."""
    iterations: int = 4
    window_frames: int = 240
    margin_frames: int = 40


@dataclass(frozen=True)
class _Window:
    """What one window of frames is solved from."""

    shaped: Shaped
    sole_feet: Tensor
    """[S] 0 or 1: whose foot a sole vertex is."""
    rotmats: Tensor
    trans: Tensor
    times: Tensor
    R: Tensor
    """[N, 3, 3] world from camera."""
    t: Tensor
    """[N, 3]."""
    places: Tensor
    """[N, 4, 3] world."""
    planted: Tensor
    """[N, 4] 0 or 1."""
    along: Tensor
    """[N, 2, 2] world x, y from heel to toe where both are planted, else 0."""
    support: Tensor
    """[N, S] m: height under each sole vertex."""
    seen: Tensor
    """[N, K, 2] on the plane at depth 1."""
    sure: Tensor
    """[N, K] 0..1."""


@one_thread()
def plant_feet(
    motion: CameraMotion,
    track: Track,
    camera: Camera,
    body,
    places: Places,
    R_world_from_cam: np.ndarray,
    t_world_from_cam: np.ndarray,
    options: PlantOptions = PlantOptions(),
) -> CameraMotion:
    """The motion with its feet at their places and its soles out of the floor; R [3, 3] or [N, 3, 3], t alike."""
    N = len(motion)
    chain, feet = build_sole_chain(body)
    under = np.stack([_support(places, foot) for foot in (0, 1)], 1)  # [N, 2]
    keypoints = track.keypoints.astype(np.float64)
    seen = (keypoints[..., :2] - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    whole = _Window(
        shape_chain(chain, torch.from_numpy(motion.betas.astype(np.float64))),
        torch.from_numpy(feet),
        *(torch.from_numpy(np.asarray(a, np.float64)) for a in (motion.rotmats, motion.trans, track.times)),
        torch.from_numpy(np.broadcast_to(np.asarray(R_world_from_cam, np.float64), (N, 3, 3)).copy()),
        torch.from_numpy(np.broadcast_to(np.asarray(t_world_from_cam, np.float64), (N, 3)).copy()),
        torch.from_numpy(places.points),
        torch.from_numpy(places.planted.astype(np.float64)),
        torch.from_numpy(places.along),
        torch.from_numpy(under[:, feet]),
        torch.from_numpy(seen),
        torch.from_numpy(keypoints[..., 2] ** 2 * (motion.confidence > 0)[:, None]),
    )
    rotmats, trans = whole.rotmats.clone(), whole.trans.clone()
    for start in range(0, N, options.window_frames):
        stop = min(start + options.window_frames, N)
        # margins see what lies beyond; corrections reach a fraction of them, so no seam shows
        first, last = max(start - options.margin_frames, 0), min(stop + options.margin_frames, N)
        inner = slice(start - first, stop - first)
        R, t = _solve(_cut(whole, slice(first, last)), options)
        rotmats[start:stop], trans[start:stop] = R[inner], t[inner]
    return replace(motion, rotmats=rotmats.numpy().astype(np.float32), trans=trans.numpy().astype(np.float32))


def _support(places: Places, foot: int) -> np.ndarray:
    """Height [N] m under a foot: of what it is planted on, else of the floor, or of a lower level there is."""
    columns = list(PAIRS[foot])
    floor = min(0.0, float(places.levels.min(initial=0.0)))
    levels = np.where(places.planted[:, columns], places.levels[:, columns], -np.inf).max(1)
    return np.where(places.planted[:, columns].any(1), levels, floor)


def _cut(whole: _Window, span: slice) -> _Window:
    parts = {name: value[span] for name, value in vars(whole).items() if name not in ("shaped", "sole_feet")}
    return replace(whole, **parts)


def _solve(window: _Window, options: PlantOptions) -> tuple[Tensor, Tensor]:
    """Corrected rotations [N, 24, 3, 3] and translations [N, 3]. The total correction d is what is penalised: its
    rotations are small, so they add up over the iterations."""
    N, joints = len(window.trans), list(JOINTS)
    slack = torch.tensor([*(v for s in _SLACK.values() for v in s), *[options.trans] * 3], dtype=torch.float64)
    D = len(slack)
    bend = difference_band(window.times, order=2) / REFERENCE_STEP  # [N, 3]
    stiff = torch.full((D,), options.turn_acceleration**-2, dtype=torch.float64)
    stiff[-3:] = stiff.new_tensor(options.trans_acceleration) ** -2
    next1, next2 = (torch.diag_embed(bend[:, k, None] * stiff) for k in (1, 2))
    own = torch.diag_embed(slack**-2 + bend[:, :1] * stiff)
    total = torch.zeros(N, D, dtype=torch.float64)
    moved, at, start = window.rotmats, window.trans, None
    lifted = torch.zeros_like(window.support, dtype=torch.bool)
    for _ in range(options.iterations):
        posed = pose_chain(window.shaped, moved, at)
        rows = differentiate_points(window.shaped, posed, JOINTS)  # [N, K + S, 3, D]
        start = posed.points[:, :KEYPOINT_COUNT] if start is None else start
        terms = [
            _image_term(window, posed.points[:, :KEYPOINT_COUNT], start, rows[:, :KEYPOINT_COUNT], options),
            _place_term(window, posed.points, rows, options),
            _floor_term(window, posed.points[:, KEYPOINT_COUNT:], rows[:, KEYPOINT_COUNT:], lifted, options),
            _knee_term(window, moved, D, options),
        ]
        row, error, weight = (torch.cat(parts, 1) for parts in zip(*terms))  # [N, M, D], [N, M], [N, M]
        weighted = row.transpose(1, 2) * weight[:, None]
        right = (weighted @ (error + (row @ total[..., None])[..., 0])[..., None])[..., 0]
        total = solve_banded(own + weighted @ row, next1, next2, right)
        turn = total[:, :-3].unflatten(1, (-1, 3))
        moved = window.rotmats.clone()
        moved[:, joints] = window.rotmats[:, joints] @ axis_angle_to_matrix(turn)
        at = window.trans + total[:, -3:]
    return moved, at


def _image_term(
    window: _Window, points: Tensor, start: Tensor, rows: Tensor, options: PlantOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints towards where they were seen, as far as that is believed, and less so towards where they were.

    Two pulls on one coordinate are one pull, of their weights' sum, towards their mean.
    """
    depth = points[..., 2:].clamp_min(0.1)
    flat = points[..., :2] / depth  # [N, K, 2]
    across = (rows[:, :, :2] - flat[..., None] * rows[:, :, 2:]).flatten(1, 2)  # [N, 2K, D], m at the point's depth
    before = start[..., :2] / start[..., 2:].clamp_min(0.1)
    robust = options.image_robust**2
    off = ((window.seen - before) * depth).square().sum(-1)
    seen = window.sure * (robust / (robust + off)) ** 2 / options.image**2  # [N, K], Geman-McClure
    weight = (seen + options.stay**-2)[..., None]
    target = (seen[..., None] * window.seen + options.stay**-2 * before) / weight
    return across, ((target - flat) * depth).flatten(1), weight.expand(-1, -1, 2).flatten(1)


def _place_term(
    window: _Window, points: Tensor, rows: Tensor, options: PlantOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Planted keypoints at their places: along the foot, across it, and in height."""
    contact, N = list(CONTACT_KEYPOINTS), len(points)
    at = torch.einsum("nab,nkb->nka", window.R, points[:, contact]) + window.t[:, None]
    row = torch.einsum("nab,nkbd->nkad", window.R, rows[:, contact])  # [N, 4, 3, D]
    is_pair = window.along.square().sum(-1) > 0.5  # [N, 2]
    x, y = torch.where(is_pair[..., None], window.along, torch.tensor([1.0, 0.0], dtype=torch.float64)).unbind(-1)
    o = torch.zeros_like(x)
    axes = torch.stack([x, y, o, -y, x, o, o, o, o + 1], -1).view(N, 2, 3, 3).repeat_interleave(2, 1)  # [N, 4, 3, 3]
    sigma = torch.tensor([options.tight, options.tight, options.upright], dtype=torch.float64).repeat(N, 4, 1)
    sigma[:, ::2, 0] = torch.where(is_pair, options.slip, options.tight)  # heels
    weight = window.planted[..., None] / sigma**2  # [N, 4, 3]
    error = (axes @ (window.places - at)[..., None]).flatten(1)
    return (axes @ row).flatten(1, 2), error, weight.flatten(1)


def _floor_term(
    window: _Window, soles: Tensor, rows: Tensor, lifted: Tensor, options: PlantOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Sole vertices that are too low, up to what carries them; lifted [N, S] bool remembers them."""
    up = window.R[:, 2]  # [N, 3] in the camera frame
    error = window.support - torch.einsum("nb,nsb->ns", up, soles) - window.t[:, 2:]
    row = torch.einsum("nb,nsbd->nsd", up, rows)
    lifted |= error > 0
    return row, error, torch.where(error > 0, options.floor**-2, lifted * options.release**-2)


def _knee_term(window: _Window, moved: Tensor, D: int, options: PlantOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Knees bent backward, back to straight or to how far they were."""
    least = matrix_to_axis_angle(window.rotmats[:, _KNEES])[..., 0].clamp_max(0)  # [N, 2] rad of flexion
    error = least - matrix_to_axis_angle(moved[:, _KNEES])[..., 0]
    row = torch.zeros(len(moved), 2, D, dtype=torch.float64)
    row[:, [0, 1], _KNEE_TURNS] = 1
    return row, error, (error > 0).double() / options.knee**2
