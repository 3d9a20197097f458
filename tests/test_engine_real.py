"""The whole real engine once: `python -m core serve` on the demonstration clip, held to the clip's ground truth."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from core import protocol, result, stream
from core.server import CONNECTION_LOST, OK

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "tests" / "data" / "demo.mp4"
TOKEN = "fedcba9876543210"
SECONDS = 1.5
FRAMES = 45


@pytest.fixture(scope="module")
def conversation(tmp_path_factory):
    """One job over a real socket: (messages with their arrival times, exit code, folder, command line, stderr)."""
    out = tmp_path_factory.mktemp("out")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(60)
    process = subprocess.Popen(
        [sys.executable, "-m", "core", "serve", "--port", str(listener.getsockname()[1])],
        cwd=ROOT,
        env={**os.environ, protocol.TOKEN_VARIABLE: TOKEN, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    try:
        connection, _ = listener.accept()
        listener.close()
        connection.settimeout(120)
        decoder, messages = protocol.Decoder(), []
        with connection:
            options = {"out_dir": str(out), "end": SECONDS, "vertices": True, "device": "cpu"}
            connection.sendall(protocol.encode(protocol.Job(str(DEMO), options)))
            while not any(isinstance(m, (protocol.Done, protocol.Error)) for m, _ in messages):
                data = connection.recv(1 << 20)
                assert data, process.stderr.read().decode()
                decoder.feed(data)
                messages += [(m, time.monotonic()) for m in decoder.messages()]
            environment = Path(f"/proc/{process.pid}/cmdline")
            command = environment.read_bytes() if environment.exists() else b""
            connection.sendall(protocol.encode(protocol.Bye()))
            code = process.wait(5)
        yield messages, code, out, command, process.stderr.read().decode()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def of(conversation, kind: type) -> list:
    return [m for m, _ in conversation[0] if type(m) is kind]


def test_it_ends_well(conversation):
    messages, code, out, command, log = conversation
    assert isinstance(messages[0][0], protocol.Hello) and messages[0][0].token == TOKEN
    done = messages[-1][0]
    assert isinstance(done, protocol.Done) and not done.cancelled, done
    assert code == OK and "Traceback" not in log
    assert [Path(p).name for p in done.results] == ["demo_person0.npz"]
    assert sorted(p.name for p in out.iterdir()) == ["demo_person0.npz"], "no cache is left"
    assert TOKEN.encode() not in command


def test_frames_arrive_while_the_video_is_read(conversation):
    kinds = [m.stage if isinstance(m, protocol.Progress) else type(m).__name__ for m, _ in conversation[0]]
    assert kinds.index("Frames") < kinds.index("recover")
    frames = np.concatenate([stream.from_array(m.frames) for m in of(conversation, protocol.Frames)])
    assert frames.tolist() == list(range(FRAMES))
    fractions = [m.fraction for m in of(conversation, protocol.Progress)]
    assert fractions == sorted(fractions)


def test_sent_vertices_are_the_stored_ones_in_the_world(conversation):
    motion = result.read_result(conversation[2] / "demo_person0.npz")
    last = of(conversation, protocol.Revise)[-1]
    sent, rows = stream.from_array(last.vertices), stream.from_array(last.frames)
    stored = np.einsum("nij,nvj->nvi", motion.R_world_from_cam[rows], motion.vertices_cam[rows])
    stored += motion.t_world_from_cam[rows, None]
    np.testing.assert_allclose(sent, stored, atol=2e-5)
    np.testing.assert_allclose(stream.from_array(last.poses), motion.poses[rows], atol=1e-6)


def test_the_motion_is_the_one_in_the_clip(conversation):
    """Joints in the picture, and root-aligned in space; the world is z up with feet near its floor."""
    motion = result.read_result(conversation[2] / "demo_person0.npz")
    truth = dict(np.load(ROOT / "tests" / "data" / "demo_truth.npz"))
    ours, theirs = motion.joints_cam.astype(float), truth["joints_cam"][:FRAMES].astype(float)
    fx, fy, cx, cy = truth["camera"][:4]

    def px(joints: np.ndarray, f: tuple[float, float], c: tuple[float, float]) -> np.ndarray:
        return joints[..., :2] / joints[..., 2:] * f + c

    camera = motion.camera
    here = px(ours, (camera.fx, camera.fy), (camera.cx, camera.cy))
    off_px = np.linalg.norm(here - px(theirs, (fx, fy), (cx, cy)), axis=-1)
    height_px = np.ptp(truth["keypoints"][:FRAMES, :, 1], axis=1).mean()
    assert np.median(off_px) < 0.04 * height_px, "median joint within 4 % of the body's height in the picture"
    off_m = np.linalg.norm((ours - ours[:, :1]) - (theirs - theirs[:, :1]), axis=-1)
    assert off_m.mean() < 0.15
    feet = motion.joints_cam[:, [10, 11]].astype(float)
    world = np.einsum("nij,nkj->nki", motion.R_world_from_cam.astype(float), feet)
    world += motion.t_world_from_cam[:, None]
    assert abs(np.median(world[..., 2].min(1))) < 0.12


def test_a_closed_socket_ends_the_real_engine_at_once():
    """While the networks run: the process is gone a second later (interpreter, torch and all)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        process = subprocess.Popen(
            [sys.executable, "-m", "core", "serve", "--port", str(listener.getsockname()[1])],
            cwd=ROOT,
            env={**os.environ, protocol.TOKEN_VARIABLE: TOKEN, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        try:
            connection, _ = listener.accept()
            connection.settimeout(120)
            decoder = protocol.Decoder()
            with connection:
                connection.sendall(protocol.encode(protocol.Job(str(DEMO), {"device": "cpu"})))
                stage, done = "", 0
                while (stage, done >= 10) != ("perceive", True):
                    decoder.feed(connection.recv(1 << 20))
                    for message in decoder.messages():
                        if isinstance(message, protocol.Progress):
                            stage, done = message.stage, message.done
            assert process.wait(1.5) == CONNECTION_LOST
        finally:
            process.kill()
            process.wait()
