"""Frame rates as Blender keeps them: an integer and a base, so that 29.97 is 30 / 1.001."""

from __future__ import annotations

TOLERANCE = 1e-3
"""Relative difference below which two rates are the same: 29.97 and 30 differ by exactly 1e-3, and are not."""


def scene_rate(scene) -> float:
    """Return the scene's frames per second."""
    return scene.render.fps / scene.render.fps_base


def split_rate(fps: float) -> tuple[int, float]:
    """Return (fps, fps_base) with fps / fps_base equal to the rate: 23.976 -> (24, 1.001)."""
    whole = max(1, round(fps))
    base = whole / fps
    for usual in (1.0, 1.001):
        if abs(base - usual) < 1e-4:
            base = usual
    return whole, base


def is_same_rate(a: float, b: float) -> bool:
    """Return whether two rates keep video and figure together."""
    return abs(a - b) < 0.5 * TOLERANCE * max(a, b)


def set_frame_rate(scene, fps: float) -> None:
    """Give the scene a frame rate."""
    scene.render.fps, scene.render.fps_base = split_rate(fps)


def timeline_end(scene, clip_fps: float, frames: int) -> int:
    """Return the scene frame on which a clip ends that starts on the scene's first frame."""
    return scene.frame_start + max(0, round((frames - 1) * scene_rate(scene) / clip_fps))
