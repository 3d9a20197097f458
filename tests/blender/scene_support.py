"""A small synthetic body, motions, and float64 oracles for the scene tests. Nothing of addon/ is used to compute."""

from __future__ import annotations

import numpy as np

from core import protocol
from core.skeleton import JOINT_NAMES, PARENTS

JOINTS = np.array([
    [0.0, 0.95, 0.0], [0.09, 0.87, 0.0], [-0.09, 0.87, 0.0], [0.0, 1.06, -0.02], [0.10, 0.48, 0.01],
    [-0.10, 0.48, 0.01], [0.0, 1.18, -0.02], [0.10, 0.08, -0.03], [-0.10, 0.08, -0.03], [0.0, 1.25, -0.01],
    [0.11, 0.02, 0.10], [-0.11, 0.02, 0.10], [0.0, 1.44, -0.03], [0.07, 1.38, -0.02], [-0.07, 1.38, -0.02],
    [0.0, 1.52, 0.02], [0.17, 1.40, -0.02], [-0.17, 1.40, -0.02], [0.43, 1.40, -0.03], [-0.43, 1.40, -0.03],
    [0.68, 1.40, -0.02], [-0.68, 1.40, -0.02], [0.77, 1.40, -0.02], [-0.77, 1.40, -0.02],
])  # fmt: skip
"""[24, 3] m, y up, facing +z, left at +x."""
TIPS = {"head": [0.0, 0.2, 0.0], "left_hand": [0.1, 0, 0], "right_hand": [-0.1, 0, 0],
        "left_foot": [0, 0, 0.08], "right_foot": [0, 0, 0.08]}  # fmt: skip


def synthetic_body(seed: int = 3) -> dict[str, np.ndarray]:
    """Boxes of quads along the bones, weights blended towards the parent; shape components are affine maps."""
    rng = np.random.default_rng(seed)
    vertices, faces, joints, values = [], [], [], []
    for j, name in enumerate(JOINT_NAMES):
        children = [c for c, p in enumerate(PARENTS) if p == j]
        end = JOINTS[children[0]] if children else JOINTS[j] + TIPS[name]
        along = (end - JOINTS[j]) / np.linalg.norm(end - JOINTS[j])
        side = np.cross(along, [0.3, 0.2, 0.9])
        side /= np.linalg.norm(side)
        front = np.cross(along, side)
        radius = 0.09 if "spine" in name or name == "pelvis" else 0.04
        base = len(vertices)
        for ring, t in enumerate((0.0, 0.5, 1.0)):
            for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
                vertices.append(JOINTS[j] + t * (end - JOINTS[j]) + radius * (a * side + b * front))
                parent = max(PARENTS[j], 0)
                blend = 0.35 if ring == 0 and parent != j else 0.0
                joints.append([j, parent, 0, 0])
                values.append([1 - blend, blend, 0, 0])
        for ring in range(2):
            for k in range(4):
                a, b = base + 4 * ring + k, base + 4 * ring + (k + 1) % 4
                faces.append([a, b, b + 4, a + 4])
        faces.append([base + 3, base + 2, base + 1, base])
        faces.append([base + 8, base + 9, base + 10, -1])
        faces.append([base + 8, base + 10, base + 11, -1])
    vertices, faces = np.array(vertices), np.array(faces, dtype=np.int32)
    maps = rng.normal(0, 0.02, (10, 3, 3))
    maps[0] = 0.03 * np.eye(3)
    return {
        "v_template": vertices.astype(np.float32),
        "faces": faces,
        "weight_joints": np.array(joints, dtype=np.int32),
        "weight_values": np.array(values, dtype=np.float32),
        "joints": JOINTS.astype(np.float32),
        "shapedirs": np.einsum("kab,vb->vak", maps, vertices).astype(np.float32),
        "joint_shapedirs": np.einsum("kab,jb->jak", maps, JOINTS).astype(np.float32),
        "uv": rng.random((len(faces) * 4, 2)).astype(np.float32),
    }


def wire(array: np.ndarray) -> protocol.Array:
    """A numpy array as it travels."""
    dtype = {"f4": "<f4", "f8": "<f8", "i4": "<i4"}[array.dtype.str[1:]]
    return protocol.Array(dtype, array.shape, np.ascontiguousarray(array).tobytes())


