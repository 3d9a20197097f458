"""Plain data that the stages hand to each other. Metres, radians, seconds, pixels; numpy arrays.

B people, N frames, K = 25 keypoints (skeleton.KEYPOINT_NAMES), J = 24 joints, V vertices.
Camera frame: x right, y down, z forward. World frame: z up, floor at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

USUAL_FOCAL = 0.8
"""Focal length where none is told, as a share of the image diagonal (35 mm equivalent: 35 mm). Telephones film at
0.65 to 0.8, webcams at 0.6 to 0.9, cameras at 0.8 to 1.5, where perspective is weak and the error small."""


@dataclass(frozen=True)
class Clip:
    """What is known of a video before its frames are read (upright size, after rotation metadata)."""

    path: str
    width: int
    height: int
    fps: float
    """Average rate in frames per second; frames carry their own times."""
    frame_count: int
    """Estimate from the container; reading may end earlier."""
    rotation: int = 0
    """Degrees clockwise that were applied to show frames upright: 0, 90, 180 or 270."""


@dataclass(frozen=True)
class Camera:
    """Pinhole camera in pixels of the upright full image."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    @staticmethod
    def from_size(width: int, height: int, focal_px: float | None = None) -> Camera:
        """Camera with the principal point in the middle. Default focal: USUAL_FOCAL."""
        focal = USUAL_FOCAL * float(np.hypot(width, height)) if focal_px is None else float(focal_px)
        return Camera(focal, focal, width / 2, height / 2, width, height)


@dataclass
class Track:
    """One person through time, as perception leaves it. Every frame of the span [first, last] is present."""

    person: int
    """Stable id, from 0."""
    frames: np.ndarray
    """[N] int32 source frame index, increasing by one."""
    times: np.ndarray
    """[N] float64 seconds."""
    keypoints: np.ndarray
    """[N, 25, 3] float32: x px, y px in the upright full image, confidence 0..1 (0 = not seen)."""
    landmarks3d: np.ndarray
    """[N, 25, 3] float32 metres, the detector's world landmarks: hip-centred, camera axes (x right, y down,
    z forward)."""
    features: np.ndarray
    """[N, D] float16 image embedding per frame (D = 1152 for BlazePose); zeros where not seen."""
    confidence: np.ndarray
    """[N] float32 presence of the person, 0..1; 0 where the track was bridged over a gap."""
    boxes: np.ndarray
    """[N, 4] float32 x0 y0 x1 y1 px."""

    def __len__(self) -> int:
        return len(self.frames)


def cut_track(track: Track, span: slice) -> Track:
    """Some frames of a track."""
    of_frames = ("frames", "times", "keypoints", "landmarks3d", "features", "confidence", "boxes")
    return replace(track, **{name: getattr(track, name)[span] for name in of_frames})


@dataclass
class Motion:
    """One person's recovered motion: what a result file holds and what streams to Blender."""

    person: int
    frames: np.ndarray
    """[N] int32 source frame index."""
    times: np.ndarray
    """[N] float64 seconds."""
    poses: np.ndarray
    """[N, 72] float32 axis-angle, SMPL order; the root rotation is in the world frame."""
    trans: np.ndarray
    """[N, 3] float32 metres, world frame, SMPL convention: vertices = skin(pose, betas) + trans."""
    betas: np.ndarray
    """[16] float32, one shape for the clip."""
    joints_cam: np.ndarray
    """[N, 24, 3] float32 metres, camera frame."""
    keypoints2d: np.ndarray
    """[N, 25, 3] float32 px + confidence."""
    confidence: np.ndarray
    """[N] float32."""
    camera: Camera
    R_world_from_cam: np.ndarray
    """[N, 3, 3] float32."""
    t_world_from_cam: np.ndarray
    """[N, 3] float32: x_world = R_world_from_cam @ x_cam + t_world_from_cam."""
    contacts: np.ndarray
    """[N, 4] float32 probability of floor contact: left heel, left toe, right heel, right toe."""
    method: str = "fit"
    gender: str = "neutral"
    vertices_cam: np.ndarray | None = None
    """[N, V, 3] float32 metres, camera frame; only when asked for."""
    extra: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frames)


@dataclass
class CameraMotion:
    """One person's motion in the camera frame, as a recovery method returns it, before the world is known."""

    person: int
    frames: np.ndarray
    """[N] int32."""
    rotmats: np.ndarray
    """[N, 24, 3, 3] float32 local rotations; the root's is in the camera frame."""
    trans: np.ndarray
    """[N, 3] float32 metres, SMPL convention: vertices_cam = skin(rotmats, betas) + trans."""
    betas: np.ndarray
    """[16] float32."""
    confidence: np.ndarray
    """[N] float32."""

    def __len__(self) -> int:
        return len(self.frames)
