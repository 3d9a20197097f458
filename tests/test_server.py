"""core.server as a real process over a real socket, with doubles of the pipeline's stages behind it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core import protocol, server, stream
from tests.engine_doubles import VERTICES

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "0123456789abcdef"


class Blender:
    """The other side: listens, starts the engine, reads messages."""

    def __init__(self, **settings) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "engine_doubles.py"), str(port), json.dumps(settings)],
            env={**os.environ, protocol.TOKEN_VARIABLE: TOKEN, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        listener.settimeout(20)
        self.socket, _ = listener.accept()
        listener.close()
        self.socket.settimeout(20)
        self.decoder = protocol.Decoder()

    def __enter__(self) -> Blender:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def send(self, message: protocol.Message | bytes) -> None:
        self.socket.sendall(message if isinstance(message, bytes) else protocol.encode(message))

    def read(self) -> protocol.Message | None:
        """Return the next message, None at the end of the connection."""
        while (message := self.decoder.next_or_none()) is None:
            data = self.socket.recv(1 << 20)
            if not data:
                return None
            self.decoder.feed(data)
        return message

    def read_until(self, *kinds: type) -> list[protocol.Message]:
        """Return messages up to and with the first of these kinds."""
        found = []
        while True:
            message = self.read()
            assert message is not None, f"closed after {[type(m).__name__ for m in found]}: {self.stderr()}"
            found.append(message)
            if isinstance(message, kinds):
                return found

    def exit_code(self, seconds: float) -> int:
        """Wait for the process to end by itself; TimeoutExpired if it takes longer."""
        return self.process.wait(seconds)

    def stderr(self) -> str:
        self.process.kill()
        return self.process.stderr.read().decode()


@pytest.fixture
def video(tmp_path) -> str:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not read by the doubles" * 10)
    return str(path)


def test_a_job_from_hello_to_done(video, tmp_path):
    with Blender(people=2) as blender:
        hello = blender.read()
        assert isinstance(hello, protocol.Hello) and hello.token == TOKEN and hello.pid == blender.process.pid
        blender.send(protocol.Job(video, {"out_dir": str(tmp_path / "out"), "vertices": True}))
        messages = blender.read_until(protocol.Done, protocol.Error)
        done = messages[-1]
        assert isinstance(done, protocol.Done) and not done.cancelled and len(done.results) == 2
        assert all(Path(p).is_file() for p in done.results)
        frames = [m for m in messages if type(m) is protocol.Frames]
        assert sum(m.frames.shape[0] for m in frames) == 100 + 90
        assert stream.from_array(frames[0].vertices).shape == (20, VERTICES, 3)
        blender.send(protocol.Bye())
        assert blender.read() is None
        assert blender.exit_code(2.0) == server.OK


def test_the_token_is_in_no_command_line_and_leaves_the_environment(video):
    with Blender() as blender:
        blender.read()
        command = Path(f"/proc/{blender.process.pid}/cmdline")
        if command.exists():
            assert TOKEN.encode() not in command.read_bytes()


def test_two_jobs_one_after_the_other(video):
    with Blender() as blender:
        blender.read()
        for _ in range(2):
            blender.send(protocol.Job(video, {}))
            assert isinstance(blender.read_until(protocol.Done, protocol.Error)[-1], protocol.Done)


def test_cancel_is_answered_with_what_is_done(video, tmp_path):
    with Blender(frames=2000, delay_s=0.0) as blender:
        blender.read()
        blender.send(protocol.Job(video, {"out_dir": str(tmp_path)}))
        blender.read_until(protocol.Frames)
        blender.send(protocol.Cancel())
        began = time.monotonic()
        done = blender.read_until(protocol.Done, protocol.Error)[-1]
        assert time.monotonic() - began < 2.0
        assert isinstance(done, protocol.Done)


def test_cancel_while_perceiving(video, tmp_path):
    with Blender(frames=1000, delay_s=0.05) as blender:
        blender.read()
        blender.send(protocol.Job(video, {"out_dir": str(tmp_path)}))
        while (found := blender.read_until(protocol.Progress)[-1]).stage != "perceive" or found.done < 2:
            pass  # until frames have been seen
        blender.send(protocol.Cancel())
        began = time.monotonic()
        done = blender.read_until(protocol.Done, protocol.Error)[-1]
        assert time.monotonic() - began < 2.0
        assert done.cancelled and [Path(p).name for p in done.results] == ["clip_person0.npz"]


def test_choose_is_followed(video):
    with Blender(people=2) as blender:
        blender.read()
        blender.send(protocol.Job(video, {"person": "ask"}))
        blender.read_until(protocol.People)
        blender.send(protocol.Choose([1]))
        messages = blender.read_until(protocol.Done, protocol.Error)
        assert {m.person for m in messages if isinstance(m, protocol.Frames)} == {1}


def test_expected_errors_are_one_message_with_a_code(video):
    with Blender(people=0) as blender:
        blender.read()
        blender.send(protocol.Job(video, {}))
        error = blender.read_until(protocol.Done, protocol.Error)[-1]
        assert error.code == "no_person" and error.message.startswith("No person found in clip.mp4")
        blender.send(protocol.Job(video, {"metod": "fit"}))
        error = blender.read_until(protocol.Done, protocol.Error)[-1]
        assert error.code == "input" and "Unknown option 'metod'" in error.message
        blender.send(protocol.Bye())
        assert blender.exit_code(2.0) == server.JOB_FAILED


def test_unexpected_errors_are_one_line_with_the_traceback_in_the_log(video):
    with Blender(fail="a bug\nof two lines") as blender:
        blender.read()
        blender.send(protocol.Job(video, {}))
        error = blender.read_until(protocol.Done, protocol.Error)[-1]
        assert error.message == "The engine failed unexpectedly: RuntimeError: a bug of two lines"
        blender.send(protocol.Bye())
        assert blender.exit_code(2.0) == server.JOB_FAILED
        assert "Traceback" in blender.stderr()


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"HMOC" + b"\xff" * 60, protocol.encode(protocol.Done(False, [], {}))],
    ids=["http", "header", "wrong_way"],
)
def test_garbage_ends_the_engine_with_a_clear_error(garbage):
    with Blender() as blender:
        blender.read()
        blender.send(garbage)
        error = blender.read_until(protocol.Error)[-1]
        assert error.code == "protocol"
        assert blender.exit_code(2.0) == server.PROTOCOL_BROKEN
        assert "broke the protocol" in blender.stderr()


def test_a_second_job_while_one_runs_is_refused(video):
    with Blender(frames=1000, delay_s=0.05) as blender:
        blender.read()
        blender.send(protocol.Job(video, {}))
        blender.read_until(protocol.Progress)
        blender.send(protocol.Job(video, {}))
        assert blender.read_until(protocol.Error)[-1].message == "a job came while another is running"
        assert blender.exit_code(2.0) == server.PROTOCOL_BROKEN


def test_bad_choice_is_refused(video):
    with Blender(delay_s=0.05) as blender:
        blender.read()
        blender.send(protocol.Job(video, {}))
        blender.send(protocol.Choose(["all"]))
        assert blender.read_until(protocol.Error)[-1].code == "protocol"


@pytest.mark.parametrize("settings", [{"frames": 5000, "delay_s": 0.02}, {"busy_s": 60}], ids=["polling", "deaf"])
def test_a_closed_socket_ends_the_engine(video, tmp_path, settings):
    with Blender(**settings) as blender:
        blender.read()
        blender.send(protocol.Job(video, {"out_dir": str(tmp_path / "out")}))
        blender.read_until(protocol.People if "busy_s" in settings else protocol.Progress)
        blender.socket.close()
        assert blender.exit_code(2.0) == server.CONNECTION_LOST
        assert not list((tmp_path / "out").glob("*.npz"))


def test_a_closed_socket_ends_an_idle_engine():
    with Blender() as blender:
        blender.read()
        blender.socket.close()
        assert blender.exit_code(2.0) == server.OK


def test_a_side_that_does_not_read_cannot_stop_the_computation(video, tmp_path):
    """The job's file appears while nobody reads; later every frame arrives, most of them without vertices."""
    with Blender(frames=20000, window=2000, stall_s=0.3, max_queued_bytes=1 << 16) as blender:
        blender.read()
        blender.send(protocol.Job(video, {"out_dir": str(tmp_path), "vertices": True}))
        end = time.monotonic() + 20
        while not (tmp_path / "clip_person0.npz").exists():
            assert time.monotonic() < end, "the computation waits for a reader"
            time.sleep(0.05)
        messages = blender.read_until(protocol.Done)
        frames = [m for m in messages if type(m) is protocol.Frames]
        assert sum(m.frames.shape[0] for m in frames) == 20000
        assert any(not m.vertices.data for m in messages if isinstance(m, protocol.Frames))
        assert frames[0].vertices.data


def test_nobody_listens(caplog):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert server.serve(port, TOKEN) == server.NO_CONNECTION
    assert "Cannot connect to Blender" in caplog.text
