"""Hold planted feet still: small corrections of root and legs that take the sliding out of labelled contacts.

Every stretch of contact gets one place for its heel or toe: the middle of where the point was, at the height a sole
has on its floor. The corrections d of all frames are found at once as the least squares of

    |d / sigma|^2 + |foot - place|^2 / tight^2 + |d'' / sigma''|^2

so they come and go smoothly, and frames between contacts follow. Solved in windows with margins. N frames,
D unknowns per frame: rotations of root and legs, then the translation; camera frame; float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.contacts import CONTACT_KEYPOINTS
from core.records import CameraMotion
from core.recover.banded import solve_banded
from core.recover.chain import Shaped, build_chain, differentiate_points, pose_chain, shape_chain
from core.recover.terms import difference_band
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES

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


@dataclass(frozen=True)
class PlantOptions:
    tight: float = 0.01
    """m a planted point may be off its place."""
    trans: float = 0.06
    """m the root may move."""
    turn_acceleration: float = 12.0
    """rad/s^2 of the corrections."""
    trans_acceleration: float = 1.5
    """m/s^2 of the corrections."""
    ramp_s: float = 0.07
    """Seconds over which a contact takes and loses hold."""
    largest_drift: float = 0.3
    """m between the ends of a contact beyond which it is not believed."""
    floor_reach: float = 0.12
    """m of the floor within which a contact is moved towards it."""
    floor_share: float = 0.6
    """Part of the way: all of it would take the figure off the picture where the floor is uneven."""
    iterations: int = 2
    window_frames: int = 240
    margin_frames: int = 40


@dataclass(frozen=True)
class Places:
    """Where planted points belong."""

    points: np.ndarray
    """[N, 4, 3] m, camera frame."""
    weights: np.ndarray
    """[N, 4] 0..1; 0 where nothing touches."""


def sole_heights(body, betas: np.ndarray) -> np.ndarray:
    """Height [4] m of the contact keypoints above the sole of a standing body."""
    with torch.no_grad():
        like = dict(dtype=body.v_template.dtype, device=body.v_template.device)
        betas = torch.as_tensor(betas, **like)
        eye = torch.eye(3, **like).expand(1, 24, 3, 3)
        points = body.keypoints(eye, betas, torch.zeros(1, 3, **like))[0, list(CONTACT_KEYPOINTS), 1]
        lowest = body.rest_vertices(betas)[:, 1].min()
    return (points - lowest).double().cpu().numpy()


def find_places(
    points_world: np.ndarray,
    contacts: np.ndarray,
    times: np.ndarray,
    heights: np.ndarray,
    R_world_from_cam: np.ndarray,
    t_world_from_cam: np.ndarray,
    options: PlantOptions = PlantOptions(),
) -> Places:
    """points_world [N, 4, 3] of the contact keypoints, contacts [N, 4], heights [4] of sole_heights; one R, t."""
    targets, weights = points_world.copy(), np.zeros(contacts.shape)
    for column in range(contacts.shape[1]):
        touching = np.concatenate([[0], contacts[:, column] > 0.5, [0]]).astype(np.int8)
        starts, stops = np.flatnonzero(np.diff(touching) == 1), np.flatnonzero(np.diff(touching) == -1)
        for start, stop in zip(starts, stops):
            stretch = points_world[start:stop, column]
            if np.linalg.norm(stretch[-1] - stretch[0]) > options.largest_drift:
                continue
            place = np.median(stretch, axis=0)
            if abs(place[2] - heights[column]) < options.floor_reach:
                place[2] += options.floor_share * (heights[column] - place[2])
            targets[start:stop, column] = place
            ramps = np.ones(stop - start)
            if start > 0:
                ramps = np.minimum(ramps, (times[start:stop] - times[start - 1]) / options.ramp_s)
            if stop < len(times):
                ramps = np.minimum(ramps, (times[stop] - times[start:stop]) / options.ramp_s)
            weights[start:stop, column] = ramps
    return Places((targets - t_world_from_cam) @ R_world_from_cam, weights)


def plant_feet(
    motion: CameraMotion, times: np.ndarray, body, places: Places, options: PlantOptions = PlantOptions()
) -> CameraMotion:
    """The motion with its feet at their places as far as small corrections go."""
    if not places.weights.any():
        return motion
    shaped = shape_chain(build_chain(body), torch.from_numpy(motion.betas.astype(np.float64)))
    rotmats = torch.from_numpy(motion.rotmats.astype(np.float64))
    trans = torch.from_numpy(motion.trans.astype(np.float64))
    at = torch.from_numpy(np.asarray(times, np.float64))
    points, weights = torch.from_numpy(places.points), torch.from_numpy(places.weights)
    N, step = len(rotmats), options.window_frames
    planted_rotmats, planted_trans = rotmats.clone(), trans.clone()
    for start in range(0, N, step):
        stop = min(start + step, N)
        # margins see what lies beyond; corrections reach a fraction of them, so no seam shows
        first, last = max(start - options.margin_frames, 0), min(stop + options.margin_frames, N)
        span, inner = slice(first, last), slice(start - first, stop - first)
        R, t = _solve_window(shaped, rotmats[span], trans[span], at[span], points[span], weights[span], options)
        planted_rotmats[start:stop], planted_trans[start:stop] = R[inner], t[inner]
    return replace(
        motion,
        rotmats=planted_rotmats.numpy().astype(np.float32),
        trans=planted_trans.numpy().astype(np.float32),
    )


def _solve_window(
    shaped: Shaped,
    rotmats: Tensor,
    trans: Tensor,
    times: Tensor,
    places: Tensor,
    weights: Tensor,
    options: PlantOptions,
) -> tuple[Tensor, Tensor]:
    """Corrected rotations [N, 24, 3, 3] and translations [N, 3]. The total correction d is what is penalised: its
    rotations are small, so they add up over the iterations."""
    N, joints = len(trans), list(JOINTS)
    slack = torch.tensor([*(v for s in _SLACK.values() for v in s), *[options.trans] * 3], dtype=torch.float64)
    D = len(slack)
    bend = difference_band(times, order=2) * 30  # [N, 3]
    stiff = torch.full((D,), options.turn_acceleration**-2, dtype=torch.float64)
    stiff[-3:] = options.trans_acceleration**-2
    next1, next2 = (torch.diag_embed(bend[:, k, None] * stiff) for k in (1, 2))
    own = torch.diag_embed(slack**-2 + bend[:, :1] * stiff)
    total = torch.zeros(N, D, dtype=torch.float64)
    moved, place = rotmats, trans
    for _ in range(options.iterations):
        posed = pose_chain(shaped, moved, place)
        rows = differentiate_points(shaped, posed, JOINTS)[:, list(CONTACT_KEYPOINTS)].flatten(1, 2)  # [N, 12, D]
        error = (places - posed.points[:, list(CONTACT_KEYPOINTS)]).flatten(1)  # [N, 12]
        weight = weights.repeat_interleave(3, 1) / options.tight**2
        weighted = rows.transpose(1, 2) * weight[:, None]
        right = (weighted @ (error + (rows @ total[..., None])[..., 0])[..., None])[..., 0]
        total = solve_banded(own + weighted @ rows, next1, next2, right)
        turn = total[:, :-3].unflatten(1, (-1, 3))
        moved = rotmats.clone()
        moved[:, joints] = rotmats[:, joints] @ axis_angle_to_matrix(turn)
        place = trans + total[:, -3:]
    return moved, place
