"""How many threads torch should use on this machine, now: measured, not assumed.

Small convolutions gain little from threads, and lose a lot when other programs want the same cores, because threads
that share an operation wait for each other. So the work itself is timed with one thread, then with more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

RUNS = 3
GAIN = 1.1
"""More threads must be this much faster to be taken."""


def fastest_thread_count(
    work: Callable[[], object],
    set_threads: Callable[[int], None],
    *,
    counts: Iterable[int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return the thread count for which `work` runs fastest, trying few threads first and stopping when more lose.

    Leaves the chosen count set.
    """
    best_count, best_s = 1, float("inf")
    for count in thread_counts(os.cpu_count() or 1) if counts is None else counts:
        set_threads(count)
        work()
        seconds = min(_timed(work, clock) for _ in range(RUNS))
        if seconds * GAIN < best_s:
            best_count, best_s = count, seconds
        else:
            break
    set_threads(best_count)
    return best_count


def thread_counts(cores: int) -> list[int]:
    """Return 1, 2, 4, ... up to the cores there are, 16 at most."""
    counts = [1]
    while counts[-1] * 2 <= min(cores, 16):
        counts.append(counts[-1] * 2)
    return counts


def _timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began
