"""The body as arrays, from a Body message or a body .npz file, with skinning in numpy. No bpy.

V vertices, F faces, J = 24 joints; metres; rest pose y up, facing +z.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass

import numpy as np

from .. import naming
from ..convert import matrix_from_quaternion, quaternion_from_rotvec
from ..errors import BodyDataError

INFLUENCES = 4


def array_from_wire(array) -> np.ndarray:
    """Return a protocol.Array as a read-only numpy array of its shape."""
    return np.frombuffer(array.data, dtype=np.dtype(array.dtype)).reshape(array.shape)


@dataclass(frozen=True)
class BodyData:
    """What figures are built from."""

    name: str
    gender: str
    vertices: np.ndarray
    """[V, 3] template."""
    faces: np.ndarray
    """[F, 4] int32, last index -1 for a triangle."""
    weight_joints: np.ndarray
    """[V, 4] int32."""
    weight_values: np.ndarray
    """[V, 4], rows sum to 1."""
    joints: np.ndarray
    """[24, 3] template joints."""
    shapedirs: np.ndarray
    """[V, 3, S], S coefficients of shape: at most those of naming.SHAPE_KEYS."""
    joint_shapedirs: np.ndarray
    """[24, 3, S]."""
    uv: np.ndarray
    """[F * 4, 2] or empty."""

    def __post_init__(self) -> None:
        v, f, s = len(self.vertices), len(self.faces), self.shape_count
        expected = {
            "vertices": (v, 3),
            "faces": (f, 4),
            "weight_joints": (v, INFLUENCES),
            "weight_values": (v, INFLUENCES),
            "joints": (naming.JOINT_COUNT, 3),
            "shapedirs": (v, 3, s),
            "joint_shapedirs": (naming.JOINT_COUNT, 3, s),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise BodyDataError(f"The body's {name} has shape {getattr(self, name).shape}, expected {shape}")
        if not 0 < s <= len(naming.SHAPE_KEYS):
            raise BodyDataError(f"The body has {s} shape directions, expected 1 to {len(naming.SHAPE_KEYS)}")
        if v == 0 or f == 0:
            raise BodyDataError("The body has no vertices or no faces")
        if self.faces.max() >= v or self.faces[:, :3].min() < 0 or self.faces[:, 3].min() < -1:
            raise BodyDataError("The body's faces refer to vertices that do not exist")
        if self.weight_joints.min() < 0 or self.weight_joints.max() >= naming.JOINT_COUNT:
            raise BodyDataError("The body's weights refer to joints that do not exist")
        if len(self.uv) and self.uv.shape != (f * 4, 2):
            raise BodyDataError(f"The body's uv has shape {self.uv.shape}, expected {(f * 4, 2)}")

    @staticmethod
    def from_message(message) -> BodyData:
        """Build from a protocol.Body."""
        uv = array_from_wire(message.uv)
        return BodyData(
            name=message.name,
            gender=message.gender,
            vertices=array_from_wire(message.v_template),
            faces=array_from_wire(message.faces),
            weight_joints=array_from_wire(message.weight_joints),
            weight_values=array_from_wire(message.weight_values),
            joints=array_from_wire(message.joints),
            shapedirs=array_from_wire(message.shapedirs),
            joint_shapedirs=array_from_wire(message.joint_shapedirs),
            uv=uv if uv.size else np.zeros((0, 2), dtype=np.float32),
        )

    @staticmethod
    def from_file(path: str) -> BodyData:
        """Read a body .npz in SMPL's layout (weights [V,24], J_regressor [24,V]). BodyDataError if it is not one."""
        needed = ("v_template", "shapedirs", "J_regressor", "weights")
        try:
            with np.load(path, allow_pickle=False) as archive:
                missing = [name for name in needed if name not in archive]
                if missing or not {"quads", "f"} & set(archive.files):
                    raise BodyDataError(f"{path} is not a body file: it lacks {', '.join(missing) or 'faces'}")
                data = {name: archive[name] for name in archive.files if name not in ("posedirs", "kintree_table")}
        except FileNotFoundError:
            raise BodyDataError(f"No such body file: {path}") from None
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise BodyDataError(f"{path} is not a readable body file (.npz): {error}") from error
        regressor = data["J_regressor"].astype(np.float64)
        # of official bodies, up to 300 principal components and nothing else
        kept = len(naming.SHAPE_KEYS) if "shape_names" in data else naming.PRINCIPAL_COUNT
        shapedirs = data["shapedirs"][:, :, :kept].astype(np.float64)
        template = data["v_template"].astype(np.float64)
        faces = data["quads"] if "quads" in data else data["f"]
        if faces.shape[1] == 3:
            faces = np.concatenate([faces, np.full((len(faces), 1), -1)], axis=1)
        joints, values = strongest_influences(data["weights"])
        return BodyData(
            name=str(data.get("name", "body")),
            gender=str(data.get("gender", "neutral")),
            vertices=template.astype(np.float32),
            faces=faces.astype(np.int32),
            weight_joints=joints,
            weight_values=values,
            joints=(regressor @ template).astype(np.float32),
            shapedirs=shapedirs.astype(np.float32),
            joint_shapedirs=np.einsum("jv,vck->jck", regressor, shapedirs).astype(np.float32),
            uv=_corner_uv(data, faces),
        )

    @property
    def shape_count(self) -> int:
        """S."""
        return self.shapedirs.shape[-1]

    def fit_betas(self, betas: np.ndarray) -> np.ndarray:
        """Coefficients [S] float64 from those of a result, which may be of a body with fewer or more of them."""
        fitted = np.zeros(self.shape_count)
        shared = min(len(betas), self.shape_count)
        fitted[:shared] = betas[:shared]
        return fitted

    def rest_joints(self, betas: np.ndarray) -> np.ndarray:
        """Joints [24, 3] of the shape betas [S]."""
        return self.joints + self.joint_shapedirs @ np.asarray(betas, dtype=np.float64)

    def rest_vertices(self, betas: np.ndarray) -> np.ndarray:
        """Vertices [V, 3] of the shape betas [S]."""
        return self.vertices + self.shapedirs @ np.asarray(betas, dtype=np.float64)


