"""What each of core.protocol.QUALITIES means: how often the video is looked at, and how its crops are read."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.perception.config import TrackingConfig
from core.perception.networks import Networks


@dataclass(frozen=True)
class Quality:
    look_every: int = 1
    """Frames between looks at the video."""
    reads_mirrored: bool = False
    """Read every crop and its mirror image, for the mean of both."""
    mirrored_under: float = TrackingConfig.mirrored_under
    """Read less sure ones so."""


MEANING = {
    "draft": Quality(look_every=2, mirrored_under=0.0),
    "standard": Quality(),
    "high": Quality(reads_mirrored=True),
}


def networks_for(quality: str, *, device: torch.device | str = "cpu") -> Networks:
    """The networks that a job of that quality reads people with."""
    return Networks(device=device, reads_mirrored=MEANING[quality].reads_mirrored)


def tracking_for(quality: str, *, max_people: int = TrackingConfig.max_people) -> TrackingConfig:
    """The numbers that a job of that quality follows people by."""
    meaning = MEANING[quality]
    return TrackingConfig(max_people=max_people, look_every=meaning.look_every, mirrored_under=meaning.mirrored_under)