def body_message(body: dict[str, np.ndarray]) -> protocol.Body:
    return protocol.Body(name="boxes", gender="neutral", **{k: wire(v) for k, v in body.items()})


def wild_motion(count: int, seed: int = 0, fps: float = 30.0) -> dict[str, np.ndarray]:
    """Smooth motion with large angles; the root turns around twice, so quaternion signs must be chained."""
    rng = np.random.default_rng(seed)
    t = np.arange(count) / fps
    phase, rate = rng.uniform(0, 6.28, (24, 3)), rng.uniform(1, 5, (24, 3))
    poses = 0.7 * np.sin(phase + rate * t[:, None, None])
    turn = np.linspace(0, 4 * np.pi, count)
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    for i in range(count):
        c, s = np.cos(turn[i]), np.sin(turn[i])
        tilt = oracle_rotation(0.3 * np.array([np.sin(3 * t[i]), np.cos(2 * t[i]), 0]))
        poses[i, 0] = oracle_rotvec(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ tilt @ upright)
    trans = np.stack([1.1 * t, 0.5 * np.sin(t), 0.1 * np.cos(5 * t)], axis=1)
    return {
        "frames": np.arange(count, dtype=np.int32),
        "times": t,
        "poses": poses.reshape(count, 72).astype(np.float32),
        "trans": trans.astype(np.float32),
        "confidence": np.linspace(0.2, 1, count).astype(np.float32),
        "contacts": rng.random((count, 4)).astype(np.float32),
    }


def frames_message(person: int, motion: dict, chosen, *, revise: bool = False) -> protocol.Frames:
    """The chosen rows (slice or indices) of a motion as a message; "vertices" travels if the motion has it."""
    cls = protocol.Revise if revise else protocol.Frames
    return cls(person=person, **{k: wire(np.ascontiguousarray(v[chosen])) for k, v in motion.items()})


def oracle_rotation(rotvec: np.ndarray) -> np.ndarray:
    """Rodrigues' formula in float64 for one axis-angle vector."""
    angle = float(np.linalg.norm(rotvec))
    if angle == 0.0:
        return np.eye(3)
    x, y, z = np.asarray(rotvec, dtype=np.float64) / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def oracle_rotvec(matrix: np.ndarray) -> np.ndarray:
    """Logarithm of a rotation matrix; near pi from the symmetric part."""
    angle = np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1))
    skew = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]) / 2
    if angle < 1e-9:
        return skew
    if np.pi - angle > 1e-4:
        return skew * angle / np.sin(angle)
    axis = np.linalg.eigh((matrix + matrix.T) / 2)[1][:, -1]
    return axis * angle * (1 if axis @ skew >= 0 else -1)


def oracle_transforms(pose: np.ndarray, trans: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SMPL forward kinematics of one frame: (joints [24, 3], transforms [24, 4, 4] rest -> world)."""
    world = np.zeros((24, 4, 4))
    for j, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = oracle_rotation(pose[3 * j : 3 * j + 3])
        local[:3, 3] = rest[j] - (rest[parent] if parent >= 0 else 0)
        world[j] = local if parent < 0 else world[parent] @ local
    world[:, :3, 3] += np.asarray(trans, dtype=np.float64)
    out = world.copy()
    out[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], rest)
    return world[:, :3, 3], out


def oracle_rest(body: dict, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rest (vertices, joints) of a shape in float64."""
    betas = np.asarray(betas, dtype=np.float64)
    return body["v_template"] + body["shapedirs"] @ betas, body["joints"] + body["joint_shapedirs"] @ betas


def oracle_vertices(body: dict, betas: np.ndarray, pose: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """Linear blend skinning of one frame [V, 3]: T = sum_j w_j G_j, x = T rest (SMPL, eq. 2 to 4)."""
    rest, joints = oracle_rest(body, betas)
    transforms = oracle_transforms(pose, trans, joints)[1]
    weights = np.zeros((len(rest), 24))
    np.add.at(weights, (np.arange(len(rest))[:, None], body["weight_joints"]), body["weight_values"])
    blended = np.einsum("vj,jab->vab", weights, transforms)
    return np.einsum("vab,vb->va", blended[:, :3, :3], rest) + blended[:, :3, 3]


def oracle_joints(body: dict, betas: np.ndarray, pose: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """Joints [24, 3] of one frame."""
    return oracle_transforms(pose, trans, oracle_rest(body, betas)[1])[0]
