"""A small LMR network and people who move before a camera."""

from __future__ import annotations

import numpy as np
import torch

from core.body import Body
from core.models.coarse_body import known_coarse_body
from core.rotation import axis_angle_to_matrix
from core.systems.lmr.network import Lmr, LmrConfig
from core.train.batch import Batch

FEATURES = 6
SMALL = {"feature_dim": FEATURES, "feature_size": 12, "hidden": 10, "layers": 1, "shape_hidden": 8}
UPRIGHT = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


def a_net(body: Body, *, is_wild: bool = False, **changes) -> Lmr:
    """Small; is_wild: its last layers are as large as the others, so that what they read shows in what they say."""
    torch.manual_seed(3)
    empty = torch.zeros(0, 3, dtype=torch.int32)
    net = Lmr(LmrConfig(**(SMALL | changes)), known_coarse_body(body, torch.zeros(0, dtype=torch.int64), empty))
    if is_wild:
        for layer in (net.shape[-1], net.camera.out, *(part.out for part in net.pose.parts.values())):
            torch.nn.init.normal_(layer.weight, std=0.3)
            torch.nn.init.normal_(layer.bias, std=0.1)
    return net.eval()


def a_batch(
    body: Body, sequences: int, window: int, *, seed: int = 0, distance: float = 4.0, focal: float = 1400
) -> Batch:
    """People who stand about upright, off the picture's middle, and move smoothly; keypoints by a pinhole camera."""
    g = torch.Generator().manual_seed(seed)
    bend = 0.25 * torch.randn(sequences, 1, 24, 3, generator=g)
    sway = 0.25 * torch.randn(sequences, 1, 24, 3, generator=g)
    phase = torch.linspace(0, 2, window).sin()[None, :, None, None]
    rotmats = axis_angle_to_matrix(bend + sway * phase)
    rotmats[:, :, 0] = UPRIGHT @ rotmats[:, :, 0]
    betas = 0.5 * torch.randn(sequences, 16, generator=g)
    trans = torch.tensor([0.3, 0.1, 1.0]) * distance
    points = body.keypoints(rotmats, betas[:, None].expand(-1, window, -1), trans.expand(sequences, window, 3))
    xy = focal * points[..., :2] / points[..., 2:] + torch.tensor([640.0, 360.0])
    confidence = 0.3 + 0.7 * torch.rand(sequences, window, 25, 1, generator=g)
    return Batch(
        keypoints=torch.cat((xy, confidence), -1),
        landmarks3d=points - points[..., 15:17, :].mean(-2, keepdim=True),
        has_landmarks=torch.ones(sequences, window),
        features=torch.randn(sequences, window, FEATURES, generator=g),
        size=torch.tensor([[1280.0, 720.0]]).repeat(sequences, 1),
        focal_px=torch.full((sequences,), focal),
        frames=torch.arange(window).float().repeat(sequences, 1),
        rotmats=rotmats,
        betas=betas,
    )


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()
