"""Records to protocol messages: what the pipeline knows, as the arrays that travel. Numpy and torch to bytes.

N frames of one person, V vertices, F faces. World frame z up, metres.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from core.protocol import NO_ARRAY, Array, Body, Frames, People, Revise, Shape, Video, View
from core.records import Camera, Clip, Motion, Track

CHUNK = 32
"""Frames per message at most."""
INFLUENCES = 4


def to_array(values: Any, dtype: str) -> Array:
    """Return an array as it travels: contiguous, little-endian."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.ascontiguousarray(values, dtype=dtype)
    return Array(dtype, tuple(array.shape), array.tobytes())


def from_array(array: Array) -> np.ndarray:
    """Return what travelled, read-only."""
    return np.frombuffer(array.data, array.dtype).reshape(array.shape)


def video_message(clip: Clip) -> Video:
    """The clip as the engine reads it."""
    return Video(clip.path, clip.width, clip.height, float(clip.fps), int(clip.frame_count))


def body_message(body: Any) -> Body:
    """The body all vertices refer to, at most four joint influences a vertex, renormalised."""
    weights = _numpy(body.weights)
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
    values = np.take_along_axis(weights, joints, axis=1)
    values = values / values.sum(1, keepdims=True)
    uv = getattr(body, "uv", None)
    return Body(
        name=body.name,
        gender=body.gender,
        v_template=to_array(body.v_template, "<f4"),
        faces=to_array(body.quads, "<i4"),
        weight_joints=to_array(joints, "<i4"),
        weight_values=to_array(values, "<f4"),
        joints=to_array(body.joint_template, "<f4"),
        shapedirs=to_array(body.shapedirs, "<f4"),
        joint_shapedirs=to_array(body.joint_shapedirs, "<f4"),
        uv=NO_ARRAY if uv is None else to_array(uv, "<f4"),
    )


def people_message(tracks: list[Track], chosen: set[int]) -> People:
    """Who was found, and who is being recovered."""
    return People(
        [
            {
                "person": int(track.person),
                "first": int(track.frames[0]),
                "last": int(track.frames[-1]),
                "frames": len(track),
                "confidence": round(float(track.confidence.mean()), 4),
                "height_px": round(float(np.median(track.boxes[:, 3] - track.boxes[:, 1])), 1),
                "chosen": track.person in chosen,
            }
            for track in tracks
        ]
    )


def shape_message(person: int, betas: np.ndarray, height_m: float) -> Shape:
    """One person's shape and height."""
    return Shape(int(person), float(height_m), to_array(betas, "<f4"))


def height_of(body: Any, betas: np.ndarray) -> float:
    """Return the height in metres of the rest pose with this shape, sole to crown (y extent of the vertices)."""
    y = _numpy(body.v_template)[:, 1] + _numpy(body.shapedirs)[:, 1, : len(betas)] @ np.asarray(betas, float)
    return float(y.max() - y.min())


def view_messages(
    camera: Camera, frames: np.ndarray, R_world_from_cam: np.ndarray, t_world_from_cam: np.ndarray
) -> Iterator[View]:
    """Yield the camera's way through the world: one View for a static camera, else one wherever it changes."""
    last = None
    for frame, R, t in zip(frames, R_world_from_cam, t_world_from_cam):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = R, t
        if last is None or np.abs(matrix - last).max() > 1e-6:
            start = 0 if last is None else int(frame)
            numbers = (camera.fx, camera.fy, camera.cx, camera.cy)
            yield View(start, *map(float, numbers), int(camera.width), int(camera.height), to_array(matrix, "<f4"))
            last = matrix


def frames_message(
    motion: Motion, start: int, stop: int, vertices_world: np.ndarray | None = None, *, is_revision: bool = False
) -> Frames:
    """Frames (or Revise) of motion[start:stop], with vertices in the world frame where given."""
    part = slice(start, stop)
    kind = Revise if is_revision else Frames
    return kind(
        person=int(motion.person),
        frames=to_array(motion.frames[part], "<i4"),
        times=to_array(motion.times[part], "<f8"),
        poses=to_array(motion.poses[part], "<f4"),
        trans=to_array(motion.trans[part], "<f4"),
        confidence=to_array(motion.confidence[part], "<f4"),
        contacts=to_array(motion.contacts[part], "<f4"),
        vertices=NO_ARRAY if vertices_world is None else to_array(vertices_world, "<f4"),
    )


def _numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
