"""The command line through main(argv), with doubles of the stages: exit codes, report, resuming, wrong use."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from core import pipeline
from core.errors import BodyFileError
from core.finished import finished_results
from core.protocol import REFINES_BY_DEFAULT, SMOOTHING_LIMBS
from core.version import VERSION
from tests.cli_support import ROOT, call
from tests.engine_doubles import FakeStages


@pytest.fixture
def stages(monkeypatch) -> FakeStages:
    """The one set of stages every job of the test uses."""
    fake = FakeStages()
    monkeypatch.setattr(pipeline, "Stages", lambda: fake)
    return fake


@pytest.fixture
def video(tmp_path) -> str:
    path = tmp_path / "walk.mp4"
    path.write_bytes(os.urandom(2000))
    return str(path)


def test_recover_writes_results_and_says_so(stages, video, tmp_path, capsys):
    stages.people = 2
    assert call("recover", video, "-o", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(tmp_path / "out" / f"walk_person{p}.npz") for p in (0, 1)]
    assert "walk.mp4: 2 people, 100 frames in" in err and "Traceback" not in err


def test_quiet_says_nothing_but_the_results(stages, video, tmp_path, capsys):
    assert call("recover", video, "-o", tmp_path, "--quiet") == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'walk_person0.npz'}\n" and err == ""


def test_options_reach_the_job(video, tmp_path, monkeypatch):
    seen = {}

    def run(path, options, sink, **others):
        seen["options"] = options
        raise BodyFileError("stop here")

    monkeypatch.setattr(pipeline, "run", run)
    words = "--method m --person 2,0 --device cpu --start 1 --end 2.5 --vertices --focal-mm 35 --smoothing 0.2"
    words += " --no-lock-feet --panning"
    words += f" --body b.npz --max-people 7 --quality high {'--no-refine' if REFINES_BY_DEFAULT else '--refine'}"
    assert call("recover", video, "-o", tmp_path, *words.split()) == 1
    options = seen["options"]
    assert (options.method, options.person, options.device) == ("m", (2, 0), "cpu")
    assert (options.start, options.end, options.vertices, options.focal_mm) == (1.0, 2.5, True, 35.0)
    assert (options.smoothing_s, options.body, options.max_people) == (0.2, "b.npz", 7)
    assert options.quality == "high" and options.refine is not REFINES_BY_DEFAULT
    assert options.out_dir == str(tmp_path) and not options.resume and options.height_m is None
    assert options.lock_feet is False and options.panning is True
    assert call("recover", video, "-o", tmp_path, "--height", "1.72") == 1
    assert seen["options"].height_m == 1.72 and seen["options"].lock_feet is True and not seen["options"].panning
    assert call("recover", video, "-o", tmp_path, "--height", "0:1.72,3:1.6") == 1
    assert seen["options"].height_m == {0: 1.72, 3: 1.6} and seen["options"].smoothing_by_limb == {}
    assert call("recover", video, "-o", tmp_path, "--smoothing-by-limb", "arms:0,torso:0.06, left_arm:.1") == 1
    assert seen["options"].smoothing_by_limb == {"torso": 0.06, "left_arm": 0.1, "right_arm": 0.0}


def test_one_bad_video_does_not_stop_the_others(stages, video, tmp_path, capsys):
    other = tmp_path / "nobody.mp4"
    other.write_bytes(b"x")
    original = stages.perceive

    def perceive(reader, **options):
        tracks = original(reader, **options)
        return [] if "nobody" in reader.clip.path else tracks

    stages.perceive = perceive
    report = tmp_path / "report.json"
    assert call("recover", other, video, "-o", tmp_path / "out", "--json", report) == 1
    _, err = capsys.readouterr()
    assert "[1/2] nobody.mp4: No person found in nobody.mp4" in err
    data = json.loads(report.read_text())
    assert [(v["status"], len(v["results"])) for v in data["videos"]] == [("failed", 0), ("done", 1)]
    assert data["videos"][0]["code"] == "no_person" and data["exit_code"] == 1 and data["version"] == VERSION
    assert data["videos"][1]["summary"]["frames"] == 100


def test_a_folder_is_every_video_in_it(stages, video, tmp_path, capsys):
    clips = tmp_path / "clips"
    (clips / "deeper").mkdir(parents=True)
    for name in ("b.MOV", "a.mp4", "notes.txt", ".a.mp4", "still.png", "deeper/c.mp4"):
        (clips / name).write_bytes(b"x")
    assert call("recover", clips, video, clips / "a.mp4", "-o", tmp_path / "out") == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["a_person0.npz", "b_person0.npz", "walk_person0.npz"]


def test_a_folder_of_images_is_one_clip_and_one_of_neither_is_refused(stages, tmp_path, capsys):
    (tmp_path / "shot").mkdir()
    (tmp_path / "shot" / "0001.jpg").write_bytes(b"x")
    assert call("recover", tmp_path / "shot", "-o", tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / "shot_person0.npz")]
    (tmp_path / "empty").mkdir()
    assert call("recover", tmp_path / "empty", "-o", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "holds no videos and no images: name video files" in err


def test_both_sides_search_folders_for_the_same_videos():
    from addon.batch_options import VIDEO_SUFFIXES
    from core.cli import videos

    assert videos.VIDEO_SUFFIXES == VIDEO_SUFFIXES


def test_a_bug_ends_one_video_only(stages, video, tmp_path, capsys):
    stages.fail = "a bug"
    report = tmp_path / "report.json"
    assert call("recover", video, "-o", tmp_path / "out", "--json", report) == 1
    err = capsys.readouterr().err
    assert "walk.mp4: unexpected RuntimeError: a bug (--verbose shows where)" in err and "Traceback" not in err
    assert json.loads(report.read_text())["videos"][0]["status"] == "failed"
    assert call("recover", video, "-o", tmp_path / "out", "--verbose") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_found_before_the_work(stages, video, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert call("recover", video, "-o", tmp_path, "--json", tmp_path / "file" / "report.json") == 1
    assert "a file where a folder is needed" in capsys.readouterr().err and stages.perceived == []


def test_resume_skips_what_is_done(stages, video, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("recover", video, "-o", out) == 0
    count = len(stages.recovered)
    assert call("recover", video, "-o", out, "--resume") == 0
    assert len(stages.recovered) == count and "already done, 1 result(s)" in capsys.readouterr().err
    assert call("recover", video, "-o", out, "--resume", "--focal-px", 900) == 0
    assert len(stages.recovered) == 2 * count, "another job"
    assert call("recover", video, "-o", out) == 0
    assert len(stages.recovered) == 3 * count, "without --resume everything is done again"


def test_resume_does_not_take_partial_or_missing_results_for_done(stages, video, tmp_path):
    stages.people = 2
    out = tmp_path / "out"
    assert call("recover", video, "-o", out) == 0
    (out / "walk_person1.npz").unlink()
    options = pipeline.JobOptions(out_dir=str(out), resume=True)
    assert finished_results(video, options) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--person", "left"], "--person left: use all, or numbers"),
        (["--person", "ask"], "--person ask works in Blender only"),
        (["--start", "5", "--end", "4"], "seconds after 5"),
        (["--smoothing", "-1"], "smoothing_s"),
        (["--smoothing-by-limb", "tail:0"], f"for any of {', '.join(SMOOTHING_LIMBS)}"),
        (["--smoothing-by-limb", "arms:-1"], "seconds from 0 to 5"),
        (["--smoothing-by-limb", "arms"], "--smoothing-by-limb arms: use arms:0,torso:0.06; limbs are root, torso"),
        (["--smoothing-by-limb", "arms:0,arms:1"], "--smoothing-by-limb arms:0,arms:1: use"),
        (["--height", "172"], "metres from 0.5 to 2.5"),
        (["--height", "tall"], "--height tall: use metres such as 1.72"),
        (["--height", "0:1.7,0:1.8"], "--height 0:1.7,0:1.8: use metres"),
        (["--height", "0:1.7:2"], "--height 0:1.7:2: use metres"),
        (["--preview", "x.gif"], "must end in .png or .mp4"),
        (["--device", "gpu"], "one of auto, cpu, cuda, mps"),
        (["--nonsense"], "unrecognized arguments"),
        (["--focal-mm", "35", "--focal-px", "900"], "not allowed with"),
    ],
)
def test_wrong_use_is_2_and_one_line(stages, video, tmp_path, capsys, words, text):
    assert call("recover", video, "-o", tmp_path, *words) == 2
    err = capsys.readouterr().err
    assert text in err and "Traceback" not in err
    assert stages.perceived == []


def test_two_videos_of_one_name_are_refused(stages, video, tmp_path, capsys):
    assert call("recover", video, "elsewhere/walk.mov", "-o", tmp_path) == 2
    assert "Two videos are called walk" in capsys.readouterr().err


def test_unknown_command_and_help(capsys):
    assert call("recoverr") == 2
    assert "Unknown command 'recoverr'" in capsys.readouterr().err
    assert call("--help") == 0
    assert "recover" in capsys.readouterr().out
    assert call() == 2
    assert call("--version") == 0
    assert call("recover", "--help") == 0


def test_serve_without_token_is_one_line(capsys, monkeypatch):
    monkeypatch.delenv("HYPER_MOCAP_TOKEN", raising=False)
    assert call("serve", "--port", 1234) == 1
    assert "started by the add-on" in capsys.readouterr().err


def test_version_is_the_projects():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_preview_command_needs_three_paths(capsys):
    assert call("preview", "a.npz", "b.mp4") == 1
    assert "preview needs a result file, the video" in capsys.readouterr().err


def test_results_hold_no_absolute_paths(stages, video, tmp_path):
    """Results may be passed on: nothing in them tells where they were made."""
    assert call("recover", video, "-o", tmp_path / "out", "--quiet") == 0
    with np.load(tmp_path / "out" / "walk_person0.npz") as data:
        texts = [str(data[name]) for name in data.files if data[name].dtype.kind == "U"]
    assert not any(str(tmp_path) in text for text in texts)


@pytest.mark.parametrize(
    ("command", "option"), [("train", "--set"), ("evaluate", "--video"), ("evaluate", "--network")]
)
def test_a_list_may_be_given_in_pieces(command, option):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"core.cli.{command}").add_arguments(parser)
    required = ["--out", "x"] if command == "train" else []
    given = parser.parse_args([*required, option, "a", "b", option, "c"])
    assert vars(given)[option.removeprefix("--")] == ["a", "b", "c"]
    assert vars(parser.parse_args(required))[option.removeprefix("--")] == []
