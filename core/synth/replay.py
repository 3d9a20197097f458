"""The detector's recorded errors on rendered clips, replayed on other motions.

Where the noise model (noise.py) makes errors up from a few numbers, this takes them as they came, a window of a clip
at a time, with their correlation over time and joints: spells of lost limbs, confusions, exchanged sides. A recording
is chosen that shows the body from about the same side, for some sequences one of a clip that the detector read well:
films are often easier than renderings. B sequences, T frames, K keypoints, N recorded frames.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from core.body import Body
from core.skeleton import KEYPOINT_MIRROR
from core.synth.detector_errors import Errors, measure
from core.synth.noise import (
    LEFT_HIP,
    LIMB_OF_KEYPOINT,
    RIGHT_HIP,
    Observation,
    body_axes,
    crop_side,
    hold_in_gaps,
    view_turn,
)

CANDIDATES = 48
"""Recorded windows drawn for each sequence; the one most alike is taken."""
CALM_SHARE = 0.35
"""Share of sequences with errors of a clip that was read well, as far as the candidates hold one."""
CALM_WEIGHT = 30.0
"""What a clip's mean error of one crop side costs there, against 4 between facing the same way and the opposite."""
FIELDS = ("error", "residual3d", "confidence", "whole", "pairs", "present", "axes")


