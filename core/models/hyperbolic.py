"""The hyperbolic mesh recovery network: keypoints and image features of a clip -> a mesh per frame.

Lifter -> P3D; temporal motion prior -> f, E_m; HPO and HMO refine the coarse mesh M_0 in the Poincare ball; fusion
-> M'; upsampling -> M. Every frame is once the mid frame t* of a window of T frames; the windows share the lifter's
work and the projected features, and only the small GRUs run per window.

S sequences, N frames, B = meshes asked for, J joints, V' coarse and V full vertices. Camera axes, metres, relative
to the pelvis.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from core.models.config import HyperbolicConfig
from core.models.lifter import Lifted, Lifter
from core.models.mesh_block import MeshBlock
from core.models.motion_prior import MotionPrior
from core.models.orient import turn_to_joints
from core.models.upsample import Upsample
from core.rotation import rotation_6d_to_matrix


class CoarseBody(NamedTuple):
    """What the network needs to know of a body with V vertices."""

    vertex_ids: Tensor
    """[V'] which vertices of the body the coarse ones are."""
    faces: Tensor
    """[F', 3] triangles of coarse vertices."""
    lift_indices: Tensor
    """[V, 3] coarse vertices that each vertex of the full mesh hangs on: the entries of U."""
    lift_weights: Tensor
    """[V, 3] how much; rows sum to 1."""
    template: Tensor
    """[V', 3] coarse vertices at rest."""
    joints: Tensor
    """[J, 3] joints at rest."""
    parents: tuple[int, ...]
    weights: Tensor
    """[V', J] skinning weights of the coarse vertices."""
    shapedirs: Tensor
    """[V', 3, S]."""
    joint_shapedirs: Tensor
    """[J, 3, S]."""


class Recovered(NamedTuple):
    """Meshes of the frames asked for, relative to the pelvis."""

    coarse: Tensor
    """M' [B, V', 3]."""
    vertices: Tensor
    """M [B, V, 3] (or the vertices asked for)."""
    f: Tensor
    """Temporal motion prior [B, prior_dim]."""


def take_frames(values: Tensor, sequences: Tensor, frames: Tensor) -> Tensor:
    """values [S, N, ...] at index tensors that broadcast to a shape B -> [*B, ...]: indexing, but quick to derive."""
    flat = sequences * values.shape[1] + frames
    return values.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, flat.shape)


