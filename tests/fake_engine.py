"""A stand-in for the engine: speaks core.protocol, invents a walk, and misbehaves on request. Needs numpy alone.

`fake_python(folder, **behaviour)` writes a small executable that takes the place of an engine Python: started as
`PYTHON -m core serve --port N` it plays the conversation below, started as `PYTHON -c PROBE` it claims to have every
package. Behaviour is the dataclass of that name; whatever happened is also written to `folder/fake_engine.json`.
Motion and body are those of fake_motion.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

if __package__:
    from .fake_motion import CAMERA, body_arrays, body_file_arrays, skin, walk
else:  # started as a script, beside it
    from fake_motion import CAMERA, body_arrays, body_file_arrays, skin, walk


@dataclass(frozen=True)
class Behaviour:
    """What the stand-in does. The defaults are those of an engine in order."""

    frames: int = 96
    people: int = 1
    unchosen: tuple[int, ...] = ()
    """People who, says the last People message, were chosen away."""
    chunk: int = 32
    fps: float = 30.0
    chunk_delay_s: float = 0.0
    start_delay_s: float = 0.0
    wrong_token: bool = False
    garbage_at: int = -1
    """Send bytes that are no message before this frame; 0 is before Hello."""
    die_at: int = -1
    """Kill itself with SIGKILL before this frame."""
    exit_at: int = -1
    """Write a line to stderr and exit with 3 before this frame; 0 is before connecting."""
    stall_at: int = -1
    """Do nothing any more before this frame, not even on SIGTERM."""
    error_at: int = -1
    error_text: str = "Nobody was found in the video: choose a clip in which a person is visible"
    body: str = ""
    """A body file (.npz) to send instead of the boxes; without vertices then."""
    vertices: bool = False
    revise: bool = False
    late_s: float = 0.0
    """After Cancel, send every chunk once more as Revise, after this many seconds each."""
    flood: int = 0
    """Send this many extra Progress messages of 64 KiB each, as fast as they are taken."""
    probe_version: tuple[int, int, int] = (3, 11, 7)
    probe_missing: tuple[str, ...] = ()


class _Cancelled(Exception):
    pass


def fake_python(folder: Path, **behaviour) -> str:
    """Write the executable into `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviour.json").write_text(json.dumps(asdict(Behaviour(**behaviour))))
    script = folder / "fake_python"
    start = f'exec "{sys.executable}" "{Path(__file__).resolve()}" "{folder}" "$@"'
    script.write_text(f"#!/bin/sh\nunset PYTHONSAFEPATH\n{start}\n")  # it may import its neighbour
    script.chmod(0o755)
    return str(script)


def heard(folder: Path) -> dict:
    """Return what the stand-in wrote down: job, token_in_arguments, cancelled, sent_frames, flood_sent."""
    return json.loads((folder / "fake_engine.json").read_text())


class Engine:
    """One conversation."""

    def __init__(self, folder: Path, port: int) -> None:
        from core import protocol

        self.protocol, self.folder = protocol, folder
        stored = json.loads((folder / "behaviour.json").read_text())
        self.behaviour = Behaviour(**stored)
        token = os.environ[protocol.TOKEN_VARIABLE]
        self.notes = {"token_in_arguments": any(token in a for a in sys.argv), "sent_frames": 0, "flood_sent": 0}
        self.notes["cancelled"] = False
        self.token = "0" * 64 if self.behaviour.wrong_token else token
        self.misbehave(0, connected=False)
        self.socket = socket.create_connection(("127.0.0.1", port), 5.0)
        self.socket.settimeout(None)
        self.decoder = protocol.Decoder()

    def array(self, values: np.ndarray, dtype: str = "<f4"):
        values = np.ascontiguousarray(values, dtype)
        return self.protocol.Array(dtype, values.shape, values.tobytes())

    def send(self, message) -> None:
        self.socket.sendall(self.protocol.encode(message))

    def note(self, **values) -> None:
        self.notes.update(values)
        partial = self.folder / f"fake_engine.{os.getpid()}.part"  # jobs side by side share the folder
        partial.write_text(json.dumps(self.notes))
        partial.replace(self.folder / "fake_engine.json")

    def misbehave(self, frame: int, *, connected: bool = True) -> None:
        behaviour = self.behaviour
        if frame == behaviour.exit_at and (frame or not connected):
            print("Traceback (most recent call last):\nRuntimeError: the weights are broken", file=sys.stderr)
            sys.exit(3)
        if not connected:
            return
        if frame == behaviour.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if frame == behaviour.garbage_at:
            self.socket.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        if frame == behaviour.stall_at:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)

    def listen(self, seconds: float) -> None:
        """Wait that long for Cancel, Bye or the end of the connection."""
        deadline = time.monotonic() + seconds
        while True:
            if select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                data = self.socket.recv(65536)
                if not data:
                    sys.exit(0)
                self.decoder.feed(data)
            for message in self.decoder.messages():
                if isinstance(message, self.protocol.Bye):
                    sys.exit(0)
                if isinstance(message, self.protocol.Choose):
                    self.note(chosen=message.people)
                if isinstance(message, self.protocol.Cancel):
                    raise _Cancelled
            if time.monotonic() >= deadline:
                return

    def serve(self) -> None:
        p, behaviour = self.protocol, self.behaviour
        time.sleep(behaviour.start_delay_s)
        if behaviour.garbage_at == 0:
            self.misbehave(0)
        self.send(p.Hello(self.token, "fake", os.getpid(), "cpu"))
        job = None
        while job is None:
            data = self.socket.recv(65536)
            if not data:
                sys.exit(0)
            self.decoder.feed(data)
            job = self.decoder.next_or_none()
        self.note(job=asdict(job))
        try:
            self.play(job)
            self.send(p.Done(False, self.write_results(job, behaviour.frames), {"frames": behaviour.frames}))
        except _Cancelled:
            self.note(cancelled=True)
            for first in range(0, self.notes["sent_frames"] if self.behaviour.late_s else 0, self.behaviour.chunk):
                time.sleep(self.behaviour.late_s)
                self.send_frames(p.Revise, 0, first, first + self.behaviour.chunk)
            results = self.write_results(job, self.notes["sent_frames"])
            self.send(p.Done(True, results, {"frames": self.notes["sent_frames"]}))
        while True:
            self.listen(60.0)

    def play(self, job) -> None:
        p, behaviour = self.protocol, self.behaviour
        total = behaviour.frames
        self.send(p.Video(job.video, 1280, 720, behaviour.fps, total))
        arrays = body_file_arrays(behaviour.body) if behaviour.body else body_arrays()
        integer = ("faces", "weight_joints")
        self.send(p.Body("boxes", "neutral", **{n: self.array(a, "<i4" if n in integer else "<f4")
                                                for n, a in arrays.items()}))  # fmt: skip
        for done in range(0, total, behaviour.chunk):
            self.listen(behaviour.chunk_delay_s / 2)
            self.send(p.Progress("perceive", done, total, 0.5 * done / total, 2 * behaviour.chunk_delay_s))
        for i in range(behaviour.flood):
            self.send(p.Progress("perceive", i, behaviour.flood, 0.5, -1.0))
            self.send(p.People([{"person": 0, "first": 0, "last": 0, "frames": 0, "confidence": 0.0,
                                 "height_px": 0.0, "chosen": True, "padding": "x" * 65536}]))  # fmt: skip
            self.note(flood_sent=i + 1)
        people = [
            {"person": i, "first": 0, "last": total - 1, "frames": total, "confidence": 0.93 - 0.2 * i,
             "height_px": 400.0, "chosen": True}
            for i in range(behaviour.people)
        ]  # fmt: skip
        self.send(p.People(people))
        self.send(p.View(0, 1468.0, 1468.0, 640.0, 360.0, 1280, 720, self.array(CAMERA)))
        for person in range(behaviour.people):
            self.send(p.Shape(person, 1.66, self.array(np.zeros(16))))
        for first in range(0, total, behaviour.chunk):
            self.misbehave(first)
            if first == behaviour.error_at:
                self.send(p.Error("no_person", behaviour.error_text))
                self.listen(60.0)
            self.listen(behaviour.chunk_delay_s)
            last = min(first + behaviour.chunk, total)
            for person in range(behaviour.people):
                self.send_frames(p.Frames, person, first, last)
            self.note(sent_frames=last)
            eta = behaviour.chunk_delay_s * (total - last) / behaviour.chunk
            self.send(p.Progress("recover", last, total, 0.5 + 0.5 * last / total, eta))
        if behaviour.unchosen:
            self.send(p.People([entry | {"chosen": entry["person"] not in behaviour.unchosen} for entry in people]))
        if behaviour.revise:
            self.send_frames(p.Revise, 0, 0, min(behaviour.chunk, total))

    def send_frames(self, kind, person: int, first: int, last: int) -> None:
        frames = np.arange(first, last)
        poses, trans = walk(frames, self.behaviour.fps, person)
        vertices = skin(poses, trans) if self.behaviour.vertices else np.zeros((0,))
        n = len(frames)
        self.send(
            kind(
                person,
                self.array(frames, "<i4"),
                self.array(frames / self.behaviour.fps, "<f8"),
                self.array(poses.reshape(n, 72)),
                self.array(trans),
                self.array(np.full(n, 0.9)),
                self.array(np.zeros((n, 4))),
                self.array(vertices),
            )
        )

    def write_results(self, job, count: int) -> list[str]:
        folder = job.options.get("out_dir")
        if not folder:
            return []
        paths = []
        for person in range(self.behaviour.people):
            path = Path(folder) / f"{Path(job.video).stem}_person{person}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            poses, trans = walk(np.arange(count), self.behaviour.fps, person)
            np.savez(
                path,
                frames=np.arange(count, dtype="<i4"),
                times=np.arange(count) / self.behaviour.fps,
                poses=poses.reshape(-1, 72),
                trans=trans,
                betas=np.zeros(16),
                confidence=np.full(count, 0.9),
                contacts=np.zeros((count, 4)),
                camera=np.array([1468.0, 1468.0, 640.0, 360.0, 1280.0, 720.0]),
                R_world_from_cam=np.tile(CAMERA[:3, :3], (count, 1, 1)),
                t_world_from_cam=np.tile(CAMERA[:3, 3], (count, 1)),
                mocap_framerate=np.float64(self.behaviour.fps),
            )
            paths.append(str(path))
        return paths


def main() -> None:
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    if arguments[:1] == ["-c"]:
        behaviour = Behaviour(**json.loads((folder / "behaviour.json").read_text()))
        names = ("torch", "numpy", "cv2", "safetensors")
        missing = [n for n in names if n in behaviour.probe_missing]
        print(json.dumps({"version": list(behaviour.probe_version), "missing": missing}))
        return
    assert arguments[:4] == ["-m", "core", "serve", "--port"], arguments
    Engine(folder, int(arguments[4])).serve()


if __name__ == "__main__":
    main()
