"""PostureHMR: from the T-pose, T steps of the M2P decoder, guided by the 2D mesh of the frame, give the coarse mesh.

Deterministic: the reverse process starts from one fixed mesh and adds no noise. A single-frame system: of a window
only the frame t* is read. S sequences, N frames, B frames asked for, V' coarse and V full vertices. Camera axes,
metres, relative to the pelvis; the 2D mesh in crop units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from core.models.hyperbolic import CoarseBody
from core.models.upsample import Upsample
from core.skeleton import SHAPE_COUNT
from core.systems.contract import KEYPOINT_NUMBERS, Estimate, image_features, take_windows
from core.systems.posture import fits
from core.systems.posture.decoder import PostureDecoder, farthest_points
from core.systems.posture.labels import t_pose
from core.systems.posture.mesh2d import FrameEncoder, Mesh2D


@dataclass(frozen=True)
class PostureConfig:
    """Sizes, where the paper gives them its own, and what it leaves open."""

    feature_dim: int = 1152
    """Size of the image embedding of a frame."""
    window: int = 1
    """T of the other systems; any other window works, and its frame t* alone is read."""
    shape_components: int = SHAPE_COUNT
    """Shape coefficients of the body that labels are made with."""
    steps: int = 10
    """T of the paper: steps of the reverse process."""
    root_steps: int = 10
    """The root's turn is done so many steps after the T-pose: `steps` treats it as any joint, 1 turns it at once,
    which came out 10 mm worse (400 steps, without `tell_frame`)."""
    points: int = 81
    """P: points that the 2D mesh is made from."""
    mesh2d_dim: int = 512
    """Size of the network that reads them, HRNet's stand-in."""
    mesh2d_depth: int = 2
    embed_dim: int = 128
    dim: int = 512
    """Sizes of the decoder's embedding and of its transformer layers."""
    layers: int = 4
    """L; not said in the paper. Mesh Graphormer has 4 a block."""
    heads: int = 4
    mlp_ratio: float = 2.0
    patches: int = 0
    """Attend to the means of so many patches of the mesh instead of to every vertex (0): a seventh of the attention's
    cost for 64 of them."""
    frame_dim: int = 256
    """Size of the pooled feature of the frame, which Upsample's residuals are made from."""
    tell_frame: bool = True
    """Whether the decoder is told the pooled feature beside the 2D mesh, as in the paper's row "Baseline + FK". The
    2D mesh alone, which is the paper's, holds nothing of what the detector says of depth: 21 mm of MPJPE worse after
    400 steps of training (179 to 158 mm)."""
    upsample_rank: int = 16
    residual_rank: int = 16

    def __post_init__(self):
        if not 1 <= self.root_steps <= self.steps:
            raise ValueError(f"root_steps must be 1 to {self.steps} (steps), not {self.root_steps}")


class Condition(NamedTuple):
    """What the reverse process of B frames is guided by."""

    M_2d: Tensor
    """M_0 in 2D [B, V', 2]."""
    f: Tensor
    """Pooled feature [B, frame_dim]."""


class Posture(nn.Module):
    """See the module's docstring."""

    NAME: ClassVar[str] = "posture"

    def __init__(self, config: PostureConfig, body: CoarseBody):
        super().__init__()
        self.config = config
        count = len(body.template)
        vertices, joints = fits.example_postures(body)
        points = farthest_points(body.template, min(config.points, count))
        feature_size = config.feature_dim + KEYPOINT_NUMBERS
        self.mesh2d = Mesh2D(
            fits.coefficients(vertices[:, points], vertices),
            fits.coefficients(fits.keypoint_stand_ins(joints), vertices[:, points]),
            feature_size=feature_size,
            dim=config.mesh2d_dim,
            depth=config.mesh2d_depth,
        )
        self.frame = FrameEncoder(feature_size, config.frame_dim, depth=1)
        self.decoder = PostureDecoder(
            body.template,
            body.faces,
            steps=config.steps,
            embed_dim=config.embed_dim,
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            patches=config.patches,
            context_dim=config.frame_dim if config.tell_frame else 0,
        )
        self.upsample = Upsample(
            body.lift_indices,
            body.lift_weights,
            coarse_count=count,
            rank=config.upsample_rank,
            residual_rank=config.residual_rank,
            prior_dim=config.frame_dim,
        )
        self.register_buffer("vertex_ids", body.vertex_ids)
        self.register_buffer("coarse_faces", body.faces)
        start = (body.template - body.joints[0]) @ t_pose()[0].T
        self.register_buffer("start", start, persistent=False)
        """M_T [V', 3]."""
        self.register_buffer("regressor", fits.coefficients(vertices, joints), persistent=False)
        """[J, V'] joints from coarse vertices."""

    def read(self, inputs: Tensor, features: Tensor) -> Condition:
        """inputs [B, K, INPUT_SIZE] and features [B, feature_dim] of frames -> what guides their reverse process."""
        F = image_features(inputs, features)
        return Condition(self.mesh2d(inputs, F), self.frame(F))

    def step(self, M_k: Tensor, condition: Condition, k: Tensor) -> Tensor:
        """F_alpha: M_{k-1} - M_k [B, V', 3] of M_k [B, V', 3] and k [B] in 1..T."""
        return self.decoder(M_k, condition.M_2d, k, condition.f if self.config.tell_frame else None)

    def descend(self, condition: Condition, until: Tensor | None = None) -> Tensor:
        """The reverse process from the T-pose down to M_until [B, V', 3]; until [B] in 0..T, None: to M_0."""
        B = len(condition.M_2d)
        mesh = self.start.expand(B, -1, -1)
        for k in range(self.config.steps, 0, -1):
            if until is None:
                mesh = mesh + self.step(mesh, condition, torch.full((B,), k, device=mesh.device))
                continue
            rows = (until < k).nonzero()[:, 0]
            if len(rows):
                part = Condition(*(value[rows] for value in condition))
                change = self.step(mesh[rows], part, torch.full_like(rows, k))
                mesh = mesh.index_add(0, rows, change)
        return mesh

    def joints_of(self, coarse: Tensor) -> Tensor:
        """Joints [B, J, 3] of coarse meshes [B, V', 3]."""
        return torch.einsum("jv,bvc->bjc", self.regressor, coarse)

    def recover(
        self, inputs: Tensor, features: Tensor, sequences: Tensor, mids: Tensor, vertex_ids: Tensor | None = None
    ) -> Estimate:
        """See `core.systems.contract.System`."""
        T = self.config.window
        frames = (take_windows(values, sequences, mids, T)[:, T // 2] for values in (inputs, features))
        condition = self.read(*frames)
        coarse = self.descend(condition)
        with torch.autocast(coarse.device.type, enabled=False):
            joints = self.joints_of(coarse)
            pelvis = joints[:, :1]
            vertices = self.upsample(coarse - pelvis, condition.f.float(), vertex_ids)
            return Estimate(joints - pelvis, vertices=vertices)
