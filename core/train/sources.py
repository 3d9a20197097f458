"""Where batches come from: sequences made up on the device, rendered clips with the real detector's output, a mix."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from core.records import USUAL_FOCAL
from core.synth.cameras import CameraConfig
from core.synth.motion import MotionBank
from core.synth.noise import NoiseModel
from core.synth.replay import RecordedErrors
from core.synth.sampler import KeypointSampler, SamplerConfig
from core.train.augment import Variation, vary
from core.train.batch import Batch, merge
from core.train.shards import ShardBank

TUMBLING_SHARE = 0.14
TUMBLING = {"tilt_deg": 70.0, "turned_over": 0.7}
"""Some sequences are tilted far against gravity or turn over, for lying, bending and somersaulting people that mocap
lacks."""
UNSEEN_POSES = {"in_parts": 0.5, "wobbled": 0.6, "wobble_deg": 20.0, "handed": 0.15}
"""An hour of motion is soon known by heart (67 mm on its own subjects against 93 on others), so half of it is taken
apart and put together anew, and some hands are put on the body or before it."""
ROLLING_SHARE = 0.25
ABOVE_SHARE = 0.12
"""Shares of generated training sequences seen by a camera that rolls, and from far above."""
STRETCHED_SHARE = 0.6
"""Share of them seen with other proportions than the body's."""
REPLAYED_SHARE = 0.6
"""Share of generated sequences with the detector's recorded errors, once there are any."""
REPLAYED_TILT_DEG = 15.0
TOLD_FOCAL_SHARE = 0.4
"""Share of generated sequences whose true focal length the network is told; the others get the usual one."""


OTHER_RATE_SHARE = 0.3
NEIGHBOURS = 0.3
SPACING = (0.45, 1.3)
"""Recordings at 23 to 66 frames a second, by relabelling the times of a sequence."""


def _varied() -> SamplerConfig:
    return SamplerConfig(
        rolling=ROLLING_SHARE, stretched=STRETCHED_SHARE, cameras=CameraConfig(above=ABOVE_SHARE), **UNSEEN_POSES
    )


class GeneratedSource:
    """Endless keypoint sequences from a motion bank, with modelled detector noise and, once there are recordings of
    the detector's errors on rendered clips, with those."""

    def __init__(
        self,
        bank: MotionBank,
        body,
        *,
        split: str,
        feature_dim: int,
        seed: int,
        device: str,
        recorded: RecordedErrors | None = None,
    ):
        """`recorded` may still be empty, and grow."""
        noise = NoiseModel(device=device)
        upright = _varied() if split == "train" else SamplerConfig()
        tumbling = replace(upright, **TUMBLING)
        self.upright = KeypointSampler(bank, body, noise, split=split, config=upright, seed=seed)
        self.tumbling = KeypointSampler(bank, body, noise, split=split, config=tumbling, seed=seed + 1)
        self.recorded = recorded
        self.replayed = self.tumbling
        if recorded is not None:
            varied = replace(upright, tilt_deg=REPLAYED_TILT_DEG)
            self.replayed = KeypointSampler(bank, body, recorded, split=split, config=varied, seed=seed + 3)
        self.generator = torch.Generator(device).manual_seed(seed + 2)
        self.feature_dim, self.device = feature_dim, device

    def sample(self, sequences: int, window: int, *, with_features: bool = True) -> Batch:
        """Random sequences; without features the batch has none at all (size 0) instead of zeros."""
        tumbling = round(sequences * TUMBLING_SHARE)
        has_recordings = self.recorded is not None and len(self.recorded) > 0
        replayed = round(sequences * REPLAYED_SHARE) if has_recordings else 0
        rest = sequences - tumbling - replayed
        parts = [(self.upright, rest), (self.tumbling, tumbling), (self.replayed, replayed)]
        drawn = merge([self._convert(s.batch(n, frames=window), window, with_features) for s, n in parts if n])
        return drawn.pick(torch.randperm(sequences, device=self.device, generator=self.generator))

    def _convert(self, drawn, window: int, with_features: bool) -> Batch:
        sequences = len(drawn.betas)
        size = drawn.size.float()
        told = torch.rand(sequences, device=self.device, generator=self.generator) < TOLD_FOCAL_SHARE
        return Batch(
            keypoints=drawn.keypoints,
            landmarks3d=drawn.landmarks3d,
            has_landmarks=(~drawn.is_gap).float(),
            features=torch.zeros((), device=self.device).expand(
                sequences, window, self.feature_dim if with_features else 0
            ),
            size=size,
            focal_px=torch.where(told, drawn.intrinsics[:, 0], USUAL_FOCAL * size.norm(dim=-1)),
            frames=torch.arange(window, device=self.device) * self._spacing(sequences)[:, None],
            rotmats=drawn.rotmats,
            betas=drawn.betas,
        )

    def _spacing(self, sequences: int) -> Tensor:
        """Frames per 1/30 s [S]: mostly 1, for the others the same frames pass for a recording at another rate."""
        other = torch.rand(2, sequences, device=self.device, generator=self.generator)
        spread = SPACING[0] + (SPACING[1] - SPACING[0]) * other[0]
        return torch.where(other[1] < OTHER_RATE_SHARE, spread, torch.ones_like(spread))


def drop(batch: Batch, *, landmarks: float, features: float, generator: torch.Generator) -> Batch:
    """Take the 3D landmarks and the image features away from random sequences, with the given chances."""

    def keep(chance: float) -> Tensor:
        drawn = torch.rand(len(batch.betas), device=batch.betas.device, generator=generator)
        return (drawn >= chance).float()[:, None]

    return replace(
        batch,
        has_landmarks=batch.has_landmarks * keep(landmarks),
        features=batch.features * keep(features)[..., None],
    )


def mixed(
    generated: GeneratedSource | None,
    rendered: ShardBank | None,
    *,
    counts: tuple[int, int],
    window: int,
    kept: int,
    draw_ahead: int,
    with_features: bool,
    landmark_dropout: float,
    feature_dropout: float,
    variation: Variation,
    seed: int,
    device: str,
) -> Callable[[], Batch]:
    """A function that draws batches of counts[0] generated and counts[1] rendered sequences.

    Where one source is missing, the other fills its place. `kept` of the `window` frames are handed on (0 = all):
    neighbours in a share NEIGHBOURS of the batches, else as far apart as the window has room for.
    """
    if generated is None and rendered is None:
        raise ValueError("training needs a motion bank or rendered clips")
    total = sum(counts)
    from_generated = 0 if generated is None else total if rendered is None else counts[0]
    generator = torch.Generator(device).manual_seed(seed)
    chooser = random.Random(seed)
    ahead: list[Batch] = []

    count = kept or window
    widest = max(1, (window - 1) // max(1, count - 1))

    def draw() -> Batch:
        parts = []
        step = 1 if chooser.random() < NEIGHBOURS else widest
        if from_generated:
            if not ahead:
                pool = generated.sample(from_generated * draw_ahead, window, with_features=with_features)
                ahead.extend(pool.split(from_generated))
            first = chooser.randint(0, window - 1 - step * (count - 1))
            parts.append(ahead.pop().thin(first, step, count))
        if total - from_generated:
            seen = rendered.sample(total - from_generated, count, generator, step=step, with_features=with_features)
            seen = drop(seen, landmarks=0.0, features=feature_dropout, generator=generator)
            parts.append(vary(seen, variation, generator))
        return drop(merge(parts), landmarks=landmark_dropout, features=0.0, generator=generator)

    return draw
