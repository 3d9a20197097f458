"""Rendering of training clips in a process of its own, beside the training that reads them."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

ENDLESS_FRAMES = 50_000_000


@dataclass(frozen=True)
class RenderJob:
    split: str
    frames: int
    batch: int | None = None
    """Clips in lockstep, one file; None is the renderer's own choice."""


JOBS = (RenderJob("validation", 12_000, 128), RenderJob("test", 3_000, 32), RenderJob("train", ENDLESS_FRAMES))
"""What is rendered, in this order: a little to measure by, then to train on until the time is up. Files that are
there already are not made again."""


class Renderer:
    """Runs `python -m core synth clips` job after job until they are done, the time is up or it is stopped."""

    def __init__(
        self, folder: Path, motion: Path, *, device: str, seconds: float, jobs: tuple[RenderJob, ...] = JOBS
    ):
        self.folder, self.motion, self.device, self.jobs = folder, motion, device, jobs
        self.deadline = time.monotonic() + seconds
        self._stopped = threading.Event()
        self._process: subprocess.Popen | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run, name="renderer", daemon=True)
        self._thread.start()

    def command(self, job: RenderJob) -> list[str]:
        words = [
            sys.executable,
            "-m",
            "core",
            "synth",
            "clips",
            "--bank",
            str(self.motion),
            "--out",
            str(self.folder),
        ]
        words += ["--split", job.split, "--frames", str(job.frames), "--device", self.device]
        return words if job.batch is None else [*words, "--batch", str(job.batch)]

    def _run(self) -> None:
        for job in self.jobs:
            if self._stopped.is_set():
                return
            with (self.folder / "render.log").open("ab") as output:
                self._process = subprocess.Popen(self.command(job), stdout=output, stderr=output)
                while self._process.poll() is None:
                    if self._stopped.wait(0.5) or time.monotonic() > self.deadline:
                        self._end_process()
                        log.info("rendering ended during split %s", job.split)
                        return
            if self._process.returncode:
                log.error("rendering of %s failed (exit %d); see render.log", job.split, self._process.returncode)
                return

    def _end_process(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End rendering; whole files stay, a half-written one does not appear."""
        self._stopped.set()
        self._thread.join(30)
