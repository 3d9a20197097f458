"""Smoothing of rotations and positions over time: zero phase, strength in seconds, fast hits kept.

Each sample becomes the value at its time of a parabola fitted to its neighbours with Gaussian weights (local
quadratic regression: Cleveland, "Robust locally weighted regression", JASA 1979), so steady and evenly accelerated
motion is not delayed or flattened, at the ends neither, and times need not be even. Against a line it lets slow
motion through more fully and stops tremor more sharply: with u = (2 pi f width)^2 / 2 it passes (1 + u) exp(-u) of a
wave, a line exp(-u). The kernel's width follows from the strength asked for, or is less where the motion bends
sharply. Strength 0 returns the input.

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

    angle: float = 0.02
    """rad."""
    position: float = 0.015
    """m."""


WIDTH = 1.8
"""Width of the kernel by strength: so wide, a parabola stops as much tremor as a line as wide as the strength."""
SLOPE = 0.25
"""Change of the width per time: faster, and the change itself would be seen as a tremor."""
ROUNDING = 0.07
"""s, standard deviation over which widths are averaged: a width that changes with every step of a walk moves each
sample by another amount, which is seen as a tremor too, and more of it the stronger the smoothing."""
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
    """Offsets [N, J, D] from each sample to the curve through its neighbours. difference(a, b) is b relative to a."""
    N, J = values.shape[:2]
    zero = np.zeros_like(difference(values, values))
    if N < 3 or not strengths.any():
        return zero
    widths = np.repeat(WIDTH * strengths[None], N, 0)
    for _ in range(BEND_PASSES):
        # with half the width, to see where the motion bends; the sharper a bend, the narrower the next look at it
        rough = _fit_parabolas(values, times, widths / 2, difference)
        bend = _accelerations(values, rough, times, difference)  # [N, J]
        widths = np.minimum(widths, WIDTH * np.sqrt(2 * tolerance / np.maximum(bend, 1e-12)))
        widths = _round(_limit_slope(widths, times), times)
    return _fit_parabolas(values, times, widths, difference)


def _fit_parabolas(values: np.ndarray, times: np.ndarray, widths: np.ndarray, difference) -> np.ndarray:
    """Intercepts [N, J, D] of Gaussian-weighted parabolas through difference(sample, neighbours); widths [N, J] s."""
    N = len(times)
    shares = np.gradient(times) if N > 1 else np.ones(1)  # a denser stretch must not weigh more
    reach = _reach(times, KERNEL_REACH * widths.max())
    zero = np.zeros_like(difference(values, values))
    s = np.zeros((5, *widths.shape))  # sums of weight * x^k
    b = np.zeros((3, *zero.shape))  # and times the step to the neighbour
    for offset in range(-reach, reach + 1):
        here = slice(max(0, -offset), N - max(0, offset))
        there = slice(max(0, offset), N - max(0, -offset))
        x = (times[there] - times[here])[:, None] / np.maximum(widths[here], 1e-9)
        weight = np.exp(-0.5 * x**2) * (np.abs(x) <= KERNEL_REACH) * shares[there][:, None]
        step = difference(values[here], values[there]) if offset else zero[here]
        for k in range(5):
            s[k][here] += weight * x**k
            if k < 3:
                b[k][here] += (weight * x**k)[..., None] * step
    # first row of the inverse of the normal matrix [[s0, s1, s2], [s1, s2, s3], [s2, s3, s4]]
    row = np.stack([s[2] * s[4] - s[3] ** 2, s[2] * s[3] - s[1] * s[4], s[1] * s[3] - s[2] ** 2])
    determinant = (s[:3] * row).sum(0)
    is_parabola = determinant > 1e-6 * np.maximum(s[0] ** 3, 1e-30)  # else through the sample itself, or nearly
    intercept = (row[..., None] * b).sum(0) / np.where(is_parabola, determinant, 1.0)[..., None]
    return np.where(is_parabola[..., None], intercept, 0.0)


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
    dt = np.diff(times)[:, None] * SLOPE
    for t in range(1, len(widths)):
        widths[t] = np.minimum(widths[t], widths[t - 1] + dt[t - 1])
    for t in range(len(widths) - 2, -1, -1):
        widths[t] = np.minimum(widths[t], widths[t + 1] + dt[t])
    return widths


def _round(widths: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Geometric means [N, J] of the widths [N, J] around each time: the narrow ones count for most."""
    N = len(times)
    logs = np.log(np.maximum(widths, 1e-9))
    reach = _reach(times, KERNEL_REACH * ROUNDING)
    total, weights = np.zeros_like(logs), np.zeros((N, 1))
    for offset in range(-reach, reach + 1):
        here = slice(max(0, -offset), N - max(0, offset))
        there = slice(max(0, offset), N - max(0, -offset))
        weight = np.exp(-0.5 * ((times[there] - times[here]) / ROUNDING) ** 2)[:, None]
        total[here] += weight * logs[there]
        weights[here] += weight
    return np.exp(total / weights)


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
