"""The states of one recovery job as a table. No I/O, no bpy.

    idle -> starting -> running -> done
                 \\         \\-> cancelling -> cancelled | done | failed
                  \\-> failed, cancelled

`Job.on(event)` looks the pair (state, event) up in TRANSITIONS. A pair that is not there raises JobStateError and
changes nothing. That the engine's process died is an event like the others: it fails a running job, and ends a
cancelling one as cancelled, because the user wanted it to end and what arrived is kept either way.
"""

from __future__ import annotations

from enum import Enum

from .errors import JobStateError


class State(Enum):
    """Where a job stands."""

    IDLE = "idle"
    STARTING = "starting"
    """The engine process is being checked, started, and waited for."""
    RUNNING = "running"
    CANCELLING = "cancelling"
    """The user asked to stop; the engine may still hand over what is done."""
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Event(Enum):
    """What can happen to a job."""

    START = "start"
    CONNECTED = "connected"
    """The engine answered with the right token and has been given the job."""
    CANCEL = "cancel"
    FINISHED = "finished"
    """The engine said Done."""
    STOPPED = "stopped"
    """The engine said Done with cancelled=true, or was ended after Cancel."""
    REFUSED = "refused"
    """The engine said Error, or broke the protocol, or never came up."""
    DIED = "died"
    RESET = "reset"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.START): State.STARTING,
    (State.STARTING, Event.CONNECTED): State.RUNNING,
    (State.STARTING, Event.CANCEL): State.CANCELLING,
    (State.STARTING, Event.REFUSED): State.FAILED,
    (State.STARTING, Event.DIED): State.FAILED,
    (State.RUNNING, Event.CANCEL): State.CANCELLING,
    (State.RUNNING, Event.FINISHED): State.DONE,
    (State.RUNNING, Event.STOPPED): State.CANCELLED,
    (State.RUNNING, Event.REFUSED): State.FAILED,
    (State.RUNNING, Event.DIED): State.FAILED,
    (State.CANCELLING, Event.CONNECTED): State.CANCELLING,
    (State.CANCELLING, Event.CANCEL): State.CANCELLING,
    (State.CANCELLING, Event.FINISHED): State.DONE,
    (State.CANCELLING, Event.STOPPED): State.CANCELLED,
    (State.CANCELLING, Event.REFUSED): State.FAILED,
    (State.CANCELLING, Event.DIED): State.CANCELLED,
    (State.DONE, Event.RESET): State.IDLE,
    (State.CANCELLED, Event.RESET): State.IDLE,
    (State.FAILED, Event.RESET): State.IDLE,
}
ACTIVE = frozenset({State.STARTING, State.RUNNING, State.CANCELLING})
ENDED = frozenset({State.DONE, State.CANCELLED, State.FAILED})


class Job:
    """Holds the state of one job; see the module's table."""

    def __init__(self) -> None:
        self.state = State.IDLE

    def on(self, event: Event) -> State:
        """Apply an event and return the new state. JobStateError, and no change, where the table has no entry."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise JobStateError(f"A job that is {self.state.value} cannot take the event {event.value!r}") from None
        return self.state

    @property
    def is_active(self) -> bool:
        """True from the start until the job has ended one way or another."""
        return self.state in ACTIVE

    @property
    def has_ended(self) -> bool:
        """True once the job is done, cancelled or failed."""
        return self.state in ENDED
