"""PMCE (You et al., "Co-Evolution of Pose and Mesh for 3D Human Body Estimation from Video", ICCV 2023).

Two-stream encoder -> middle pose P_0 and image feature f; co-evolution decoder -> refined pose P and coarse mesh M';
M = Up(M') + MLP2(MLP1(f)^T), equation 11. No rotations, no shape: pose and mesh are points.

S sequences, N frames, B windows, T frames in each, t* = T // 2, J joints, V' coarse and V full vertices. Camera axes,
metres, relative to the pelvis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from core.models.hyperbolic import CoarseBody, take_frames, window_frames
from core.models.upsample import Upsample
from core.skeleton import SHAPE_COUNT
from core.systems.contract import KEYPOINT_NUMBERS, Estimate, image_features
from core.systems.pmce.coevolution import CoevolutionBlock
from core.systems.pmce.encoder import ALL_CHANNELS, PAPER_CHANNELS, FrameTokens, ImageStream, Poses, PoseStream

UPRIGHT = (1.0, -1.0, -1.0)
"""Diagonal of the rotation that makes the resting body face a camera whose y axis points down."""


@dataclass(frozen=True)
class PmceConfig:
    """Sizes of the paper (section 4.2) or, where it is silent, of its published code."""

    feature_dim: int = 1152
    """Size of the image embedding of a frame; F has the keypoints' numbers besides (`image_features`)."""
    window: int = 16
    """T."""
    shape_components: int = SHAPE_COUNT
    """Of the body; nothing here regresses a shape."""
    pose_dim: int = 256
    """C_1."""
    pose_depth: int = 3
    """L_1 spatial and as many temporal layers."""
    pose_heads: int = 8
    pose_mlp_ratio: float = 2.0
    token_dim: int = 16
    """Numbers that each keypoint's token gives to the pose of its frame."""
    use_crop_channels: bool = True
    """The pose stream's keypoints also by the person's crop; False: by the full image alone, as the paper has it. The
    pose learns faster with it (L1 after 200 steps 70 mm against 74), though F tells the crop in any case."""
    reduced_dim: int = 0
    """Size to which F is projected before the GRU; 0 = not at all, as in the paper."""
    image_dim: int = 2048
    """Size of f, half from either direction of the GRU."""
    gru_layers: int = 2
    dim: int = 64
    """C_2."""
    depth: int = 3
    """L_2 co-evolution blocks."""
    joint_heads: int = 8
    vertex_heads: int = 2
    mlp_ratio: float = 4.0
    mesh_moves_pose: bool = True
    """The mesh's error also trains the pose stream through P_0, as in the paper's training end to end; False holds
    P_0 against it. Alike with equation 13 kept beside it (MPVPE 167 and 169 mm after equal training)."""
    upsample_rank: int = 16
    """Rank of the learned correction to the body's own lift U, for the paper's dense layer."""
    residual_rank: int = 16
    """Rank of the vertex residuals from f: columns of MLP2."""

    def __post_init__(self):
        if self.window < 2:
            raise ValueError(f"window must be at least 2, not {self.window}")
        if self.pose_depth < 1 or self.depth < 1:
            raise ValueError("pose_depth and depth must be at least 1")


class Encoded(NamedTuple):
    """What the encoder gives for B windows."""

    poses: Poses
    f: Tensor | None
    """[B, image_dim]; None where only poses were asked for."""


class Decoded(NamedTuple):
    """What the decoder gives for B windows."""

    pose: Tensor
    """P [B, J, 3]."""
    coarse: Tensor
    """M' [B, V', 3]."""
    vertices: Tensor
    """M [B, V, 3] (or the vertices asked for)."""


