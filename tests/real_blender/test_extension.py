"""The built zip in a real Blender with an empty profile: valid, installs, works, leaves nothing behind.

Needs the variables BLENDER (a command), HYPER_MOCAP_ZIP, and HYPER_MOCAP_ENGINE (a Python with its packages);
`build.py test` sets them. Without them the tests are skipped, as there is nothing to test.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.fake_engine import fake_python, heard
from tests.tiny_video import write_avi

COMMAND, ZIP = shlex.split(os.environ.get("BLENDER", "")), os.environ.get("HYPER_MOCAP_ZIP", "")
HARMLESS = ("Could not get a list of mounted file-systems", "Could not find a cache directory")
"""What Blender itself writes to stderr on machines without a desktop."""
INSIDE = Path(__file__).with_name("inside.py")

pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(not (COMMAND and ZIP), reason="BLENDER and HYPER_MOCAP_ZIP are not set"),
]


@pytest.fixture(scope="module")
def blender(tmp_path_factory):
    """A function that runs Blender on a profile into which the zip was installed."""
    profile = tmp_path_factory.mktemp("profile")

    def run(*words: object, code: int = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [*COMMAND, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "BLENDER_USER_RESOURCES": str(profile)},
        )
        complaints = [line for line in done.stderr.splitlines() if line and not any(h in line for h in HARMLESS)]
        assert done.returncode == code, done.stdout + done.stderr
        assert code or not complaints, complaints
        return done

    installed = run("--command", "extension", "install-file", "-r", "user_default", "--enable", ZIP)
    assert "Installed" in installed.stdout
    return run


def inside(blender, name: str, *words: object) -> str:
    """Run a function of inside.py."""
    done = blender("-b", "--python-exit-code", "1", "--python", INSIDE, "--", name, *words)
    assert "inside: ok" in done.stdout, done.stdout
    return done.stdout


def test_zip_is_valid(blender) -> None:
    assert "Success" in blender("--command", "extension", "validate", ZIP).stdout


def test_installed_enabled_and_well_behaved(blender) -> None:
    inside(blender, "enabled")


def test_comes_and_goes_without_a_trace(blender) -> None:
    inside(blender, "comes_and_goes")


def test_job_by_the_buttons(blender, tmp_path: Path) -> None:
    clip = write_avi(tmp_path / "walk.avi", frames=40)
    python = fake_python(tmp_path / "engine", frames=40, body=str(Path.cwd() / "weights" / "body_neutral.npz"))
    inside(blender, "runs_a_job", python, clip, tmp_path / "out")
    job = heard(tmp_path / "engine")["job"]
    assert job["options"]["out_dir"] == str(tmp_path / "out" / "walk") and job["video"] == str(clip)


def test_disabled_in_the_middle_of_a_job(blender, tmp_path: Path) -> None:
    python = fake_python(tmp_path / "engine", frames=3200, chunk_delay_s=0.1)
    inside(blender, "disabled_in_the_middle", python, write_avi(tmp_path / "walk.avi"))


def test_command_recovers_and_reports(blender, tmp_path: Path) -> None:
    for name in "ab":
        write_avi(tmp_path / "clips" / f"{name}.avi")
    python = fake_python(tmp_path / "engine", frames=16, chunk=8)
    words = [
        "--out",
        tmp_path / "out",
        "--formats",
        "fbx,npz",
        "--report",
        tmp_path / "r.json",
        "--engine-python",
        python,
    ]
    done = blender("--command", "hyper_mocap", "recover", tmp_path / "clips", *words)
    assert "2 of 2 clips succeeded" in done.stdout
    assert json.loads((tmp_path / "r.json").read_text())["done"] == 2
    assert (tmp_path / "out" / "b_person0.fbx").stat().st_size > 10_000
    again = blender("--command", "hyper_mocap", "recover", tmp_path / "clips", *words, "--resume")
    assert "skipped" in again.stdout
    blender("--command", "hyper_mocap", "recover", tmp_path / "none.mp4", *words, code=1)
    blender("--command", "hyper_mocap", "recover", tmp_path / "clips", "--formats", "x", code=2)


def test_jobs_in_blenders_of_their_own(blender, tmp_path: Path) -> None:
    for name in "ab":
        write_avi(tmp_path / "clips" / f"{name}.avi")
    python = fake_python(tmp_path / "engine", frames=16)
    words = ["--out", tmp_path / "out", "--formats", "glb,blend", "--jobs", 2, "--engine-python", python]
    assert "2 of 2" in blender("--command", "hyper_mocap", "recover", tmp_path / "clips", *words).stdout
    assert (tmp_path / "out" / "a.blend").exists() and (tmp_path / "out" / "b_person0.glb").exists()


def test_script_sets_the_exit_code(blender, tmp_path: Path) -> None:
    script = Path.cwd() / "addon" / "batch.py"
    words = ["--out", tmp_path / "out", "--formats", "npz", "--engine-python"]
    clip, start = write_avi(tmp_path / "a.avi"), ["-b", "--factory-startup", "--python", script, "--"]
    blender(*start, clip, *words, fake_python(tmp_path / "good", frames=8))
    blender(*start, clip, *words, fake_python(tmp_path / "bad", error_at=0), code=1)


def test_ctrl_c_ends_the_batch_with_a_report(blender, tmp_path: Path) -> None:
    clip, report = write_avi(tmp_path / "a.avi"), tmp_path / "r.json"
    python = fake_python(tmp_path / "engine", frames=3200, chunk_delay_s=0.2)
    words = ["-b", "--factory-startup", "--python", Path.cwd() / "addon" / "batch.py", "--", clip, "--out", tmp_path]
    command = [*COMMAND, *map(str, [*words, "--engine-python", python, "--report", report])]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "engine" / "fake_engine.json").exists():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=30)
    assert run.returncode == 1
    assert json.loads(report.read_text())["records"][0]["status"] == "cancelled"


def test_the_real_engine_end_to_end(blender, tmp_path: Path) -> None:
    """The engine of this source tree on the demonstration clip, by the command that users run."""
    engine, clip = os.environ.get("HYPER_MOCAP_ENGINE"), Path("tests/data/demo.mp4").resolve()
    if not engine or not clip.exists():
        pytest.skip("no engine, or no demonstration clip")
    words = ["--out", tmp_path, "--formats", "fbx,blend,npz", "--engine-python", engine, "--end", "1.5"]
    done = blender("--command", "hyper_mocap", "recover", clip, *words, "--report", tmp_path / "r.json")
    [record] = json.loads((tmp_path / "r.json").read_text())["records"]
    assert record["status"] == "done", done.stdout
    assert record["people"] >= 1 and record["frames"] > 20
    assert all(Path(path).stat().st_size > 1000 for path in record["outputs"])
