"""Files that appear under their name whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from types import TracebackType


class AtomicFile:
    """Context manager: a binary file that takes its name only if the block ends well, else leaves no trace."""

    def __init__(self, path: str | Path) -> None:
        self._path = path = Path(path)
        self._temporary = path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex[:8]}.tmp")
        self._file = None

    def __enter__(self):
        self._file = self._temporary.open("wb")
        return self._file

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        is_complete = False
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                os.replace(self._temporary, self._path)
                is_complete = True
        finally:
            if not is_complete:
                with contextlib.suppress(OSError):
                    self._file.close()
                with contextlib.suppress(OSError):
                    self._temporary.unlink()
