"""A queue of encoded messages between the computation and the socket, bounded in bytes. No sockets here.

The computation puts, the sender thread takes. When the other side reads slower than the engine computes, `put`
waits, so memory stays bounded; but it waits at most `stall_s` for room, then refuses until there is room again, so
that a side that has stopped reading can never stop the computation. What to do with a refused message (send it
without its vertices, drop it) is the caller's decision.
"""

from __future__ import annotations

import threading
from collections import deque


class SendQueue:
    """Bounded queue of byte strings. Thread-safe; `close` wakes everybody."""

    def __init__(self, max_bytes: int, stall_s: float) -> None:
        self._max_bytes, self._stall_s = max_bytes, stall_s
        self._items: deque[bytes] = deque()
        self._bytes = 0
        self._is_closed = self._is_stalled = False
        self._changed = threading.Condition()

    @property
    def byte_count(self) -> int:
        """Bytes that wait to be sent."""
        return self._bytes

    @property
    def is_stalled(self) -> bool:
        """Whether the other side had stopped reading when something was last put."""
        return self._is_stalled

    def put(self, data: bytes, *, is_urgent: bool = False) -> bool:
        """Add data; return False if there was no room for it within the stall time or the queue is closed.

        An urgent message never waits and may exceed the bound (small ones: Done, Error).
        """
        with self._changed:
            if not is_urgent:
                wait_s = 0.0 if self._is_stalled else self._stall_s
                self._is_stalled = not self._changed.wait_for(lambda: self._has_room(len(data)), wait_s)
            if self._is_closed or (self._is_stalled and not is_urgent):
                return False
            self._items.append(data)
            self._bytes += len(data)
            self._changed.notify_all()
            return True

    def take(self) -> bytes | None:
        """Return the next data, waiting for it; None once the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_closed)
            return self._items[0] if self._items else None

    def taken(self) -> None:
        """Say that the data of the last `take` has left: its bytes count until then."""
        with self._changed:
            if self._items:
                self._bytes -= len(self._items.popleft())
            self._changed.notify_all()

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Return whether everything had been sent before the timeout (time starts anew while bytes still leave)."""
        with self._changed:
            while self._items and not self._is_closed:
                before = len(self._items)
                if not self._changed.wait_for(lambda n=before: len(self._items) < n or self._is_closed, timeout_s):
                    return False
            return not self._items

    def close(self, *, discard: bool = False) -> None:
        """Accept nothing more; with `discard`, forget what was not sent."""
        with self._changed:
            self._is_closed = True
            if discard:
                self._items.clear()
                self._bytes = 0
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        # One message always fits into an empty queue, however large it is.
        return self._is_closed or not self._items or self._bytes + size <= self._max_bytes
