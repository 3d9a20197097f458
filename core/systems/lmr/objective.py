"""What LMR's training minimises: equation 5, of the parameters, 3D joints and 2D keypoints of all frames of a window.

The final estimates alone are judged, not those of earlier iterations. S windows, T frames, K = 25 keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.models.inputs import CONFIDENCE, CROP_RAY, CROP_XY
from core.systems.lmr.network import Lmr, Regressed
from core.systems.regressor import project_weakly
from core.train.batch import Batch
from core.train.losses import point_loss
from core.train.objective import Truth


@dataclass(frozen=True)
class LmrWeights:
    """Weights of equation 5, of which the paper gives no values. CHOICE: with these the three terms are of one
    order, from the first step (3, 6, 5) to the four hundredth (3, 1.5, 1)."""

    smpl: float = 1.0
    joints3d: float = 20.0
    """Per metre."""
    joints2d: float = 10.0
    """Per half crop."""
    shape: float = 0.1
    """How much a shape coefficient counts in L_smpl against an entry of a rotation matrix."""


def parameter_loss(
    rotmats: Tensor, betas: Tensor, true_rotmats: Tensor, true_betas: Tensor, *, shape_weight: float
) -> Tensor:
    """Equation 2: mean over frames of |Theta_gt - Theta|_2, Theta a frame's rotations and weighted shape.

    CHOICE: rotations as matrices [S, T, J, 3, 3], because the 6D form has many vectors for one rotation. There is no
    true camera. betas [S, T, C].
    """
    pose = (rotmats - true_rotmats).flatten(-3)
    shape = shape_weight * (betas - true_betas)
    return (torch.cat((pose, shape), dim=-1).square().sum(-1) + 1e-12).sqrt().mean()


class LmrObjective:
    """L_LMR = w_smpl L_smpl + w_3D L_3D + w_2D L_2D."""

    STAGES: ClassVar[tuple[str, ...]] = ("regress",)

    def __init__(self, net: Lmr, body, weights: LmrWeights | None = None):
        self.net, self.body = net, body
        self.weights = weights or LmrWeights()

    def trained(self, stage: str) -> list[nn.Module]:
        """All of the network."""
        return [self.net]

    def __call__(self, batch: Batch, stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = batch.inputs()
        regressed = self.net(inputs, batch.features)
        with torch.autocast(inputs.device.type, enabled=False):
            parts = self.losses(regressed, batch, inputs)
        return sum(getattr(self.weights, name) * value for name, value in parts.items()), parts

    def losses(self, regressed: Regressed, batch: Batch, inputs: Tensor) -> dict[str, Tensor]:
        """The three terms; point losses are means over coordinates where equations 3 and 4 have sums.

        The keypoints' true places in the image are not known: L_2D compares with the detected ones inside the crop,
        each as much as the detector is sure of it.
        """
        truth = Truth(self.body, batch)
        rotmats, betas, cameras = regressed
        pelvis = self.body.rest_joints(betas)[..., 0, :]
        joints, _ = self.body.forward_kinematics(rotmats, betas, -pelvis)  # [S, T, J, 3]
        keypoints = self.body.keypoints(rotmats, betas, -pelvis)  # [S, T, K, 3]
        projected = project_weakly(keypoints, cameras, inputs[:, :, 0, CROP_RAY][..., :2])
        return {
            "smpl": parameter_loss(
                rotmats,
                betas,
                batch.rotmats,
                truth.betas[..., : betas.shape[-1]],
                shape_weight=self.weights.shape,
            ),
            "joints3d": point_loss(joints, truth.joints),
            "joints2d": point_loss(projected, inputs[..., CROP_XY], weight=inputs[..., CONFIDENCE].squeeze(-1)),
        }
