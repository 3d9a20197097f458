"""core.threads on simulated machines."""

from __future__ import annotations

import pytest

from core.threads import fastest_thread_count, thread_counts


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39}, 4),
        ({1: 1.0, 2: 12.0, 4: 0.1}, 1),
        ({1: 1.0, 2: 0.95, 4: 0.3}, 1),
        ({1: 1.0, 2: 0.5}, 2),
    ],
    ids=["gain ends at 4", "busy machine", "not worth it", "two cores"],
)
def test_the_fastest_count_is_chosen_and_set(seconds, best):
    state = {"threads": 0, "now": 0.0}

    def work():
        state["now"] += seconds[state["threads"]]

    def set_threads(count):
        state["threads"] = count

    found = fastest_thread_count(work, set_threads, counts=list(seconds), clock=lambda: state["now"])
    assert found == best and state["threads"] == best


def test_counts():
    assert thread_counts(1) == [1]
    assert thread_counts(2) == [1, 2]
    assert thread_counts(12) == [1, 2, 4, 8]
    assert thread_counts(64) == [1, 2, 4, 8, 16]
