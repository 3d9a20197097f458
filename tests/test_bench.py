"""core.bench: the pieces that can be checked without minutes of measuring."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from core import bench
from core.errors import HyperMocapError, InputError


def write_film(path, count: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (128, 96))
    for i in range(count):
        writer.write(np.full((96, 128, 3), 10 * i, np.uint8))
    writer.release()


def test_looped_clip_plays_forwards_and_backwards(tmp_path):
    write_film(tmp_path / "a.avi", 5)
    bench.write_looped(str(tmp_path / "a.avi"), tmp_path / "b.avi", 12, longest=64)
    capture, levels = cv2.VideoCapture(str(tmp_path / "b.avi")), []
    while (read := capture.read())[0]:
        assert read[1].shape == (48, 64, 3)
        levels.append(round(float(read[1].mean()) / 10))
    capture.release()
    assert levels == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3]


def test_a_failing_process_is_one_line():
    with pytest.raises(HyperMocapError, match="failed while measuring: ValueError: no such luck"):
        bench._run_script(sys.executable, "raise ValueError('no such luck')")
    with pytest.raises(InputError, match="Cannot start /no/python"):
        bench._run_script("/no/python", "")


def test_report_reads_well():
    report = bench.Report("a.mp4", 640, 480, 100, 2)
    report.engine = {
        "fps": 25.0,
        "seconds": 4.0,
        "frames": 100,
        "import_s": 2.0,
        "first_frames_s": 0.8,
        "stages": {"perceive": 3.0, "track": 0.0, "recover": 1.0},
    }
    report.mediapipe = {"fps": 40.0, "seconds": 2.5}
    report.ratio_to_mediapipe = 0.625
    report.streaming = {"overhead": 0.02, "megabytes": 50, "job_cpu_s": 4.0, "send_cpu_s": 0.08}
    report.memory = {"300": 500.0, "3000": 510.0, "growth": 0.02}
    text = "\n".join(bench.describe(report))
    for part in ("25.0 frames/s", "perceive      33 frames/s", "0.62", "2.0% of processor time", "(+2.0%)"):
        assert part in text, text
    assert "track" not in text
