"""A related system over a whole track, for `core.recover.network`: every frame is once the middle of a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import Cancelled
from core.models.clip import Chunk, track_inputs
from core.models.inputs import CONFIDENCE
from core.records import Camera, Track

BASE_FPS = 30.0
SHAPE_FRAMES = 24


@torch.inference_mode()
def read_clip(
    net: nn.Module,
    track: Track,
    camera: Camera,
    *,
    device: str,
    chunk: int,
    every: int,
    vertex_ids: Tensor,
    doubted: np.ndarray,
    should_stop: Callable[[], bool],
) -> tuple[Tensor | None, Iterator[Chunk]]:
    """The clip's shape [S], from frames spread over it (None where the system gives none), and its chunks.

    `every` is not used: a mesh that comes without rotations is needed of every frame. Raises Cancelled where asked to
    stop.
    """
    inputs, _, features = track_inputs(track, camera, base_fps=BASE_FPS, device=device, doubted=doubted)
    if should_stop():
        raise Cancelled("Stopped before the network")
    count = inputs.shape[1]
    few = torch.linspace(0, count - 1, min(SHAPE_FRAMES, count), device=inputs.device).round().long()
    betas = net.recover(inputs, features, torch.zeros_like(few), few, vertex_ids).betas
    if betas is not None:
        weight = inputs[0, few][:, :, CONFIDENCE].mean((1, 2))[:, None]
        betas = (betas * weight).sum(0) / weight.sum().clamp_min(1e-6)
    return betas, _chunks(net, inputs, features, chunk, vertex_ids)


@torch.inference_mode()
def _chunks(net: nn.Module, inputs: Tensor, features: Tensor, chunk: int, vertex_ids: Tensor) -> Iterator[Chunk]:
    count = inputs.shape[1]
    for start in range(0, count, chunk):
        mids = torch.arange(start, min(start + chunk, count), device=inputs.device)
        found = net.recover(inputs, features, torch.zeros_like(mids), mids, vertex_ids)
        meshed = torch.arange(len(mids), device=inputs.device)
        yield Chunk(start, found.joints, found.rotmats, meshed, found.vertices)
