"""Perception that can be interrupted: the tracker's progress, kept in a cache every few seconds and taken up again.

A chunk of the cache's row "perceive" holds the samples that are new since the chunk before (stacked arrays) and the
tracker's whole remaining state, which is small: a tree of dataclasses, lists and numbers as JSON, its arrays beside
it. Reading a chunk back builds values of the classes in CLASSES only. The past frames through which new people are
followed back are not kept: somebody who appears right after the interruption starts where they are found.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from core.cache import Cache
from core.perception.person import Person, Sample
from core.perception.roi import Roi
from core.perception.track import Tracker

LOG = logging.getLogger(__name__)
ROW, END_ROW = "perceive", "perceived"
"""The second row holds one empty chunk once the video was seen to its end."""
INTERVAL_S = 5.0
CLASSES = {cls.__name__: cls for cls in (Roi,)}
NOT_STATE = ("networks", "config", "people", "_past")
"""Attributes of a Tracker that are given anew, stored apart, or too large."""


class Checkpoint:
    """Keeps one video's perception in a cache. Frames are counted from the first that is read."""

    def __init__(
        self, cache: Cache, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cache, self._interval_s, self._clock = cache, interval_s, clock
        self._last = clock()
        self.is_complete = False
        """Whether what was restored is everything: the video need not be read at all."""
        self._kept_frames = 0
        self._kept: dict[int, list[int]] = {}
        """For each person's id, the frames of the samples that are in the cache."""

    def restore(self, tracker: Tracker) -> list[float]:
        """Bring a new tracker to where the cache ends; return the times of the frames it has seen (maybe none)."""
        times: list[float] = []
        samples: dict[int, list[Sample]] = {}
        people: list[Person] = []
        state: dict[str, Any] = {}
        for _, stop, arrays in self._cache.read(ROW):
            try:
                longer = _extend(samples, arrays)
                people, state = _unpack_state(arrays, longer)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                LOG.warning("Cache: perceived frames up to %d are of another kind (%s); done again", stop, error)
                break
            samples, times = longer, times + arrays["times"].tolist()
        if times:
            tracker.people = people
            vars(tracker).update(state)
        self._cache.truncate(ROW, len(times))
        self._kept_frames = len(times)
        self._kept = {p.id: [s.frame for s in p.samples] for p in people}
        self.is_complete = any(stop == len(times) for _, stop, _ in self._cache.read(END_ROW))
        return times

    def keep(self, tracker: Tracker, times: list[float]) -> None:
        """Store what is new, if the interval has passed."""
        if self._cache.is_kept and self._clock() - self._last >= self._interval_s:
            self._keep_now(tracker, times)

    def keep_all(self, tracker: Tracker, times: list[float], *, is_complete: bool) -> None:
        """Store what is new at once; is_complete: the video has no more frames."""
        if not self._cache.is_kept or self.is_complete:
            return
        if len(times) > self._kept_frames:
            self._keep_now(tracker, times)
        if is_complete:
            self._cache.write(END_ROW, 0, len(times), {})

    def _keep_now(self, tracker: Tracker, times: list[float]) -> None:
        arrays = self._new_samples(tracker.people)
        arrays["times"] = np.array(times[self._kept_frames :], np.float64)
        arrays.update(_pack_state(tracker))
        self._cache.write(ROW, self._kept_frames, len(times), arrays)
        self._kept_frames, self._last = len(times), self._clock()
        self._kept = {p.id: [s.frame for s in p.samples] for p in tracker.people}

    def _new_samples(self, people: list[Person]) -> dict[str, np.ndarray]:
        """Return the samples since the last chunk. Samples may have been taken back or put in between meanwhile."""
        counts, owners, new = [], [], []
        for person in people:
            before = self._kept.get(person.id, [])
            count = 0
            while count < min(len(before), len(person.samples)) and before[count] == person.samples[count].frame:
                count += 1
            counts.append(count)
            added = person.samples[count:]
            new += added
            owners += [person.id] * len(added)
        arrays = {
            "person_id": np.array([p.id for p in people], np.int64),
            "person_stays": np.array(counts, np.int64),
            "owners": np.array(owners, np.int64),
        }
        for f in fields(Sample):
            if new:
                arrays["sample_" + f.name] = np.stack([np.asarray(getattr(s, f.name)) for s in new])
        return arrays


def _extend(samples: dict[int, list[Sample]], arrays: dict[str, np.ndarray]) -> dict[int, list[Sample]]:
    """Return everybody's samples after a chunk; the given ones stay as they are."""
    longer = {}
    for person_id, stays in zip(arrays["person_id"].tolist(), arrays["person_stays"].tolist()):
        longer[person_id] = samples.get(person_id, [])[:stays]
    columns = [arrays.get("sample_" + f.name) for f in fields(Sample)]
    for row, owner in enumerate(arrays["owners"].tolist()):
        values = [column[row] for column in columns]
        longer[owner].append(Sample(*(v.item() if v.ndim == 0 else v.copy() for v in values)))
    return longer


def _pack_state(tracker: Tracker) -> dict[str, np.ndarray]:
    stored: list[np.ndarray] = []
    names = [f.name for f in fields(Person) if f.name != "samples"]
    people = [{name: _pack(getattr(person, name), stored) for name in names} for person in tracker.people]
    others = {name: _pack(value, stored) for name, value in vars(tracker).items() if name not in NOT_STATE}
    arrays = {f"state_{i}": array for i, array in enumerate(stored)}
    arrays["state"] = np.frombuffer(json.dumps({"people": people, "others": others}).encode(), np.uint8)
    return arrays


def _unpack_state(
    arrays: dict[str, np.ndarray], samples: dict[int, list[Sample]]
) -> tuple[list[Person], dict[str, Any]]:
    tree = json.loads(arrays["state"].tobytes().decode())
    people: dict[int, Person] = {}
    for values in tree["people"]:
        known = {name: _unpack(value, people, arrays) for name, value in values.items()}
        people[known["id"]] = Person(**known, samples=list(samples[known["id"]]))
    others = {name: _unpack(value, people, arrays) for name, value in tree["others"].items()}
    return list(people.values()), others


def _pack(value: Any, stored: list[np.ndarray]) -> Any:
    """Return a JSON value; arrays go to `stored`, people become their ids."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, torch.Tensor)):
        is_tensor = isinstance(value, torch.Tensor)
        stored.append(value.detach().cpu().numpy() if is_tensor else value)
        return {"is": "tensor" if is_tensor else "array", "at": len(stored) - 1}
    if isinstance(value, Person):
        return {"is": "person", "id": value.id}
    if isinstance(value, (list, tuple, deque)):
        items = [_pack(item, stored) for item in value]
        return {"is": type(value).__name__, "items": items, "limit": getattr(value, "maxlen", None)}
    if isinstance(value, dict):
        return {"is": "dict", "items": [[k, _pack(v, stored)] for k, v in value.items()]}
    if is_dataclass(value) and type(value).__name__ in CLASSES:
        named = {f.name: _pack(getattr(value, f.name), stored) for f in fields(value)}
        return {"is": type(value).__name__, "fields": named}
    raise TypeError(f"{type(value).__name__} in the tracker's state cannot be stored: name it in CLASSES")


def _unpack(value: Any, people: dict[int, Person], arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    kind = value["is"]
    if kind in ("array", "tensor"):
        array = arrays[f"state_{value['at']}"].copy()
        return torch.from_numpy(array) if kind == "tensor" else array
    if kind == "person":
        return people[value["id"]]
    if kind == "dict":
        return {k: _unpack(v, people, arrays) for k, v in value["items"]}
    if kind in ("list", "tuple", "deque"):
        items = [_unpack(item, people, arrays) for item in value["items"]]
        return {"list": list, "tuple": tuple, "deque": lambda v: deque(v, value["limit"])}[kind](items)
    return CLASSES[kind](**{name: _unpack(v, people, arrays) for name, v in value["fields"].items()})
