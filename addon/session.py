"""One recovery job from start to end: client, job states and the sink that writes into the scene. No bpy.

The window's timer and the headless loop both call `tick` until `is_over`; nothing else differs between them. A tick
takes messages from the client, keeps what the panel shows (`status`), and hands everything to the sink, which is a
scene.writer.SceneWriter or, in tests, anything with `handle(message)`, `tick(budget_s) -> bool` and `finish()`.
Messages are only taken while the sink keeps up, so a slow scene slows the engine down instead of filling memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .client import Connected, Ended, EngineClient
from .errors import AddonError, EngineDiedError
from .job import Event, Job, State
from .wire import protocol

TICK_SECONDS = 0.006
"""The budget of 8 ms less the length of the last step of work, which is never cut."""
CANCEL_GRACE_SECONDS = 10.0
"""How long an engine of which nothing has arrived may be silent after Cancel before it is ended by force."""
KEEPING_GRACE_SECONDS = 30.0
"""The same where frames have arrived, which it places and writes before it says Done. As long as it goes on handing
over it is waited for, and what waits on this side is written in any case."""
STAGE_LABELS = {
    "start": "Starting the engine",
    "open": "Opening the video",
    "perceive": "Finding people",
    "track": "Following people",
    "recover": "Recovering motion",
    "place": "Placing in the world",
    "write": "Writing the result",
}
log = logging.getLogger(__name__)


class Sink(Protocol):
    """What receives the engine's messages."""

    def handle(self, message: protocol.Message) -> None:
        """Take a message; quick."""

    def tick(self, budget_s: float) -> bool:
        """Work for about that long; True while work waits."""

    def finish(self) -> object:
        """Complete everything; called exactly once. Returns a summary for `Session.summary`."""


@dataclass
class Status:
    """What the panel, the operators' reports and the batch report show."""

    stage: str = "start"
    done: int = 0
    total: int = 0
    fraction: float = 0.0
    eta_s: float = -1.0
    eta_since: float = 0.0
    device: str = ""
    people: list[dict] = field(default_factory=list)
    frames: int = 0
    """Person-frames received; a revised frame counts once."""
    figures: set[int] = field(default_factory=set)
    """The people whose frames these are."""
    error: str = ""
    results: list[str] = field(default_factory=list)
    engine_summary: dict = field(default_factory=dict)

    @property
    def stage_label(self) -> str:
        """The stage in words."""
        return STAGE_LABELS.get(self.stage, self.stage.title())

    def eta_now_s(self, now: float) -> float:
        """Return the engine's estimate less the time since it was made; negative if there is none."""
        return self.eta_s if self.eta_s < 0 else max(0.0, self.eta_s - (now - self.eta_since))


