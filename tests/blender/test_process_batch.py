"""The batch run: what it takes, writes, reports and skips, and that it goes on after a bad clip."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
import pytest

from addon.batch_options import BatchOptions, find_videos, option_arguments, output_folders, parse_options
from addon.batch_report import Record, fingerprint
from addon.batch_run import main
from tests.fake_engine import fake_python, heard
from tests.tiny_video import write_avi

ROOT = Path(__file__).resolve().parent.parent.parent


def run(folder: Path, *words: object, **behaviour) -> tuple[int, dict]:
    """Run the batch in this Blender; return exit code and report."""
    python = fake_python(folder / "engine", **{"frames": 24, "chunk": 8} | behaviour)
    report = folder / "report.json"
    fixed = ["--out", folder / "out", "--report", report, "--engine-python", python]
    code = main([str(word) for word in [*words, *fixed]])
    return code, json.loads(report.read_text())


def test_every_format_is_written_and_reported(tmp_path: Path) -> None:
    clip = write_avi(tmp_path / "jump.avi", rate=25)
    code, report = run(tmp_path, clip, "--formats", "fbx,glb,blend,npz", people=2, fps=25.0)
    assert code == 0 and (report["done"], report["failed"]) == (1, 0)
    [record] = report["records"]
    names = sorted(Path(path).name for path in record["outputs"])
    assert names == sorted([f"jump_person{p}.{e}" for p in (0, 1) for e in ("fbx", "glb", "npz")] + ["jump.blend"])
    assert all(Path(path).stat().st_size > 500 for path in record["outputs"])
    assert (record["people"], record["frames"], record["status"]) == (2, 48, "done")
    assert np.load(tmp_path / "out" / "jump_person1.npz")["poses"].shape == (24, 72)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "out" / "jump.blend"))
    assert bpy.context.scene.render.fps == 25
    assert {"Person 1", "Person 2"} <= set(bpy.data.objects.keys())


@pytest.mark.parametrize("frames", [24, 300])
def test_the_blend_file_opens_on_the_clip(tmp_path: Path, frames: int) -> None:
    clip = write_avi(tmp_path / "jump.avi", frames=frames, rate=30000, scale=1001)
    assert run(tmp_path, clip, "--formats", "blend", frames=frames, fps=30000 / 1001)[0] == 0
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "out" / "jump.blend"))
    scene = bpy.context.scene
    assert (scene.frame_start, scene.frame_end, scene.frame_current) == (1, frames, 1)
    render = scene.render
    assert (render.fps, round(render.fps_base, 6)) == (30, 1.001)
    assert (render.resolution_x, render.resolution_y, render.resolution_percentage) == (1280, 720, 100)
    assert scene.camera is not None and scene.camera.name == "jump Camera"
    assert bpy.context.view_layer.objects.active == bpy.data.objects["Person 1"]
    assert bpy.data.objects["Person 1"].animation_data.action.frame_range[:] == (1.0, float(frames))


def test_fbx_comes_back_with_its_keys(tmp_path: Path) -> None:
    clip = write_avi(tmp_path / "jump.avi")
    run(tmp_path, clip, "--formats", "fbx")
    assert not list((tmp_path / "out").glob("*.npz"))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.fps = 30
    bpy.ops.import_scene.fbx(filepath=str(tmp_path / "out" / "jump_person0.fbx"))
    [armature] = [o for o in bpy.data.objects if o.type == "ARMATURE"]
    assert len(armature.data.bones) == 24
    first, last = armature.animation_data.action.frame_range
    assert last - first == pytest.approx(23)


def test_a_bad_clip_does_not_stop_the_rest(tmp_path: Path, capsys) -> None:
    clips = [write_avi(tmp_path / "clips" / f"{name}.avi") for name in "abc"]
    blocked = tmp_path / "out" / "b_person0.fbx"
    blocked.mkdir(parents=True)  # b cannot be written
    code, report = run(tmp_path, tmp_path / "clips", tmp_path / "missing*.mp4", "--formats", "fbx")
    assert code == 1
    status = {Path(r["video"]).stem: r["status"] for r in report["records"]}
    assert status == {"missing*": "failed", "a": "done", "b": "failed", "c": "done"}
    error = next(r["error"] for r in report["records"] if Path(r["video"]) == clips[1])
    assert "b_person0.fbx" in error
    out = capsys.readouterr().out
    assert "[3/3] done" in out and "2 of 4 clips succeeded" in out


def test_an_engine_error_is_in_the_report(tmp_path: Path) -> None:
    code, report = run(tmp_path, write_avi(tmp_path / "a.avi"), error_at=0, error_text="Nobody was found")
    assert code == 1 and report["records"][0]["error"] == "Nobody was found"


def test_resume_skips_only_what_is_done_and_unchanged(tmp_path: Path) -> None:
    clip = write_avi(tmp_path / "a.avi")
    words = [clip, "--formats", "fbx,npz", "--resume"]
    assert run(tmp_path, *words)[1]["done"] == 1
    assert heard(tmp_path / "engine")["job"]["options"]["resume"] is True
    code, report = run(tmp_path, *words)
    assert code == 0 and report["skipped"] == 1 and report["records"][0]["frames"] == 24
    assert run(tmp_path, *words, "--smoothing", "0.5")[1]["done"] == 1  # other options
    assert run(tmp_path, *words, "--smoothing", "0.5")[1]["skipped"] == 1
    (tmp_path / "out" / "a_person0.fbx").unlink()
    assert run(tmp_path, *words, "--smoothing", "0.5")[1]["done"] == 1  # an output is gone
    write_avi(clip, frames=11)
    assert run(tmp_path, *words, "--smoothing", "0.5")[1]["done"] == 1  # another clip of that name
    assert run(tmp_path, clip, "--smoothing", "0.5")[1]["done"] == 1  # not asked to skip


def test_without_an_engine_every_clip_fails_with_the_reason(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    clip = write_avi(tmp_path / "a.avi")
    words = [clip, "--out", tmp_path / "out", "--report", report, "--engine-python", tmp_path / "nothing"]
    assert main([str(w) for w in words]) == 1
    assert "does not exist" in json.loads(report.read_text())["records"][0]["error"]


def test_jobs_run_in_blenders_of_their_own(tmp_path: Path, capsys) -> None:
    for name in "abc":
        write_avi(tmp_path / "clips" / f"{name}.avi")
    (tmp_path / "out" / "b_person0.fbx").mkdir(parents=True)
    code, report = run(tmp_path, tmp_path / "clips", "--formats", "fbx", "--jobs", 2)
    assert code == 1
    status = {Path(r["video"]).stem: r["status"] for r in report["records"]}
    assert status == {"a": "done", "b": "failed", "c": "done"}
    assert (tmp_path / "out" / "c_person0.fbx").stat().st_size > 500
    assert "2 of 3 clips succeeded" in capsys.readouterr().out


def test_a_blender_that_crashes_is_reported(tmp_path: Path, monkeypatch) -> None:
    for name in "ab":
        write_avi(tmp_path / "clips" / f"{name}.avi")
    monkeypatch.setattr("addon.batch_children._blender", lambda: [sys.executable, "-c", "import os; os.abort()"])
    code, report = run(tmp_path, tmp_path / "clips", "--jobs", 2)
    assert code == 1 and all("left no report" in r["error"] for r in report["records"])


def test_the_script_alone_sets_the_exit_code(tmp_path: Path) -> None:
    clip = write_avi(tmp_path / "a.avi")
    python = fake_python(tmp_path / "engine", frames=8)
    words = [clip, "--out", tmp_path / "out", "--formats", "npz", "--engine-python", python]
    command = [sys.executable, ROOT / "addon" / "batch.py", "--", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 clips succeeded" in done.stdout
    wrong = subprocess.run([*map(str, command), "--formats", "abc"], capture_output=True, text=True, cwd=tmp_path)
    assert wrong.returncode == 2 and "choose from fbx, glb, blend, npz" in wrong.stderr


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_keeps_the_report_and_leaves_nothing_running(tmp_path: Path, jobs: int) -> None:
    for name in "ab":
        write_avi(tmp_path / "clips" / f"{name}.avi")
    python = fake_python(tmp_path / "engine", frames=3200, chunk_delay_s=0.2)
    words = [tmp_path / "clips", "--out", tmp_path / "out", "--jobs", jobs, "--engine-python", python]
    command = [sys.executable, ROOT / "addon" / "batch.py", "--", *words, "--report", tmp_path / "r.json"]
    run = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "engine" / "fake_engine.json").exists():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=30)
    assert run.returncode == 1 and "0 of 2 clips succeeded" in out
    assert {r["status"] for r in json.loads((tmp_path / "r.json").read_text())["records"]} == {"cancelled"}
    deadline = time.monotonic() + 5
    while any(str(tmp_path) in line for line in running_commands()):
        assert time.monotonic() < deadline, running_commands()
        time.sleep(0.1)


def running_commands() -> list[str]:
    """Return the command lines of all processes of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_options_survive_the_way_to_a_child() -> None:
    words = "a.mp4 --out /o --formats glb,npz --mode point_cache --method hyperbolic --device cpu --person 2,0 "
    words += "--quality high --no-refine --no-lock-feet --panning "
    words += "--max-people 3 --smoothing 0.25 --focal-mm 35 --start 1.5 --end 3 --resume --report /r.json"
    words += " --height 0:1.72,2:1.6 --smoothing-by-limb arms:0,torso:0.06"
    _videos, options = parse_options(words.split(), "x")
    assert parse_options(["a.mp4", *option_arguments(options)], "x")[1] == options
    on = replace(options, refine=True, lock_feet=True, panning=False)
    assert parse_options(["a.mp4", *option_arguments(on)], "x")[1] == on
    assert options.engine_options(Path("/o")) == {
        "method": "hyperbolic",
        "quality": "high",
        "refine": False,
        "device": "cpu",
        "person": [2, 0],
        "max_people": 3,
        "smoothing_s": 0.25,
        "smoothing_by_limb": {"arms": 0.0, "torso": 0.06},
        "lock_feet": False,
        "panning": True,
        "vertices": True,
        "start": 1.5,
        "end": 3.0,
        "resume": True,
        "cache_dir": "/o/.hyper_mocap_cache",
        "focal_mm": 35.0,
        "height_m": {"0": 1.72, "2": 1.6},
        "out_dir": "/o",
    }
    everybody = replace(options, height_m=1.8, smoothing_by_limb={})
    assert parse_options(["a.mp4", *option_arguments(everybody)], "x")[1] == everybody
    assert everybody.engine_options(Path("/o"))["height_m"] == 1.8
    assert "smoothing_by_limb" not in everybody.engine_options(Path("/o"))


