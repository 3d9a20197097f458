"""The iterative body regressor of HMR (Kanazawa et al., CVPR 2018, section 3.2), and the weak-perspective camera it
regresses beside the body.

From an image feature phi and the parameters Theta_i it predicts what to change:
Theta_{i+1} = Theta_i + R(phi, Theta_i), from the mean parameters on, with one network R for all rounds.

B features, F feature size, J joints, S shape coefficients. Camera axes, metres, relative to the pelvis; image
coordinates are those of the crop, which spans -1 to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from core.models.hyperbolic import CoarseBody
from core.rotation import matrix_to_rotation_6d, rotation_6d_to_matrix

SCALE, SHIFT = slice(0, 1), slice(1, 3)
"""Layout of the camera: s in crop units per metre, (t_x, t_y) in crop units."""
DECODER_GAIN = 0.01
"""Of the last layers' first weights: the first estimate is the mean parameters."""


class BodyParameters(NamedTuple):
    """Theta: pose, shape and camera."""

    rotations6d: Tensor
    """[..., J, 6] local rotations, first two columns of the matrix; the root's is in the camera frame."""
    betas: Tensor
    """[..., S]."""
    camera: Tensor
    """[..., 3] weak perspective (SCALE, SHIFT)."""

    @property
    def rotmats(self) -> Tensor:
        """[..., J, 3, 3]."""
        return rotation_6d_to_matrix(self.rotations6d)


def mean_parameters(body: CoarseBody, shape_components: int) -> BodyParameters:
    """Where the rounds begin, without leading dimensions: the mean shape at rest, upright, facing the camera, filling
    the crop from top to bottom."""
    rotmats = torch.eye(3).repeat(len(body.parents), 1, 1)
    rotmats[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    y = body.joints[0, 1] - body.joints[:, 1]  # downwards from the pelvis
    scale = 2 / (y.max() - y.min())
    shift = -scale * (y.max() + y.min()) / 2
    camera = torch.stack((scale, torch.zeros_like(shift), shift))
    return BodyParameters(matrix_to_rotation_6d(rotmats), torch.zeros(shape_components), camera)


def project_weakly(points: Tensor, camera: Tensor, ray: Tensor) -> Tensor:
    """Weak-perspective projection along the ray through the crop's middle -> [..., N, 2] crop coordinates.

    points [..., N, 3], camera [..., 3], ray [..., 2] = (x/z, y/z) of the crop's middle. x = s (X - r Z) + t: what is
    left of the pinhole's f X/Z for a body that is small against its distance. With r = 0 it is the projection of the
    papers, which take each crop as if the person stood before the camera's middle.
    """
    plane = points[..., :2] - ray[..., None, :] * points[..., 2:]
    return camera[..., None, SCALE] * plane + camera[..., None, SHIFT]


class IterativeRegressor(nn.Module):
    """phi [B, F] -> Theta of the last round: two rectified layers with dropout, then one for each part of Theta.

    The public SPIN regressor has no rectifiers, which makes Theta linear in phi; within TCMR that learned faster at
    first and was 3 mm (MPJPE) behind after 1,600 steps (one run each).
    """

    def __init__(self, feature_dim: int, hidden: int, start: BodyParameters, *, iterations: int, dropout: float):
        super().__init__()
        self.iterations = iterations
        sizes = [part.numel() for part in start]
        self.inner = nn.Linear(feature_dim + sum(sizes), hidden)
        self.outer = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.decoders = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)
        for decoder in self.decoders:
            nn.init.xavier_uniform_(decoder.weight, gain=DECODER_GAIN)
            nn.init.zeros_(decoder.bias)
        for name, value in start._asdict().items():
            self.register_buffer(f"start_{name}", value.clone(), persistent=False)

    def start(self, count: int) -> BodyParameters:
        """The mean parameters, `count` times."""
        parts = (getattr(self, f"start_{name}") for name in BodyParameters._fields)
        return BodyParameters(*(part.expand(count, *part.shape) for part in parts))

    def forward(self, features: Tensor) -> BodyParameters:
        """features [B, F] -> Theta, float32."""
        theta = self.start(len(features))
        for _ in range(self.iterations):
            known = torch.cat((features, *(part.flatten(1).to(features.dtype) for part in theta)), dim=-1)
            x = self.dropout(functional.relu(self.inner(known)))
            x = self.dropout(functional.relu(self.outer(x)))
            with torch.autocast(features.device.type, enabled=False):  # the rounds add up in float32
                changes = (decoder(x.float()) for decoder in self.decoders)
                theta = BodyParameters(*(part + change.view_as(part) for part, change in zip(theta, changes)))
        return theta