class RecordedErrors:
    """Errors of the detector on rendered clips; `add` shards, then `observe` like `noise.NoiseModel`."""

    def __init__(self, body: Body, *, device: torch.device | str = "cpu") -> None:
        self.body, self.device = body, torch.device(device)
        self.frames: dict[str, Tensor] = {}
        self.start = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.length = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.off = torch.zeros(0, device=self.device)  # mean error of each clip, shares of the crop's side
        self.mirror = torch.tensor(KEYPOINT_MIRROR, device=self.device)
        self.limb = torch.tensor(LIMB_OF_KEYPOINT, device=self.device)

    def __len__(self) -> int:
        """Recorded frames."""
        return len(self.frames["error"]) if self.frames else 0

    @torch.no_grad()
    def add(self, shard: dict[str, np.ndarray]) -> None:
        """Take in the errors of all clips of a shard (see format.py)."""
        clips = [_at_full_rate(clip) for clip in measure(shard, self.body)]
        new = {
            "error": torch.cat([c.error for c in clips]),
            "residual3d": torch.cat([c.landmarks3d - c.truth3d * c.standard for c in clips]),
            "confidence": torch.cat([c.confidence for c in clips]),
            "whole": torch.cat([c.whole for c in clips]),
            "pairs": torch.cat([c.pairs for c in clips]),
            "present": torch.cat([c.present for c in clips]),
            "axes": torch.cat([c.axes for c in clips]),
        }
        lengths = torch.tensor([len(c.error) for c in clips], device=self.device)
        self.start = torch.cat([self.start, lengths.cumsum(0) - lengths + len(self)])
        self.length = torch.cat([self.length, lengths])
        off = torch.stack([clip.raw.mean() for clip in clips]).to(self.off)
        self.off = torch.cat([self.off, off])
        for name in FIELDS:
            values = new[name].to(self.device)
            self.frames[name] = torch.cat([self.frames[name], values]) if name in self.frames else values

    def observe(
        self,
        points_cam: Tensor,
        points: Tensor,
        size: Tensor,
        generator: torch.Generator,
        *,
        standard_size: Tensor | None = None,
    ) -> Observation:
        """Observe true keypoints with somebody else's errors; arguments as `noise.NoiseModel.observe`."""
        B, T, K = points.shape[:3]
        is_mirrored = torch.rand(B, generator=generator, device=self.device) < 0.5
        axes = body_axes(points_cam)
        is_calm = torch.rand(B, generator=generator, device=self.device) < CALM_SHARE
        rows = self._alike(axes[:, T // 2], is_mirrored, is_calm, T, generator)
        taken = {name: self.frames[name][rows] for name in FIELDS}
        error = _mirrored(taken["error"], is_mirrored, self.mirror)
        residual = _mirrored(taken["residual3d"], is_mirrored, self.mirror)
        confidence = _mirrored(taken["confidence"][..., None], is_mirrored, self.mirror, is_place=False)
        by_limb = torch.nn.functional.pad(taken["pairs"].repeat_interleave(2, -1), (1, 0))[..., self.limb]
        exchanged = (taken["whole"][..., None] | by_limb)[..., None]
        side = crop_side(points).clamp_min(1.0)
        seen = torch.where(exchanged, points[:, :, self.mirror], points) + error * side[..., None, None]
        hips = (points_cam[..., LEFT_HIP, :] + points_cam[..., RIGHT_HIP, :]) / 2
        X = (points_cam - hips[:, :, None]) @ view_turn(hips).transpose(-1, -2)
        if standard_size is not None:
            X = X * standard_size[:, None, None, None]
        landmarks = torch.where(exchanged, X[:, :, self.mirror], X) + residual
        gap = ~taken["present"]
        keypoints, landmarks = hold_in_gaps(torch.cat([seen, confidence], -1), landmarks, gap)
        return Observation(keypoints, landmarks, exchanged[..., 0].expand(B, T, K), gap)

    def _alike(
        self, axes: Tensor, is_mirrored: Tensor, is_calm: Tensor, T: int, generator: torch.Generator
    ) -> Tensor:
        """Rows [B, T] of recorded windows whose bodies face as axes [B, 3, 3] do (as in a mirror, where asked)."""
        B = len(axes)
        chance = torch.rand((2, B, CANDIDATES), generator=generator, device=self.device)
        clip = (chance[0] * len(self.start)).long().clamp_max(len(self.start) - 1)
        first = (chance[1] * ((self.length[clip] - T).clamp_min(0) + 1)).long()
        middle = self.start[clip] + (first + T // 2).minimum(self.length[clip] - 1)
        theirs = self.frames["axes"][middle]  # [B, CANDIDATES, 3, 3]
        flip = torch.tensor([-1.0, 1.0, 1.0], device=self.device)
        up, front = axes[:, :, 1], axes[:, :, 2]
        turned = torch.where(is_mirrored[:, None], flip, torch.ones_like(flip))
        likeness = sum((theirs[..., i] * (v * turned)[:, None]).sum(-1) for i, v in ((1, up), (2, front)))
        likeness = likeness - CALM_WEIGHT * is_calm[:, None] * self.off[clip]
        best = likeness.argmax(1, keepdim=True)
        clip, first = clip.gather(1, best), first.gather(1, best)  # [B, 1]
        at = (first + torch.arange(T, device=self.device)).minimum(self.length[clip] - 1)
        return self.start[clip] + at


def _at_full_rate(clip: Errors) -> Errors:
    """The clip with its frames repeated to 30 a second; errors in between are interpolated where the sides agree."""
    n = clip.spacing
    if n == 1:
        return clip
    values = {f.name: getattr(clip, f.name) for f in fields(clip)}
    full = {k: v.repeat_interleave(n, 0) if isinstance(v, Tensor) else v for k, v in values.items()}
    same = (clip.whole[1:] == clip.whole[:-1]) & (clip.pairs[1:] == clip.pairs[:-1]).all(-1)
    for name in ("error", "landmarks3d", "truth3d", "confidence"):
        frames = values[name]
        step = (frames[1:] - frames[:-1]) * same.view(-1, *[1] * (frames.dim() - 1))
        for i in range(1, n):
            full[name][i:-n:n] += step * (i / n)
    return Errors(**full | {"spacing": 1})


def _mirrored(values: Tensor, is_mirrored: Tensor, sides: Tensor, *, is_place: bool = True) -> Tensor:
    """Values [B, T, K, C] with left and right exchanged where asked, and x reversed where they are places."""
    other = values[:, :, sides]
    if is_place:
        other = torch.cat([-other[..., :1], other[..., 1:]], -1)
    return torch.where(is_mirrored[:, None, None, None], other, values)
