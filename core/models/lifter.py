"""The lifter: a sequence of 2D keypoints -> a sequence of root-relative 3D joints (and rotations and shape).

Alternating spatial and temporal transformer blocks, sequence to sequence, after MixSTE (Zhang et al. 2022): spatial
blocks attend over the keypoints of a frame, temporal blocks over the frames of one keypoint. A cheaper form adds
temporal blocks over one token per frame: 1/25 of the work per block. Temporal positions
enter as rotary phases of the frame times, so windows of any length and frame rate can be read.

B sequences, T frames, K keypoints, J joints, D token size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from core.models.config import LifterConfig
from core.models.inputs import HAS_LANDMARK, INPUT_SIZE, LANDMARK_XYZ


class Lifted(NamedTuple):
    """Output of the lifter. Camera axes, metres, relative to the pelvis."""

    joints: Tensor
    """P3D [B, T, J, 3]."""
    rotations6d: Tensor | None
    """[B, T, J, 6] local rotations, first two columns of the matrix; the root's is in the camera frame."""
    betas: Tensor | None
    """[B, T, S]; average over the clip for one shape."""
    features: Tensor
    """[B, T, head_dim] summary of each frame."""


def rotary_phases(times: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin of rotary position encoding. times [B, T] in frames -> [B, T, head_dim/2] each."""
    frequencies = 1.0 / (1000.0 ** (torch.arange(0, head_dim, 2, device=times.device).float() / head_dim))
    angles = times.float()[..., None] * frequencies
    return angles.cos(), angles.sin()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (first half, second half) of the last axis. x [N, H, T, d]; cos, sin [N, 1, T, d/2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot product attention [N, H, L, d]. Short sequences train 3 to 7 times faster spelled out on the CPU."""
    if q.device.type == "cpu" and torch.is_grad_enabled():
        return torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2), dim=-1) @ v
    return functional.scaled_dot_product_attention(q, k, v)


class Block(nn.Module):
    """Pre-norm transformer block over the next-to-last axis; rotary phases make it temporal."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        self.widen = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, phases: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x [N, L, D] -> [N, L, D]; phases cos, sin [N, 1, L, d/2] or None."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [N, H, L, d]
        if phases is not None:
            cos, sin = phases[0].to(q.dtype), phases[1].to(q.dtype)
            q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        mixed = attend(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.widen(self.norm2(x)), approximate="tanh"))


class Lifter(nn.Module):
    """P2D -> P3D. See `Lifted` for the outputs and `inputs.encode_inputs` for the input channels."""

    def __init__(self, config: LifterConfig):
        super().__init__()
        self.config = config
        k, d = config.keypoints, config.dim
        self.embed = nn.Linear(INPUT_SIZE, d)
        self.unseen = nn.Parameter(torch.zeros(d))
        self.position = nn.Parameter(torch.randn(k, d) * 0.02)
        self.spatial = nn.ModuleList(Block(d, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.temporal = nn.ModuleList(Block(d, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d)
        self.reduce = nn.Linear(d, config.joint_dim)
        self.summary = nn.Linear(k * config.joint_dim, config.head_dim)
        self.frame_blocks = nn.ModuleList(
            Block(config.head_dim, config.frame_heads, config.mlp_ratio) for _ in range(config.frame_depth)
        )
        self.frame_norm = nn.LayerNorm(config.head_dim) if config.frame_depth else None
        self.joint_head = nn.Linear(config.head_dim, config.joints * 3)
        self.landmark_skip = nn.Linear(k * 3, config.joints * 3, bias=False) if config.use_landmarks3d else None
        nn.init.normal_(self.joint_head.weight, std=0.01)  # what the landmarks say, if there are any, comes first
        nn.init.zeros_(self.joint_head.bias)
        if self.landmark_skip is not None:
            nn.init.zeros_(self.landmark_skip.weight)
        if config.rotation_head:
            self.rotation_head = nn.Linear(config.head_dim, config.joints * 6)
            self.shape_head = nn.Linear(config.head_dim, config.shape_components)
            start = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).repeat(config.joints)
            start[4] = -1.0  # the root starts upright and facing the camera, whose y axis points down
            nn.init.normal_(self.rotation_head.weight, std=0.01)
            self.rotation_head.bias.data.copy_(start)
            nn.init.normal_(self.shape_head.weight, std=0.01)
            nn.init.zeros_(self.shape_head.bias)

    def forward(self, inputs: Tensor, frames: Tensor) -> Lifted:
        """inputs [B, T, K, INPUT_SIZE]; frames [B, T] times in units of 1/base_fps seconds."""
        b, t, k, _ = inputs.shape
        if not self.config.use_landmarks3d:
            inputs = inputs.clone()
            inputs[..., LANDMARK_XYZ], inputs[..., HAS_LANDMARK] = 0, 0
        x = self.embed(inputs) + self.position
        x = x + (inputs[..., 4:5] <= 0) * self.unseen
        cos, sin = rotary_phases(frames, self.config.dim // self.config.heads)
        # one row of phases per keypoint sequence: [B*K, 1, T, d/2]
        cos, sin = (p[:, None, None].expand(b, k, 1, t, -1).flatten(0, 1) for p in (cos, sin))
        for spatial, temporal in zip(self.spatial, self.temporal):
            x = spatial(x.reshape(b * t, k, -1)).view(b, t, k, -1)
            x = x.transpose(1, 2).reshape(b * k, t, -1)
            x = temporal(x, (cos, sin)).view(b, k, t, -1).transpose(1, 2)
        x = self.reduce(self.norm(x)).flatten(2)  # [B, T, K*joint_dim]
        features = functional.gelu(self.summary(x), approximate="tanh")
        if self.frame_norm is not None:
            phases = rotary_phases(frames, self.config.head_dim // self.config.frame_heads)
            phases = tuple(p[:, None] for p in phases)
            for block in self.frame_blocks:
                features = block(features, phases)
            features = self.frame_norm(features)
        with torch.autocast(inputs.device.type, enabled=False):  # bfloat16 metres would be rounded to millimetres
            exact = features.float()
            joints = self.joint_head(exact)
            if self.landmark_skip is not None:
                joints = joints + self.landmark_skip(inputs[..., LANDMARK_XYZ].flatten(2).float())
            rotations = betas = None
            if self.config.rotation_head:
                rotations = self.rotation_head(exact).unflatten(-1, (-1, 6))
                betas = self.shape_head(exact)
        joints = joints.unflatten(-1, (-1, 3))
        return Lifted(joints - joints[..., :1, :], rotations, betas, features)
