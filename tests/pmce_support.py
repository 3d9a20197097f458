"""Settings of a small PMCE network, people before a camera, and a shake for what starts at zero."""

from __future__ import annotations

import torch

from core.rotation import axis_angle_to_matrix
from core.systems.pmce.network import PmceConfig
from core.train.batch import Batch

FEATURES, T = 6, 4
SMALL = PmceConfig(
    feature_dim=FEATURES, window=T, pose_dim=16, pose_depth=2, pose_heads=2, token_dim=4, reduced_dim=12, image_dim=8,
    gru_layers=1, dim=8, depth=2, joint_heads=4, vertex_heads=2, mlp_ratio=2.0, upsample_rank=3, residual_rank=2,
)  # fmt: skip


def a_batch(sequences: int, window: int, seed: int = 0) -> Batch:
    """People upright before the camera, turned and bent a little; keypoints, landmarks and features at random."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=g)

    rotmats = axis_angle_to_matrix(0.6 * (rand(sequences, window, 24, 3) - 0.5))
    rotmats[:, :, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ rotmats[:, :, 0]
    keypoints = torch.cat((rand(sequences, window, 25, 2) * 300 + 200, rand(sequences, window, 25, 1)), -1)
    keypoints[..., 2] *= keypoints[..., 2] > 0.1  # some are not seen
    return Batch(
        keypoints=keypoints,
        landmarks3d=rand(sequences, window, 25, 3) - 0.5,
        has_landmarks=(rand(sequences, 1) < 0.8).float().repeat(1, window),
        features=rand(sequences, window, FEATURES),
        size=torch.tensor([[1280.0, 720.0]]).repeat(sequences, 1),
        focal_px=torch.full((sequences,), 1175.0),
        frames=torch.arange(window).float().repeat(sequences, 1),
        rotmats=rotmats,
        betas=rand(sequences, 16) - 0.5,
    )


def shaken(module: torch.nn.Module, std: float = 0.3) -> torch.nn.Module:
    """Every parameter moved, so that none of those that start at zero hides a term."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += std * torch.randn_like(parameter)
    return module
