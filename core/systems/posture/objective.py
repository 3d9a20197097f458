"""What PostureHMR's two stages minimise.

Stage "mesh2d": L_2d = L_tri + lambda L_v (the render loss on a few meshes, L1 of all). Stage "decode", the 2D mesh
held: L_3d = L_pos + vertex, joint and surface terms of every step (section 3.4), each frame at one step k drawn so
that all steps come up alike, and the upsampled mesh where the step leads to the target.

The labels M_k of a target hold all of it for k < T: a decoder that has seen nothing else reads the target from M_k
and multiplies, at recovery, the error of its first step. A share of the frames (own_states) is therefore at the M_k
to which the decoder's own steps have led; their step leads from there to the label M_{k-1}.

S sequences, T frames, B = S T frames, V' coarse vertices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.systems.contract import image_features
from core.systems.posture.labels import ForwardProcess
from core.systems.posture.network import Condition, Posture
from core.systems.posture.projection import place
from core.systems.posture.silhouette import render_loss
from core.train.batch import Batch
from core.train.losses import point_loss, surface_losses
from core.train.objective import Truth


@dataclass(frozen=True)
class PostureLoss:
    """Weights. The paper's only one is 10 for the render loss; the others are those of Virtual Marker (its [29]) as
    far as units agree."""

    render: float = 0.02
    """L_tri; the paper's 10 belongs to a 2D loss in other units. 0.1 held the vertices back (0.078 instead of 0.073
    crop units off after 600 steps), 0.02 does not and still betters the mask."""
    vertex2d: float = 1.0
    """L1 of the 2D mesh in crop units."""
    step: float = 10.0
    """L_pos, in squared metres, T times the mean over vertices of one step's: so small that L1 leads near the end."""
    vertex: float = 1.0
    joint: float = 1.0
    normal: float = 0.1
    edge: float = 20.0
    full: float = 1.0
    """Vertices of the upsampled mesh."""
    own_states: float = 0.5
    """Share of the frames that are where the decoder's own steps led. With none the joints are 41 mm worse after 400
    steps (220 to 179 mm) and get worse from step 200 on, while the losses fall."""
    rendered: int = 4
    """2D meshes a step that the render loss is taken of."""
    mesh_vertices: int = 2000
    """Vertices a step that the upsampled mesh is judged by."""


class PostureObjective:
    """See `core.systems.contract.Objective`."""

    STAGES: ClassVar[tuple[str, ...]] = ("mesh2d", "decode")

    def __init__(self, net: Posture, body, weights: PostureLoss | None = None):
        """body: core.body.Body, on the network's device."""
        self.net, self.body, self.weights = net, body, weights or PostureLoss()
        config = net.config
        self.process = ForwardProcess(body, steps=config.steps, root_steps=config.root_steps)

    def trained(self, stage: str) -> list[nn.Module]:
        return [self.net.mesh2d] if stage == "mesh2d" else [self.net.frame, self.net.decoder, self.net.upsample]

    def __call__(self, batch: Batch, stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        return self._mesh2d(batch) if stage == "mesh2d" else self._decode(batch)

    def _mesh2d(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = batch.inputs()
        F = image_features(inputs, batch.features)
        predicted = self.net.mesh2d(inputs.flatten(0, 1), F.flatten(0, 1))
        with torch.autocast(predicted.device.type, enabled=False):
            true_mesh, is_placed = self.true_mesh2d(batch, inputs)
            parts = {
                "vertex2d": point_loss(predicted, true_mesh, is_placed.float()[:, None].expand(true_mesh.shape[:2]))
            }
            rows = is_placed.nonzero()[:, 0]
            rows = rows[torch.randperm(len(rows), device=rows.device)[: self.weights.rendered]]
            parts["render"] = predicted.new_zeros(())
            if len(rows):
                parts["render"] = render_loss(predicted[rows], true_mesh[rows], self.net.coarse_faces).mean()
        return self._total(parts), parts

    def true_mesh2d(self, batch: Batch, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The true 2D mesh [B, V', 2] of every frame of a batch, and whether it is known [B] (`projection.place`)."""
        rotmats = batch.rotmats.flatten(0, 1)
        betas = batch.betas[:, None].expand(*batch.frames.shape, -1).flatten(0, 1)
        nowhere = torch.zeros_like(betas[:, :3])
        placement = place(self.body.keypoints(rotmats, betas, nowhere), inputs.flatten(0, 1))
        vertices, _ = self.body.skin(rotmats, betas, nowhere, vertex_ids=self.net.vertex_ids)
        return placement.apply(vertices), placement.is_placed

    def _decode(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        net = self.net
        inputs = batch.inputs()
        F = image_features(inputs, batch.features).flatten(0, 1)
        with torch.no_grad():
            M_2d = net.mesh2d(inputs.flatten(0, 1), F)
        condition = Condition(M_2d, net.frame(F))
        B, steps, device = len(M_2d), net.config.steps, M_2d.device
        k = torch.randperm(B, device=device) % steps + 1  # k = 1 is always among them
        own = torch.rand(B, device=device) < self.weights.own_states
        rotmats = batch.rotmats.flatten(0, 1)
        betas = batch.betas[:, None].expand(*batch.frames.shape, -1).flatten(0, 1)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            M_k = self.process.meshes(rotmats, betas, k, net.vertex_ids)
            true_next = self.process.meshes(rotmats, betas, k - 1, net.vertex_ids)
        M_k = self._own_states(M_k, condition, k, own)
        change = net.step(M_k, condition, k)
        with torch.autocast(device.type, enabled=False):
            predicted = M_k + change
            normal, edge = surface_losses(predicted, true_next, net.coarse_faces.long())
            parts = {
                "step": steps * (true_next - M_k - change).square().sum(-1).mean(),
                "vertex": point_loss(predicted, true_next),
                "joint": point_loss(net.joints_of(predicted), net.joints_of(true_next)),
                "normal": normal,
                "edge": edge,
                "full": self._full(batch, predicted, condition.f, (k == 1).nonzero()[:, 0]),
            }
        return self._total(parts), parts

    @torch.no_grad()
    def _own_states(self, M_k: Tensor, condition: Condition, k: Tensor, own: Tensor) -> Tensor:
        """Labels M_k [B, V', 3], those of `own` [B] replaced by where the decoder's own steps lead."""
        rows = own.nonzero()[:, 0]
        if not len(rows):
            return M_k
        reached = self.net.descend(Condition(*(value[rows] for value in condition)), k[rows])
        return M_k.index_copy(0, rows, reached)

    def _full(self, batch: Batch, coarse: Tensor, f: Tensor, rows: Tensor) -> Tensor:
        """L1 of the upsampled mesh of the frames `rows`, which are at their target, on random vertices."""
        ids = torch.randint(self.body.vertex_count, (self.weights.mesh_vertices,), device=rows.device)
        T = batch.frames.shape[1]
        wanted = Truth(self.body, batch).vertices(rows // T, rows % T, ids)
        return point_loss(self.net.upsample(coarse[rows], f[rows].float(), ids), wanted)

    def _total(self, parts: dict[str, Tensor]) -> Tensor:
        return sum(getattr(self.weights, name) * value for name, value in parts.items())
