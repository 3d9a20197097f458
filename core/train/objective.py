"""What each training stage minimises, from a batch to one scalar and its named parts.

Stage "lift": the lifter alone, on every frame. Stage "mesh": the lifter and, at random mid frames, the mesh network.
S sequences, T frames, B meshes, J joints.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.models.hyperbolic import HyperbolicNet
from core.models.lifter import Lifted
from core.rotation import rotation_6d_to_matrix
from core.train.batch import Batch
from core.train.config import LossConfig, StageConfig, TrainConfig
from core.train.losses import (
    hyperbolic_mesh_loss,
    point_loss,
    rotation_loss,
    surface_losses,
    velocity_loss,
)

LEAST_FREE_VERTICES = 256


class Truth:
    """Targets of a batch, from the body's own kinematics: joints [S, T, J, 3] relative to the pelvis."""

    def __init__(self, body, batch: Batch):
        self.body, self.batch = body, batch
        t = batch.frames.shape[1]
        self.betas = batch.betas[:, None].expand(-1, t, -1)
        joints, _ = body.forward_kinematics(batch.rotmats, self.betas, torch.zeros_like(self.betas[..., :3]))
        self.pelvis = joints[..., 0, :]
        """[S, T, 3] where the pelvis joint is for trans = 0."""
        self.joints = joints - joints[..., :1, :]

    def vertices(self, sequences: Tensor, mids: Tensor, vertex_ids: Tensor | None) -> Tensor:
        """Vertices [B, n, 3] relative to the pelvis."""
        betas = self.betas[sequences, mids]
        zero = torch.zeros_like(betas[..., :3])
        vertices, _ = self.body.skin(self.batch.rotmats[sequences, mids], betas, zero, vertex_ids=vertex_ids)
        return vertices - self.pelvis[sequences, mids][:, None]


def lift_loss(lifted: Lifted, truth: Truth, weights: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 1: joints and velocities, and for the rotation head rotations, shape and the joints they give."""
    batch = truth.batch
    parts = {
        "joint": point_loss(lifted.joints, truth.joints),
        "velocity": velocity_loss(lifted.joints, truth.joints),
    }
    if lifted.rotations6d is not None:
        rotmats = rotation_6d_to_matrix(lifted.rotations6d)
        joints, _ = truth.body.forward_kinematics(rotmats, lifted.betas, torch.zeros_like(lifted.betas[..., :3]))
        joints = joints - joints[..., :1, :]
        parts["kinematic_joint"] = point_loss(joints, truth.joints)
        parts["velocity"] = parts["velocity"] + velocity_loss(joints, truth.joints)
        root = rotation_loss(rotmats[:, :, 0], batch.rotmats[:, :, 0])  # all other joints hang on the root
        parts["rotation"] = rotation_loss(rotmats, batch.rotmats) + 0.5 * root
        parts["shape"] = (lifted.betas - truth.betas).abs().mean()
    total = sum(getattr(weights, name) * value for name, value in parts.items())
    return total, parts


class MeshObjective:
    """Stage 2: the paper's loss on coarse and full mesh at `meshes_per_sequence` random mid frames."""

    def __init__(
        self, body, net: HyperbolicNet, weights: LossConfig, *, hyperbolic_weight: float, use_bfloat16: bool
    ):
        """Both on one device; of the network only the coarse mesh counts."""
        device = net.vertex_ids.device
        self.use_bfloat16 = use_bfloat16
        self.body, self.weights, self.hyperbolic_weight = body, weights, hyperbolic_weight
        self.coarse_ids = net.vertex_ids  # [V']
        self.triangles = net.coarse_faces.long()
        regressor = body.J_regressor.to_dense() if body.J_regressor.is_sparse else body.J_regressor
        self.support = regressor.abs().sum(0).nonzero()[:, 0].to(device)
        """Vertices that the joint regressor reads."""
        is_read = torch.zeros(body.vertex_count, dtype=torch.bool, device=device)
        is_read[self.support] = True
        self.others = (~is_read).nonzero()[:, 0]
        self.regressor = regressor.to(device)[:, self.support]  # [J, support]

    def draw_vertices(self, count: int) -> Tensor:
        """Vertex ids for one step: the joint regressor's support, then random ones up to `count` (but some).

        0 takes every vertex once.
        """
        if count == 0:
            return torch.cat((self.support, self.others))
        free = max(count - len(self.support), LEAST_FREE_VERTICES)
        others = torch.randint(self.body.vertex_count, (free,), device=self.support.device)
        return torch.cat((self.support, others))

    def joints_of(self, vertices: Tensor) -> Tensor:
        """J_reg M from vertices [B, n, 3] whose first rows are `support` -> [B, J, 3]."""
        return torch.einsum("jv,bvk->bjk", self.regressor, vertices[:, : len(self.support)])

    def __call__(
        self, net: HyperbolicNet, lifted: Lifted, truth: Truth, *, meshes_per_sequence: int, mesh_vertices: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        s, t = truth.batch.frames.shape
        device = truth.batch.frames.device
        sequences = torch.arange(s, device=device).repeat_interleave(meshes_per_sequence)
        mids = torch.randint(t, (len(sequences),), device=device)
        ids = self.draw_vertices(mesh_vertices)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.use_bfloat16):
            recovered = net.recover(lifted, truth.batch.features, sequences, mids, ids)
        wanted = truth.vertices(sequences, mids, torch.cat((self.coarse_ids, ids)))
        true_coarse, true_full = wanted.split((len(self.coarse_ids), len(ids)), dim=1)
        normal, edge = surface_losses(recovered.coarse, true_coarse, self.triangles)
        parts = {
            "mesh": point_loss(recovered.coarse, true_coarse) + point_loss(recovered.vertices, true_full),
            "mesh_joint": point_loss(self.joints_of(recovered.vertices), self.joints_of(true_full)),
            "normal": normal,
            "edge": edge,
        }
        total = sum(getattr(self.weights, name) * value for name, value in parts.items())
        if self.hyperbolic_weight > 0:
            parts["hymesh"] = hyperbolic_mesh_loss(recovered.vertices, true_full)
            total = total + self.hyperbolic_weight * parts["hymesh"]
        return total, parts


class StageLoss:
    """The loss of stage "lift" (without a mesh objective) or "mesh" on a batch, and its parts."""

    def __init__(
        self, net: HyperbolicNet, body, config: TrainConfig, stage: StageConfig, mesh_objective: MeshObjective | None
    ):
        """In stage "mesh" a lifter whose rate is 0 is held."""
        self.net, self.body, self.config, self.stage = net, body, config, stage
        self.mesh_objective = mesh_objective
        self.is_lifter_fixed = mesh_objective is not None and stage.lifter_rate == 0
        net.lifter.requires_grad_(not self.is_lifter_fixed)

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        truth = Truth(self.body, batch)
        with (
            torch.set_grad_enabled(not self.is_lifter_fixed),
            torch.autocast(batch.frames.device.type, torch.bfloat16, enabled=self.config.use_bfloat16),
        ):
            lifted = self.net.lift(batch.inputs(), batch.frames)
        weights = self.config.loss
        loss, parts = 0.0, {}
        if not self.is_lifter_fixed:
            loss, parts = lift_loss(lifted, truth, weights)
        if self.mesh_objective is not None:
            mesh_loss, mesh_parts = self.mesh_objective(
                self.net,
                lifted,
                truth,
                meshes_per_sequence=self.stage.meshes_per_sequence,
                mesh_vertices=self.stage.mesh_vertices,
            )
            loss = weights.lifter_in_mesh_stage * loss + mesh_loss
            parts.update(mesh_parts)
        return loss, parts
