"""A made-up batch for the tests of training."""

from __future__ import annotations

import torch

from core.rotation import axis_angle_to_matrix
from core.train.batch import Batch


def a_batch(sequences: int, window: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=g)

    rotmats = axis_angle_to_matrix(0.3 * (rand(sequences, 1, 24, 3) - 0.5)).repeat(1, window, 1, 1, 1)
    return Batch(
        keypoints=torch.cat((rand(sequences, window, 25, 2) * 300 + 200, rand(sequences, window, 25, 1)), -1),
        landmarks3d=rand(sequences, window, 25, 3) - 0.5,
        has_landmarks=torch.ones(sequences, window),
        features=rand(sequences, window, 6),
        size=torch.tensor([[1280.0, 720.0]]).repeat(sequences, 1),
        focal_px=torch.full((sequences,), 1468.0),
        frames=torch.arange(window).float().repeat(sequences, 1),
        rotmats=rotmats,
        betas=rand(sequences, 16) - 0.5,
    )
