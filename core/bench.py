"""Speed and memory of the engine on one clip: end to end against bare MediaPipe, stage by stage, streamed or not.

Every figure is taken in this run on this machine, in a process of its own, so that peak memory is that process's and
nothing is warm that a user would find cold. Times exclude the start of Python and the imports, for the engine and for
MediaPipe alike; the start is given apart. Ratios are what to compare between machines.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from core import protocol
from core.errors import HyperMocapError, InputError
from core.video import VideoReader

ROOT = Path(__file__).resolve().parent.parent
MEMORY_FRAMES = (300, 3000)
ENGINE_SCRIPT = """
import json, os, sys, time
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
began = time.perf_counter()
import torch
from core import pipeline
from core.memory import peak_memory_mb
video, out, threads, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
if threads: torch.set_num_threads(threads)
imported = time.perf_counter()
first = []
def sink(message):
    if type(message).__name__ == "Frames" and not first: first.append(time.perf_counter() - imported)
done = pipeline.run(video, pipeline.JobOptions(out_dir=out, **options), sink)
total = time.perf_counter() - imported
print(json.dumps({"import_s": imported - began, "seconds": total, "first_frames_s": first[0] if first else None,
                  "stages": done.summary["stage_seconds"], "frames": done.summary["frames"],
                  "peak_mb": peak_memory_mb()}))
"""
MEDIAPIPE_SCRIPT = """
import json, resource, sys, time
import cv2, mediapipe
pose = mediapipe.solutions.pose.Pose(static_image_mode=False, model_complexity=1)
capture, frames, found = cv2.VideoCapture(sys.argv[1]), 0, 0
began = time.perf_counter()
while True:
    ok, image = capture.read()
    if not ok: break
    found += pose.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).pose_landmarks is not None
    frames += 1
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "frames": frames, "found": found, "version": mediapipe.__version__,
                  "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}))
"""


@dataclass
class Report:
    """What was measured. fps = frames of the video per second of the whole job."""

    video: str
    width: int
    height: int
    frames: int
    runs: int
    engine: dict = field(default_factory=dict)
    mediapipe: dict = field(default_factory=dict)
    ratio_to_mediapipe: float | None = None
    streaming: dict = field(default_factory=dict)
    memory: dict = field(default_factory=dict)

    def as_dict(self) -> dict:
        """JSON values."""
        return asdict(self)


def measure(
    video: str,
    *,
    mediapipe_python: str | None = None,
    runs: int = 2,
    threads: int = 0,
    device: str = "cpu",
    with_memory: bool = True,
    note: Callable[[str], None] = lambda text: None,
) -> Report:
    """Measure everything on one clip; the best of `runs` runs counts. threads 0 = torch's choice."""
    with VideoReader(video) as reader:
        clip = reader.clip
    report = Report(Path(video).name, clip.width, clip.height, clip.frame_count, runs)
    with tempfile.TemporaryDirectory() as folder:
        options = {"device": device}
        bare, engine = [], []
        for number in range(runs):  # taken in turn, so that a busy machine slows both
            note(f"run {number + 1} of {runs}: engine")
            engine.append(run_engine(video, folder, threads, options))
            if mediapipe_python:
                note(f"run {number + 1} of {runs}: MediaPipe")
                bare.append(run_mediapipe(mediapipe_python, video))
        report.engine = min(engine, key=lambda e: e["seconds"])
        report.engine["fps"] = round(report.engine["frames"] / report.engine["seconds"], 2)
        if bare:
            report.mediapipe = min(bare, key=lambda m: m["seconds"])
            report.mediapipe["fps"] = round(report.mediapipe["frames"] / report.mediapipe["seconds"], 2)
            report.ratio_to_mediapipe = round(report.engine["fps"] / report.mediapipe["fps"], 3)
        note("streaming")
        report.streaming = measure_streaming(video, threads, options)
        if with_memory:
            report.memory = measure_memory(video, folder, threads, options, note)
    return report


def run_engine(video: str, folder: str, threads: int, options: dict) -> dict:
    """Return one job's figures, from a process of its own."""
    return _run_script(sys.executable, ENGINE_SCRIPT, video, folder, str(threads), json.dumps(options))


def run_mediapipe(python: str, video: str) -> dict:
    """Return bare MediaPipe's figures (pose, full model, tracking one person): decode and landmarks, nothing else."""
    return _run_script(python, MEDIAPIPE_SCRIPT, video)


def measure_streaming(video: str, threads: int, options: dict) -> dict:
    """Return what sending every frame and vertex over a socket costs, in processor time of the engine.

    send_cpu_s is the time of the threads in encoding, queueing and sending; overhead is it over the rest of the job.
    """
    if not hasattr(time, "pthread_getcpuclockid"):
        return {}
    summary, count = _served(video, threads, {**options, "vertices": True})
    job_s, send_s = summary["job_cpu_s"], summary["send_cpu_s"]
    return {
        "job_cpu_s": round(job_s, 3),
        "send_cpu_s": round(send_s, 3),
        "megabytes": round(count / 1e6, 1),
        "overhead": round(send_s / (job_s - send_s), 4),
    }


