"""A small TCMR network, people before a camera, and what float64 twins are made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from core.body import Body
from core.models.coarse_body import known_coarse_body
from core.rotation import axis_angle_to_matrix
from core.skeleton import KEYPOINT_COUNT
from core.systems.tcmr.network import TCMRConfig, TCMRNet
from core.train.batch import Batch

SMALL = TCMRConfig(
    feature_dim=12,
    window=6,
    static_dim=20,
    hidden=10,
    common=18,
    squeezed=8,
    regressor_hidden=24,
    dropout=0.0,
)
UPRIGHT = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
DISTANCE, FOCAL, WIDTH, HEIGHT = 4.0, 1500.0, 1280.0, 960.0


def small_net(body: Body, seed: int = 0, **changes) -> TCMRNet:
    torch.manual_seed(seed)
    coarse = known_coarse_body(body, torch.arange(3), torch.zeros(1, 3, dtype=torch.int32))
    return TCMRNet(dataclasses.replace(SMALL, **changes), coarse)


def woken(net: TCMRNet) -> TCMRNet:
    """Evaluated, with all weights as large as a trained network's, so that every part shows in the output."""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=g))
    return net.eval()


def a_batch(body: Body, sequences: int = 4, window: int = 6, seed: int = 0) -> Batch:
    """People that turn and move a little, seen by a pinhole camera, some of their keypoints unsure."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g)

    turns = 0.25 * normal(sequences, 1, 24, 3) + 0.03 * normal(sequences, window, 24, 3)
    rotmats = axis_angle_to_matrix(turns)
    rotmats[:, :, 0] = rotmats[:, :, 0] @ UPRIGHT
    betas = 0.5 * normal(sequences, 16)
    trans = torch.tensor([0.0, 0.0, DISTANCE]) + 0.3 * normal(sequences, 1, 3)
    points = body.keypoints(rotmats, betas[:, None], trans)
    middle = torch.tensor([WIDTH, HEIGHT]) / 2
    xy = FOCAL * points[..., :2] / points[..., 2:] + middle
    confidence = torch.rand(sequences, window, KEYPOINT_COUNT, 1, generator=g)
    return Batch(
        keypoints=torch.cat((xy, confidence), -1),
        landmarks3d=points - points[..., 15:17, :].mean(-2, keepdim=True),
        has_landmarks=torch.ones(sequences, window),
        features=normal(sequences, window, SMALL.feature_dim),
        size=torch.tensor([[WIDTH, HEIGHT]]).repeat(sequences, 1),
        focal_px=torch.full((sequences,), FOCAL),
        frames=torch.arange(window).float().repeat(sequences, 1),
        rotmats=rotmats,
        betas=betas,
    )


def a_clip(body: Body, sequences: int, count: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    batch = a_batch(body, sequences, count, seed)
    return batch.inputs(), batch.features


def double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)


def layer(linear: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ double(linear.weight).T + double(linear.bias)
