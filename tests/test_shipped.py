"""core.recover.shipped: a missing or damaged file of a method ends the job before the video is looked at."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from core import __main__ as command
from core import protocol
from core.errors import SetupError
from core.recover import prior
from core.stages import Stages
from core.systems import registry

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "tests" / "data" / "demo.mp4"
NETWORK = "hyperbolic.safetensors"
TOKEN = "00112233445566778899"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-8] ^= 255
    path.write_bytes(data)


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A copy of the methods' files that takes the place of the shipped ones; nothing is remembered of those."""
    from core.recover import shipped

    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("hyperbolic.safetensors", "lmr.safetensors", "pose_prior.npz"):
        shutil.copy(ROOT / "weights" / name, folder)
    monkeypatch.setattr(registry, "WEIGHTS", folder)
    monkeypatch.setattr(prior, "PRIOR_FILE", folder / "pose_prior.npz")
    for remembered in (shipped.shipped_network, prior.load_prior):
        remembered.cache_clear()
    yield folder
    for remembered in (shipped.shipped_network, prior.load_prior):
        remembered.cache_clear()


@pytest.fixture
def looks(monkeypatch) -> list:
    """The jobs that came to look at their video."""
    found = []

    def perceive(self, *_, **__):
        found.append(self)
        return []

    monkeypatch.setattr(Stages, "perceive", perceive)
    return found


def recover(capfd, out: Path, *words: str) -> tuple[int, str]:
    capfd.readouterr()
    code = command.main(["recover", str(DEMO), "-o", str(out), "--quiet", *words])
    return code, capfd.readouterr().err


@pytest.mark.parametrize(
    ("method", "name", "harm", "words"),
    [
        ("hyperbolic", NETWORK, Path.unlink, "is missing: install Hyper Mocap again, or use method fit"),
        ("hyperbolic", NETWORK, _cut, "is not a readable network file"),
        ("hyperbolic", NETWORK, _empty, "is not a readable network file"),
        ("hyperbolic", NETWORK, _flip, "is damaged: its checksum does not match; install Hyper Mocap again"),
        ("lmr", "lmr.safetensors", Path.unlink, "is missing: install Hyper Mocap again, or use another method"),
        ("lmr", "lmr.safetensors", _flip, "is damaged: its checksum does not match; install Hyper Mocap again"),
        ("hyperbolic", "pose_prior.npz", Path.unlink, "install the extension again"),
        ("fit", "pose_prior.npz", Path.unlink, "install the extension again"),
        ("fit", "pose_prior.npz", _cut, "install the extension again"),
        ("fit", "pose_prior.npz", _empty, "install the extension again"),
    ],
)
def test_one_line_before_the_video_is_looked_at(weights, looks, tmp_path, capfd, method, name, harm, words):
    harm(weights / name)
    code, err = recover(capfd, tmp_path / "out", "--method", method)
    assert code == 1 and looks == []
    assert len(err.splitlines()) == 1 and name in err and words in err and "again" in err, err
    assert list((tmp_path / "out").iterdir()) == []


def test_what_the_method_does_not_need_may_be_missing(weights, looks, tmp_path, capfd):
    (weights / "hyperbolic.safetensors").unlink()
    assert "No person found" in recover(capfd, tmp_path / "out", "--method", "fit")[1]
    (weights / "pose_prior.npz").unlink()
    assert "No person found" in recover(capfd, tmp_path / "out", "--method", "lmr", "--no-refine")[1]
    assert len(looks) == 2


@pytest.mark.parametrize("method", ["hyperbolic", "lmr", "fit"])
def test_the_file_is_read_once(weights, method):
    """Once the method is there, its files may go: it has what it needs."""
    from core.recover import shipped

    Stages().recoverer(method, refine=True)
    for path in weights.iterdir():
        path.unlink()
    Stages().recoverer(method, refine=True)
    if method == "fit":
        assert prior.load_prior() is prior.load_prior()
        return
    net = shipped.shipped_network(method)
    assert net is shipped.shipped_network(method)
    with pytest.raises(SetupError, match="is missing"):
        shipped.shipped_network("pmce")


def test_the_server_says_so_at_once(tmp_path):
    """The real engine in a copy of the package that lacks a file: nothing of the video, then the error."""
    shutil.copytree(ROOT / "core", tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "weights").mkdir()
    for path in (ROOT / "weights").iterdir():
        if path.name != "tcmr.safetensors":
            (tmp_path / "weights" / path.name).symlink_to(path)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(60)
    process = subprocess.Popen(
        [sys.executable, "-m", "core", "serve", "--port", str(listener.getsockname()[1])],
        cwd=tmp_path,
        env={**os.environ, protocol.TOKEN_VARIABLE: TOKEN, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        connection, _ = listener.accept()
        listener.close()
        connection.settimeout(60)
        decoder, messages = protocol.Decoder(), []
        with connection:
            connection.sendall(protocol.encode(protocol.Job(str(DEMO), {"method": "tcmr", "end": 0.5})))
            while not any(isinstance(m, (protocol.Done, protocol.Error)) for m in messages):
                data = connection.recv(1 << 20)
                assert data, messages
                decoder.feed(data)
                messages += decoder.messages()
    finally:
        process.kill()
        process.wait()
    assert [type(m).__name__ for m in messages if not isinstance(m, protocol.Progress)] == ["Hello", "Error"]
    assert {m.stage for m in messages if isinstance(m, protocol.Progress)} <= {"open"}
    error = messages[-1]
    assert error.code == "setup"
    missing = tmp_path / "weights" / "tcmr.safetensors"
    assert error.message == f"The network {missing} is missing: install Hyper Mocap again, or use another method"
