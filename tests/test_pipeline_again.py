"""core.pipeline over doubles of its stages: stopping, resuming, what is kept and for which job."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from core import result
from core.errors import OutputError
from core.protocol import (
    Frames,
    Progress,
    Revise,
    Shape,
)
from tests.engine_doubles import TILT, FakeStages, root_at
from tests.pipeline_support import frames_of, run


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "walk.mp4"
    path.write_bytes(os.urandom(3000))
    return path


def test_stop_keeps_the_frames_that_are_done(video, tmp_path):
    stages, out = FakeStages(people=2), tmp_path / "out"
    done, recorder, _ = run(video, out, stages, should_stop=lambda: len(stages.recovered) >= 3, live=False)
    assert done.cancelled and [Path(p).name for p in done.results] == ["walk_person0.npz"]
    motion = result.read_result(done.results[0])
    assert motion.frames.tolist() == list(range(60))
    assert frames_of(recorder.of(Revise)) == list(range(60))
    assert done.summary["can_resume"] is True


def test_stop_while_perceiving_without_live_writes_nothing(video, tmp_path):
    stages, out = FakeStages(), tmp_path / "out"
    done, recorder, _ = run(video, out, stages, should_stop=lambda: len(stages.perceived) >= 30, live=False)
    assert done.cancelled and done.results == [] and len(stages.perceived) == 30
    assert recorder.of(Frames) == []
    assert not list((tmp_path / "out").glob("*.npz"))


def test_everybody_shown_when_a_live_job_stops_has_a_result(video, tmp_path):
    """Person 0 is recovered up to frame 59 and guessed, 1 m to the right, from there on; person 1 is all guess."""
    stages = FakeStages(people=2, stretch=30)
    done, recorder, _ = run(video, tmp_path / "out", stages, should_stop=lambda: len(stages.recovered) >= 3)
    assert done.cancelled and [Path(p).name for p in done.results] == ["walk_person0.npz", "walk_person1.npz"]
    found = [result.read_result(path) for path in done.results]
    assert [m.frames.tolist() for m in found] == [list(range(100)), list(range(90))]
    assert not any(m.extra["is_complete"] for m in found)
    for motion, recovered in zip(found, (60, 0)):
        in_camera = (motion.trans - 1.0) @ TILT  # the double's world is x_world = TILT x_cam + 1
        right = in_camera[:, 0] - root_at(motion.frames, motion.person)[:, 0]
        np.testing.assert_allclose(right, np.arange(len(motion.frames)) >= recovered, atol=1e-5)
        sent = [m for m in recorder.of(Frames) if m.person == motion.person]
        assert frames_of(sent) == motion.frames.tolist(), "each once"
        last = [m for m in recorder.of(Revise) if m.person == motion.person]
        assert frames_of(last)[-len(motion.frames) :] == motion.frames.tolist()


def test_everybody_shown_when_perception_stops_has_a_result(video, tmp_path):
    stages = FakeStages(people=2, stretch=10)
    done, recorder, _ = run(video, tmp_path / "out", stages, should_stop=lambda: len(stages.perceived) >= 35)
    assert done.cancelled and stages.recovered == [] and done.summary["can_resume"]
    assert [result.read_result(p).frames.tolist() for p in done.results] == [list(range(35))] * 2
    for person in (0, 1):
        assert frames_of([m for m in recorder.of(Frames) if m.person == person]) == list(range(35))


def test_a_stop_before_the_choice_keeps_everybody_who_is_shown(video, tmp_path):
    stages = FakeStages(people=2, stretch=30)
    stops = lambda: len(stages.perceived) == 100 and stages.asked  # noqa: E731
    stages.asked = False

    def choose():
        stages.asked = True

    done, _, _ = run(video, tmp_path / "out", stages, should_stop=stops, choose=choose, person="ask")
    assert done.cancelled and len(done.results) == 2


def test_a_stop_before_a_person_was_found_is_no_error(video, tmp_path):
    stages = FakeStages(people=2)
    done, _, _ = run(video, tmp_path, stages, should_stop=lambda: len(stages.perceived) >= 30, person=(1, 7))
    assert [Path(p).name for p in done.results] == ["walk_person1.npz"] and done.summary["people"] == [1]


def test_perception_that_is_complete_counts_as_reused(video, tmp_path):
    class Keeping(FakeStages):
        def perceive(self, reader, *, cache, on_progress, **options):
            """As the real one: silent about frames that are in the cache."""
            if cache.length("perceive") == self.frames:
                return [self.track(0)]
            found = super().perceive(reader, cache=cache, on_progress=on_progress, **options)
            for start in (0, 50):
                cache.write("perceive", start, start + 50, {"x": np.zeros(1)})
            return found

    stages = Keeping()
    run(video, tmp_path, stages, should_stop=lambda: len(stages.recovered) >= 1)
    again = Keeping()
    done, recorder, _ = run(video, tmp_path, again, resume=True)
    assert again.perceived == [] and done.summary["reused_frames"] == {"perceive": 100, "recover": 20}
    last = [m for m in recorder.of(Progress) if m.stage == "perceive"][-1]
    assert (last.done, last.total) == (100, 100)


def test_resume_goes_on_and_gives_the_same(video, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    stages = FakeStages(people=2)
    run(video, out, stages, should_stop=lambda: len(stages.recovered) >= 6)
    assert (out / ".hyper_mocap_cache").is_dir()
    again = FakeStages(people=2)
    done, recorder, _ = run(video, out, again, resume=True)
    assert not done.cancelled and done.summary["reused_frames"]["recover"] == 100 + 20
    assert {person for person, _ in again.recovered} == {1}, "person 0 was finished"
    assert frames_of([m for m in recorder.of(Frames) if m.person == 0]) == list(range(100))
    assert frames_of([m for m in recorder.of(Frames) if m.person == 1]) == list(range(90))
    assert not (out / ".hyper_mocap_cache").exists(), "removed after success"
    run(video, whole, FakeStages(people=2))
    for name in ("walk_person0.npz", "walk_person1.npz"):
        a, b = dict(np.load(out / name)), dict(np.load(whole / name))
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=f"{name} {key}")


def test_a_method_that_can_go_on_is_given_what_is_known(video, tmp_path):
    class GoingOn(FakeStages):
        def _recover(self, track, *rest, known=None, **options):
            self.known = known
            return super()._recover(track, *rest, **options)

    stages = GoingOn()
    run(video, tmp_path / "out", stages, should_stop=lambda: len(stages.recovered) >= 3)
    assert stages.known is None
    again = GoingOn()
    run(video, tmp_path / "out", again, resume=True)
    assert again.known.frames.tolist() == list(range(60))
    np.testing.assert_array_equal(again.known.trans, root_at(np.arange(60), 0))


def test_without_resume_everything_is_done_again(video, tmp_path):
    stages = FakeStages()
    run(video, tmp_path, stages, should_stop=lambda: len(stages.recovered) >= 3)
    again = FakeStages()
    done, _, _ = run(video, tmp_path, again)
    assert done.summary["reused_frames"]["recover"] == 0 and len(again.recovered) == 5


def test_a_given_height_is_in_every_message_and_in_the_file(video, tmp_path):
    """The double's body is 1.8 (1 + 0.1 b0) m tall and its root rests at (0, -1, 0); person 1 has b0 = 0.1."""
    plain, _, _ = run(video, tmp_path / "a", FakeStages(people=2, stretch=30))
    done, recorder, _ = run(video, tmp_path / "b", FakeStages(people=2, stretch=30), height_m={1: 0.909})
    heights = {person: {m.height_m for m in recorder.of(Shape) if m.person == person} for person in (0, 1)}
    assert all(h == pytest.approx(1.8) for h in heights[0])
    assert len(heights[1]) <= 2 and all(h == pytest.approx(0.909, abs=1e-6) for h in heights[1]), "guesses as well"
    same, other, before = np.load(done.results[0]), np.load(done.results[1]), np.load(plain.results[1])
    np.testing.assert_array_equal(same["trans"], np.load(plain.results[0])["trans"])
    assert other["betas"][0] == pytest.approx((0.909 / 1.8 - 1) / 0.1, abs=1e-4)
    root = np.array([0.0, -1.0, 0.0])
    in_camera = [(f["trans"] - 1.0) @ TILT for f in (before, other)]  # the double's world is x_world = TILT x_cam + 1
    np.testing.assert_allclose(root + in_camera[1], 0.5 * (root + in_camera[0]), atol=1e-5)
    np.testing.assert_array_equal(other["poses"], before["poses"])


