"""What TCMR's training minimises: the past, the future and the integrated output alike against the truth of t*.

Section 3.4: L2 on SMPL parameters, 3D joints and 2D joints. Table 3: t* is also what past and future are to say.

S windows of T frames, J joints, K keypoints; the outputs past, future, integrated are a leading axis of 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.models.inputs import CONFIDENCE, CROP_RAY, CROP_XY
from core.systems.regressor import project_weakly
from core.systems.tcmr.network import TCMRNet
from core.systems.tcmr.occlusion import Occlusion, hide
from core.train.batch import Batch
from core.train.objective import Truth


@dataclass(frozen=True)
class TCMRWeights:
    """Weights of the terms. The paper follows VIBE: 300, 300, 60 and 0.06 for joints, 2D, rotations and shape on
    metres, crops of -1 to 1 and matrices, as here; these are divided by 60, which keeps the gradients small, but
    for the shape's."""

    joint: float = 5.0
    projection: float = 5.0
    rotation: float = 1.0
    shape: float = 0.05
    """VIBE's 0.001 lets the shape run wild while the joints are far off: after 1,100 steps the coefficients were
    1.2 off on average, with 0 in their place 0.8; with 0.02 and more 0.9, and the joints as good."""
    forecast: float = 1.0
    """How much the past and the future output each count beside the integrated one; 0 leaves them to themselves
    (Table 3, "none")."""


class TCMRObjective:
    """One stage, in which all of the network learns."""

    STAGES: ClassVar[tuple[str, ...]] = ("regress",)

    def __init__(
        self,
        net: TCMRNet,
        body,
        *,
        weights: TCMRWeights | None = None,
        occlusion: Occlusion | None = None,
    ):
        """None: the defaults. Nothing is hidden while the network is in evaluation mode."""
        self.net, self.body = net, body
        self.weights, self.occlusion = weights or TCMRWeights(), occlusion or Occlusion()

    def trained(self, stage: str) -> list[nn.Module]:
        self._check(stage)
        return [self.net]

    def __call__(self, batch: Batch, stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss at t* of S windows, and its parts: means over the outputs, weighted by `forecast`."""
        self._check(stage)
        count, window = batch.frames.shape
        if window != self.net.config.window:
            raise ValueError(f"the windows have {window} frames, the network's have {self.net.config.window}")
        mid = window // 2
        device = batch.frames.device
        with torch.autocast(device.type, enabled=False):  # in bfloat16 the truth would be off by millimetres
            seen = batch.inputs()
            truth = Truth(self.body, batch.thin(mid, 1, 1))
        inputs, features = seen, batch.features
        if self.net.training:
            inputs, features = hide(inputs, features, self.occlusion)
        sequences = torch.arange(count, device=device)
        theta = self.net.regress_all(inputs, features, sequences, torch.full_like(sequences, mid))
        with torch.autocast(device.type, enabled=False):
            rotmats = theta.rotmats  # [3, S, J, 3, 3]
            joints = self.net.joints(rotmats.flatten(0, 1), theta.betas.flatten(0, 1)).unflatten(0, (3, -1))
            errors = {
                "joint": (joints - truth.joints[:, 0]).square().mean((-2, -1)),
                "projection": self._projection_error(rotmats, theta.betas, theta.camera, seen[:, mid]),
                "rotation": (rotmats - truth.batch.rotmats[:, 0]).square().mean((-3, -2, -1)),
                "shape": (theta.betas - truth.betas[:, 0]).square().mean(-1),
            }  # [3, S] each
            share = seen.new_tensor((self.weights.forecast, self.weights.forecast, 1.0), dtype=torch.float32)
            parts = {name: (share @ error.mean(1)) / share.sum() for name, error in errors.items()}
            total = sum(getattr(self.weights, name) * value for name, value in parts.items())
        return total, parts

    def _projection_error(self, rotmats: Tensor, betas: Tensor, camera: Tensor, seen: Tensor) -> Tensor:
        """Square error [3, S] against the detected keypoints, by their confidence: no true ones are at hand.

        seen [S, K, INPUT_SIZE] is what the detector saw at t* before anything was hidden.
        """
        pelvis = self.body.rest_joints(betas)[..., 0, :]
        points = self.body.keypoints(rotmats, betas, -pelvis)  # [3, S, K, 3]
        error = (project_weakly(points, camera, seen[:, 0, CROP_RAY][:, :2]) - seen[..., CROP_XY]).square().mean(-1)
        confidence = seen[..., CONFIDENCE][..., 0]
        return (error * confidence).sum(-1) / confidence.sum(-1).mean().clamp_min(1e-6)

    def _check(self, stage: str) -> None:
        if stage not in self.STAGES:
            raise ValueError(f"TCMR has no stage {stage!r}; it has {', '.join(self.STAGES)}")
