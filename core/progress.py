"""How far a job is and when it will be done: rates are measured per stage, the rest is scaled from them.

A stage that has run long enough is extrapolated at its own recent rate. A stage that has not is taken from
PRIOR_SECONDS, the seconds per unit on the machine it was first measured on, times how much slower this machine
proved in the stages already seen. The fraction of the whole is time spent / (time spent + time left) and never
goes back.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from core.protocol import STAGES, Progress

PRIOR_SECONDS = {
    "open": 0.5,
    "perceive": 0.018,
    "track": 0.0001,
    "recover": 0.008,
    "place": 0.0002,
    "write": 0.00005,
}
"""Seconds per unit of each stage (frames; open: once)."""
EMIT_INTERVAL_S = 0.1
MEASURE_S = 0.4
"""A stage's own rate counts after this long..."""
MEASURE_UNITS = 8
"""... or, before its second report, after so many units: the first one may have had to wait for loading."""
RECENT_S = 10.0


@dataclass
class _Stage:
    total: int = 0
    done: int = 0
    skipped: int = 0
    """Units that were there already (resumed): they say nothing about the rate."""
    seconds: float = 0.0
    is_finished: bool = False
    first: tuple[float, int] | None = None
    """(time, done) of the first report."""
    recent: deque = field(default_factory=deque)
    """(time, done) of the last RECENT_S seconds."""


class ProgressMeter:
    """Emits Progress messages. Stages are begun in the order of core.protocol.STAGES; `plan` announces later ones."""

    def __init__(self, emit: Callable[[Progress], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._emit, self._clock = emit, clock
        self._stages = {name: _Stage() for name in STAGES}
        self._current: str | None = None
        self._began = self._last_emit = clock()
        self._fraction = 0.0

    @property
    def fraction(self) -> float:
        """Fraction of the whole job, 0 to 1, never falling."""
        return self._fraction

    def plan(self, **totals: int) -> None:
        """Say how many units stages that have not begun will have."""
        for name, total in totals.items():
            self._stages[name].total = max(int(total), 0)

    def begin(self, name: str, total: int) -> None:
        """Enter a stage, leaving the one before."""
        self.end()
        stage = self._stages[name]
        stage.total, stage.done, stage.skipped = max(int(total), 0), 0, 0
        stage.first = None
        stage.recent.clear()
        self._current, self._began = name, self._clock()
        self.emit_now()

    def update(self, done: int, total: int | None = None) -> None:
        """Say how much of the current stage is done."""
        if self._current is None:
            return
        stage, now = self._stages[self._current], self._clock()
        if total is not None:
            stage.total = max(int(total), 0)
        stage.done = max(stage.done, int(done))
        stage.total = max(stage.total, stage.done)
        stage.seconds = now - self._began
        stage.first = stage.first or (now, stage.done)
        stage.recent.append((now, stage.done))
        while len(stage.recent) > 2 and now - stage.recent[0][0] > RECENT_S:
            stage.recent.popleft()
        if now - self._last_emit >= EMIT_INTERVAL_S:
            self.emit_now()

    def skip(self, count: int) -> None:
        """Say that `count` units of the current stage were there already."""
        if self._current is not None and count > 0:
            stage = self._stages[self._current]
            new = max(int(count) - stage.done, 0)
            stage.skipped, stage.done = stage.skipped + new, stage.done + new
            stage.first = None
            stage.recent.clear()

    def end(self) -> None:
        """Leave the current stage: its total becomes what was done."""
        if self._current is None:
            return
        stage = self._stages[self._current]
        stage.seconds = self._clock() - self._began
        stage.total, stage.is_finished = stage.done, True
        self.emit_now()
        self._current = None

    def finish(self) -> None:
        """The whole job is done."""
        self.end()
        self._fraction = 1.0

    def seconds(self) -> dict[str, float]:
        """Return the seconds spent in each stage that was entered."""
        return {name: round(s.seconds, 3) for name, s in self._stages.items() if s.seconds > 0}

    def emit_now(self) -> None:
        """Emit a Progress message whatever the interval."""
        if self._current is None:
            return
        stage = self._stages[self._current]
        self._last_emit = self._clock()
        left = self.seconds_left()
        spent = sum(s.seconds for s in self._stages.values())
        if left is not None and spent + left > 0:
            self._fraction = max(self._fraction, min(spent / (spent + left), 0.999))
        eta = -1.0 if left is None else round(left, 2)
        self._emit(Progress(self._current, stage.done, stage.total, round(self._fraction, 5), eta))

    def seconds_left(self) -> float | None:
        """Return the seconds to the end of the job, None before anything was measured."""
        slowness = self._slowness()
        if slowness is None:
            return None
        left = 0.0
        for name, stage in self._stages.items():
            if not stage.is_finished:
                rate = self._seconds_per_unit(stage)
                left += max(stage.total - stage.done, 0) * (PRIOR_SECONDS[name] * slowness if rate is None else rate)
        return left

    def _seconds_per_unit(self, stage: _Stage) -> float | None:
        """Return a stage's own rate, half of it over the last RECENT_S seconds; None before it can be told."""
        if stage.first is None:
            return None
        (t0, n0), (t1, n1) = stage.first, stage.recent[-1]
        if n1 > n0 and t1 - t0 >= MEASURE_S:
            overall = (t1 - t0) / (n1 - n0)
        elif stage.done - stage.skipped >= MEASURE_UNITS and stage.seconds >= MEASURE_S:
            return stage.seconds / (stage.done - stage.skipped)
        else:
            return None
        t0, n0 = stage.recent[0]
        recent = (t1 - t0) / (n1 - n0) if n1 > n0 and t1 - t0 >= MEASURE_S else overall
        return 0.5 * (overall + recent)

    def _slowness(self) -> float | None:
        """Return measured / prior time over what was measured so far, None before there is enough of it."""
        measured = expected = 0.0
        for name, stage in self._stages.items():
            rate = self._seconds_per_unit(stage)
            if rate is not None and name != "open":
                units = stage.done - stage.skipped
                measured += units * rate
                expected += units * PRIOR_SECONDS[name]
        return min(max(measured / expected, 0.02), 50.0) if expected else None
