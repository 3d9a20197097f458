"""The session against a real process: cancel in every state, backpressure, budgets, and a sink that misbehaves."""

from __future__ import annotations

import time
from pathlib import Path

from addon.job import State
from core import protocol
from tests.fake_engine import heard
from tests.session_support import Recorder, running, tick_until, wait_for_end_of


def test_several_people_arrive_complete(tmp_path: Path) -> None:
    sink = Recorder()
    with running(tmp_path, sink, frames=40, people=3) as session:
        session.run_blocking()
    assert session.job.state is State.DONE
    assert len(session.status.people) == 3 and session.status.frames == 120
    assert session.status.figures == {0, 1, 2}


def test_an_engine_error_reaches_the_user(tmp_path: Path) -> None:
    with running(tmp_path, frames=96, error_at=32, error_text="Nobody was found: choose another clip") as session:
        tick_until(session, lambda: session.is_over)
    assert session.job.state is State.FAILED
    assert session.status.error == "Nobody was found: choose another clip"
    assert session.sink.finished == 1


def test_cancel_keeps_what_is_done_and_takes_less_than_a_second(tmp_path: Path) -> None:
    sink = Recorder()
    with running(tmp_path, sink, frames=1600, chunk=32, chunk_delay_s=0.05) as session:
        tick_until(session, lambda: len(sink.frames()) >= 64)
        started = time.perf_counter()
        session.cancel()
        assert time.perf_counter() - started < 0.008
        assert session.job.state is State.CANCELLING
        session.cancel()
        waited = tick_until(session, lambda: session.is_over)
    assert waited < 1.0
    assert session.job.state is State.CANCELLED and session.status.error == ""
    assert heard(tmp_path)["cancelled"] is True
    assert len(sink.frames()) >= 64 and sink.finished == 1


def test_cancel_while_starting_ends_at_once(tmp_path: Path) -> None:
    with running(tmp_path, start_delay_s=30.0) as session:
        tick_until(session, lambda: session.client.pid)
        pid = session.client.pid
        session.cancel()
        waited = tick_until(session, lambda: session.is_over)
        assert waited < 0.5 and session.job.state is State.CANCELLED
        wait_for_end_of(pid, 4.0)


def test_cancel_of_an_engine_that_hangs_ends_it_by_force(tmp_path: Path, monkeypatch) -> None:
    """It ignores Cancel and SIGTERM; after the grace period it is killed and its frames stay."""
    monkeypatch.setattr("addon.session.KEEPING_GRACE_SECONDS", 0.3)
    with running(tmp_path, frames=96, stall_at=64) as session:
        tick_until(session, lambda: len(session.sink.frames()) >= 64)
        pid = session.client.pid
        session.cancel()
        assert tick_until(session, lambda: session.is_over) < 1.0
        assert session.job.state is State.CANCELLED
        wait_for_end_of(pid, 5.0)
    assert session.sink.frames() == list(range(64))


def test_after_cancel_an_engine_is_waited_for_as_long_as_it_hands_over(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("addon.session.KEEPING_GRACE_SECONDS", 0.6)
    with running(tmp_path, frames=1600, chunk=32, chunk_delay_s=0.02, late_s=0.3) as session:
        tick_until(session, lambda: len(session.sink.frames()) >= 128)
        session.cancel()
        assert tick_until(session, lambda: session.is_over) > 1.0
    assert session.job.state is State.CANCELLED and heard(tmp_path)["cancelled"] is True
    revised = [m.frames.shape[0] for m in session.sink.messages if type(m) is protocol.Revise]
    assert sum(revised) == len(session.sink.frames()) >= 128
    assert isinstance(session.sink.messages[-1], protocol.Done)


def test_after_cancel_what_waits_here_is_taken_before_the_engine_is_ended(tmp_path: Path, monkeypatch) -> None:
    """The engine has sent its frames and hangs; the sink is busy for longer than the grace period."""
    monkeypatch.setattr("addon.session.KEEPING_GRACE_SECONDS", 0.2)
    with running(tmp_path, frames=256, chunk=32, stall_at=224) as session:
        tick_until(session, lambda: session.job.state is State.RUNNING)
        deadline = time.monotonic() + 5.0
        while heard(tmp_path).get("sent_frames", 0) < 224 and time.monotonic() < deadline:
            time.sleep(0.01)
        session.cancel()
        session.sink.busy_ticks = 100
        tick_until(session, lambda: session.is_over)
    assert session.job.state is State.CANCELLED and session.sink.frames() == list(range(224))


def test_a_slow_consumer_slows_the_engine_down(tmp_path: Path) -> None:
    """20 MB are offered; nobody polls; only what the queue and the sockets hold may leave the engine."""
    flood = 300
    with running(tmp_path, frames=8, flood=flood) as session:
        tick_until(session, lambda: session.status.stage == "perceive")
        time.sleep(1.0)
        first = heard(tmp_path)["flood_sent"]
        time.sleep(0.5)
        assert heard(tmp_path)["flood_sent"] == first < flood
        assert session.client._queue.qsize() <= 16
        session.run_blocking()
    assert heard(tmp_path)["flood_sent"] == flood
    assert session.job.state is State.DONE and session.sink.frames() == list(range(8))


def test_a_busy_sink_is_not_fed(tmp_path: Path) -> None:
    sink = Recorder(busy_ticks=40)
    with running(tmp_path, sink, frames=8) as session:
        session.tick()
        time.sleep(0.7)
        for _ in range(20):
            session.tick()
        assert sink.messages == []
        session.run_blocking()
    assert session.job.state is State.DONE and sink.frames() == list(range(8))


def test_a_tick_keeps_its_budget(tmp_path: Path) -> None:
    with running(tmp_path, frames=3200, chunk=32) as session:
        tick_until(session, lambda: session.is_over)
    assert session.status.frames == 3200
    assert session.longest_tick_s < 0.03  # 8 ms on an idle machine; the test shares its cores


def test_a_sink_that_raises_fails_the_job(tmp_path: Path, caplog) -> None:
    class Broken(Recorder):
        def handle(self, message: protocol.Message) -> None:
            raise ReferenceError("StructRNA of type Object has been removed")

    with running(tmp_path, Broken(), frames=8) as session:
        tick_until(session, lambda: session.is_over)
    assert session.job.state is State.FAILED and "StructRNA" in session.status.error
    assert "the job cannot go on" in caplog.text


def test_abort_kills_at_once(tmp_path: Path) -> None:
    with running(tmp_path, frames=96, stall_at=32) as session:
        tick_until(session, lambda: len(session.sink.frames()) >= 32)
        pid = session.client.pid
        started = time.monotonic()
        session.abort()
        assert time.monotonic() - started < 3.0
        assert not session.client.is_alive() and session.is_over and session.sink.finished == 1
        wait_for_end_of(pid, 0.5)
        session.abort()
        assert session.sink.finished == 1
