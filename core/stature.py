"""A known height: the body that has exactly it and keeps its proportions, and the motion that still fits the picture.

A picture says how a person is proportioned, hardly how tall: a person twice as tall and twice as far away looks the
same. So a given height changes the body by as much, and moves everything away from the camera, or nearer, by the same
factor. N frames, V vertices, S = 16 components of shape; float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from core.errors import InputError
from core.records import CameraMotion
from core.stream import height_of

HOLD_M = 0.01
"""What a standard deviation of shape costs: as much as a mean distance of 1 cm from the evenly scaled body."""
ROUNDS = 8
LINE_ROUNDS = 50
ENOUGH_M = 1e-7


def fit_height(body: Any, betas: np.ndarray, height_m: float) -> np.ndarray:
    """Shape [S] of exactly that standing height, as near as can be to the body of betas [S] scaled evenly.

    Minimises the mean over the vertices of |v(b) - s v(betas)|^2 + HOLD_M^2 |b - betas|^2 for b, with s the ratio of
    the heights, subject to height(b) = height_m. The height is the distance of the highest vertex from the lowest,
    each linear in b, so a few Lagrange systems settle which two they are. The shape space is one of adults: where it
    cannot follow (children), proportions change. InputError where no shape of the body has that height.
    """
    template, shapedirs = (_float64(values) for values in (body.v_template, body.shapedirs))
    before = np.asarray(betas, np.float64)
    shapedirs = shapedirs[..., : len(before)]
    scale = height_m / height_of(body, before)
    A = shapedirs.reshape(-1, len(before))  # [V*3, S]
    target = (scale * (template + shapedirs @ before) - template).reshape(-1)
    normal = A.T @ A / len(template) + HOLD_M**2 * np.eye(len(before))
    right = A.T @ target / len(template) + HOLD_M**2 * before
    fitted = before
    for _ in range(ROUNDS):
        base, slope = _height_line(template, shapedirs, fitted)
        along = np.linalg.solve(normal, slope)  # how the shape gives way to a height at the least cost
        free = np.linalg.solve(normal, right)
        if slope @ along <= 0:
            break
        fitted = free + along * (height_m - base - slope @ free) / (slope @ along)
        if abs(height_of(body, fitted) - height_m) < ENOUGH_M:
            return fitted
    # two vertices change places for ever: the height is convex along a line, so Newton ends there
    for _ in range(LINE_ROUNDS):
        base, slope = _height_line(template, shapedirs, fitted)
        missing = height_m - base - slope @ fitted
        if abs(missing) < ENOUGH_M or slope @ along <= 0:
            break
        fitted = fitted + along * missing / (slope @ along)
    if abs(height_of(body, fitted) - height_m) > 1e-4:
        raise InputError(f"No shape of the body {body.name} is {height_m:g} m tall")
    return fitted


def resize(motion: CameraMotion, body: Any, height_m: float) -> CameraMotion:
    """The motion of a person of that height: same joint angles, the root's way scaled about the camera.

    The root joint j0(b) + trans goes to s times its place, s being the ratio of the heights: the picture stays.
    """
    betas = fit_height(body, motion.betas, height_m).astype(np.float32)
    scale = height_m / height_of(body, motion.betas)
    before, after = (_rest_root(body, b) for b in (motion.betas, betas))
    trans = scale * (before + motion.trans.astype(np.float64)) - after
    return replace(motion, betas=betas, trans=trans.astype(np.float32))


def _height_line(template: np.ndarray, shapedirs: np.ndarray, betas: np.ndarray) -> tuple[float, np.ndarray]:
    """The height as base + slope @ b, slope [S], as long as the highest and the lowest vertex stay those at betas."""
    y = template[:, 1] + shapedirs[:, 1] @ betas
    top, sole = int(y.argmax()), int(y.argmin())
    return float(template[top, 1] - template[sole, 1]), shapedirs[top, 1] - shapedirs[sole, 1]


def _rest_root(body: Any, betas: np.ndarray) -> np.ndarray:
    """Rest place [3] of the root joint."""
    return _float64(body.joint_template)[0] + _float64(body.joint_shapedirs)[0, :, : len(betas)] @ betas


def _float64(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, np.float64)
