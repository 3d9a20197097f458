"""The network over a whole track: overlapping lifter windows, blended; meshes for every frame, in chunks.

N frames of one person. Camera axes, metres, relative to the pelvis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.errors import Cancelled
from core.models.hyperbolic import HyperbolicNet
from core.models.inputs import ImageGeometry, encode_inputs
from core.models.lifter import Lifted, Lifter
from core.models.mirror import lift_both_ways
from core.records import Camera, Track

MOST_AT_ONCE = 16
SEQUENCES_AT_ONCE = {"cpu": 4}
"""Windows, and their mirror images, that the lifter reads at once, by device; elsewhere `MOST_AT_ONCE`. On a CPU more
take a third longer each."""
PRESENCE_NEEDED = 0.1


class Chunk(NamedTuple):
    """Frames [start, start + n) of a track."""

    start: int
    joints: Tensor
    """P3D [n, J, 3]."""
    rotmats: Tensor | None
    """[n, J, 3, 3] local rotations whose bones point as in `joints`; None where the network gives none."""
    meshed: Tensor
    """[m] which of the n frames have a mesh; the first and the last always have."""
    vertices: Tensor | None
    """[m, n, 3] of those meshes; None without meshes."""


def track_inputs(
    track: Track, camera: Camera, *, base_fps: float, device: str, doubted: np.ndarray | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Network input [1, N, K, INPUT_SIZE], frame times [1, N] in 1/base_fps s and features [1, N, F] of a track.

    doubted [N] bool: frames whose 3D landmarks are withheld.
    """

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.nan_to_num(np.asarray(array, dtype=np.float32)))[None].to(device)

    def size(value: float) -> Tensor:
        return torch.full((1, 1, 1), float(value), device=device)

    keypoints = tensor(track.keypoints)
    # the principal point is taken to be in the middle, as in training
    shift = [camera.width / 2 - camera.cx, camera.height / 2 - camera.cy]
    keypoints[..., :2] += torch.tensor(shift, device=device)
    has_landmarks = tensor(track.confidence) > PRESENCE_NEEDED
    keypoints[..., 2] *= has_landmarks[..., None]
    geometry = ImageGeometry(size(camera.width), size(camera.height), size((camera.fx * camera.fy) ** 0.5))
    if doubted is not None:
        has_landmarks = has_landmarks & ~torch.from_numpy(doubted)[None].to(device)
    inputs = encode_inputs(keypoints, tensor(track.landmarks3d), has_landmarks.float(), geometry)
    frames = tensor((track.times - track.times[0]) * base_fps)
    return inputs, frames, tensor(track.features)


def window_starts(count: int, window: int, overlap: int) -> list[int]:
    """First frames of windows that cover `count` frames, neighbours sharing at least `overlap` of them."""
    if count <= window:
        return [0]
    stride = window - overlap
    pieces = -(-(count - window) // stride) + 1
    return [round(i * (count - window) / (pieces - 1)) for i in range(pieces)]


def lift_clip(
    lifter: Lifter,
    inputs: Tensor,
    frames: Tensor,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    both_ways: bool = True,
) -> Lifted:
    """Lift N frames [1, N, ...] by windows of the training length; overlaps fade linearly from one to the next.

    both_ways: the mean of what the clip and its mirror image give, for twice the work. Raises Cancelled where asked
    to stop.
    """
    count, window = inputs.shape[1], min(lifter.config.window, inputs.shape[1])
    lift = partial(lift_both_ways, lifter) if both_ways else lifter
    starts = torch.tensor(window_starts(count, window, window // 4), device=inputs.device)
    ramp = torch.minimum(torch.arange(1, window + 1), torch.arange(window, 0, -1)).to(inputs)
    total = torch.zeros(count, device=inputs.device)
    sums: list[Tensor | None] = [None] * len(Lifted._fields)
    at_once = SEQUENCES_AT_ONCE.get(inputs.device.type, MOST_AT_ONCE) // (2 if both_ways else 1)
    for first in starts.split(at_once):
        if should_stop():
            raise Cancelled("Stopped while lifting")
        rows = first[:, None] + torch.arange(window, device=inputs.device)
        lifted = lift(inputs[0, rows], frames[0, rows] - frames[0, rows[:, :1]])
        total.index_add_(0, rows.flatten(), ramp.repeat(len(first)))
        for i, values in enumerate(lifted):
            if values is None:
                continue
            weighted = values * ramp.view(1, window, *([1] * (values.dim() - 2)))
            if sums[i] is None:
                sums[i] = torch.zeros(count, *values.shape[2:], device=inputs.device)
            sums[i].index_add_(0, rows.flatten(), weighted.flatten(0, 1))
    return Lifted(*(None if s is None else (s / total.view(-1, *([1] * (s.dim() - 1))))[None] for s in sums))


@torch.inference_mode()
def recover_clip(
    net: HyperbolicNet,
    track: Track,
    camera: Camera,
    *,
    device: str,
    chunk: int = 32,
    every: int = 1,
    vertex_ids: Tensor | None = None,
    doubted: np.ndarray | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Tensor | None, Iterator[Chunk]]:
    """Meshes of every frame of a track, or of every so-manieth.

    Returns the clip's shape [S] from the lifter (None without its rotation head) and an iterator of chunks; the
    lifter runs before the first chunk, the mesh network with each. vertex_ids: only these full-mesh vertices.
    doubted: see `track_inputs`. Raises Cancelled where asked to stop while lifting.
    """
    base_fps = net.config.lifter.base_fps
    inputs, frames, features = track_inputs(track, camera, base_fps=base_fps, device=device, doubted=doubted)
    lifted = lift_clip(net.lifter, inputs, frames, should_stop)
    seen = inputs[0, :, :, 4].mean(1)  # [N] mean confidence weighs the frames of the shape
    betas = None
    if lifted.betas is not None:
        betas = (lifted.betas[0] * seen[:, None]).sum(0) / seen.sum().clamp_min(1e-6)
        lifted = lifted._replace(betas=betas.expand_as(lifted.betas))
    return betas, _chunks(net, lifted, features, chunk, every, vertex_ids)


@torch.inference_mode()
def _chunks(
    net: HyperbolicNet, lifted: Lifted, features: Tensor, chunk: int, every: int, vertex_ids: Tensor | None
) -> Iterator[Chunk]:
    for start in range(0, features.shape[1], chunk):
        frames = torch.arange(start, min(start + chunk, features.shape[1]), device=features.device)
        meshed = torch.arange(0, len(frames), every, device=features.device)
        if meshed[-1] != len(frames) - 1:
            meshed = torch.cat((meshed, meshed.new_tensor([len(frames) - 1])))
        mids = frames[meshed]
        rotmats = None
        if lifted.rotations6d is not None:
            rotmats = net.turned_rotations(lifted, torch.zeros_like(frames), frames)
        of_meshed = None if rotmats is None else rotmats[meshed]
        mesh = net.recover(lifted, features, torch.zeros_like(mids), mids, vertex_ids, of_meshed)
        yield Chunk(start, lifted.joints[0, frames], rotmats, meshed, mesh.vertices)