class Pmce(nn.Module):
    """See the module's docstring. `encode` and `decode` are the two halves of `recover`."""

    NAME: ClassVar[str] = "pmce"

    def __init__(self, config: PmceConfig, body: CoarseBody):
        super().__init__()
        self.config = config
        coarse_count, joints = body.template.shape[0], body.joints.shape[0]
        image_size = config.feature_dim + KEYPOINT_NUMBERS
        self.pose_stream = PoseStream(
            image_size=image_size,
            window=config.window,
            dim=config.pose_dim,
            depth=config.pose_depth,
            heads=config.pose_heads,
            mlp_ratio=config.pose_mlp_ratio,
            token_dim=config.token_dim,
            channels=ALL_CHANNELS if config.use_crop_channels else PAPER_CHANNELS,
            rest_pose=(body.joints - body.joints[:1]) * torch.tensor(UPRIGHT),
        )
        self.image_stream = ImageStream(
            image_size=image_size, reduced=config.reduced_dim, dim=config.image_dim, layers=config.gru_layers
        )
        self.blocks = nn.ModuleList(
            CoevolutionBlock(
                joints=joints,
                coarse_count=coarse_count,
                dim=config.dim,
                heads=(config.joint_heads, config.vertex_heads),
                mlp_ratio=config.mlp_ratio,
                image_dim=config.image_dim,
            )
            for _ in range(config.depth)
        )
        self.upsample = Upsample(
            body.lift_indices,
            body.lift_weights,
            coarse_count=coarse_count,
            rank=config.upsample_rank,
            residual_rank=config.residual_rank,
            prior_dim=config.image_dim,
        )
        nearest = torch.cdist(body.template, body.joints).argmin(1)
        self.register_buffer("nearest_joint", nearest, persistent=False)
        self.register_buffer("vertex_ids", body.vertex_ids)
        self.register_buffer("coarse_faces", body.faces)

    def encode(
        self, inputs: Tensor, features: Tensor, sequences: Tensor, mids: Tensor, *, with_image: bool = True
    ) -> Encoded:
        """inputs [S, N, K, INPUT_SIZE], features [S, N, feature_dim], sequences and mids [B]; see `System.recover`.

        Only the frames between the first and the last window are read.
        """
        frames = window_frames(inputs.shape[1], mids, self.config.window)  # [B, T]
        first, last = int(frames.min()), int(frames.max())
        inputs, features = inputs[:, first : last + 1].float(), features[:, first : last + 1]
        frames, sequences = frames - first, sequences[:, None]
        F = image_features(inputs, features)
        seen = self.pose_stream.read_frames(inputs, F)
        poses = self.pose_stream(FrameTokens(*(take_frames(v, sequences, frames) for v in seen)))
        if not with_image:
            return Encoded(poses, None)
        f = self.image_stream(take_frames(self.image_stream.read_frames(F), sequences, frames))
        return Encoded(poses, f.float())

    def start_mesh(self, P_0: Tensor) -> Tensor:
        """M_0: each coarse vertex at that joint of P_0 [B, J, 3] which is nearest at rest -> [B, V', 3]."""
        return P_0.index_select(1, self.nearest_joint)

    def decode(self, P_0: Tensor, f: Tensor, vertex_ids: Tensor | None = None) -> Decoded:
        """P_0 [B, J, 3], f [B, image_dim]; vertex_ids: only these rows of the full mesh."""
        P = P_0 if self.config.mesh_moves_pose else P_0.detach()
        coarse = self.start_mesh(P)
        for block in self.blocks:
            P, coarse = block(P, coarse, f)
        with torch.autocast(f.device.type, enabled=False):  # bfloat16 metres would be rounded to millimetres
            vertices = self.upsample(coarse, f, vertex_ids)
        return Decoded(P - P[:, :1], coarse, vertices)

    def recover(
        self, inputs: Tensor, features: Tensor, sequences: Tensor, mids: Tensor, vertex_ids: Tensor | None = None
    ) -> Estimate:
        """See `core.systems.contract.System`. Joints are the refined pose P: J_reg needs all of the mesh."""
        encoded = self.encode(inputs, features, sequences, mids)
        decoded = self.decode(encoded.poses.middle, encoded.f, vertex_ids)
        return Estimate(joints=decoded.pose, vertices=decoded.vertices)
