"""The two-stream encoder of PMCE (section 3.2): keypoints of a window -> its middle pose P_0, image features -> f.

B windows, T frames, t* = T // 2, K keypoints, J joints, C_1 token size of the pose stream. Camera axes, metres,
relative to the pelvis.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from core.models.inputs import CONFIDENCE, FULL_XY, HAS_LANDMARK, INPUT_SIZE, LANDMARK_XYZ
from core.models.lifter import Block
from core.skeleton import KEYPOINT_COUNT

PAPER_CHANNELS = (FULL_XY, CONFIDENCE, LANDMARK_XYZ, HAS_LANDMARK)
"""Of a keypoint: equation 5, then what the detector here tells besides."""
ALL_CHANNELS = (slice(0, INPUT_SIZE),)
"""Those and the place in the person's crop and the crop's place in the image."""


class FrameTokens(NamedTuple):
    """What the pose stream makes of single frames; windows that overlap share it."""

    tokens: Tensor
    """X [..., K, C_1] after the first spatial layer."""
    landmark_pose: Tensor
    """[..., J, 3] part of the pose that the detector's own 3D landmarks give."""


class Poses(NamedTuple):
    """Of B windows."""

    frames: Tensor
    """[B, T, J, 3] of every frame, before the fusion."""
    middle: Tensor
    """P_0 [B, J, 3]."""


class PoseStream(nn.Module):
    """Spatial and temporal transformer layers in turn, a pose of every frame, and their fusion to that of t*.

    The papers' detectors see the very joints that are wanted. Here K keypoints are read and J joints wanted: all
    tokens of a frame, each reduced to a few numbers, give its pose together.
    """

    def __init__(
        self,
        *,
        image_size: int,
        window: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        token_dim: int,
        channels: tuple[slice, ...],
        rest_pose: Tensor,
    ):
        """rest_pose [J, 3]: the output before any training."""
        super().__init__()
        self.channels, joints = channels, len(rest_pose)
        self.embed_keypoints = nn.Linear(sum(c.stop - c.start for c in channels), dim)
        self.embed_image = nn.Linear(image_size, dim)
        self.position_space = nn.Parameter(torch.randn(KEYPOINT_COUNT, dim) * 0.02)
        self.position_time = nn.Parameter(torch.randn(window, dim) * 0.02)
        self.spatial = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.temporal = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.reduce = nn.Linear(dim, token_dim)
        self.regress = nn.Linear(KEYPOINT_COUNT * token_dim, 3 * joints)
        # one more column than the landmarks have: a person with landmarks does not start from the rest pose
        self.from_landmarks = nn.Linear(3 * KEYPOINT_COUNT + 1, 3 * joints, bias=False)
        self.fusion = nn.Parameter(functional.one_hot(torch.tensor(window // 2), window).float())
        nn.init.normal_(self.regress.weight, std=3e-3)
        nn.init.zeros_(self.from_landmarks.weight)
        with torch.no_grad():
            self.regress.bias.copy_(rest_pose.flatten())

    def read_frames(self, inputs: Tensor, F: Tensor) -> FrameTokens:
        """inputs [S, N, K, INPUT_SIZE], F [S, N, image_size] -> of every frame.

        The text adds both position embeddings at the start. The temporal one waits for the first temporal layer, as
        a frame is in T windows at T places; all before then is done once.
        """
        shown = torch.cat([inputs[..., c] for c in self.channels], dim=-1)
        X = self.embed_keypoints(shown) + self.embed_image(F)[..., None, :] + self.position_space
        tokens = self.spatial[0](X.flatten(0, 1)).unflatten(0, X.shape[:2])
        with torch.autocast(inputs.device.type, enabled=False):
            landmarks = inputs[..., LANDMARK_XYZ].flatten(-2).float()
            present = inputs[..., :1, HAS_LANDMARK].flatten(-2).float()
            pose = self.from_landmarks(torch.cat((landmarks, present), dim=-1))
        return FrameTokens(tokens, pose.unflatten(-1, (-1, 3)))

    def forward(self, windows: FrameTokens) -> Poses:
        """Tokens [B, T, K, C_1] and landmark poses [B, T, J, 3] of windows."""
        b, t, k, _ = windows.tokens.shape
        x = (windows.tokens + self.position_time[:, None]).transpose(1, 2).reshape(b * k, t, -1)
        x = self.temporal[0](x)
        for spatial, temporal in zip(self.spatial[1:], self.temporal[1:]):
            x = x.view(b, k, t, -1).transpose(1, 2).reshape(b * t, k, -1)
            x = spatial(x).view(b, t, k, -1).transpose(1, 2).reshape(b * k, t, -1)
            x = temporal(x)
        x = self.reduce(self.norm(x)).view(b, k, t, -1).transpose(1, 2).flatten(2)  # [B, T, K*token_dim]
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 metres would be rounded to millimetres
            poses = self.regress(x.float()).unflatten(-1, (-1, 3)) + windows.landmark_pose.float()
            poses = poses - poses[..., :1, :]
            middle = torch.einsum("t,btjk->bjk", self.fusion, poses)
        return Poses(poses, middle)


class ImageStream(nn.Module):
    """A bidirectional GRU over the image features of a window, read at t* -> f."""

    def __init__(self, *, image_size: int, reduced: int, dim: int, layers: int):
        """reduced: size to which F is projected before the GRU, 0 for F itself. dim: size of f."""
        super().__init__()
        if dim % 2:
            raise ValueError(f"image_dim must be even, half of it from either direction, not {dim}")
        self.reduce = nn.Linear(image_size, reduced) if reduced else None
        self.gru = nn.GRU(reduced or image_size, dim // 2, layers, bidirectional=True, batch_first=True)

    def read_frames(self, F: Tensor) -> Tensor:
        """F [..., image_size] -> what the GRU reads of every frame; windows that overlap share it."""
        return F if self.reduce is None else functional.gelu(self.reduce(F))

    def forward(self, windows: Tensor) -> Tensor:
        """[B, T, reduced] -> f [B, dim]."""
        states, _ = self.gru(windows)
        return states[:, windows.shape[1] // 2]