def test_another_height_goes_on_with_the_same_work(video, tmp_path):
    stages = FakeStages()
    run(video, tmp_path / "out", stages, should_stop=lambda: len(stages.recovered) >= 3, height_m=1.5)
    done, _, _ = run(video, tmp_path / "out", FakeStages(), resume=True, height_m=1.6)
    assert done.summary["reused_frames"]["recover"] == 60
    whole, _, _ = run(video, tmp_path / "whole", FakeStages(), height_m=1.6)
    a, b = dict(np.load(done.results[0])), dict(np.load(whole.results[0]))
    np.testing.assert_array_equal(a["trans"], b["trans"])
    np.testing.assert_array_equal(a["betas"], b["betas"])


def test_a_height_for_somebody_who_is_not_there_is_mentioned(video, tmp_path, caplog):
    run(video, tmp_path, FakeStages(), height_m={0: 1.7, 4: 1.8})
    assert "There is no person 4" in caplog.text and "person 0" not in caplog.text


@pytest.mark.parametrize("change", ["video", "focal"])
def test_another_job_does_not_use_the_cache(video, tmp_path, change):
    stages = FakeStages()
    run(video, tmp_path / "out", stages, should_stop=lambda: len(stages.recovered) >= 3)
    if change == "video":
        video.write_bytes(os.urandom(3000))
    again = FakeStages()
    done, _, _ = run(video, tmp_path / "out", again, resume=True, focal_px=900.0 if change == "focal" else None)
    assert done.summary["reused_frames"]["recover"] == 0


def test_damaged_cache_is_ignored(video, tmp_path, caplog):
    stages = FakeStages()
    run(video, tmp_path / "out", stages, should_stop=lambda: len(stages.recovered) >= 4)
    chunks = sorted((tmp_path / "out" / ".hyper_mocap_cache").glob("*/*_0-*.npz"))
    assert len(chunks) == 4
    data = bytearray(chunks[2].read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunks[2].write_bytes(data)
    done, _, _ = run(video, tmp_path / "out", FakeStages(), resume=True)
    assert done.summary["reused_frames"]["recover"] == 40 and "damaged" in caplog.text
    assert result.read_result(done.results[0]).frames.tolist() == list(range(100))


def test_unwritable_folder_is_found_before_the_work(video, tmp_path):
    (tmp_path / "file").write_text("x")
    stages = FakeStages()
    with pytest.raises(OutputError, match="a file where a folder is needed"):
        run(video, tmp_path / "file", stages)
    assert stages.perceived == []


def test_too_little_space_is_found_before_the_work(video, tmp_path, monkeypatch):
    monkeypatch.setattr(result.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    stages = FakeStages()
    with pytest.raises(OutputError, match="Not enough space in"):
        run(video, tmp_path, stages)
    assert stages.perceived == []
