"""The one place where axes and rotation conventions change between the engine and Blender. numpy only.

Engine: body rest pose (T-pose) y up, facing +z, left at +x; world z up; camera x right, y down, z forward.
Blender: rest pose z up, facing -y, left at +x; the same world; camera looks along -z with y up.
N frames, J = 24 joints. Quaternions are w x y z. Computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REST_TO_BLENDER = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""x_blender = REST_TO_BLENDER @ x_rest: a quarter turn about x."""
CAMERA_FLIP = np.diag([1.0, -1.0, -1.0])
"""Blender's camera axes (x right, y up, -z forward) from the engine's (x right, y down, z forward), and back."""
SENSOR_MM = 36.0


def rest_to_blender(points: np.ndarray) -> np.ndarray:
    """Rest-pose points or vectors [..., 3], y up -> z up."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1)


def blender_to_rest(points: np.ndarray) -> np.ndarray:
    """Inverse of `rest_to_blender`."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def quaternion_from_rotvec(rotvec: np.ndarray) -> np.ndarray:
    """Axis-angle [..., 3] in radians -> unit quaternion [..., 4]; exact at zero (series of sin(a/2)/a)."""
    rotvec = np.asarray(rotvec, dtype=np.float64)
    angle2 = np.sum(rotvec**2, axis=-1, keepdims=True)
    angle = np.sqrt(angle2)
    is_small = angle < 1e-4
    safe = np.where(is_small, 1.0, angle)
    scale = np.where(is_small, 0.5 - angle2 / 48.0, np.sin(safe / 2) / safe)
    return np.concatenate([np.cos(angle / 2), rotvec * scale], axis=-1)


def rotvec_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Unit quaternion [..., 4] of either sign -> axis-angle [..., 3] with angle 0..pi."""
    q = np.asarray(quaternion, dtype=np.float64)
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    is_small = sine < 1e-8
    return q[..., 1:] * np.where(is_small, 2.0, angle / np.where(is_small, 1.0, sine))


def multiply_quaternions(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product a b [..., 4]: first b, then a."""
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def conjugate_quaternion(q: np.ndarray) -> np.ndarray:
    """Inverse of a unit quaternion [..., 4]."""
    return q * np.array([1.0, -1.0, -1.0, -1.0])


def matrix_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Unit quaternion [..., 4] -> rotation matrix [..., 3, 3]."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, dtype=np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrix [..., 3, 3] -> unit quaternion [..., 4], w >= 0.

    The eigenvector to the largest eigenvalue of Bar-Itzhack's symmetric 4 x 4 matrix (2000): good at every angle,
    and the nearest rotation for a matrix that is slightly off.
    """
    m = np.asarray(matrix, dtype=np.float64)
    xx, xy, xz = m[..., 0, 0], m[..., 0, 1], m[..., 0, 2]
    yx, yy, yz = m[..., 1, 0], m[..., 1, 1], m[..., 1, 2]
    zx, zy, zz = m[..., 2, 0], m[..., 2, 1], m[..., 2, 2]
    rows = [
        [xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, xx - yy - zz, yx + xy, xz + zx],
        [xz - zx, yx + xy, yy - xx - zz, zy + yz],
        [yx - xy, xz + zx, zy + yz, zz - xx - yy],
    ]
    k = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    q = np.linalg.eigh(k)[1][..., -1]
    return np.where(q[..., :1] < 0, -q, q)


def make_continuous(quaternions: np.ndarray, previous: np.ndarray | None = None) -> np.ndarray:
    """Choose signs so that no step along the first axis flips: [N, ..., 4], after `previous` [..., 4] if given."""
    if len(quaternions) == 0:
        return quaternions
    first = quaternions[:1] if previous is None else previous[None]
    chain = np.concatenate([first, quaternions])
    flips = np.where(np.sum(chain[1:] * chain[:-1], axis=-1, keepdims=True) < 0, -1.0, 1.0)
    return quaternions * np.cumprod(flips, axis=0)


def bone_keys_from_pose(
    poses: np.ndarray, trans: np.ndarray, joints_rest: np.ndarray, bone_axes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Motion in SMPL terms -> channels of Blender's pose bones.

    poses [N, 24, 3] axis-angle (the root's in the world frame), trans [N, 3] m, joints_rest [24, 3] m in the engine's
    rest frame, bone_axes [24, 3, 3] the bones' rest matrices in armature space (columns x y z).
    Returns quaternions [N, 24, 4] (signs not yet continuous) and the root's location [N, 3].

    With C = REST_TO_BLENDER and B a bone's axes, Blender's posed bone is D B where D = G C^T is the deformation by
    SMPL's global rotation G; hence basis = B^T C R C^T B for a child's local rotation R, B^T R C^T B for the root.
    """
    axes = np.asarray(bone_axes, dtype=np.float64)
    to_bone = np.swapaxes(axes, -1, -2) @ REST_TO_BLENDER
    rotvecs = np.einsum("jab,njb->nja", to_bone, np.asarray(poses, dtype=np.float64))
    quaternions = quaternion_from_rotvec(rotvecs)
    rest_turn = quaternion_from_matrix(axes[0].T @ REST_TO_BLENDER.T @ axes[0])
    in_bone = quaternion_from_rotvec(np.asarray(poses[:, 0], dtype=np.float64) @ axes[0])
    quaternions[:, 0] = multiply_quaternions(in_bone, rest_turn)
    root = np.asarray(joints_rest[0], dtype=np.float64)
    location = (root + np.asarray(trans, dtype=np.float64) - rest_to_blender(root)) @ axes[0]
    return quaternions, location


