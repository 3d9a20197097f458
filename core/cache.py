"""What an interrupted job leaves behind so that it can go on: numbered chunks of arrays in a folder of their own.

A chunk is an .npz written under a temporary name and renamed, so that a killed process leaves whole chunks only.
The folder's name is a hash of the video's content, the options that matter and the engine's version; another
video or option means another folder. A chunk that cannot be read ends the row it belongs to: what comes after is
computed again. A cache that cannot be written is given up with a log line, never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.atomic import AtomicFile
from core.version import VERSION

LOG = logging.getLogger(__name__)
SAMPLE_BYTES = 1 << 20
KEPT_S = 14 * 24 * 3600
"""How long the cache of a stopped job waits to be taken up."""
KEY_LETTERS = 24
_KEY = re.compile(rf"^[0-9a-f]{{{KEY_LETTERS}}}$")
_CHUNK_NAME = re.compile(r"^(?P<row>[a-z0-9_]+)-(?P<start>\d{8})-(?P<stop>\d{8})\.npz$")


def fingerprint(path: str | Path) -> str:
    """Return a hash of a file's size, modification time and content (first, middle and last megabyte).

    For a folder of images, or a numbered pattern in one: of the names, sizes and times of the files in that folder.
    """
    path, digest = Path(path), hashlib.sha256()
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            status = entry.stat()
            digest.update(f"{entry.name} {status.st_size} {status.st_mtime_ns}\n".encode(errors="replace"))
        return digest.hexdigest()
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        for start in (0, status.st_size // 2, max(status.st_size - SAMPLE_BYTES, 0)):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def job_key(video: str | Path, **options: object) -> str:
    """Return the cache key of a video and the options that change what is cached."""
    text = json.dumps([VERSION, fingerprint(video), options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LETTERS]


class Cache:
    """Rows of chunks under ROOT/KEY. A row ("perceive", "fit_0") is a sequence of chunks [start, stop), gapless."""

    def __init__(self, root: Path | None, key: str, *, resume: bool) -> None:
        """Open the cache. Without `resume`, what an earlier run left is removed. root None = a cache that keeps
        nothing.
        """
        self._root = root
        self._folder = None if root is None else root / key
        if self._folder is None:
            return
        if not resume:
            self.remove()
        _remove_forgotten(root)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._give_up(error)

    @property
    def is_kept(self) -> bool:
        """Whether chunks are stored at all."""
        return self._folder is not None

    def write(self, row: str, start: int, stop: int, arrays: dict[str, np.ndarray]) -> None:
        """Store the chunk [start, stop) of a row."""
        if self._folder is None:
            return
        try:
            with AtomicFile(self._folder / f"{row}-{start:08d}-{stop:08d}.npz") as file:
                np.savez(file, **arrays)
        except OSError as error:
            self._give_up(error)

    def read(self, row: str) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
        """Yield (start, stop, arrays) of a row's chunks in order, as long as they follow on and are whole."""
        expected = 0
        for start, stop, path in self._chunks(row):
            if start != expected or stop <= start:
                LOG.warning("Cache: %s does not follow on frame %d; the rest is computed again", path.name, expected)
                return
            arrays = _load_or_none(path)
            if arrays is None:
                LOG.warning("Cache: %s is damaged; the rest is computed again", path.name)
                return
            yield start, stop, arrays
            expected = stop

    def length(self, row: str) -> int:
        """Return how far the row's chunks reach from 0 on without a gap, by their names: none of them is read."""
        reached = 0
        for start, stop, _ in self._chunks(row):
            if start != reached:
                break
            reached = stop
        return reached

    def truncate(self, row: str, length: int) -> None:
        """Remove the row's chunks that go beyond `length`, for example damaged ones that will be written again."""
        for _, stop, path in self._chunks(row):
            if stop > length:
                with contextlib.suppress(OSError):
                    path.unlink()

    def remove(self) -> None:
        """Remove this job's cache, and the root folder if nothing else is in it."""
        if self._folder is None:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._root.rmdir()

    def _chunks(self, row: str) -> list[tuple[int, int, Path]]:
        if self._folder is None or not self._folder.is_dir():
            return []
        found = []
        for path in self._folder.iterdir():
            match = _CHUNK_NAME.match(path.name)
            if match and match["row"] == row:
                found.append((int(match["start"]), int(match["stop"]), path))
        return sorted(found)

    def _give_up(self, error: OSError) -> None:
        LOG.warning("Cache: cannot write to %s (%s); this job cannot be resumed", self._folder, error.strerror)
        self._folder = None


def _remove_forgotten(root: Path) -> None:
    """Remove what jobs left here that nobody went on with for KEPT_S."""
    with contextlib.suppress(OSError):
        for folder in [path for path in root.iterdir() if _KEY.match(path.name) and path.is_dir()]:
            if time.time() - folder.stat().st_mtime > KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)


def _load_or_none(path: Path) -> dict[str, np.ndarray] | None:
    """Return a chunk's arrays, None if it is not whole (the zip's checksums tell)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile):
        return None
