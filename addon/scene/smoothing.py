"""Smooths a figure anew from its result file, as often as wanted: the raw values stay in the file and in an action.

The figure gets a second action; before and after are these two actions, so switching is free and what was edited by
hand in one stays in it. Strength is in seconds of motion that are averaged, per limb.
"""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np

from .. import naming
from ..action import KeyWriter, assign_action
from ..convert import (
    conjugate_quaternion,
    make_continuous,
    multiply_quaternions,
    quaternion_from_rotvec,
    rotvec_from_quaternion,
    scene_frames_from_times,
)
from ..errors import ResultFileError
from . import armature as rig
from .frames import FrameStore
from .person import RATE, SCALE, SHIFT, START_FRAME, make_channels, strictly_increasing
from .result import read_result
from .writer import RESULT

RAW_ACTION, SMOOTH_ACTION, STRENGTH = (
    "hyper_mocap_raw_action",
    "hyper_mocap_smooth_action",
    "hyper_mocap_smoothing_s",
)
"""Custom properties of the armature: names of the two actions, and the strength of the second."""
PARABOLA_WIDTH = 1.35
"""Width of a parabola's window that stops about as much tremor as a mean over a window of width 1."""


@dataclass(frozen=True)
class Smoothing:
    """How much to smooth. Each limb's window is seconds * its factor; 0 leaves the limb as it is."""

    seconds: float = 0.2
    root: float = 1.0
    spine: float = 1.0
    arms: float = 1.0
    legs: float = 1.0
    keep_hits: bool = True
    """Let fast real moves through: where smoothing would be off by more than about `hit_rad` or `hit_m`."""
    hit_rad: float = 0.2
    hit_m: float = 0.05

    def window_s(self, limb: str) -> float:
        """Seconds that are averaged for a limb of naming.LIMBS."""
        return max(self.seconds, 0.0) * max(getattr(self, limb), 0.0)


def gaussian_mean(values: np.ndarray, times: np.ndarray, window_s: float) -> np.ndarray:
    """Weighted means [N, ...] with Gaussian weights of the variance of a plain average over window_s seconds.

    values [N, ...], times [N] increasing, any spacing; the ends average over what there is.
    """
    sigma = window_s / np.sqrt(12.0)
    count = len(values)
    if sigma <= 0 or count < 2:
        return np.array(values, dtype=np.float64)
    flat = np.asarray(values, dtype=np.float64).reshape(count, -1)
    total, weight = flat.copy(), np.ones(count)
    for step in range(1, count):
        gap = times[step:] - times[:-step]
        if gap.min() > 3.5 * sigma:
            break
        w = np.exp(-0.5 * (gap / sigma) ** 2)
        total[:-step] += w[:, None] * flat[step:]
        total[step:] += w[:, None] * flat[:-step]
        weight[:-step] += w
        weight[step:] += w
    return (total / weight[:, None]).reshape(np.shape(values))


def local_parabola(values: np.ndarray, times: np.ndarray, window_s: float) -> np.ndarray:
    """Values [N, ...] at their times of parabolas fitted to their neighbours with Gaussian weights.

    Against gaussian_mean it stops about as much tremor; fast moves keep more of their height, and ends do not lag.
    Where a window holds too few frames for a parabola, values stay.
    """
    sigma = PARABOLA_WIDTH * window_s / np.sqrt(12.0)
    count = len(values)
    if sigma <= 0 or count < 3:
        return np.array(values, dtype=np.float64)
    flat = np.asarray(values, dtype=np.float64).reshape(count, -1)
    s, b = np.zeros((5, count)), np.zeros((3, *flat.shape))  # sums of weight * x^k, and with the values' differences
    s[0] = 1.0
    for step in range(1, count):
        x = (times[step:] - times[:-step]) / sigma
        if x.min() > 3.5:
            break
        w, rise = np.exp(-0.5 * x**2), flat[step:] - flat[:-step]
        for k in range(5):
            s[k, :-step] += w * x**k
            s[k, step:] += w * (-x) ** k
            if k < 3:
                b[k, :-step] += (w * x**k)[:, None] * rise
                b[k, step:] -= (w * (-x) ** k)[:, None] * rise
    # first row of the inverse of [[s0, s1, s2], [s1, s2, s3], [s2, s3, s4]]
    row = np.stack([s[2] * s[4] - s[3] ** 2, s[2] * s[3] - s[1] * s[4], s[1] * s[3] - s[2] ** 2])
    determinant = (s[:3] * row).sum(0)
    is_parabola = determinant > 1e-6 * s[0] ** 3
    share = np.where(is_parabola, row / np.where(is_parabola, determinant, 1.0), 0.0)
    return (flat + (share[..., None] * b).sum(0)).reshape(np.shape(values))


def smooth_rotations(
    quaternions: np.ndarray, times: np.ndarray, window_s: float, keep_rad: float | None = None
) -> np.ndarray:
    """Smoothed unit quaternions [N, ..., 4], signs continuous: local_parabola of their numbers, made unit again.

    With keep_rad, frames are drawn back to the raw value by r^4 / (r^4 + keep_rad^4), r being the length of the
    rotation from smoothed to raw averaged over half the window: a move lasts and is kept, tremor averages out.
    """
    raw = make_continuous(np.asarray(quaternions, dtype=np.float64))
    if window_s <= 0:
        return raw
    mean = _unit(local_parabola(raw, times, window_s))
    if keep_rad is None:
        return mean
    left = rotvec_from_quaternion(multiply_quaternions(raw, conjugate_quaternion(mean)))
    share = _keep_share(left, times, window_s, keep_rad)
    return _unit((1 - share) * mean + share * raw)