def test_a_clip_is_done_again_where_refining_makes_a_difference() -> None:
    def keys(method: str) -> set[str]:
        return {fingerprint(Path(__file__), BatchOptions(Path("/o"), method=method, refine=r)) for r in (True, False)}

    assert len(keys("hyperbolic")) == 2 and len(keys("fit")) == 1


def test_engine_options_are_those_the_engine_knows() -> None:
    """Read from the engine's source, as this Python cannot import it."""
    import ast

    tree = ast.parse((ROOT / "core" / "options.py").read_text())
    [cls] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "JobOptions"]
    known = {n.target.id for n in cls.body if isinstance(n, ast.AnnAssign)}
    full = BatchOptions(
        out=Path("/o"), end=1.0, focal_mm=1.0, height_m=1.7, body="b", smoothing_by_limb={"head": 0.0}
    )
    assert set(full.engine_options(Path("/o"))) <= known


@pytest.mark.parametrize(
    "wrong",
    [
        "--formats obj",
        "--formats ,",
        "--jobs 0",
        "--start 2 --end 1",
        "--person anna",
        "--mode clay",
        "--quality best",
        "--smoothing-by-limb tail:0.1",
        "--smoothing-by-limb arms:-1",
        "--smoothing-by-limb arms:9",
        "--smoothing-by-limb arms:0,arms:1",
        "--smoothing-by-limb arms",
        "--height 172",
        "--height 0:1.7,0:1.8",
        "--height 0:tall",
        "--method magic",
        "--smoothing -1",
        "--smoothing nan",
        "--smoothing 6",
        "--max-people 0",
        "--focal-mm 0",
        "--start -1",
        "--start inf",
        "--end nan",
    ],
)
def test_wrong_options_are_refused(wrong: str, capsys) -> None:
    """Before any clip is touched, by one line that names the option."""
    assert main(["a.mp4", "--out", "/nowhere", *wrong.split()]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert ("--end" if "--end" in wrong else wrong.split()[0]) in last and "invalid _" not in last


def test_what_is_missing_is_said_in_words(tmp_path: Path, capsys) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    places = [str(tmp_path / name) for name in ("gone.mp4", "notes", "*.mov")]
    assert main([*places, "--out", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "failed    gone.mp4: there is no such file",
        "failed    notes: the folder holds no videos",
        "failed    *.mov: no file fits this pattern",
    ]


def test_a_clips_name_is_said_once() -> None:
    for error in ("is no video", "a.mp4 is no video"):
        line = Record("/clips/a.mp4", "failed", error=error).line
        assert line.count("a.mp4") == 1 and line.endswith("is no video")


def test_a_limb_nobody_has_is_answered_with_those_there_are(capsys) -> None:
    assert main(["a.mp4", "--out", "/nowhere", "--smoothing-by-limb", "tail:0.1"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "tail:0.1: expected seconds from 0 to 5 for any of root, torso, head, left_arm," in last
    assert last.endswith("arms, legs")


def test_patterns_folders_and_names_that_meet(tmp_path: Path) -> None:
    for name in ("one/A.mp4", "one/b.MOV", "one/notes.txt", "two/a.mkv", "pictures/001.png", "pictures/002.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    videos, missing = find_videos(
        [str(tmp_path / "*" / "a.*"), str(tmp_path / "one"), str(tmp_path / "pictures"), "no"]
    )
    assert [str(v.relative_to(tmp_path)) for v in videos] == ["two/a.mkv", "one/A.mp4", "one/b.MOV", "pictures"]
    assert missing == ["no"]
    folders = output_folders(videos, Path("/o"))
    assert folders == [Path("/o"), Path("/o/A_2"), Path("/o"), Path("/o")]


def test_the_report_lies_in_the_output_folder_unless_told_otherwise() -> None:
    _, options = parse_options(["clip.mp4", "--out", "results"], "batch.py")
    assert options.report == Path("results/report.json").resolve()
    _, options = parse_options(["clip.mp4", "--out", "results", "--report", "elsewhere.json"], "batch.py")
    assert options.report == Path("elsewhere.json").resolve()


def test_a_report_that_cannot_be_written_fails_the_run_in_one_line(tmp_path: Path, capsys) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = main([str(tmp_path / "none.mp4"), "--out", str(blocked / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    assert any("the report cannot be written" in line and "--report" in line for line in lines)
