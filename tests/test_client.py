"""The client against a real process: the conversation, its end in every way, and what is kept."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from addon.client import Connected, Ended, EngineClient
from addon.errors import EngineDiedError, EngineMissingError, EngineStartError
from addon.job import State
from core import protocol
from tests.fake_engine import fake_python, heard
from tests.fake_motion import walk
from tests.session_support import PATIENCE_S, ROOT, Recorder, running, tick_until, wait_for_end_of


def test_a_job_in_order(tmp_path: Path) -> None:
    sink = Recorder()
    with running(tmp_path, sink, {"method": "fit"}, frames=80, chunk=32) as session:
        pid = None

        def is_over() -> bool:
            nonlocal pid
            pid = pid or session.client.pid
            return session.is_over

        tick_until(session, is_over)
        wait_for_end_of(pid, 4.0)
    assert session.job.state is State.DONE
    assert session.status.error == ""
    assert session.summary == "summary" and sink.finished == 1
    assert sink.frames() == list(range(80)) and session.status.frames == 80
    kinds = [type(m).__name__ for m in sink.messages]
    assert kinds[:2] == ["Video", "Body"] and kinds[-1] == "Done"
    poses = np.concatenate([np.frombuffer(m.poses.data, "<f4") for m in sink.messages if hasattr(m, "poses")])
    np.testing.assert_allclose(poses.reshape(80, 24, 3), walk(np.arange(80), 30.0, 0)[0], atol=1e-6)
    notes = heard(tmp_path)
    assert notes["job"] == {"video": "clip.mp4", "options": {"method": "fit"}}
    assert notes["token_in_arguments"] is False


def test_the_right_token_is_the_only_way_in(tmp_path: Path) -> None:
    with running(tmp_path, wrong_token=True) as session:
        tick_until(session, lambda: session.is_over)
    assert session.job.state is State.FAILED
    assert "wrong token" in session.status.error
    assert not session.sink.messages


def test_a_stranger_is_refused_and_the_engine_still_gets_in(tmp_path: Path, monkeypatch) -> None:
    """Somebody else on this machine finds the port first and sends a Hello with a guessed token."""
    ports = []
    create_server = socket.create_server
    monkeypatch.setattr(
        socket,
        "create_server",
        lambda *a, **k: (ports.append(create_server(*a, **k)), ports[-1])[1],
    )
    with running(tmp_path, frames=8, start_delay_s=0.5) as session:
        tick_until(session, lambda: ports)
        with socket.create_connection(ports[0].getsockname(), 2.0) as stranger:
            stranger.sendall(protocol.encode(protocol.Hello("0" * 64, "x", 1, "cpu")))
            stranger.settimeout(3.0)
            assert stranger.recv(100) == b""  # closed without a word
        session.run_blocking()
    assert session.job.state is State.DONE


@pytest.mark.parametrize("at", [0, 32])
def test_garbage_is_a_clear_error(tmp_path: Path, at: int) -> None:
    with running(tmp_path, frames=64, garbage_at=at) as session:
        tick_until(session, lambda: session.is_over)
    assert session.job.state is State.FAILED
    if at:
        assert "do not understand each other" in session.status.error
        assert session.sink.frames() == list(range(32))
    else:
        assert "wrong token" in session.status.error


def test_a_message_only_blender_may_send_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("addon.client.FROM_ENGINE", (protocol.Video,))
    with running(tmp_path, frames=8) as session:
        tick_until(session, lambda: session.is_over)
    assert session.job.state is State.FAILED and "may not send Body" in session.status.error


def test_kill_in_the_middle_is_noticed_within_two_seconds_and_frames_are_kept(tmp_path: Path) -> None:
    sink = Recorder()
    with running(tmp_path, sink, frames=480, chunk=32, chunk_delay_s=0.1) as session:
        tick_until(session, lambda: len(sink.frames()) >= 96)
        os.kill(session.client.pid, signal.SIGKILL)
        waited = tick_until(session, lambda: session.job.has_ended)
        tick_until(session, lambda: session.is_over)
    assert waited < 2.0
    assert session.job.state is State.FAILED
    assert "(signal 9): ended from outside, perhaps for lack of memory" in session.status.error
    frames = sink.frames()
    assert len(frames) >= 96 and frames == list(range(len(frames)))
    assert sink.finished == 1


def test_last_words_of_a_dying_engine_are_shown(tmp_path: Path) -> None:
    with running(tmp_path, frames=96, exit_at=64) as session:
        session.run_blocking()
    assert session.job.state is State.FAILED
    assert "exit code 3" in session.status.error and "the weights are broken" in session.status.error
    assert session.sink.frames() == list(range(64))
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_an_engine_that_dies_while_starting(tmp_path: Path) -> None:
    with running(tmp_path, exit_at=0) as session:
        waited = tick_until(session, lambda: session.is_over)
    assert session.job.state is State.FAILED and waited < 3.0
    assert "while starting" in session.status.error and "the weights are broken" in session.status.error


def test_an_engine_that_never_answers(tmp_path: Path) -> None:
    with running(tmp_path, start_delay_s=30.0, client_options={"start_timeout_s": 0.5}) as session:
        waited = tick_until(session, lambda: session.is_over)
    assert session.job.state is State.FAILED and "did not answer" in session.status.error
    assert waited < 4.0


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    client = EngineClient(str(tmp_path / "nothing"), ROOT)
    client.start(protocol.Job("clip.mp4", {}))
    client.wait(5.0)
    [ended] = list(client.poll(1.0))
    assert isinstance(ended.error, EngineStartError) and "Build Engine" in str(ended.error)


def test_the_check_runs_before_the_process(tmp_path: Path) -> None:
    def check(python: str) -> None:
        raise EngineMissingError(f"{python} is too old")

    client = EngineClient("python2", ROOT, check=check)
    client.start(protocol.Job("clip.mp4", {}))
    client.wait(5.0)
    assert [str(item.error) for item in client.poll(1.0)] == ["python2 is too old"]
    assert client.pid is None


def test_poll_yields_connected_first_and_ended_last(tmp_path: Path) -> None:
    client = EngineClient(fake_python(tmp_path, frames=32, die_at=0), ROOT)
    client.start(protocol.Job("clip.mp4", {}))
    items, deadline = [], time.monotonic() + PATIENCE_S
    while not (items and isinstance(items[-1], Ended)):
        assert time.monotonic() < deadline
        client.wait(1.0)
        items += client.poll(0.01)
    assert isinstance(items[0], Connected) and items[0].hello.device == "cpu"
    assert isinstance(items[-1].error, EngineDiedError)
    client.kill()
    assert list(client.poll(0.01)) == []
