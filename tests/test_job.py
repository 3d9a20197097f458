"""The job's table: every pair of state and event either leads where the table says or raises and changes nothing."""

from __future__ import annotations

import itertools

import pytest

from addon.errors import JobStateError
from addon.job import ACTIVE, ENDED, TRANSITIONS, Event, Job, State

STORIES = {
    "to the end": ((Event.START, Event.CONNECTED, Event.FINISHED), State.DONE),
    "engine missing": ((Event.START, Event.REFUSED), State.FAILED),
    "dies while starting": ((Event.START, Event.DIED), State.FAILED),
    "dies while running": ((Event.START, Event.CONNECTED, Event.DIED), State.FAILED),
    "cancel": ((Event.START, Event.CONNECTED, Event.CANCEL, Event.STOPPED), State.CANCELLED),
    "cancel twice": ((Event.START, Event.CONNECTED, Event.CANCEL, Event.CANCEL, Event.STOPPED), State.CANCELLED),
    "cancel too late": ((Event.START, Event.CONNECTED, Event.CANCEL, Event.FINISHED), State.DONE),
    "cancel before it is up": ((Event.START, Event.CANCEL, Event.CONNECTED, Event.STOPPED), State.CANCELLED),
    "dies after cancel": ((Event.START, Event.CONNECTED, Event.CANCEL, Event.DIED), State.CANCELLED),
    "again": ((Event.START, Event.REFUSED, Event.RESET, Event.START), State.STARTING),
}


@pytest.mark.parametrize("events, end", STORIES.values(), ids=STORIES)
def test_stories(events: tuple[Event, ...], end: State) -> None:
    job = Job()
    for event in events:
        job.on(event)
    assert job.state is end
    assert job.is_active == (end in {State.STARTING, State.RUNNING, State.CANCELLING})
    assert job.has_ended == (end in {State.DONE, State.CANCELLED, State.FAILED})


def test_every_pair_is_legal_or_refused_without_change() -> None:
    refused = 0
    for state, event in itertools.product(State, Event):
        job = Job()
        job.state = state
        if (state, event) in TRANSITIONS:
            assert job.on(event) is TRANSITIONS[state, event]
        else:
            refused += 1
            with pytest.raises(JobStateError, match=f"{state.value}.*{event.value}"):
                job.on(event)
            assert job.state is state
    assert refused == len(State) * len(Event) - len(TRANSITIONS)


def test_an_ended_job_takes_nothing_but_reset() -> None:
    for state in ENDED:
        assert [event for event in Event if (state, event) in TRANSITIONS] == [Event.RESET]


def test_an_active_job_can_always_be_cancelled_and_can_always_die() -> None:
    for state in ACTIVE:
        assert TRANSITIONS[state, Event.CANCEL] is State.CANCELLING
        assert TRANSITIONS[state, Event.DIED] in ENDED
