"""Rendered clips resident on the device: windows of the detector's own output with the truth beside it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from core.rotation import quaternion_to_matrix
from core.train.batch import Batch

LOADED = ("quats", "keypoints", "landmarks3d", "embedding", "presence")


class ShardBank:
    """All clips of some shards (see `core.synth.format`) as device tensors, frames along N."""

    def __init__(self, shards: Iterable[dict[str, np.ndarray]], *, device: str, shortest: int = 1):
        parts: dict[str, list[np.ndarray]] = {name: [] for name in LOADED}
        clips: dict[str, list[np.ndarray]] = {"betas": [], "camera": [], "size": [], "clip_len": []}
        starts, offset = [], 0
        self.subjects: list[str] = []
        self.motions: list[str] = []
        for shard in shards:
            for name in LOADED:
                parts[name].append(shard[name])
            keep = shard["clip_len"] >= shortest
            starts.append(shard["clip_start"][keep].astype(np.int64) + offset)
            for name, values in clips.items():
                values.append(shard[name][keep])
            self.subjects += [str(s) for s in shard["subject"][keep]]
            self.motions += [str(m) for m in shard["motion"][keep]]
            offset += len(shard["quats"])
        if not self.subjects:
            raise ValueError("no clips long enough in these shards")

        def to_device(arrays: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate(arrays)).to(device)

        self.device = device
        self.data = {name: to_device(arrays) for name, arrays in parts.items()}
        self.clip_start, self.clip_len = to_device(starts), to_device(clips["clip_len"]).long()
        self.betas, self.camera, self.size = (to_device(clips[n]).float() for n in ("betas", "camera", "size"))

    @property
    def feature_dim(self) -> int:
        return self.data["embedding"].shape[1]

    @property
    def frame_count(self) -> int:
        return int(self.clip_len.sum())

    def sample(
        self, sequences: int, window: int, generator: torch.Generator | None = None, *, with_features: bool = True
    ) -> Batch:
        """Random windows, clips drawn by their length. Shorter clips repeat their last frame."""
        weights = self.clip_len.float()
        clips = torch.multinomial(weights, sequences, replacement=True, generator=generator)
        room = (self.clip_len[clips] - window).clamp_min(0)
        chance = torch.rand(sequences, device=self.device, generator=generator)
        return self.windows(clips, (chance * (room + 1)).long(), window, with_features=with_features)

    def windows(self, clips: Tensor, first: Tensor, window: int, *, with_features: bool = True) -> Batch:
        """Frames first.. first+window of clips [S]."""
        steps = torch.arange(window, device=self.device)
        within = (first[:, None] + steps).minimum(self.clip_len[clips][:, None] - 1)  # [S, T]
        rows = self.clip_start[clips][:, None] + within
        size = self.size[clips]
        return Batch(
            keypoints=self.data["keypoints"][rows],
            landmarks3d=self.data["landmarks3d"][rows].float(),
            has_landmarks=(self.data["presence"][rows] > 0.1).float(),
            features=self.data["embedding"][rows].float()
            if with_features
            else rows.new_zeros((*rows.shape, 0)).float(),
            size=size,
            focal_px=self._told_focal(clips),
            frames=steps.float().expand(len(clips), -1),
            rotmats=quaternion_to_matrix(self.data["quats"][rows].float()),
            betas=self.betas[clips],
        )

    def _told_focal(self, clips: Tensor) -> Tensor:
        """The true focal length for two clips of five (a user who knows it), else the image diagonal. [S] px."""
        return torch.where(clips % 5 < 2, self.camera[clips, 0], self.size[clips].norm(dim=-1))