def smooth_positions(
    positions: np.ndarray, times: np.ndarray, window_s: float, keep_m: float | None = None
) -> np.ndarray:
    """Smoothed positions [N, 3], with `keep_m` as `keep_rad` in smooth_rotations."""
    raw = np.asarray(positions, dtype=np.float64)
    mean = local_parabola(raw, times, window_s)
    if keep_m is None or window_s <= 0:
        return mean
    share = _keep_share(raw - mean, times, window_s, keep_m)
    return (1 - share) * mean + share * raw


def _keep_share(left: np.ndarray, times: np.ndarray, window_s: float, limit: float) -> np.ndarray:
    """Share of the raw value [N, ..., 1] from what smoothing took away, vectors [N, ..., 3]."""
    r4 = np.sum(gaussian_mean(left, times, window_s / 2) ** 2, axis=-1, keepdims=True) ** 2
    return r4 / (r4 + limit**4)


def _unit(q: np.ndarray) -> np.ndarray:
    return q / np.maximum(np.linalg.norm(q, axis=-1, keepdims=True), 1e-12)


def smooth_motion(
    poses: np.ndarray, trans: np.ndarray, times: np.ndarray, smoothing: Smoothing
) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed (poses [N, 24, 3] axis-angle, trans [N, 3]) of a motion; times [N] s."""
    quaternions = quaternion_from_rotvec(np.asarray(poses).reshape(len(times), -1, 3))
    out = make_continuous(quaternions)
    for limb, joints in naming.LIMBS.items():
        keep = smoothing.hit_rad if smoothing.keep_hits else None
        chosen = list(joints)
        out[:, chosen] = smooth_rotations(quaternions[:, chosen], times, smoothing.window_s(limb), keep)
    keep = smoothing.hit_m if smoothing.keep_hits else None
    return rotvec_from_quaternion(out), smooth_positions(trans, times, smoothing.window_s("root"), keep)


def smooth_figure(armature: bpy.types.Object, smoothing: Smoothing) -> int:
    """Smooth a figure from its result file into its second action and show it. Returns the number of frames.

    ResultFileError if the file is gone or the object is no figure of ours.
    """
    path = armature.get(RESULT)
    if not path or rig.TEMPLATE not in armature:
        raise ResultFileError(f"{armature.name} has no result file: choose an armature that Hyper Mocap made")
    result = read_result(path)
    a = result.arrays
    poses, trans = smooth_motion(a["poses"], a["trans"], a["times"], smoothing)
    store = FrameStore()
    trans = trans * float(armature.get(SCALE, 1.0)) + np.array(armature.get(SHIFT, (0.0, 0.0, 0.0)))
    store.put_arrays(a["frames"], a["times"], poses, trans, a["confidence"], a["contacts"])
    try:
        joints, axes = rig.stored_joints(armature), rig.rest_axes(armature)
        while store.has_waiting:
            store.convert(joints, axes)
    except KeyError as error:
        raise ResultFileError(f"{armature.name} lacks the bone {error}: its motion cannot be written") from None
    raw = _raw_action(armature)
    smooth = bpy.data.actions.get(armature.get(SMOOTH_ACTION, ""))
    if smooth is not None and smooth != raw:
        assign_action(armature, smooth)
    else:
        smooth = assign_action(armature, raw.copy())
        smooth.name = f"{raw.name} Smooth"
        armature[SMOOTH_ACTION] = smooth.name
    raw.use_fake_user = True
    frames = scene_frames_from_times(store.times, armature[START_FRAME], armature[RATE]).astype(np.float32)
    keep = strictly_increasing(frames)
    writer = KeyWriter(armature, smooth.name)
    for channel in make_channels():
        if channel.source in ("quaternions", "location"):
            values = getattr(store, channel.source)[(slice(None), *channel.column)]
            writer.write(channel.path, channel.index, frames[keep], values[keep], group=channel.group)
    writer.update_long_curves()
    smooth.use_fake_user = True
    armature[STRENGTH] = smoothing.seconds
    armature.update_tag(refresh={"TIME"})
    return int(keep.sum())


def motions_of(armature: bpy.types.Object) -> list[bpy.types.Action]:
    """Return the actions that a figure's motion is in: the one that plays, the raw and the smoothed one."""
    data = armature.animation_data
    found = [data.action if data is not None else None]
    found += [bpy.data.actions.get(armature.get(name, "")) for name in (RAW_ACTION, SMOOTH_ACTION)]
    return list({action: None for action in found if action is not None})


def is_smoothed(armature: bpy.types.Object) -> bool:
    """Whether the smoothed action is the one that plays."""
    data = armature.animation_data
    return data is not None and data.action is not None and data.action.name == armature.get(SMOOTH_ACTION)


def show_smoothed(armature: bpy.types.Object, is_wanted: bool) -> bool:
    """Switch between raw and smoothed; False if there is nothing to switch to."""
    action = bpy.data.actions.get(armature.get(SMOOTH_ACTION if is_wanted else RAW_ACTION, ""))
    if action is None:
        return False
    assign_action(armature, action)
    armature.update_tag(refresh={"TIME"})
    return True


def _raw_action(armature: bpy.types.Object) -> bpy.types.Action:
    """The action that holds the engine's own motion; remembered the first time."""
    known = bpy.data.actions.get(armature.get(RAW_ACTION, ""))
    if known is not None:
        return known
    data = armature.animation_data
    if data is None or data.action is None:
        raise ResultFileError(f"{armature.name} has no action: import its result file again")
    armature[RAW_ACTION] = data.action.name
    return data.action
