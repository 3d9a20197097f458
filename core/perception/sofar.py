"""What is already known of people while perception is still going on: their tracks, a stretch at a time.

Somebody is handed out once they have been seen long and well enough not to be a chance find, and gets a number then
which the final tracks keep. The newest frames are held back: tracking may still take them back, or find that the
person was leaving.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.perception.person import Person, Sample
from core.perception.stitch import build_track, is_person, trim_samples
from core.records import Clip, Track

EVERY = 8
"""Frames between looks, so that numbers do not depend on how fast the machine is."""
HOLD = 12
"""Frames held back."""
LEAST = 24
"""Frames handed out at a time, at least."""


class SoFar:
    """Hands out stretches of tracks of the frames from `first` on; each frame of a person once, in order, no gaps."""

    def __init__(
        self,
        clip: Clip,
        first: int,
        *,
        scale: float,
        max_people: int,
        numbers: dict[int, int],
        look_every: int = 1,
    ) -> None:
        """numbers: person's id -> number given; filled here, and read by stitch.build_tracks at the end."""
        self._clip, self._first, self._scale, self._max_people = clip, first, scale, max_people
        self._numbers = numbers
        self._look_every = look_every
        self._last: dict[int, Sample] = {}
        """The last sample handed out of each person."""

    def number(self, people: list[Person], frame_count: int) -> None:
        """Give numbers to those who became presentable. frame_count: frames perceived so far."""
        if frame_count % EVERY:
            return
        for person in people:
            if person.id not in self._numbers and self._is_presentable(person):
                self._numbers[person.id] = len(self._numbers)

    def take(self, people: list[Person], times: list[float]) -> Iterator[Track]:
        """Yield what is new of those who have numbers. times: of all frames so far."""
        if len(times) % EVERY:
            return
        for person in people:
            if person.id not in self._numbers:
                continue
            samples = self._new_samples(person, self._first + len(times) - HOLD)
            if len(samples) < LEAST:
                continue
            last = self._last.get(person.id)
            self._last[person.id] = samples[-1]
            joined = samples if last is None else [last, *samples]
            number = self._numbers[person.id]
            track = build_track(
                number, joined, np.array(times), self._first, self._clip, self._scale, self._look_every
            )
            yield track if last is None else _without_first(track)

    def _is_presentable(self, person: Person) -> bool:
        return len(self._numbers) < self._max_people and is_person(trim_samples(person.samples))

    def _new_samples(self, person: Person, before: int) -> list[Sample]:
        """The samples after what was handed out and before a frame, up to the last good one."""
        last = self._last.get(person.id)
        new: list[Sample] = []
        for sample in reversed(person.samples):
            if last is not None and sample.frame <= last.frame:
                break
            if sample.frame < before:
                new.append(sample)
        new.reverse()
        good = trim_samples(new)
        if last is None or not good:
            return good
        return [s for s in new if s.frame <= good[-1].frame]


def _without_first(track: Track) -> Track:
    values = {name: value if name == "person" else value[1:] for name, value in vars(track).items()}
    return Track(**values)
