"""The numbers that tracking goes by."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrackingConfig:
    """Distances are fractions of a crop's side, which is about 1.5 times the body's height."""

    max_people: int = 4
    spare_people: int = 1
    """Followed beyond max_people, as who matters most is known only at the end."""
    detect_every: int = 6
    """Frames between looks of the detector, each at the next part of the frame."""
    look_every: int = 1
    """Frames between looks at the video; those between are filled in. A divisor of detect_every."""
    mirrored_under: float = 0.65
    """Mean confidence of the keypoints under which a crop is read in a mirror as well, for the mean of both."""
    min_presence: float = 0.5
    min_size: float = 24.0
    """Side of a crop in px, under which nothing can be made out."""
    max_shift: float = 0.3
    """A crop that would move further in one frame is not believed."""
    max_growth: float = 1.5
    same_body: float = 0.06
    """Readings whose bodies lie closer than this show one person."""
    same_frames: int = 2
    """Frames two people may coincide before one is taken to be lost."""
    crowded: float = 0.3
    """People closer than this may hide each other's clothes."""
    near: float = 0.18
    """A detection this close to a person's crop is that person's own."""
    search_turns: tuple[float, ...] = (0.0, 0.6, -0.6, 1.2, -1.2, math.pi)
    """Radians added to the expected angle: a body in a somersault turns faster than crops can follow."""
    search_seconds: float = 0.4
    """How long after the last sight turned crops are tried ..."""
    search_seconds_at_most: float = 1.0
    """... and how long after the last frame that needed none ..."""
    search_frames: int = 20
    search_quality: float = 0.4
    """... for a person followed this many frames, this well, ..."""
    search_inside: float = 0.75
    """... of whose body this part is expected inside the picture."""
    min_search_visibility: float = 0.5
    max_search_turn: float = 0.8
    """A try whose landmarks ask for a crop turned further than this contradicts itself."""
    lost_seconds: float = 1.5
    """How long a lost person may be recognised."""
    lost_reach: float = 0.35
    reach_per_second: float = 1.0
    """Where: within lost_reach, growing with time."""
    max_contradiction: int = 4
    """Frames that somebody may have been seen elsewhere by mistake before they were lost."""
    other_colours: float = 22.0
    """Appearance distance above which two readings are different people; twice that right after the last sight."""
    doubt_seconds: float = 0.3
    """How soon that wears off: light may change in a moment, but people do not change places."""
    asks: int = 5
    """How often the detector looks everywhere for a person just lost: after 1, 2, 4, 8, 16 frames."""
    look_back_bytes: int = 96 << 20
    """Memory for past frames, through which new people are followed back."""
    look_back_quality: float = 0.4

    def tolerated_colours(self, gap: float) -> float:
        """Appearance distance up to which somebody seen again after `gap` seconds is the same person."""
        return self.other_colours * (1 + math.exp(-gap / self.doubt_seconds))
