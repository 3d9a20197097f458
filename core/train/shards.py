"""Rendered clips resident on the device: windows of the detector's own output with the truth beside it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from core.records import USUAL_FOCAL
from core.rotation import quaternion_to_matrix
from core.train.batch import Batch

LOADED = ("quats", "keypoints", "landmarks3d", "embedding", "presence")


class ShardBank:
    """All clips of some shards (see `core.synth.format`) as device tensors, frames along N."""

    def __init__(self, shards: Iterable[dict[str, np.ndarray]] = (), *, device: str):
        self.device = device
        self.data: dict[str, Tensor] = {}
        self.clips: dict[str, Tensor] = {}
        self.frame_count = 0
        for shard in shards:
            self.add(shard)

    def __len__(self) -> int:
        """Clips."""
        return len(self.clips["clip_len"]) if self.clips else 0

    def add(self, shard: dict[str, np.ndarray]) -> None:
        """Append one shard. Raises ValueError where its features are of another size than those before."""
        frames = {name: torch.from_numpy(shard[name]) for name in LOADED}
        if self.data and frames["embedding"].shape[1] != self.feature_dim:
            raise ValueError(f"features of {frames['embedding'].shape[1]} numbers among those of {self.feature_dim}")
        starts = torch.from_numpy(shard["clip_start"].astype(np.int64)) + self.frame_count
        clips = {"clip_start": starts, "clip_len": torch.from_numpy(shard["clip_len"].astype(np.int64))}
        clips |= {name: torch.from_numpy(shard[name].astype(np.float32)) for name in ("betas", "camera", "size")}
        clips["spacing"] = torch.from_numpy(shard["spacing"].astype(np.int64))
        for mine, new in ((self.data, frames), (self.clips, clips)):
            for name, values in new.items():
                values = values.to(self.device)
                mine[name] = torch.cat((mine[name], values)) if name in mine else values
        self.frame_count += len(frames["quats"])

    @property
    def feature_dim(self) -> int:
        return self.data["embedding"].shape[1]

    def sample(
        self,
        sequences: int,
        window: int,
        generator: torch.Generator | None = None,
        *,
        step: int = 1,
        with_features: bool = True,
    ) -> Batch:
        """Random windows of frames `step` thirtieths of a second apart (or as clips have them, where that is more),
        clips drawn by their length. Shorter clips repeat their last frame."""
        weights = self.clips["clip_len"].float()
        clips = torch.multinomial(weights, sequences, replacement=True, generator=generator)
        reach = (window - 1) * self._stride(clips, step) + 1
        room = (self.clips["clip_len"][clips] - reach).clamp_min(0)
        chance = torch.rand(sequences, device=self.device, generator=generator)
        return self.windows(clips, (chance * (room + 1)).long(), window, step=step, with_features=with_features)

    def _stride(self, clips: Tensor, step: int) -> Tensor:
        """Stored frames from one frame of a window to the next [S]."""
        return (step // self.clips["spacing"][clips]).clamp_min(1)

    def windows(
        self, clips: Tensor, first: Tensor, window: int, *, step: int = 1, with_features: bool = True
    ) -> Batch:
        """`window` frames of clips [S] from stored frame first [S] on."""
        steps = torch.arange(window, device=self.device) * self._stride(clips, step)[:, None]
        within = (first[:, None] + steps).minimum(self.clips["clip_len"][clips][:, None] - 1)  # [S, T]
        rows = self.clips["clip_start"][clips][:, None] + within
        size = self.clips["size"][clips]
        return Batch(
            keypoints=self.data["keypoints"][rows],
            landmarks3d=self.data["landmarks3d"][rows].float(),
            has_landmarks=(self.data["presence"][rows] > 0.1).float(),
            features=self.data["embedding"][rows].float()
            if with_features
            else rows.new_zeros((*rows.shape, 0)).float(),
            size=size,
            focal_px=self._told_focal(clips),
            frames=(steps * self.clips["spacing"][clips][:, None]).float(),
            rotmats=quaternion_to_matrix(self.data["quats"][rows].float()),
            betas=self.clips["betas"][clips],
        )

    def _told_focal(self, clips: Tensor) -> Tensor:
        """The true focal length for two clips of five (a user who knows it), else the usual one. [S] px."""
        return torch.where(
            clips % 5 < 2, self.clips["camera"][clips, 0], USUAL_FOCAL * self.clips["size"][clips].norm(dim=-1)
        )
