"""The command line as a real process that is interrupted or killed: what is kept, how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from core import pipeline, result
from tests.cli_support import ROOT
from tests.engine_doubles import FakeStages


def test_interrupting_keeps_what_is_done_and_says_how_to_go_on(tmp_path):
    """A real process and a real Ctrl-C."""
    video = tmp_path / "walk.mp4"
    video.write_bytes(os.urandom(2000))
    script = (
        "import sys; from core import pipeline, __main__ as m; from tests.engine_doubles import FakeStages\n"
        "fake = FakeStages(frames=400, delay_s=float(sys.argv.pop(1))); pipeline.Stages = lambda: fake\n"
        "code = m.main(sys.argv[1:]); print('recovered', len(fake.recovered)); sys.exit(code)\n"
    )
    report = tmp_path / "report.json"
    words = ["recover", str(video), "-o", str(tmp_path / "out"), "--json", str(report)]

    def start(delay: float, *more: str) -> subprocess.Popen:
        command = [sys.executable, "-c", script, str(delay), *words, *more]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    process = start(0.01)
    cache, end = tmp_path / "out" / ".hyper_mocap_cache", time.monotonic() + 20
    while not list(cache.glob("*/*_0-*")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "stopped: 1 partial result(s) written; --resume goes on from here" in err and "Traceback" not in err
    done = len(result.read_result(tmp_path / "out" / "walk_person0.npz"))
    assert 20 <= done < 400
    assert json.loads(report.read_text())["videos"][0]["status"] == "stopped"

    process = start(0.0, "--resume")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    # The double starts over within a person; frames that were done are taken from the cache, not from it.
    motion = result.read_result(tmp_path / "out" / "walk_person0.npz")
    assert motion.frames.tolist() == list(range(400)) and motion.extra["is_complete"]
    summary = json.loads(report.read_text())["videos"][0]["summary"]
    assert summary["reused_frames"]["recover"] == done
    assert not cache.exists()


def test_killed_process_leaves_whole_chunks_and_no_result(tmp_path):
    video = tmp_path / "walk.mp4"
    video.write_bytes(os.urandom(2000))
    script = (
        "import os, signal, sys; from core import pipeline, __main__ as m\n"
        "from tests.engine_doubles import FakeStages\n"
        "class Deadly(FakeStages):\n"
        "    def to_motion(self, motion, *rest):\n"
        "        if motion.frames[0] >= 60: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().to_motion(motion, *rest)\n"
        "pipeline.Stages = Deadly; m.main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", script, "recover", str(video), "-o", str(tmp_path / "out")]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert not list((tmp_path / "out").glob("*.npz"))
    options = pipeline.JobOptions(out_dir=str(tmp_path / "out"), resume=True)
    done = pipeline.run(str(video), options, lambda message: None, stages=FakeStages())
    assert done.summary["reused_frames"]["recover"] == 60 and len(done.results) == 1
