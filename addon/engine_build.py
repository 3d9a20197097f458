"""Builds the engine's environment: a virtual environment and pip, as child processes in a thread. No bpy.

`EngineBuild` shows where it stands (`step`, `fraction`, `line`), can be cancelled at any moment, and goes on where it
stopped when it is run again: pip skips what is installed and takes finished downloads from its cache. Everything the
children say goes to the log. Only a finished build leaves the stamp that engine_env.is_built looks for.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from .engine_env import check_python, environment_python, package_name, stamp_path
from .engine_process import clean_environment, end_process, start_hidden
from .errors import AddonError, SetupError

WEIGHTS = {"torch": 12.0, "opencv-python-headless": 3.0}
"""Shares of the progress bar, roughly by download size; everything else counts 1."""
PIP_WITH_RAW_PROGRESS = (24, 1)
_PROGRESS = re.compile(r"^Progress (\d+) of (\d+)$")


@dataclass(frozen=True)
class BuildOptions:
    """Where packages come from. All blank: pip's defaults."""

    torch_index_url: str = ""
    """Package index for torch alone, such as one that holds builds without CUDA."""
    wheel_folder: str = ""
    """Folder of wheels; if given, nothing is downloaded."""


class EngineBuild:
    """One run of the build. Start it once; `is_over` turns true whatever happens, `error` says why it failed."""

    def __init__(
        self,
        folder: Path,
        requirements: list[str],
        *,
        base_python: str = sys.executable,
        options: BuildOptions = BuildOptions(),  # noqa: B008  frozen
        log: Path,
    ) -> None:
        self.folder, self.requirements, self.options = folder, requirements, options
        self.log = log
        self.step, self.line, self.error = "", "", ""
        self.fraction = 0.0
        self.is_over = self.is_cancelled = False
        self._base_python = base_python
        self._last_lines: deque[str] = deque(maxlen=30)
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine-build", daemon=True)

    def start(self) -> None:
        """Start the thread; returns at once."""
        self._thread.start()

    def cancel(self) -> None:
        """Stop at once. What is already installed stays for the next run."""
        with self._lock:
            self.is_cancelled = True
            process = self._process
        if process is not None:
            end_process(process, 0.5)

    def join(self, seconds: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("w", encoding="utf-8") as log:
                self._build(log)
        except (AddonError, OSError) as error:
            self.error = "" if self.is_cancelled else str(error)
        finally:
            self.is_over = True

    def _build(self, log) -> None:
        python = environment_python(self.folder)
        stamp_path(self.folder).unlink(missing_ok=True)
        if not (python.is_file() and self._call([str(python), "-m", "pip", "--version"], log, 0.0, 0.0) == 0):
            self.step = "Creating the environment"
            if self._call([self._base_python, "-m", "venv", "--clear", str(self.folder)], log, 0.0, 0.0):
                raise SetupError(self._venv_reason())
        raw = self._prepare_pip(str(python), log)
        weights = [WEIGHTS.get(package_name(r), 1.0) for r in self.requirements]
        for i, requirement in enumerate(self.requirements):
            self.step = f"Installing {package_name(requirement)} ({i + 1} of {len(self.requirements)})"
            start, share = sum(weights[:i]) / sum(weights), weights[i] / sum(weights)
            if self._call(self._pip_command(str(python), requirement, raw), log, start, share):
                raise SetupError(self._reason(f"Installing {package_name(requirement)} failed"))
            self.fraction = start + share
        self.step = "Checking the environment"
        check_python(str(python), self.requirements)
        stamp_path(self.folder).write_text("\n".join(self.requirements), encoding="utf-8")
        self.step = "Ready"

    def _prepare_pip(self, python: str, log) -> bool:
        """Update pip where that is possible and needed for progress in bytes; return whether it can show it."""
        if self._pip_version(python, log) < PIP_WITH_RAW_PROGRESS and not self.options.wheel_folder:
            self.step = "Updating pip"
            self._call([python, "-m", "pip", "install", "--upgrade", "pip"], log, 0.0, 0.0)
        return self._pip_version(python, log) >= PIP_WITH_RAW_PROGRESS

    def _pip_version(self, python: str, log) -> tuple[int, ...]:
        self._call([python, "-m", "pip", "--version"], log, 0.0, 0.0)
        return tuple(int(n) for n in re.findall(r"\d+", self.line.partition(" from ")[0])[:2])

    def _pip_command(self, python: str, requirement: str, raw: bool) -> list[str]:
        command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", requirement]
        if raw:
            command.append("--progress-bar=raw")
        if self.options.wheel_folder:
            return [*command, "--no-index", "--find-links", self.options.wheel_folder]
        if self.options.torch_index_url and package_name(requirement) == "torch":
            return [*command, "--index-url", self.options.torch_index_url]
        return command

    def _call(self, command: list[str], log, start: float, share: float) -> int:
        """Run a command, follow its lines, return its exit code. SetupError if it cannot start or was cancelled."""
        with self._lock:
            if self.is_cancelled:
                raise SetupError("Cancelled")
            try:
                self._process = start_hidden(
                    command,
                    env=clean_environment(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    errors="replace",
                )
            except OSError as error:
                raise SetupError(f"{command[0]} cannot be started: {error.strerror or error}") from error
        log.write(f"$ {' '.join(command)}\n")
        self._last_lines.clear()
        with self._process.stdout:
            for raw_line in self._process.stdout:
                line = raw_line.strip()
                progress = _PROGRESS.match(line)
                if progress:
                    done, total = int(progress[1]), max(1, int(progress[2]))
                    self.fraction = max(self.fraction, start + 0.9 * share * min(1.0, done / total))
                    self.line = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
                elif line:
                    self.line = line
                    self._last_lines.append(line)
                    log.write(line + "\n")
                    log.flush()
        code = self._process.wait()
        if self.is_cancelled:
            raise SetupError("Cancelled")
        return code

    def _reason(self, what: str) -> str:
        errors = [line.removeprefix("ERROR:").strip() for line in self._last_lines if line.startswith("ERROR")]
        last = errors[-1] if errors else self.line or "no reason was given"
        return f"{what} ({last}). The whole story is in the build log; press Build Engine to try again"

    def _venv_reason(self) -> str:
        if any("ensurepip" in line for line in self._last_lines):
            return (
                f"The Python of this Blender ({self._base_python}) comes without ensurepip: install the system's "
                "python3-venv package and press Build Engine again, or choose another Engine Python"
            )
        return self._reason("This Python cannot make environments")
