"""An invented walk and a body of boxes for the stand-in engine and the tests that check what became of them. Numpy.

n frames; 24 joints in SMPL's order, metres, y up, T-pose; the world is z up. Everything is float64.
"""

from __future__ import annotations

import numpy as np

# fmt: off
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
JOINTS = np.array([
    (0, .95, 0), (.09, .86, 0), (-.09, .86, 0), (0, 1.07, 0), (.1, .47, 0), (-.1, .47, 0), (0, 1.2, 0),
    (.1, .08, -.02), (-.1, .08, -.02), (0, 1.26, 0), (.11, .02, .1), (-.11, .02, .1), (0, 1.45, 0), (.07, 1.38, 0),
    (-.07, 1.38, 0), (0, 1.54, .02), (.18, 1.41, 0), (-.18, 1.41, 0), (.44, 1.41, 0), (-.44, 1.41, 0),
    (.69, 1.41, 0), (-.69, 1.41, 0), (.77, 1.41, 0), (-.77, 1.41, 0)])
# fmt: on
CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
SIDES = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
CAMERA = np.array([(1, 0, 0, 0.5), (0, 0, 1, -7), (0, -1, 0, 1.3), (0, 0, 0, 1)], float)
"""x_world = CAMERA @ x_cam: looks along +y from 7 m away."""
UP = np.array([(1, 0, 0), (0, 0, -1), (0, 1, 0)], float)
"""Turns the body's y up into the world's z up."""


def axis_angle_to_matrix(vectors: np.ndarray) -> np.ndarray:
    """Rodrigues' formula in float64: [..., 3] -> [..., 3, 3]."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors / np.maximum(angle[..., 0], 1e-12), -1, 0)
    zero = np.zeros_like(x)
    K = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


def matrix_to_axis_angle(R: np.ndarray) -> np.ndarray:
    """[3, 3] -> [3], for angles below pi."""
    angle = np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1))
    axis = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    return axis * (angle / (2 * np.sin(angle)) if angle > 1e-9 else 0.5)


def walk(frames: np.ndarray, fps: float, person: int) -> tuple[np.ndarray, np.ndarray]:
    """Return poses [n,24,3] axis-angle and trans [n,3] of a walk along -y, one person beside the other."""
    t = frames / fps
    swing = np.sin(2 * np.pi * 0.9 * t + person)
    poses = np.zeros((len(frames), 24, 3))
    poses[:, 0] = matrix_to_axis_angle(UP)
    poses[:, 1, 0], poses[:, 2, 0] = -0.5 * swing, 0.5 * swing
    poses[:, 4, 0], poses[:, 5, 0] = 0.5 * (1 + swing), 0.5 * (1 - swing)
    poses[:, 16, 2], poses[:, 17, 2] = -1.2, 1.2
    poses[:, 16, 0], poses[:, 17, 0] = 0.5 * swing, -0.5 * swing
    poses[:, 18, 1], poses[:, 19, 1] = -0.4, 0.4
    trans = np.stack([np.full_like(t, 1.0 * person), -1.2 * t, 0.02 * np.cos(4 * np.pi * 0.9 * t)], -1)
    trans += JOINTS[0] @ UP.T - JOINTS[0]
    return poses, trans


def body_arrays() -> dict[str, np.ndarray]:
    """Return the boxes: v_template, faces, weight_joints, weight_values, joints, shapedirs, joint_shapedirs, uv."""
    size = np.full((24, 3), 0.045)
    size[[0, 3, 6, 9]] = (0.12, 0.06, 0.08)
    size[[4, 5, 7, 8]] += (0, 0.1, 0)
    size[15] = (0.08, 0.12, 0.1)
    v_template = (JOINTS[:, None] + CORNERS * size[:, None]).reshape(-1, 3)
    weight_joints = np.zeros((192, 4), "<i4")
    weight_joints[:, 0] = np.repeat(np.arange(24), 8)
    shapedirs = np.zeros((192, 3, 16))
    shapedirs[:, :, 0] = 0.03 * v_template
    joint_shapedirs = np.zeros((24, 3, 16))
    joint_shapedirs[:, :, 0] = 0.03 * JOINTS
    return {
        "v_template": v_template,
        "faces": (SIDES + 8 * np.arange(24)[:, None, None]).reshape(-1, 4).astype("<i4"),
        "weight_joints": weight_joints,
        "weight_values": np.tile(np.array([1.0, 0, 0, 0]), (192, 1)),
        "joints": JOINTS,
        "shapedirs": shapedirs,
        "joint_shapedirs": joint_shapedirs,
        "uv": np.tile(np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float), (144, 1)),
    }


def body_file_arrays(path: str) -> dict[str, np.ndarray]:
    """Return what `body_arrays` does, of a body file: the four strongest influences of every vertex."""
    data = np.load(path)
    template, shapedirs, regressor = data["v_template"], data["shapedirs"], data["J_regressor"]
    strongest = np.argsort(-data["weights"], axis=1)[:, :4]
    values = np.take_along_axis(data["weights"], strongest, 1)
    return {
        "v_template": template,
        "faces": data["quads"],
        "weight_joints": strongest,
        "weight_values": values / values.sum(1, keepdims=True),
        "joints": regressor @ template,
        "shapedirs": shapedirs,
        "joint_shapedirs": np.einsum("jv,vcs->jcs", regressor, shapedirs),
        "uv": data["uv"][data["quad_uv"]].reshape(-1, 2),
    }


def skin(poses: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """Return vertices [n,192,3] in the world, by forward kinematics: vertices = skin(pose) + trans."""
    local = axis_angle_to_matrix(poses)
    R, position = [], []
    for joint, parent in enumerate(PARENTS):
        if parent < 0:
            R.append(local[:, 0])
            position.append(np.broadcast_to(JOINTS[0], (len(poses), 3)))
        else:
            R.append(R[parent] @ local[:, joint])
            position.append(position[parent] + R[parent] @ (JOINTS[joint] - JOINTS[parent]))
    box = body_arrays()["v_template"].reshape(24, 8, 3) - JOINTS[:, None]
    placed = [box[j] @ R[j].swapaxes(-1, -2) + position[j][:, None] for j in range(24)]
    return np.concatenate(placed, 1) + trans[:, None]
