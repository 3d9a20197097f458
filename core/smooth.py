"""Smoothing of rotations and positions over time: zero phase, strength in seconds, fast hits kept.

Each sample becomes the value at its time of a line fitted to its neighbours with Gaussian weights (local linear
regression: Cleveland, "Robust locally weighted regression", JASA 1979), so steady motion is not delayed or flattened
at the ends, and times need not be even. The kernel's width is the strength asked for, or less where the motion bends
so sharply that blurring it would move it by more than a tolerance: a symmetric kernel of width s moves a signal of
acceleration a by about a s^2 / 2. Strength 0 returns the input.

N frames, J joints. numpy, float64 inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.skeleton import JOINT_NAMES

LIMBS: dict[str, tuple[str, ...]] = {
    "root": ("pelvis",),
    "torso": ("spine1", "spine2", "spine3"),
    "head": ("neck", "head"),
    "left_arm": ("left_collar", "left_shoulder", "left_elbow", "left_wrist", "left_hand"),
    "right_arm": ("right_collar", "right_shoulder", "right_elbow", "right_wrist", "right_hand"),
    "left_leg": ("left_hip", "left_knee", "left_ankle", "left_foot"),
    "right_leg": ("right_hip", "right_knee", "right_ankle", "right_foot"),
}
"""Names an animator picks a strength for; every joint is in one of them."""


@dataclass(frozen=True)
class Tolerance:
    """How far smoothing may move a motion at its sharpest bends."""

    angle: float = 0.04
    """rad."""
    position: float = 0.015
    """m."""


BEND_PASSES = 2
KERNEL_REACH = 3.0
"""Kernel half width in standard deviations."""


def strengths_by_joint(strength_s: float, by_limb: Mapping[str, float] | None = None) -> np.ndarray:
    """Strength of each joint [J] s: `strength_s`, or what `by_limb` (a key of LIMBS -> s) says.

    Raises ValueError for an unknown limb or a strength below 0.
    """
    by_limb = dict(by_limb or {})
    unknown = set(by_limb) - set(LIMBS)
    if unknown:
        raise ValueError(f"unknown limb {sorted(unknown)[0]!r}: use one of {', '.join(LIMBS)}")
    if min([strength_s, *by_limb.values()]) < 0:
        raise ValueError("a smoothing strength is a time in seconds, 0 or more")
    result = np.full(len(JOINT_NAMES), float(strength_s))
    for limb, value in by_limb.items():
        result[[JOINT_NAMES.index(name) for name in LIMBS[limb]]] = value
    return result


def smooth_positions(
    positions: np.ndarray, times: np.ndarray, strength_s: float, *, tolerance: float = Tolerance.position
) -> np.ndarray:
    """positions [N, D] m at times [N] s -> smoothed [N, D]; all D components share one kernel per frame."""
    values = np.asarray(positions, np.float64)[:, None]
    smoothed = _smooth(values, np.asarray(times, np.float64), np.array([strength_s]), tolerance, _differences)
    return (values + smoothed)[:, 0]


def smooth_rotations(
    quaternions: np.ndarray, times: np.ndarray, strengths_s: np.ndarray, *, tolerance: float = Tolerance.angle
) -> np.ndarray:
    """Unit quaternions [N, J, 4] (w x y z) at times [N] s -> smoothed [N, J, 4] with w >= 0.

    strengths_s [J]: seconds per joint.
    """
    q = np.asarray(quaternions, np.float64)
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    turn = _smooth(q, np.asarray(times, np.float64), np.asarray(strengths_s, np.float64), tolerance, _turns)
    smoothed = _multiply(q, _exponential(turn))
    return np.where(smoothed[..., :1] < 0, -smoothed, smoothed)


def _smooth(values: np.ndarray, times: np.ndarray, strengths: np.ndarray, tolerance: float, difference) -> np.ndarray:
    """Offsets [N, J, D] from each sample to the line through its neighbours. difference(a, b) is b relative to a."""
    N, J = values.shape[:2]
    zero = np.zeros_like(difference(values, values))
    if N < 3 or not strengths.any():
        return zero
    widths = np.repeat(strengths[None], N, 0)
    for _ in range(BEND_PASSES):
        # with half the width, to see where the motion bends; the sharper a bend, the narrower the next look at it
        rough = _fit_lines(values, times, widths / 2, difference)
        bend = _accelerations(values, rough, times, difference)  # [N, J]
        widths = np.minimum(widths, np.sqrt(2 * tolerance / np.maximum(bend, 1e-12)))
        widths = _limit_slope(widths, times)
    return _fit_lines(values, times, widths, difference)


def _fit_lines(values: np.ndarray, times: np.ndarray, widths: np.ndarray, difference) -> np.ndarray:
    """Intercepts [N, J, D] of Gaussian-weighted lines through difference(sample, neighbours); widths [N, J] s."""
    N = len(times)
    shares = np.gradient(times) if N > 1 else np.ones(1)  # a denser stretch must not weigh more
    reach = _reach(times, KERNEL_REACH * widths.max())
    zero = np.zeros_like(difference(values, values))
    s0, s1, s2 = (np.zeros(widths.shape) for _ in range(3))
    b0, b1 = zero.copy(), zero.copy()
    for offset in range(-reach, reach + 1):
        here = slice(max(0, -offset), N - max(0, offset))
        there = slice(max(0, offset), N - max(0, -offset))
        dt = (times[there] - times[here])[:, None]
        width = np.maximum(widths[here], 1e-9)
        weight = np.exp(-0.5 * (dt / width) ** 2) * (np.abs(dt) <= KERNEL_REACH * width) * shares[there][:, None]
        s0[here] += weight
        s1[here] += weight * dt
        s2[here] += weight * dt * dt
        step = difference(values[here], values[there]) if offset else zero[here]
        b0[here] += weight[..., None] * step
        b1[here] += (weight * dt)[..., None] * step
    determinant = s0 * s2 - s1 * s1
    is_line = determinant > 1e-9 * np.maximum(s0 * s2, 1e-30)
    safe = np.where(is_line, determinant, 1.0)
    intercept = (s2[..., None] * b0 - s1[..., None] * b1) / safe[..., None]
    return np.where(is_line[..., None], intercept, 0.0)


def _accelerations(values: np.ndarray, offsets: np.ndarray, times: np.ndarray, difference) -> np.ndarray:
    """Size of the second derivative [N, J] of the roughly smoothed motion; the ends repeat their neighbour's."""
    step = difference(values[:-1], values[1:]) + offsets[1:] - offsets[:-1]
    dt = np.maximum(np.diff(times), 1e-6)[:, None, None]
    rate = step / dt
    bend = np.linalg.norm(np.diff(rate, axis=0) / ((dt[1:] + dt[:-1]) / 2), axis=-1)
    return np.concatenate([bend[:1], bend, bend[-1:]])