def turn_joints(rotmats: Tensor, rest_joints: Tensor, parents: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Global rotations [B, J, 3, 3] and places [B, J, 3] of joints, the pelvis at the origin, from local rotations
    [B, J, 3, 3] and joints at rest [B, J, 3]."""
    rotations, positions = [rotmats[:, 0]], [torch.zeros_like(rest_joints[:, 0])]
    for j, parent in enumerate(parents[1:], 1):
        bone = rest_joints[:, j] - rest_joints[:, parent]
        rotations.append(rotations[parent] @ rotmats[:, j])
        positions.append(positions[parent] + (rotations[parent] @ bone[..., None])[..., 0])
    return torch.stack(rotations, 1), torch.stack(positions, 1)


def skin_by_joints(
    rest: Tensor, rest_joints: Tensor, rotmats: Tensor, parents: tuple[int, ...], weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Vertices [B, n, 3] and joints [B, J, 3], the pelvis at the origin: linear blend skinning of vertices at rest
    [B, n, 3] by weights [n, J]."""
    R, positions = turn_joints(rotmats, rest_joints, parents)
    t = positions - (R @ rest_joints[..., None])[..., 0]
    blended = torch.einsum("vj,bjk->bvk", weights, torch.cat((R.flatten(2), t), dim=-1))
    matrices, offsets = blended[..., :9].unflatten(-1, (3, 3)), blended[..., 9:]
    return (matrices @ rest[..., None])[..., 0] + offsets, positions


def window_frames(count: int, mids: Tensor, window: int) -> Tensor:
    """Frames [B, T] of the windows around mids [B] in a clip of `count`, t* = T // 2, edges repeated."""
    offsets = torch.arange(-(window // 2), window - window // 2, device=mids.device)
    return (mids[:, None] + offsets).clamp(0, count - 1)


class HyperbolicNet(nn.Module):
    """See the module's docstring. `lift` runs the lifter on whole sequences, `recover` meshes for chosen frames."""

    def __init__(self, config: HyperbolicConfig, body: CoarseBody):
        super().__init__()
        self.config, self.parents = config, body.parents
        coarse_count, joints = body.template.shape[0], config.lifter.joints
        self.lifter = Lifter(config.lifter)
        self.project_features = nn.Linear(config.feature_dim, config.prior_dim)
        self.project_summary = nn.Linear(config.lifter.head_dim, config.prior_dim)
        self.prior = MotionPrior(joints, config.prior_dim, use_tpmi=config.use_tpmi, use_tmf=config.use_tmf)
        sizes = {"coarse_count": coarse_count}
        self.hpo = MeshBlock(config, context_size=3, context_count=joints, **sizes) if config.use_hpo else None
        self.hmo = (
            MeshBlock(config, context_size=config.prior_dim, context_count=config.window, **sizes)
            if config.use_hmo
            else None
        )
        both = config.use_hpo and config.use_hmo
        self.fuse = nn.Linear(2 * config.dim, 3) if both and config.fusion == "linear" else None
        self.to_pose = nn.Linear(config.dim, 3) if config.use_hpo and self.fuse is None else None
        self.to_motion = nn.Linear(config.dim, 3) if config.use_hmo and self.fuse is None else None
        for head in (self.to_pose, self.to_motion, self.fuse):
            if head is not None:
                nn.init.normal_(head.weight, std=1e-3)
                nn.init.zeros_(head.bias)
        self.upsample = Upsample(
            body.lift_indices,
            body.lift_weights,
            coarse_count=coarse_count,
            rank=config.upsample_rank,
            residual_rank=config.residual_rank,
            prior_dim=config.prior_dim,
        )
        if config.curvature == "learned":
            self.log_curvature = nn.Parameter(torch.tensor(config.curvature_init).log())
        nearest = torch.cdist(body.template, body.joints).argmin(1)
        self.register_buffer("nearest_joint", nearest)
        self.register_buffer("vertex_ids", body.vertex_ids)
        self.register_buffer("coarse_faces", body.faces)
        for name in ("template", "joints", "weights", "shapedirs", "joint_shapedirs"):
            self.register_buffer(f"body_{name}", getattr(body, name).clone(), persistent=False)

    @property
    def curvature(self) -> Tensor | float | None:
        """c > 0 of the ball, or None for the Euclidean network."""
        if self.config.curvature == "euclidean":
            return None
        return self.log_curvature.exp() if self.config.curvature == "learned" else self.config.curvature_init

    def lift(self, inputs: Tensor, frames: Tensor) -> Lifted:
        """inputs [S, N, K, INPUT_SIZE], frames [S, N] times in base_fps units -> `Lifted` for every frame."""
        return self.lifter(inputs, frames)

    def window_indices(self, count: int, mids: Tensor) -> Tensor:
        """Frames of the windows of mid frames `mids` [B] in a clip of `count`, edges repeated -> [B, T]."""
        return window_frames(count, mids, self.config.window)

    def start_mesh(self, lifted: Lifted, sequences: Tensor, mids: Tensor, rotmats: Tensor | None = None) -> Tensor:
        """M_0 [B, V', 3] of the frames (sequences [B], mids [B]); no gradient goes back through it.

        rotmats: their `turned_rotations`, where these are known.
        """
        if self.config.mesh_start == "nearest_joint":
            return take_frames(lifted.joints.detach(), sequences, mids).index_select(1, self.nearest_joint)
        betas = take_frames(lifted.betas.detach(), sequences, mids)
        if rotmats is None:
            rotmats = self.turned_rotations(lifted, sequences, mids)
        return self.skin_coarse(rotmats, betas)

    def turned_rotations(self, lifted: Lifted, sequences: Tensor, mids: Tensor) -> Tensor:
        """Local rotations [B, J, 3, 3] of the frames, bones pointing as P3D does; no gradient goes back."""
        joints, betas = (take_frames(v.detach(), sequences, mids) for v in (lifted.joints, lifted.betas))
        rotmats = rotation_6d_to_matrix(take_frames(lifted.rotations6d.detach(), sequences, mids))
        return turn_to_joints(rotmats, joints, self.rest_joints(betas), self.parents)

    def rest_joints(self, betas: Tensor) -> Tensor:
        """Joints of the resting body of shape [B, S] -> [B, J, 3]."""
        return self.body_joints + torch.einsum("jdk,bk->bjd", self.body_joint_shapedirs, betas)

    def skin_coarse(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """Coarse vertices of local rotations [B, J, 3, 3] and shape [B, S], pelvis at the origin -> [B, V', 3]."""
        rest = self.body_template + torch.einsum("vdk,bk->bvd", self.body_shapedirs, betas)
        return skin_by_joints(rest, self.rest_joints(betas), rotmats, self.parents, self.body_weights)[0]

    def recover(
        self,
        lifted: Lifted,
        features: Tensor,
        sequences: Tensor,
        mids: Tensor,
        vertex_ids: Tensor | None = None,
        rotmats: Tensor | None = None,
    ) -> Recovered:
        """Meshes of B frames.

        Args:
            lifted: of S sequences of N frames.
            features: F [S, N, feature_dim], zeros where there is none.
            sequences, mids: [B] which sequence, and which of its frames is t*.
            vertex_ids: only these rows of the full mesh.
            rotmats: `turned_rotations` of the B frames, where these are known.
        """
        # The mesh's error must not move the joints: while the mesh is young it would pull each joint into the middle
        # of its skin. The lifter still learns from the mesh through its frame summaries.
        joints = lifted.joints.detach()
        c = self.curvature
        # zeros (no feature) stay zeros under the layer norm
        features = functional.layer_norm(features.float(), features.shape[-1:])
        projected = functional.gelu(self.project_features(features))  # [S, N, prior_dim], shared by the windows
        window = self.window_indices(features.shape[1], mids)
        P3D = take_frames(joints, sequences[:, None], window)  # [B, T, J, 3]
        F = take_frames(projected, sequences[:, None], window)
        summary = self.project_summary(take_frames(lifted.features, sequences, mids))
        f, E_m = self.prior(P3D, F, summary)
        P = take_frames(joints, sequences, mids)
        with torch.autocast(features.device.type, enabled=False):
            M_0 = self.start_mesh(lifted, sequences, mids, rotmats)
        X_pose = None if self.hpo is None else self.hpo(M_0, P, f, c)
        X_motion = None if self.hmo is None else self.hmo(M_0, E_m, f, c)
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 metres would be rounded to millimetres
            coarse = M_0 + self._fuse(X_pose, X_motion)
            vertices = self.upsample(coarse, f.float(), vertex_ids)
        return Recovered(coarse, vertices, f)

    def _fuse(self, X_pose: Tensor | None, X_motion: Tensor | None) -> Tensor:
        """Offsets of M' from M_0: mean of M_pose and M_motion, or one linear layer on both tokens (which contains
        the mean)."""
        if self.fuse is not None:
            return self.fuse(torch.cat((X_pose, X_motion), dim=-1).float())
        heads = ((X_pose, self.to_pose), (X_motion, self.to_motion))
        meshes = [head(X.float()) for X, head in heads if X is not None]
        return sum(meshes) / len(meshes)
