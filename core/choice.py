"""Whom a job recovers: who was found, who of them is chosen, and the People messages that say so.

The choice starts from the option `person` and follows what the user asks for while the job is running.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path

from core import stream
from core.errors import InputError
from core.options import JobOptions
from core.protocol import Message
from core.records import Track

LOG = logging.getLogger(__name__)
ASK_INTERVAL_S = 0.05


class Choice:
    """The people of one job."""

    def __init__(
        self,
        video: str,
        options: JobOptions,
        sink: Callable[[Message], None],
        choose: Callable[[], tuple[int, ...] | None],
    ) -> None:
        """choose: returns the latest choice of the user, None while there is none."""
        self._video, self._options, self._sink, self._choose = video, options, sink, choose
        self.tracks: dict[int, Track] = {}
        """Everybody found."""
        self.chosen: set[int] = set()

    def is_wanted(self, person: int) -> bool:
        """Whether the options let somebody be shown who was just found."""
        wanted = self._options.person
        return not isinstance(wanted, tuple) or person in wanted

    def begin(self, tracks: list[Track], *, was_stopped: bool, should_stop: Callable[[], bool]) -> bool:
        """Take up everybody found and choose, waiting for the user if the options say so; False if stopped meanwhile.

        InputError if the options name somebody who was not found, unless that is because the job was stopped.
        """
        self.tracks = {track.person: track for track in tracks}
        person = self._options.person
        if isinstance(person, tuple) and not was_stopped:
            missing = [p for p in person if p not in self.tracks]
            if missing:
                found = ", ".join(map(str, sorted(self.tracks)))
                raise InputError(f"There is no person {missing[0]} in {Path(self._video).name}: found {found}")
        heights = self._options.height_m
        for stranger in sorted(set(heights) - set(self.tracks)) if isinstance(heights, dict) else ():
            LOG.warning("There is no person %d in %s: the given height is not used", stranger, self._video)
        everybody = set(self.tracks)
        chosen = set(person) & everybody if isinstance(person, tuple) else everybody
        self._tell(chosen if person != "ask" else set())
        while person == "ask" and self._choose() is None:
            if should_stop():
                self.chosen = chosen if self._options.live else set()
                return False
            time.sleep(ASK_INTERVAL_S)
        self.chosen = chosen
        self.follow()
        return True

    def follow(self) -> None:
        """Take over what the user chose meanwhile."""
        choice = self._choose()
        if choice is None or set(choice) & set(self.tracks) == self.chosen:
            return
        self.chosen = set(choice) & set(self.tracks)
        self._tell(self.chosen)

    def next_or_none(self, done: Collection[int]) -> int | None:
        """Return who is to be recovered next: of those chosen and not done the one with the longest track."""
        waiting = [person for person in self.chosen if person not in done]
        return min(waiting, key=lambda person: (-len(self.tracks[person]), person), default=None)

    def frames_of(self, people: set[int]) -> int:
        """Return how many frames the tracks of these people have together."""
        return sum(len(self.tracks[person]) for person in people)

    def _tell(self, chosen: set[int]) -> None:
        self._sink(stream.people_message(list(self.tracks.values()), chosen))
