"""Where commands write: results to one stream, progress and errors to another. A bar that redraws on a terminal."""

from __future__ import annotations

import logging
import shutil
import time
from typing import TextIO

BAR = 24
LINE_INTERVAL_S = 10.0
"""Between lines of progress where the stream is no terminal."""


class Console:
    """Output and progress of one command."""

    def __init__(self, out: TextIO, err: TextIO, *, is_quiet: bool = False) -> None:
        self._out, self._err = out, err
        self.is_quiet = is_quiet
        self._is_terminal = err.isatty()
        self._drawn = 0
        self._last_line = time.monotonic()

    def line(self, text: str = "") -> None:
        """Write a line of the command's result."""
        self.clear()
        self._out.write(text + "\n")
        self._out.flush()

    def note(self, text: str) -> None:
        """Write a line beside the result, not when quiet."""
        if not self.is_quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Write one line to the error stream."""
        self.clear()
        self._err.write(" ".join(text.split()) + "\n")
        self._err.flush()

    def bar(self, title: str, fraction: float, text: str) -> None:
        """Show progress: redrawn on a terminal, a line now and then elsewhere."""
        if self.is_quiet:
            return
        if not self._is_terminal:
            now = time.monotonic()
            if now - self._last_line >= LINE_INTERVAL_S:
                self._last_line = now
                self._err.write(f"{title}  {fraction:4.0%}  {text}\n")
                self._err.flush()
            return
        filled = round(BAR * fraction)
        width = shutil.get_terminal_size((100, 24)).columns - 1
        line = f"{title}  [{'#' * filled}{'-' * (BAR - filled)}] {fraction:4.0%}  {text}"[:width]
        self._err.write("\r" + line.ljust(self._drawn))
        self._err.flush()
        self._drawn = len(line)

    def clear(self) -> None:
        """Remove the bar."""
        if self._drawn:
            self._err.write("\r" + " " * self._drawn + "\r")
            self._err.flush()
            self._drawn = 0

    def log_handler(self) -> logging.Handler:
        """Return a handler that writes log records without tearing the bar."""
        return _Handler(self)


class _Handler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._console.clear()
        self._console._err.write(self.format(record) + "\n")
        self._console._err.flush()


def duration(seconds: float) -> str:
    """Return seconds as 0:07 or 1:02:03; `?` for an unknown (negative) time."""
    if seconds < 0:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
