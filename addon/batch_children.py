"""Several clips at the same time, each in a Blender of its own that is told to do just that one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import bpy

from .batch_options import CACHE_NAME, BatchOptions, option_arguments
from .batch_report import Record, read_report
from .engine_env import package_root
from .engine_process import end_process, start_hidden

LOOK_SECONDS = 0.1


class Child:
    """One clip in work."""

    def __init__(self, index: int, video: Path, folder: Path, options: BatchOptions, python: str) -> None:
        self.index, self.video = index, video
        cache = folder / CACHE_NAME
        cache.mkdir(parents=True, exist_ok=True)
        self.report = cache / f"{video.name}.report.json"
        self.report.unlink(missing_ok=True)
        self.log = cache / f"{video.name}.blender.log"
        own = vars(options) | {"out": folder, "jobs": 1, "report": self.report, "engine_python": python}
        command = [*_blender(), "--", str(video), *option_arguments(BatchOptions(**own))]
        with self.log.open("w", encoding="utf-8") as log:
            self.process = start_hidden(command, stdout=log, stderr=subprocess.STDOUT, env=_environment(options.jobs))

    def record(self) -> Record:
        """Return what became of the clip, once the process has ended."""
        try:
            return read_report(self.report)[0]
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            code = self.process.returncode
            return Record(
                str(self.video),
                "failed",
                error=f"its Blender ended with exit code {code} and left no report; see {self.log}",
            )


def run_children(
    videos: list[Path], folders: list[Path], options: BatchOptions, python: str, records: list[Record], show
) -> None:
    """Work through the clips, `options.jobs` at a time; fill `records` in place. Ctrl-C ends the children."""
    waiting = list(range(len(videos)))[::-1]
    running: list[Child] = []
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                i = waiting.pop()
                running.append(Child(i, videos[i], folders[i], options, python))
            for child in [c for c in running if c.process.poll() is not None]:
                running.remove(child)
                record = records[child.index]
                vars(record).update(vars(child.record()))
                show(child.index, record.line)
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        for child in running:
            records[child.index].status, records[child.index].error = "cancelled", "cancelled"
    finally:
        for child in running:
            end_process(child.process, 5.0)


def _blender() -> list[str]:
    """Return the command that runs batch.py in this Blender, or in this Python where Blender is a module."""
    script = str(package_root() / "addon" / "batch.py")
    if bpy.app.binary_path:
        return [
            bpy.app.binary_path,
            "--background",
            "--factory-startup",
            "--python-exit-code",
            "1",
            "--python",
            script,
        ]
    return [sys.executable, script]


def _environment(jobs: int) -> dict[str, str]:
    """Share the cores between the engines, unless somebody has already decided that."""
    share = max(1, (os.cpu_count() or 1) // jobs)
    return {"OMP_NUM_THREADS": str(share), **os.environ}
