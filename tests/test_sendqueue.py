"""core.sendqueue: bounded in bytes, never blocks for ever."""

from __future__ import annotations

import threading
import time

from core.sendqueue import SendQueue


def test_order_and_count():
    queue = SendQueue(100, 1.0)
    for data in (b"a", b"bb", b"ccc"):
        assert queue.put(data)
    assert queue.byte_count == 6
    taken = []
    for _ in range(3):
        taken.append(queue.take())
        queue.taken()
    assert taken == [b"a", b"bb", b"ccc"] and queue.byte_count == 0


def test_full_queue_waits_for_room():
    queue = SendQueue(10, 5.0)
    queue.put(bytes(8))
    timer = threading.Timer(0.15, lambda: (queue.take(), queue.taken()))
    timer.start()
    began = time.monotonic()
    assert queue.put(bytes(8))
    assert 0.1 < time.monotonic() - began < 2.0
    timer.join()


def test_a_reader_that_stopped_costs_one_stall_only():
    queue = SendQueue(10, 0.2)
    queue.put(bytes(8))
    began = time.monotonic()
    assert not queue.put(bytes(8))
    assert time.monotonic() - began >= 0.2 and queue.is_stalled
    began = time.monotonic()
    assert not any(queue.put(bytes(8)) for _ in range(50))
    assert time.monotonic() - began < 0.1
    assert queue.put(bytes(8), is_urgent=True)
    began = time.monotonic()
    assert not queue.put(bytes(8)), "an urgent message is no sign of a reader"
    assert time.monotonic() - began < 0.1
    queue.take(), queue.taken()
    queue.take(), queue.taken()
    assert queue.put(bytes(8)) and not queue.is_stalled


def test_one_message_larger_than_the_bound_passes():
    queue = SendQueue(10, 0.1)
    assert queue.put(bytes(50))
    assert not queue.put(b"x")


def test_close_wakes_both_sides():
    queue = SendQueue(10, 60.0)
    queue.put(bytes(10))
    results = []
    putter = threading.Thread(target=lambda: results.append(queue.put(b"x")))
    putter.start()
    time.sleep(0.05)
    queue.close(discard=True)
    putter.join(2.0)
    assert results == [False] and queue.take() is None


def test_wait_until_empty():
    queue = SendQueue(100, 1.0)
    assert queue.wait_until_empty(0.1)
    queue.put(b"x")
    assert not queue.wait_until_empty(0.05)
    threading.Timer(0.05, queue.taken).start()
    assert queue.wait_until_empty(2.0)