class Session:
    """Runs one job. Main thread only; never blocks, save `run_blocking` and `abort`."""

    def __init__(self, client: EngineClient, sink: Sink) -> None:
        self.client, self.sink = client, sink
        self.job, self.status = Job(), Status()
        self.summary: object = None
        self.is_over = False
        self.started_at = self.ended_at = self.heard_at = 0.0
        self.longest_tick_s = 0.0
        self._cancelled_at: float | None = None
        self._worked_at = 0.0
        """When the sink last left work for the next tick."""
        self._sink_waits = False

    def start(self, video: str, options: dict) -> None:
        """Start the engine on a video."""
        self.job.on(Event.START)
        self.started_at = self.heard_at = time.monotonic()
        self.client.start(protocol.Job(video, options))

    def tick(self, budget_s: float = TICK_SECONDS) -> None:
        """Do what there is to do, for about `budget_s`. All failures end in `status.error`, none is raised."""
        if self.is_over:
            return
        started = time.perf_counter()
        try:
            if not self._sink_waits:
                for item in self.client.poll(budget_s / 2):
                    self._take(item)
            left = budget_s - (time.perf_counter() - started)
            self._sink_waits = self.sink.tick(max(left, 0.001))
            self._end_if_due()
        except Exception as error:  # the one catch-all of this side: whatever the scene or a message does to us
            log.exception("the job cannot go on")
            self._fail(f"{type(error).__name__}: {error}. The job was stopped; what had arrived is kept")
            self.is_over = True
        self.longest_tick_s = max(self.longest_tick_s, time.perf_counter() - started)

    def cancel(self) -> None:
        """Ask the engine to stop. Acts at once; what is done is kept. Without effect on a job that has ended."""
        if not self.job.is_active:
            return
        was_starting = self.job.state is State.STARTING
        self.job.on(Event.CANCEL)
        self._cancelled_at = self._cancelled_at or time.monotonic()
        if was_starting or not self.client.cancel():
            self.client.close()
            self._end(Event.STOPPED)

    def choose(self, people: list[int]) -> None:
        """Tell the engine to recover only these people."""
        self.client.send(protocol.Choose(people))

    def abort(self) -> None:
        """End engine and job now, keep what is written. For loading another file, disabling and quitting."""
        self.client.kill()
        self.client.join()
        if self.job.is_active:
            self.job.on(Event.CANCEL)
            self._end(Event.STOPPED)
        if not self.is_over:
            self.is_over = True
            self.summary = self.sink.finish()

    def run_blocking(self, on_tick: Callable[[Session], None] | None = None) -> None:
        """Tick until over, for background mode. KeyboardInterrupt cancels cleanly and goes on to the end."""
        while not self.is_over:
            try:
                self.tick(0.1)
                if on_tick:
                    on_tick(self)
                if not self._sink_waits and not self.is_over:
                    self.client.wait(0.05)
            except KeyboardInterrupt:
                self.cancel()
        self.client.join()

    @property
    def is_busy(self) -> bool:
        """True while the sink has work or messages wait: tick again soon."""
        return self._sink_waits or self.client.has_waiting()

    @property
    def seconds(self) -> float:
        """Seconds since the start, up to the end."""
        return (self.ended_at or time.monotonic()) - self.started_at

    @property
    def silent_s(self) -> float:
        """Seconds since the engine last said something."""
        return time.monotonic() - self.heard_at

    # -- inside -------------------------------------------------------------------------------------------------

    def _take(self, item: object) -> None:
        self.heard_at = time.monotonic()
        if isinstance(item, Connected):
            self.job.on(Event.CONNECTED)
            self.status.device = item.hello.device
            self.status.stage = "open"
        elif isinstance(item, Ended):
            self._take_end(item)
        elif self.job.is_active:
            self._take_message(item)

    def _take_message(self, message: protocol.Message) -> None:
        status = self.status
        if isinstance(message, protocol.Progress):
            status.stage, status.done, status.total = message.stage, message.done, message.total
            status.fraction = min(max(message.fraction, 0.0), 1.0)
            status.eta_s, status.eta_since = message.eta_s, self.heard_at
        elif isinstance(message, protocol.People):
            status.people = message.people
        elif type(message) is protocol.Frames:
            status.frames += message.frames.shape[0]
            status.figures.add(message.person)
        elif isinstance(message, protocol.Error):
            status.error = message.message
        self.sink.handle(message)
        if isinstance(message, protocol.Done):
            status.results, status.engine_summary = list(message.results), message.summary
            status.fraction = 1.0
            self._end(Event.STOPPED if message.cancelled else Event.FINISHED)
        elif isinstance(message, protocol.Error):
            self._end(Event.REFUSED)

    def _take_end(self, ended: Ended) -> None:
        if not self.job.is_active:  # after Done or Error the engine may leave as it likes
            return
        error = ended.error or EngineDiedError("The engine left without a result: open the log")
        is_death = isinstance(error, EngineDiedError)
        if not isinstance(error, AddonError):
            error = f"The engine and the add-on do not understand each other ({error}): build the engine again"
        if self.job.state is not State.CANCELLING or not is_death:
            self.status.error = str(error)
        self._end(Event.DIED if is_death else Event.REFUSED)

    def _end(self, event: Event) -> None:
        self.job.on(event)
        self.ended_at = time.monotonic()
        self.client.close()

    def _end_if_due(self) -> None:
        """Force an engine that does not react to Cancel; finish the sink once the job has ended and it is empty."""
        is_idle = not self._sink_waits and not self.client.has_waiting()
        if self._sink_waits:
            self._worked_at = time.monotonic()
        if self.job.state is State.CANCELLING and is_idle:
            grace = KEEPING_GRACE_SECONDS if self.status.frames else CANCEL_GRACE_SECONDS
            if time.monotonic() - max(self._cancelled_at, self.heard_at, self._worked_at) > grace:
                self._end(Event.STOPPED)
        if self.job.has_ended and not self._sink_waits:
            self.is_over = True
            self.summary = self.sink.finish()

    def _fail(self, text: str) -> None:
        self.status.error = self.status.error or text
        if self.job.is_active:
            self._end(Event.REFUSED)
