"""What the tests of client and session share: a sink that remembers, a session on the stand-in, and waiting."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import numpy as np

from addon.client import EngineClient
from addon.session import Session
from core import protocol
from tests.fake_engine import fake_python

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 15.0


class Recorder:
    """A sink that keeps what it gets and can be slow."""

    def __init__(self, busy_ticks: int = 0) -> None:
        self.messages, self.finished, self.busy_ticks = [], 0, busy_ticks

    def handle(self, message: protocol.Message) -> None:
        self.messages.append(message)

    def tick(self, budget_s: float) -> bool:
        self.busy_ticks -= 1
        return self.busy_ticks >= 0

    def finish(self) -> str:
        self.finished += 1
        return "summary"

    def frames(self) -> list[int]:
        found = [np.frombuffer(m.frames.data, m.frames.dtype) for m in self.messages if type(m) is protocol.Frames]
        return np.concatenate(found).tolist() if found else []


@contextlib.contextmanager
def running(folder: Path, sink=None, options: dict | None = None, client_options: dict | None = None, **behaviour):
    """Start a session on the stand-in; whatever the test does, nothing is left running."""
    client = EngineClient(fake_python(folder, **behaviour), ROOT, log=folder / "log.txt", **(client_options or {}))
    session = Session(client, sink or Recorder())
    session.start("clip.mp4", options or {})
    try:
        yield session
    finally:
        client.kill()
        assert not client.is_alive()


def tick_until(session: Session, condition, seconds: float = PATIENCE_S) -> float:
    """Tick as a timer would; return the seconds until the condition held."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"waited {seconds} s in state {session.job.state}"
        session.tick()
        time.sleep(0.005)
    return time.monotonic() - started


def wait_for_end_of(pid: int, seconds: float) -> float:
    """Return the seconds until no process has this id."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return time.monotonic() - started
        time.sleep(0.01)
    raise AssertionError(f"process {pid} lives after {seconds} s")
