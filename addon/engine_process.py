"""One engine process: start it out of sight, keep the end of its stderr, end it with all its children. No bpy.

The token reaches the process by its environment only. On POSIX the process leads its own session and on Windows its
own group, so that ending it ends what it started, and Ctrl-C in Blender's terminal does not hit it behind our back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections import deque
from pathlib import Path

from .errors import EngineStartError
from .wire import protocol

KEPT_LINES = 200
QUIET_LEVELS = ("DEBUG", "INFO")
"""How lines of the engine's log begin that say nothing about a failure."""
DROPPED_VARIABLES = ("PYTHONHOME", "PYTHONSTARTUP", "PYTHONPATH", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")
"""Variables of Blender's own Python that would mislead another Python."""


def clean_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment for another Python: without Blender's Python settings, UTF-8, unbuffered."""
    kept = {name: value for name, value in os.environ.items() if name not in DROPPED_VARIABLES}
    return {**kept, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1", **extra}


def start_hidden(command: list[str], **options) -> subprocess.Popen:
    """Start a command in its own process group without a console window."""
    if os.name == "nt":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    else:
        options["start_new_session"] = True
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)


def end_process(process: subprocess.Popen, patience_s: float = 1.0) -> None:
    """End a process started by `start_hidden` and its children: ask first, then force. Returns once it is gone."""
    if process.poll() is None:
        _signal_group(process, force=False)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            _signal_group(process, force=True)
            process.wait(5.0)
    _signal_group(process, force=True)


def _signal_group(process: subprocess.Popen, *, force: bool) -> None:
    if os.name == "nt":
        if process.poll() is None:
            command = ["taskkill", "/T", "/PID", str(process.pid), *(["/F"] if force else [])]
            subprocess.run(command, capture_output=True, creationflags=subprocess.CREATE_NO_WINDOW)
            if force and process.poll() is None:
                process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is already gone
        os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)


class EngineProcess:
    """A running `python -m core serve --port N`, its stderr copied to a log file."""

    def __init__(self, python: str, folder: Path, port: int, token: str, log: Path | None) -> None:
        """Start it. `folder` holds the package core. EngineStartError if the system refuses."""
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._log = log
        environment = clean_environment(PYTHONPATH=str(folder), PYTHONSAFEPATH="1")
        environment[protocol.TOKEN_VARIABLE] = token
        command = [python, "-m", "core", "serve", "--port", str(port)]
        try:
            self._process = start_hidden(
                command,
                env=environment,
                cwd=tempfile.gettempdir(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise EngineStartError(
                f"The engine Python cannot be started ({error.strerror or error}): "
                "press Build Engine in the preferences, or choose another Engine Python"
            ) from error
        self._reader = threading.Thread(target=self._copy_stderr, name="engine-stderr", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return the exit code, None while the process lives."""
        return self._process.poll()

    def last_lines(self, count: int = 20) -> list[str]:
        """Return the last lines of stderr; of a dead process, all of them have been read."""
        if self.exit_code() is not None:
            self._reader.join(0.5)
        return list(self._lines)[-count:]

    def last_words(self) -> str:
        """Return the last line of stderr that complains of something, or an empty string."""
        lines = [line.strip() for line in self.last_lines()]
        return next((line for line in reversed(lines) if line and not line.startswith(QUIET_LEVELS)), "")

    def wait(self, seconds: float) -> bool:
        """Wait for the end; True if it came."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, patience_s: float = 1.0) -> None:
        """End the process and its children, by force after `patience_s`."""
        end_process(self._process, patience_s)
        self._reader.join(0.5)

    def _copy_stderr(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._process.stderr)
            out = stack.enter_context(self._log.open("w", encoding="utf-8")) if self._log else None
            for line in self._process.stderr:
                self._lines.append(line.rstrip("\n"))
                if out:
                    out.write(line)
                    out.flush()
