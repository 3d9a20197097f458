"""Running a job over doubles of its stages, and keeping what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core import pipeline, stream
from core.options import JobOptions
from core.protocol import (
    Done,
    Progress,
    encode,
)
from tests.engine_doubles import FakeStages


class Recorder:
    """A sink that keeps messages and insists that each can travel."""

    def __init__(self) -> None:
        self.messages = []

    def __call__(self, message) -> None:
        encode(message)
        self.messages.append(message)

    def of(self, kind: type) -> list:
        return [m for m in self.messages if type(m) is kind]

    def order(self) -> list[str]:
        """Message types without Progress, repeats folded."""
        names = [type(m).__name__ for m in self.messages if not isinstance(m, Progress)]
        return [n for i, n in enumerate(names) if i == 0 or names[i - 1] != n]


def run(video, out: Path | None, stages=None, *, should_stop=lambda: False, choose=lambda: None, **options):
    recorder, stages = Recorder(), stages or FakeStages()
    options = JobOptions(out_dir=None if out is None else str(out), **options)
    done = pipeline.run(video, options, recorder, should_stop=should_stop, choose=choose, stages=stages)
    assert isinstance(done, Done)
    encode(done)
    return done, recorder, stages


def frames_of(messages: list) -> list[int]:
    return np.concatenate([stream.from_array(m.frames) for m in messages]).tolist() if messages else []