def strongest_influences(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dense weights [V, 24] -> the four largest, (joints [V, 4] int32, values [V, 4] float32 that sum to 1)."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
    values = np.take_along_axis(weights, order, axis=1).astype(np.float64)
    return order.astype(np.int32), (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def _corner_uv(data: dict, faces: np.ndarray) -> np.ndarray:
    """UVs per face corner [F * 4, 2] from `uv` [U, 2] and `quad_uv` [F, 4]; empty if the file has none."""
    if "uv" not in data or "quad_uv" not in data or data["quad_uv"].shape != faces.shape:
        return np.zeros((0, 2), dtype=np.float32)
    return data["uv"].astype(np.float32)[np.maximum(data["quad_uv"], 0)].reshape(-1, 2)


def skinning_transforms(
    poses: np.ndarray, trans: np.ndarray, joints_rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rest -> world transform of every joint: (rotations [N, 24, 3, 3], translations [N, 24, 3]).

    x_world = R x_rest + t by SMPL's forward kinematics: the root turns about its rest position, `trans` is added.
    poses [N, 24, 3] axis-angle, trans [N, 3], joints_rest [24, 3].
    """
    local = matrix_from_quaternion(quaternion_from_rotvec(poses))
    rotations, joints = np.empty_like(local), np.empty((*local.shape[:2], 3))
    for j, parent in enumerate(naming.PARENTS):
        if parent < 0:
            rotations[:, j] = local[:, j]
            joints[:, j] = joints_rest[j] + trans
        else:
            rotations[:, j] = rotations[:, parent] @ local[:, j]
            joints[:, j] = joints[:, parent] + rotations[:, parent] @ (joints_rest[j] - joints_rest[parent])
    return rotations, joints - np.einsum("njab,jb->nja", rotations, joints_rest)


def blend_transforms(
    body: BodyData, rotations: np.ndarray, translations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per-vertex blend for one frame: rotations [24, 3, 3], translations [24, 3] -> ([V, 3, 3], [V, 3])."""
    table = np.concatenate([rotations.reshape(-1, 9), translations], axis=1).astype(np.float32)
    mixed = np.zeros((len(body.vertices), 12), dtype=np.float32)
    for k in range(INFLUENCES):
        mixed += body.weight_values[:, k, None] * table[body.weight_joints[:, k]]
    return mixed[:, :9].reshape(-1, 3, 3), mixed[:, 9:]


def skin(
    body: BodyData, rest: np.ndarray, poses: np.ndarray, trans: np.ndarray, joints_rest: np.ndarray
) -> np.ndarray:
    """Linear blend skinning of rest vertices [V, 3]: world vertices [N, V, 3] float32."""
    rotations, translations = skinning_transforms(poses, trans, joints_rest)
    out = np.empty((len(poses), *rest.shape), dtype=np.float32)
    for n in range(len(poses)):
        blend, shift = blend_transforms(body, rotations[n], translations[n])
        out[n] = np.einsum("vab,vb->va", blend, rest) + shift
    return out