def pose_from_bone_keys(
    quaternions: np.ndarray, location: np.ndarray, joints_rest: np.ndarray, bone_axes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `bone_keys_from_pose`: (poses [N, 24, 3], trans [N, 3])."""
    axes = np.asarray(bone_axes, dtype=np.float64)
    q = np.array(quaternions, dtype=np.float64)
    rest_turn = quaternion_from_matrix(axes[0].T @ REST_TO_BLENDER.T @ axes[0])
    q[:, 0] = multiply_quaternions(q[:, 0], conjugate_quaternion(rest_turn))
    to_joint = REST_TO_BLENDER.T @ axes
    to_joint[0] = axes[0]
    poses = np.einsum("jab,njb->nja", to_joint, rotvec_from_quaternion(q))
    root = np.asarray(joints_rest[0], dtype=np.float64)
    return poses, np.asarray(location, dtype=np.float64) @ axes[0].T - root + rest_to_blender(root)


def camera_to_blender(matrix: np.ndarray) -> np.ndarray:
    """x_world = matrix @ x_cam [..., 4, 4] in the engine's camera axes -> world matrix of Blender's camera object."""
    out = np.array(matrix, dtype=np.float64)
    out[..., :3, :3] = out[..., :3, :3] @ CAMERA_FLIP
    return out


@dataclass(frozen=True)
class Lens:
    """A pinhole camera in Blender's terms, for a render size equal to the picture's."""

    lens_mm: float
    sensor_fit: str
    """HORIZONTAL for landscape and square pictures, VERTICAL for portrait."""
    shift_x: float
    shift_y: float
    pixel_aspect_x: float = 1.0
    pixel_aspect_y: float = 1.0


def lens_from_focal(fx: float, fy: float, cx: float, cy: float, width: int, height: int) -> Lens:
    """Pixels of the upright picture (y down) -> Blender's lens for a 36 mm sensor along the longer side.

    Shifts are in units of the longer side, as Blender's renderer counts them; with fx != fy the pixel aspect of the
    render settings makes up the difference.
    """
    aspect_x, aspect_y = (1.0, fx / fy) if fx >= fy else (fy / fx, 1.0)
    if width >= height:
        fit, focal, side, size_x, size_y = "HORIZONTAL", fx, width, 1.0, aspect_y / aspect_x
    else:
        fit, focal, side, size_x, size_y = "VERTICAL", fy, height, aspect_x / aspect_y, 1.0
    return Lens(
        lens_mm=focal * SENSOR_MM / side,
        sensor_fit=fit,
        shift_x=(width / 2 - cx) / side * size_x,
        shift_y=(cy - height / 2) / side * size_y,
        pixel_aspect_x=aspect_x,
        pixel_aspect_y=aspect_y,
    )


def scene_frames_from_times(times: np.ndarray, start_frame: float, scene_fps: float) -> np.ndarray:
    """Seconds [N] -> scene frames [N]: start_frame + time * fps, on the integer where that is a hundredth away."""
    frames = start_frame + np.asarray(times, dtype=np.float64) * scene_fps
    nearest = np.round(frames)
    return np.where(np.abs(frames - nearest) < 0.01, nearest, frames)