def measure_memory(video: str, folder: str, threads: int, options: dict, note: Callable[[str], None]) -> dict:
    """Return peak megabytes for the clip looped to each of MEMORY_FRAMES frames."""
    peaks = {}
    for count in MEMORY_FRAMES:
        note(f"memory at {count} frames")
        looped = Path(folder) / f"looped_{count}.avi"
        write_looped(video, looped, count)
        peaks[str(count)] = run_engine(str(looped), folder, threads, options)["peak_mb"]
        looped.unlink()
    low, high = (peaks[str(n)] for n in MEMORY_FRAMES)
    return {**peaks, "growth": round(high / low - 1, 4)}


def write_looped(video: str, path: Path, count: int, *, longest: int = 640) -> None:
    """Write `count` frames that play the clip forwards and backwards, reduced to keep the file small."""
    import cv2

    with VideoReader(video) as reader:
        scale = min(1.0, longest / max(reader.clip.width, reader.clip.height))
        size = tuple(round(n * scale) // 2 * 2 for n in (reader.clip.width, reader.clip.height))
        frames = [cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA) for frame in reader]
        rate = reader.clip.fps
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, size)
    period = max(2 * len(frames) - 2, 1)
    for i in range(count):
        at = i % period
        writer.write(frames[min(at, period - at)])
    writer.release()


SERVE_SCRIPT = """
import os, sys, threading, time
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch
from core import pipeline, server
threads, port = int(sys.argv[1]), int(sys.argv[2])
if threads: torch.set_num_threads(threads)
def cpu_of(name):
    return sum(time.clock_gettime(time.pthread_getcpuclockid(t.ident))
               for t in threading.enumerate() if t.name == name)
def run(video, options, sink, **rest):
    spent = 0.0
    def timed(message):
        nonlocal spent
        began = time.thread_time()
        sink(message)
        spent += time.thread_time() - began
    began, sent = time.process_time(), cpu_of("send")
    done = pipeline.run(video, options, timed, **rest)
    done.summary["job_cpu_s"] = time.process_time() - began
    done.summary["send_cpu_s"] = spent + cpu_of("send") - sent
    return done
sys.exit(server.serve(port, "measuring", run))
"""


def _served(video: str, threads: int, options: dict) -> tuple[dict, int]:
    """Run a job through a real server process; return (its summary, bytes received)."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(60)
    words = [str(threads), str(listener.getsockname()[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE_SCRIPT, *words],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        connection, _ = listener.accept()
        listener.close()
        connection.settimeout(600)
        with connection:
            decoder, count = protocol.Decoder(), 0
            connection.sendall(protocol.encode(protocol.Job(video, options)))
            while data := connection.recv(1 << 20):
                count += len(data)
                decoder.feed(data)
                for message in decoder.messages():
                    if isinstance(message, protocol.Error):
                        raise HyperMocapError(message.message)
                    if isinstance(message, protocol.Done):
                        return message.summary, count
        raise HyperMocapError("The engine closed the connection before it was done")
    finally:
        process.kill()
        process.wait()


def _run_script(python: str, script: str, *words: str) -> dict:
    try:
        process = subprocess.run([python, "-c", script, *words], cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"Cannot start {python}: {error.strerror}") from error
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise HyperMocapError(f"{Path(python).name} failed while measuring: {last}")
    return json.loads(process.stdout.strip().splitlines()[-1])


def describe(report: Report) -> list[str]:
    """Return the report as lines for people."""
    engine, lines = report.engine, []
    lines.append(
        f"{report.video}: {report.width} x {report.height} px, {report.frames} frames, best of {report.runs}"
    )
    lines.append(f"engine     {engine['fps']:7.1f} frames/s   {engine['seconds']:.2f} s, first frames after "
                 f"{engine['first_frames_s'] or 0:.2f} s, imports {engine['import_s']:.2f} s")  # fmt: skip
    for stage, seconds in engine["stages"].items():
        if seconds < 0.005:
            continue
        share = seconds / engine["seconds"]
        lines.append(
            f"  {stage:<9}{engine['frames'] / max(seconds, 1e-9):7.0f} frames/s   {seconds:.2f} s {share:5.0%}"
        )
    if report.mediapipe:
        bare = report.mediapipe
        lines.append(f"MediaPipe  {bare['fps']:7.1f} frames/s   {bare['seconds']:.2f} s (one person, landmarks only)")
        lines.append(f"ratio      {report.ratio_to_mediapipe:7.2f}")
    if report.streaming:
        stream = report.streaming
        lines.append(
            f"streaming  {stream['overhead']:7.1%} of processor time for {stream['megabytes']:.0f} MB by socket "
            f"({stream['send_cpu_s']:.2f} of {stream['job_cpu_s']:.2f} s)"
        )
    if report.memory:
        peaks = ", ".join(f"{report.memory[str(n)]:.0f} MB at {n} frames" for n in MEMORY_FRAMES)
        lines.append(f"memory     {peaks} ({report.memory['growth']:+.1%})")
    return lines
