"""What a related system is: a network over windows of T frames that gives the middle frame t* of each.

S sequences, N frames, B frames asked for, T frames of a window, K = 25 keypoints, J = 24 joints, V vertices. Camera
axes (x right, y down, z forward), metres, relative to the pelvis.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from core.models.hyperbolic import take_frames, window_frames
from core.models.inputs import INPUT_SIZE
from core.skeleton import KEYPOINT_COUNT
from core.train.batch import Batch

KEYPOINT_NUMBERS = KEYPOINT_COUNT * INPUT_SIZE


class Estimate(NamedTuple):
    """Of B frames. A system gives rotations and shape, or vertices, or all of them."""

    joints: Tensor
    """[B, J, 3]."""
    rotmats: Tensor | None = None
    """[B, J, 3, 3] local, the root's in the camera frame."""
    betas: Tensor | None = None
    """[B, S]."""
    vertices: Tensor | None = None
    """[B, V, 3], or of the vertices asked for."""


class System(Protocol):
    """A network; its constructor takes its configuration and a `CoarseBody`."""

    NAME: ClassVar[str]
    config: object
    """A frozen dataclass with at least feature_dim (of the image embedding) and window (T)."""

    def recover(
        self, inputs: Tensor, features: Tensor, sequences: Tensor, mids: Tensor, vertex_ids: Tensor | None = None
    ) -> Estimate:
        """Estimates of B frames, each the middle of a window whose edges are repeated at the clip's ends.

        inputs [S, N, K, INPUT_SIZE] (core.models.inputs), features [S, N, feature_dim], zeros where there is none;
        sequences, mids [B]: which sequence, which of its frames. vertex_ids: only these rows of the mesh.
        """
        ...


class Objective(Protocol):
    """What a stage of a system's training minimises."""

    STAGES: ClassVar[tuple[str, ...]]
    """Names of the stages, in order."""

    def __init__(self, net: nn.Module, body) -> None: ...

    def trained(self, stage: str) -> list[nn.Module]:
        """The modules that learn in a stage; all others are held."""
        ...

    def __call__(self, batch: Batch, stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of S windows of T frames, and its parts (unweighted)."""
        ...


def image_features(inputs: Tensor, features: Tensor) -> Tensor:
    """The per-frame image feature F [..., feature_dim + K * INPUT_SIZE] of a system that regresses from it.

    The papers' features say where and how large the person is in a fixed crop. BlazePose's embedding is of a crop
    that turns and moves with the person, so what the detector read there goes with it; a sequence without embedding
    (zeros, which stay zeros) can then be trained on too.
    """
    embedding = functional.layer_norm(features.float(), features.shape[-1:])
    return torch.cat((embedding, inputs.flatten(-2).float()), dim=-1)


def take_windows(values: Tensor, sequences: Tensor, mids: Tensor, window: int) -> Tensor:
    """values [S, N, ...] -> [B, T, ...] around the frames (sequences [B], mids [B])."""
    return take_frames(values, sequences[:, None], window_frames(values.shape[1], mids, window))
