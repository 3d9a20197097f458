"""Frames of one person as they arrive: sorted, merged, and turned into bone channels with continuous signs. No bpy.

N frames so far, ordered by source frame index.
"""

from __future__ import annotations

import numpy as np

from .. import naming
from ..convert import bone_keys_from_pose, make_continuous
from .bodydata import array_from_wire

_LAYOUT = {
    "frames": ((), np.int32),
    "times": ((), np.float64),
    "poses": ((naming.JOINT_COUNT, 3), np.float32),
    "trans": ((3,), np.float32),
    "confidence": ((), np.float32),
    "contacts": ((4,), np.float32),
    "quaternions": ((naming.JOINT_COUNT, 4), np.float32),
    "location": ((3,), np.float32),
}
"""Name -> (shape of one frame, type). The last two are filled by `convert`."""
_AT_ONCE = 128
"""Frames that `convert` takes in one go, about 2 ms of work."""


class FrameStore:
    """All frames of one person, in arrays named as in _LAYOUT."""

    def __init__(self) -> None:
        self._buffers = {name: np.zeros((0, *shape), dtype=dtype) for name, (shape, dtype) in _LAYOUT.items()}
        self._show(0)
        self._waiting: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def has_waiting(self) -> bool:
        """Whether frames arrived since the last `convert`."""
        return self._waiting is not None

    def put(self, message) -> np.ndarray:
        """Merge a Frames or Revise message; frames that exist are replaced. Returns the frames taken [n], as sent.

        Frames with numbers that are not finite are left out.
        """
        chunk = {n: array_from_wire(getattr(message, n)) for n in list(_LAYOUT)[:6]}
        count = len(chunk["frames"])
        for name in ("confidence", "contacts"):
            if len(chunk[name]) != count:
                chunk[name] = np.zeros((count, *_LAYOUT[name][0]), dtype=np.float32)
        return self.put_arrays(**chunk)

    def put_arrays(self, frames, times, poses, trans, confidence, contacts) -> np.ndarray:
        """As `put`, from frames [n], times [n], poses [n, 72], trans [n, 3], confidence [n], contacts [n, 4]."""
        values = {"frames": frames, "times": times, "poses": poses, "trans": trans}
        values |= {"confidence": confidence, "contacts": contacts}
        count = len(frames)
        chunk = {n: np.asarray(v).reshape(count, *_LAYOUT[n][0]).astype(_LAYOUT[n][1]) for n, v in values.items()}
        is_good = np.isfinite(chunk["times"])
        is_good &= np.isfinite(chunk["poses"]).all(axis=(1, 2)) & np.isfinite(chunk["trans"]).all(axis=1)
        numbers, last = np.unique(chunk["frames"][is_good][::-1], return_index=True)
        rows = np.flatnonzero(is_good)[::-1][last]
        if len(rows) == 0:
            return numbers
        chunk = {name: value[rows] for name, value in chunk.items()}
        for name in ("confidence", "contacts"):
            chunk[name] = np.nan_to_num(chunk[name], nan=0.0, posinf=1.0, neginf=0.0)
        chunk["quaternions"] = np.zeros((len(rows), naming.JOINT_COUNT, 4), dtype=np.float32)
        chunk["location"] = np.zeros((len(rows), 3), dtype=np.float32)
        self._merge(chunk)
        first, last_frame = int(numbers[0]), int(numbers[-1])
        if self._waiting is not None:
            first, last_frame = min(first, self._waiting[0]), max(last_frame, self._waiting[1])
        self._waiting = (first, last_frame)
        return numbers

    def _merge(self, chunk: dict[str, np.ndarray]) -> None:
        numbers = chunk["frames"]
        if len(self) == 0 or numbers[0] > self.frames[-1]:
            self._append(chunk)
            return
        is_new = ~np.isin(numbers, self.frames)
        if is_new.any():
            order = np.argsort(np.concatenate([self.frames, numbers[is_new]]), kind="stable")
            for name, value in chunk.items():
                self._buffers[name] = np.concatenate([getattr(self, name), value[is_new]])[order]
            self._show(len(order))
        if not is_new.all():
            place = np.searchsorted(self.frames, numbers[~is_new])
            for name, value in chunk.items():
                getattr(self, name)[place] = value[~is_new]

    def _append(self, chunk: dict[str, np.ndarray]) -> None:
        """Buffers grow by half, so that a long clip is not copied with every message."""
        count = len(self) + len(chunk["frames"])
        for name, value in chunk.items():
            buffer = self._buffers[name]
            if len(buffer) < count:
                grown = np.zeros((count + count // 2, *buffer.shape[1:]), dtype=buffer.dtype)
                grown[: len(self)] = getattr(self, name)
                self._buffers[name] = buffer = grown
            buffer[len(self) : count] = value
        self._show(count)

    def _show(self, count: int) -> None:
        """Let the attributes be the first `count` rows of the buffers; len() reads `frames`, so it goes last."""
        for name in reversed(_LAYOUT):
            setattr(self, name, self._buffers[name][:count])

    def wait_all(self) -> None:
        """Mark every frame as not converted (the rest pose changed)."""
        if len(self):
            self._waiting = (int(self.frames[0]), int(self.frames[-1]))

    def rows(self, first: int, last: int) -> slice:
        """Rows of the source frames first..last."""
        return slice(*np.searchsorted(self.frames, [first, last + 1]))

    def convert(self, joints_rest: np.ndarray, bone_axes: np.ndarray) -> tuple[int, int, np.ndarray] | None:
        """Fill quaternions and location of the waiting frames, _AT_ONCE of them at most; None if there are none.

        Returns (first, last, flipped [24]): the source frames concerned, and for each bone whether the signs of all
        later frames were turned over to keep the curve continuous (then they too must be keyed anew).
        """
        if self._waiting is None:
            return None
        first, last = self._waiting
        self._waiting = None
        rows = self.rows(first, last)
        if rows.stop - rows.start > _AT_ONCE:
            rows = slice(rows.start, rows.start + _AT_ONCE)
            self._waiting = (int(self.frames[rows.stop]), last)
            last = int(self.frames[rows.stop - 1])
        quaternions, location = bone_keys_from_pose(self.poses[rows], self.trans[rows], joints_rest, bone_axes)
        before = self.quaternions[rows.start - 1].astype(np.float64) if rows.start > 0 else None
        quaternions = make_continuous(quaternions, before)
        self.quaternions[rows], self.location[rows] = quaternions, location
        flipped = np.zeros(naming.JOINT_COUNT, dtype=bool)
        if rows.stop < len(self):
            flipped = np.sum(self.quaternions[rows.stop] * quaternions[-1], axis=-1) < 0
            self.quaternions[rows.stop :, flipped] *= -1
        return first, last, flipped
