"""The body: rest shape, kinematics, skinning and keypoints, for the shipped body and official SMPL alike.

Linear blend skinning as in SMPL (Loper et al. 2015, equations 2 to 10). B stands for any leading dimensions, which
broadcast between arguments; V vertices, J = 24 joints, K = 25 keypoints, S = 16 shape coefficients (core.skeleton),
of which fewer may be given: the rest are zero. Metres, radians.
Rest pose: T-pose, y up, facing +z, the left side at +x. Rotations of joints are local, relative to the parent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.body_file import read_body_file
from core.errors import BodyFileError, SetupError
from core.skeleton import JOINT_COUNT, PARENTS
from core.smpl_keypoints import SMPL_VERTEX_COUNT, smpl_keypoint_regressor

DEFAULT_PATH = Path(__file__).resolve().parent.parent / "weights" / "body_neutral.npz"


def load_body(path: str | Path | None = None, *, device: str | torch.device = "cpu") -> Body:
    """Load a body model; None is the shipped one.

    path: weights/body_neutral.npz or a file like it, or an official SMPL .npz or .pkl. Raises BodyFileError when the
    file is something else, SetupError when the shipped body is missing.
    """
    if path is None:
        path = DEFAULT_PATH
        if not path.exists():
            raise SetupError(f"The shipped body {path} is missing: install Hyper Mocap again")
    arrays = read_body_file(path)
    if arrays["keypoint_regressor"] is None:
        if len(arrays["v_template"]) != SMPL_VERTEX_COUNT:
            raise BodyFileError(
                f"{Path(path).name} has {len(arrays['v_template'])} vertices and no keypoint_regressor: "
                f"expected SMPL's {SMPL_VERTEX_COUNT}"
            )
        arrays["keypoint_regressor"] = smpl_keypoint_regressor(arrays["J_regressor"])
    name = arrays["name"] or Path(path).stem
    return Body(arrays, name=name, gender=arrays["gender"] or _gender_of(Path(path).stem)).to(device)


def _gender_of(stem: str) -> str:
    """Official file names end in or hold the gender: SMPL_MALE, basicmodel_f_lbs..."""
    parts = stem.lower().replace("-", "_").split("_")
    for gender, marks in (("female", ("female", "f")), ("male", ("male", "m"))):
        if any(mark in parts for mark in marks):
            return gender
    return "neutral"


class Body(nn.Module):
    """A skinned body with a linear shape space. Arrays come from core.body_file.read_body_file."""

    v_template: Tensor
    """[V, 3] rest vertices of the mean shape."""
    shapedirs: Tensor
    """[V, 3, 16] displacement per unit of each shape coefficient."""
    posedirs: Tensor | None
    """[V, 3, 207] pose corrective displacement, or None where the body has none."""
    J_regressor: Tensor
    """[24, V] joints from rest vertices."""
    weights: Tensor
    """[V, 24] skinning weights, rows sum to 1."""
    keypoint_regressor: Tensor
    """[25, V] keypoints from posed vertices, rows sum to 1."""
    quads: Tensor
    """[F, 4] faces, the fourth corner -1 for triangles."""
    triangles: Tensor
    """[T, 3]."""
    uv: Tensor
    """[F * 4, 2] texture coordinates per face corner, or empty."""
    joint_template: Tensor
    """[24, 3] joints of the mean shape."""
    joint_shapedirs: Tensor
    """[24, 3, 16] how the joints follow the shape."""

    def __init__(self, arrays: dict[str, Any], *, name: str, gender: str):
        super().__init__()
        self.name, self.gender = name, gender
        template, shapedirs, weights = arrays["v_template"], arrays["shapedirs"], arrays["weights"]
        regressor, points = arrays["J_regressor"], arrays["keypoint_regressor"]
        weights = weights / weights.sum(1, keepdims=True)
        triangles = arrays["f"]
        quads = arrays["quads"]
        if quads is None:
            quads = np.concatenate([triangles, np.full((len(triangles), 1), -1)], 1)
        uv = np.zeros((0, 2))
        if arrays["uv"] is not None and arrays["quad_uv"] is not None:
            uv = arrays["uv"][arrays["quad_uv"].reshape(-1)]
        posedirs = arrays["posedirs"]
        if posedirs is not None and not posedirs.any():
            posedirs = None

        def keep(key: str, value, dtype=torch.float32) -> None:
            tensor = None if value is None else torch.as_tensor(np.ascontiguousarray(value)).to(dtype)
            self.register_buffer(key, tensor, persistent=False)

        keep("v_template", template)
        keep("shapedirs", shapedirs)
        keep("posedirs", posedirs)
        keep("J_regressor", regressor)
        keep("weights", weights)
        keep("keypoint_regressor", points)
        keep("quads", quads, torch.int64)
        keep("triangles", triangles, torch.int64)
        keep("uv", uv)
        keep("joint_template", regressor @ template)
        keep("joint_shapedirs", np.einsum("jv,vcs->jcs", regressor, shapedirs))
        depth = _depths()
        order = np.argsort(depth, kind="stable")  # joints level by level
        keep("_parents", np.array([0, *PARENTS[1:]]), torch.int64)
        keep("_level_order", order, torch.int64)
        keep("_joint_order", np.argsort(order), torch.int64)
        self._levels: list[tuple[int, int]] = []
        parents = []
        for level in range(1, depth.max() + 1):
            above = np.flatnonzero(depth == level - 1).tolist()
            start, end = int((depth < level).sum()), int((depth <= level).sum())
            self._levels.append((start, end))
            parents += [above.index(PARENTS[j]) for j in order[start:end]]
        keep(
            "_level_parents", np.array([0, *parents]), torch.int64
        )  # place of each joint's parent in the level above
        # A keypoint is linear in each joint's transform: sum over joints of (R_j p_jk + t_j m_jk) with
        # m = sum_v r_kv w_vj and p = sum_v r_kv w_vj v, so no vertex needs to be skinned for it.
        support = np.flatnonzero((points != 0).any(0))
        share = points[:, support, None] * weights[None, support]  # [K, S', J]
        keep("_point_mass", share.sum(1).T)  # [J, K]
        keep("_point_template", np.einsum("ksj,sc->jck", share, template[support]).reshape(-1, len(points)))
        moved = np.einsum("ksj,scd->jckd", share, shapedirs[support])
        keep("_point_shapedirs", moved.reshape(-1, len(points), shapedirs.shape[2]))
        posed = None if posedirs is None else np.einsum("ksj,scp->jckp", share, posedirs[support])
        keep("_point_posedirs", None if posed is None else posed.reshape(-1, len(points), posed.shape[-1]))

    @property
    def vertex_count(self) -> int:
        """V."""
        return len(self.v_template)

    def rest_vertices(self, betas: Tensor) -> Tensor:
        """Rest pose vertices [..., V, 3] of shapes betas [..., S]."""
        return self.v_template + _times_last(self.shapedirs, betas)

    def rest_joints(self, betas: Tensor) -> Tensor:
        """Rest pose joints [..., 24, 3] of shapes betas [..., S]."""
        return self.joint_template + _times_last(self.joint_shapedirs, betas)

    def height(self, betas: Tensor) -> Tensor:
        """Stature in metres [...]: vertical extent of the rest vertices."""
        y = self.rest_vertices(betas)[..., 1]
        return y.amax(-1) - y.amin(-1)

    def influences(self) -> tuple[Tensor, Tensor]:
        """The four strongest joints of each vertex: indices [V, 4] int64 and weights [V, 4], rows sum to 1."""
        values, joints = self.weights.topk(4, dim=1)
        return joints, values / values.sum(1, keepdim=True)

    def forward_kinematics(self, rotmats: Tensor, betas: Tensor, trans: Tensor) -> tuple[Tensor, Tensor]:
        """Joints without any vertex.

        rotmats [..., 24, 3, 3] local rotations, betas [..., S], trans [..., 3]. Returns (joints [..., 24, 3],
        global_rotmats [..., 24, 3, 3]). The root joint lies at its rest place plus trans.
        """
        rest = self.rest_joints(betas)
        bones = rest - rest[..., self._parents, :]  # offset from the parent; row 0 unused
        turns, places = [rotmats[..., :1, :, :]], [(rest[..., 0, :] + trans).unsqueeze(-2)]
        bones, rotmats = bones.index_select(-2, self._level_order), rotmats.index_select(-3, self._level_order)
        for start, end in self._levels:  # joints of equal depth at once
            parents = self._level_parents[start:end]
            turn, place = turns[-1].index_select(-3, parents), places[-1].index_select(-2, parents)
            places.append(place + _turn(turn, bones[..., start:end, :]))
            turns.append(turn @ rotmats[..., start:end, :, :])
        batch = np.broadcast_shapes(*(place.shape[:-2] for place in places))
        joined = torch.cat([place.expand(*batch, *place.shape[-2:]) for place in places], -2)
        order = self._joint_order
        return joined.index_select(-2, order), torch.cat(turns, -3).index_select(-3, order)

    def skin(
        self, rotmats: Tensor, betas: Tensor, trans: Tensor, *, vertex_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Posed vertices: SMPL's linear blend skinning plus trans.

        rotmats [..., 24, 3, 3], betas [..., S], trans [..., 3]; vertex_ids: skin these vertices only. Returns
        (vertices [..., V or len(vertex_ids), 3], joints [..., 24, 3]). One betas for many frames is shaped once.
        """
        joints, global_rotmats, offsets = self._transforms(rotmats, betas, trans)
        template, shapedirs, posedirs, weights = self.v_template, self.shapedirs, self.posedirs, self.weights
        if vertex_ids is not None:
            template, shapedirs, weights = template[vertex_ids], shapedirs[vertex_ids], weights[vertex_ids]
            posedirs = None if posedirs is None else posedirs[vertex_ids]
        shaped = template + _times_last(shapedirs, betas)
        if posedirs is not None:
            shaped = shaped + _times_last(posedirs, _pose_feature(rotmats))
        # [..., 24, 3, 4] -> [..., V, 3, 4]
        stacked = torch.cat([global_rotmats, offsets.unsqueeze(-1)], -1)
        blended = (weights @ stacked.flatten(-2)).unflatten(-1, (3, 4))
        vertices = (blended[..., :3] * shaped.unsqueeze(-2)).sum(-1) + blended[..., 3]
        return vertices, joints

    def keypoints(self, rotmats: Tensor, betas: Tensor, trans: Tensor) -> Tensor:
        """The keypoints of skeleton.KEYPOINT_NAMES on the posed body [..., 25, 3]; arguments as in `skin`.

        Equals keypoint_regressor @ vertices without skinning them.
        """
        _, global_rotmats, offsets = self._transforms(rotmats, betas, trans)
        places = self._point_template + _times_last(self._point_shapedirs, betas)  # [..., 72, K]
        if self._point_posedirs is not None:
            places = places + _times_last(self._point_posedirs, _pose_feature(rotmats))
        wide = global_rotmats.transpose(-3, -2).flatten(-2)  # [..., 24, 3, 3] -> [..., 3, 72]
        points = wide @ places + offsets.transpose(-1, -2) @ self._point_mass
        return points.transpose(-1, -2)

    def _transforms(self, rotmats: Tensor, betas: Tensor, trans: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """joints [..., 24, 3], global_rotmats [..., 24, 3, 3], offsets [..., 24, 3]: x -> R_j x + offset_j."""
        joints, global_rotmats = self.forward_kinematics(rotmats, betas, trans)
        batch = np.broadcast_shapes(joints.shape[:-2], global_rotmats.shape[:-3])
        global_rotmats = global_rotmats.expand(*batch, JOINT_COUNT, 3, 3)
        return joints, global_rotmats, joints - _turn(global_rotmats, self.rest_joints(betas))


def _times_last(directions: Tensor, coefficients: Tensor) -> Tensor:
    """directions [N, 3, S] and coefficients [..., s], s <= S -> [..., N, 3]."""
    directions = directions[..., : coefficients.shape[-1]]
    n, c, s = directions.shape
    return (coefficients @ directions.reshape(n * c, s).mT).unflatten(-1, (n, c))


def _turn(rotmats: Tensor, vectors: Tensor) -> Tensor:
    """[..., 3, 3] applied to [..., 3]."""
    return (rotmats * vectors.unsqueeze(-2)).sum(-1)


def _pose_feature(rotmats: Tensor) -> Tensor:
    """[..., 24, 3, 3] -> [..., 207]: local rotations of all but the root, minus the identity."""
    eye = torch.eye(3, dtype=rotmats.dtype, device=rotmats.device)
    return (rotmats[..., 1:, :, :] - eye).flatten(-3)


def _depths() -> np.ndarray:
    """Number of joints above each joint [24]."""
    depth = np.zeros(JOINT_COUNT, int)
    for joint in range(1, JOINT_COUNT):
        depth[joint] = depth[PARENTS[joint]] + 1
    return depth
