"""A stand-in for the engine: speaks core.protocol, invents a walk, and misbehaves on request. Needs numpy alone.

`fake_python(folder, **behaviour)` writes a small executable that takes the place of an engine Python: started as
`PYTHON -m core serve --port N` it plays the conversation below, started as `PYTHON -c PROBE` it claims to have every
package. Behaviour is the dataclass of that name; whatever happened is also written to `folder/fake_engine.json`.
The body is 24 boxes, one per joint; vertices are skinned in float64 from the same numbers that are sent.
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

# fmt: off
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
JOINTS = np.array([
    (0, .95, 0), (.09, .86, 0), (-.09, .86, 0), (0, 1.07, 0), (.1, .47, 0), (-.1, .47, 0), (0, 1.2, 0),
    (.1, .08, -.02), (-.1, .08, -.02), (0, 1.26, 0), (.11, .02, .1), (-.11, .02, .1), (0, 1.45, 0), (.07, 1.38, 0),
    (-.07, 1.38, 0), (0, 1.54, .02), (.18, 1.41, 0), (-.18, 1.41, 0), (.44, 1.41, 0), (-.44, 1.41, 0),
    (.69, 1.41, 0), (-.69, 1.41, 0), (.77, 1.41, 0), (-.77, 1.41, 0)])
# fmt: on
CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
SIDES = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
CAMERA = np.array([(1, 0, 0, 0.5), (0, 0, 1, -7), (0, -1, 0, 1.3), (0, 0, 0, 1)], float)
"""x_world = CAMERA @ x_cam: looks along +y from 7 m away."""
UP = np.array([(1, 0, 0), (0, 0, -1), (0, 1, 0)], float)
"""Turns the body's y up into the world's z up."""


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
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "{folder}" "$@"\n')
    script.chmod(0o755)
    return str(script)


def heard(folder: Path) -> dict:
    """Return what the stand-in wrote down: job, token_in_arguments, cancelled, sent_frames, flood_sent."""
    return json.loads((folder / "fake_engine.json").read_text())


def axis_angle_to_matrix(vectors: np.ndarray) -> np.ndarray:
    """Rodrigues' formula in float64: [..., 3] -> [..., 3, 3]."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors / np.maximum(angle[..., 0], 1e-12), -1, 0)
    zero = np.zeros_like(x)
    K = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


def matrix_to_axis_angle(R: np.ndarray) -> np.ndarray:
    """[3, 3] -> [3], for angles below pi."""
    angle = np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1))
    axis = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    return axis * (angle / (2 * np.sin(angle)) if angle > 1e-9 else 0.5)


def walk(frames: np.ndarray, fps: float, person: int) -> tuple[np.ndarray, np.ndarray]:
    """Return poses [n,24,3] axis-angle and trans [n,3] of a walk along -y, one person beside the other."""
    t = frames / fps
    swing = np.sin(2 * np.pi * 0.9 * t + person)
    poses = np.zeros((len(frames), 24, 3))
    poses[:, 0] = matrix_to_axis_angle(UP)
    poses[:, 1, 0], poses[:, 2, 0] = -0.5 * swing, 0.5 * swing
    poses[:, 4, 0], poses[:, 5, 0] = 0.5 * (1 + swing), 0.5 * (1 - swing)
    poses[:, 16, 2], poses[:, 17, 2] = -1.2, 1.2
    poses[:, 16, 0], poses[:, 17, 0] = 0.5 * swing, -0.5 * swing
    poses[:, 18, 1], poses[:, 19, 1] = -0.4, 0.4
    trans = np.stack([np.full_like(t, 1.0 * person), -1.2 * t, 0.02 * np.cos(4 * np.pi * 0.9 * t)], -1)
    trans += JOINTS[0] @ UP.T - JOINTS[0]
    return poses, trans


def body_arrays() -> dict[str, np.ndarray]:
    """Return the boxes: v_template, faces, weight_joints, weight_values, joints, shapedirs, joint_shapedirs, uv."""
    size = np.full((24, 3), 0.045)
    size[[0, 3, 6, 9]] = (0.12, 0.06, 0.08)
    size[[4, 5, 7, 8]] += (0, 0.1, 0)
    size[15] = (0.08, 0.12, 0.1)
    v_template = (JOINTS[:, None] + CORNERS * size[:, None]).reshape(-1, 3)
    weight_joints = np.zeros((192, 4), "<i4")
    weight_joints[:, 0] = np.repeat(np.arange(24), 8)
    shapedirs = np.zeros((192, 3, 10))
    shapedirs[:, :, 0] = 0.03 * v_template
    joint_shapedirs = np.zeros((24, 3, 10))
    joint_shapedirs[:, :, 0] = 0.03 * JOINTS
    return {
        "v_template": v_template,
        "faces": (SIDES + 8 * np.arange(24)[:, None, None]).reshape(-1, 4).astype("<i4"),
        "weight_joints": weight_joints,
        "weight_values": np.tile(np.array([1.0, 0, 0, 0]), (192, 1)),
        "joints": JOINTS,
        "shapedirs": shapedirs,
        "joint_shapedirs": joint_shapedirs,
        "uv": np.tile(np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float), (144, 1)),
    }


def body_file_arrays(path: str) -> dict[str, np.ndarray]:
    """Return what `body_arrays` does, of a body file: the four strongest influences of every vertex."""
    data = np.load(path)
    template, shapedirs, regressor = data["v_template"], data["shapedirs"], data["J_regressor"]
    strongest = np.argsort(-data["weights"], axis=1)[:, :4]
    values = np.take_along_axis(data["weights"], strongest, 1)
    return {
        "v_template": template,
        "faces": data["quads"],
        "weight_joints": strongest,
        "weight_values": values / values.sum(1, keepdims=True),
        "joints": regressor @ template,
        "shapedirs": shapedirs,
        "joint_shapedirs": np.einsum("jv,vcs->jcs", regressor, shapedirs),
        "uv": data["uv"][data["quad_uv"]].reshape(-1, 2),
    }


def skin(poses: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """Return vertices [n,192,3] in the world, by forward kinematics: vertices = skin(pose) + trans."""
    local = axis_angle_to_matrix(poses)
    R, position = [], []
    for joint, parent in enumerate(PARENTS):
        if parent < 0:
            R.append(local[:, 0])
            position.append(np.broadcast_to(JOINTS[0], (len(poses), 3)))
        else:
            R.append(R[parent] @ local[:, joint])
            position.append(position[parent] + R[parent] @ (JOINTS[joint] - JOINTS[parent]))
    box = body_arrays()["v_template"].reshape(24, 8, 3) - JOINTS[:, None]
    placed = [box[j] @ R[j].swapaxes(-1, -2) + position[j][:, None] for j in range(24)]
    return np.concatenate(placed, 1) + trans[:, None]


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
        partial = self.folder / "fake_engine.part"
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
            self.send(p.Shape(person, 1.66, self.array(np.zeros(10))))
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
                betas=np.zeros(10),
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
        names = ("torch", "numpy", "cv2", "smplx", "smplfitter", "safetensors")
        missing = [n for n in names if n in behaviour.probe_missing]
        print(json.dumps({"version": list(behaviour.probe_version), "missing": missing}))
        return
    assert arguments[:4] == ["-m", "core", "serve", "--port"], arguments
    Engine(folder, int(arguments[4])).serve()


if __name__ == "__main__":
    main()