def _limit_slope(widths: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Narrow kernels near a narrow one, so that a hit does not leak into the frames around it."""
    widths = widths.copy()
    dt = np.diff(times)[:, None] / 2
    for t in range(1, len(widths)):
        widths[t] = np.minimum(widths[t], widths[t - 1] + dt[t - 1])
    for t in range(len(widths) - 2, -1, -1):
        widths[t] = np.minimum(widths[t], widths[t + 1] + dt[t])
    return widths


def _reach(times: np.ndarray, seconds: float) -> int:
    """Most samples that `seconds` after any sample span."""
    last = np.searchsorted(times, times + seconds, side="right") - 1
    return int(max((last - np.arange(len(times))).max(), 1))


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return b - a


def _turns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotation vectors [..., 3] of a^-1 b for unit quaternions [..., 4]."""
    w, v = a[..., :1], -a[..., 1:]
    other_w, other = b[..., :1], b[..., 1:]
    real = w * other_w - (v * other).sum(-1, keepdims=True)
    imaginary = w * other + other_w * v + np.cross(v, other)
    imaginary = np.where(real < 0, -imaginary, imaginary)
    sine = np.linalg.norm(imaginary, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, np.abs(real))
    return imaginary * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)


def _exponential(vector: np.ndarray) -> np.ndarray:
    """Rotation vectors [..., 3] -> unit quaternions [..., 4]."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle / 2), vector * (np.sinc(angle / (2 * np.pi)) / 2)], -1)


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product of quaternions [..., 4]."""
    w, v, other_w, other = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    real = w * other_w - (v * other).sum(-1, keepdims=True)
    return np.concatenate([real, w * other + other_w * v + np.cross(v, other)], -1)
