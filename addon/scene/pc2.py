"""Point caches in the PC2 format: a 32-byte header, then float32 positions sample by sample. No bpy.

Header, little-endian: "POINTCACHE2" and a zero byte, int32 version 1, int32 points, float32 start, float32 rate,
int32 samples. Sample i of a figure's cache is source frame first + i; positions are in the mesh object's space.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import TracebackType

import numpy as np

from ..errors import BodyDataError

HEADER = struct.Struct("<12siiffi")
MAGIC = b"POINTCACHE2\0"


class PointCacheFile:
    """A cache that is written in any order and can be read back. The header always tells what is there."""

    def __init__(self, path: str | Path, vertex_count: int) -> None:
        self.path = Path(path)
        self.vertex_count = vertex_count
        self._written: set[int] = set()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w+b")
        self._write_header()

    def shifted(self, by: int) -> PointCacheFile:
        """Close this file and return it under the same name with every sample `by` places later."""
        moved = PointCacheFile(self.path.with_name(f"{self.path.name}.moved"), self.vertex_count)
        for index in sorted(self._written):
            moved.write(index + by, self.read(index))
        self.close()
        moved.close()
        os.replace(moved.path, self.path)
        moved.path = self.path
        moved._file = self.path.open("r+b")
        return moved

    def __enter__(self) -> PointCacheFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def sample_count(self) -> int:
        """Samples of the file: one more than the highest index written."""
        return max(self._written, default=-1) + 1

    @property
    def missing(self) -> list[int]:
        """Indices below sample_count that were never written."""
        return sorted(set(range(self.sample_count)) - self._written)

    def write(self, index: int, vertices: np.ndarray) -> None:
        """Write one sample [V, 3]."""
        data = np.ascontiguousarray(vertices, dtype="<f4")
        if data.shape != (self.vertex_count, 3):
            raise BodyDataError(f"A frame has vertices of shape {data.shape}, the body has {self.vertex_count}")
        if index < 0:
            raise ValueError(f"sample {index} is before the cache's first")
        self._file.seek(HEADER.size + index * data.nbytes)
        self._file.write(data.data)
        self._written.add(index)

    def flush(self) -> None:
        """Bring header and samples to the disk, so that Blender can read what is there so far."""
        self._write_header()
        self._file.flush()

    def read(self, index: int) -> np.ndarray:
        """Read one sample [V, 3] that was written."""
        size = self.vertex_count * 12
        self._file.seek(HEADER.size + index * size)
        return np.frombuffer(self._file.read(size), dtype="<f4").reshape(-1, 3)

    def fill_gap(self, index: int) -> None:
        """Write a missing sample, blended from its nearest written neighbours."""
        before = max((i for i in self._written if i < index), default=None)
        after = min((i for i in self._written if i > index), default=None)
        if before is None or after is None:
            self.write(index, self.read(after if before is None else before))
            return
        t = (index - before) / (after - before)
        self.write(index, (1 - t) * self.read(before) + t * self.read(after))

    def close(self) -> None:
        """Finish the file. Closing twice does nothing."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def _write_header(self) -> None:
        self._file.seek(0)
        self._file.write(HEADER.pack(MAGIC, 1, self.vertex_count, 0.0, 1.0, self.sample_count))


def read_header(path: str | Path) -> tuple[int, int]:
    """Return (points, samples) of a PC2 file. BodyDataError if it is not one."""
    with Path(path).open("rb") as file:
        data = file.read(HEADER.size)
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise BodyDataError(f"{path} is not a PC2 point cache")
    _, _, points, _, _, samples = HEADER.unpack(data)
    return points, samples
