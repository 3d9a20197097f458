"""core.pipeline over doubles of its stages: messages and their order, progress, choice."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core import result, stream, world
from core.errors import InputError, NoPersonError
from core.options import JobOptions
from core.protocol import (
    DEFAULT_METHOD,
    REFINABLE_METHODS,
    Body,
    Frames,
    People,
    Progress,
    Revise,
    Shape,
    Video,
    View,
)
from core.recover import METHODS
from core.stages import Stages
from tests.engine_doubles import TILT, VERTICES, FakeStages, angle_at, root_at
from tests.pipeline_support import frames_of, run


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "walk.mp4"
    path.write_bytes(os.urandom(3000))
    return path


def test_messages_come_in_the_documented_order(video, tmp_path):
    done, recorder, _ = run(video, tmp_path / "out", FakeStages(people=2))
    assert recorder.order() == [
        *("Video", "Body", "People"),
        *("View", "Shape", "Frames"),
        *("View", "Shape", "Frames"),
        *("View", "Shape", "Revise", "Shape", "Revise"),
    ]
    assert not done.cancelled and [Path(p).name for p in done.results] == ["walk_person0.npz", "walk_person1.npz"]
    stages = [p.stage for p in recorder.of(Progress)]
    assert list(dict.fromkeys(stages)) == ["open", "perceive", "track", "recover", "place", "write"]
    assert recorder.of(Video)[0].frame_count == 100
    people = recorder.of(People)[0].people
    assert [(p["person"], p["first"], p["last"], p["frames"], p["chosen"]) for p in people] == [
        (0, 0, 99, 100, True),
        (1, 0, 89, 90, True),
    ]
    assert people[0]["confidence"] == 0.5 and people[0]["height_px"] == 200.0


def test_frames_and_revisions_cover_every_frame_once_in_order(video, tmp_path):
    _, recorder, _ = run(video, None, FakeStages(window=45))
    assert frames_of(recorder.of(Frames)) == list(range(100))
    assert frames_of(recorder.of(Revise)) == list(range(100))
    assert all(1 <= m.frames.shape[0] <= 32 for m in recorder.of(Frames) + recorder.of(Revise))


def test_rough_frames_come_while_the_video_is_read(video, tmp_path):
    """Guesses of frames 0 to 89 arrive before perception ends, then the recovery revises them and adds the rest."""
    stages = FakeStages(stretch=30, window=50)
    _, recorder, _ = run(video, tmp_path, stages)
    names = [p.stage if isinstance(p, Progress) else type(p).__name__ for p in recorder.messages]
    early = recorder.messages[: names.index("track")]
    assert frames_of([m for m in early if type(m) is Frames]) == list(range(90))
    guessed = stream.from_array(next(m for m in early if type(m) is Frames).trans)
    cam = root_at(np.arange(30), 0) + [1, 0, 0]
    np.testing.assert_allclose(guessed, np.stack([cam[:, 0], cam[:, 2], -cam[:, 1] + 0.7], -1), atol=1e-5)
    late = recorder.messages[names.index("track") :]
    assert frames_of([m for m in late if type(m) is Frames]) == list(range(90, 100))
    revised = [m for m in late if type(m) is Revise]
    assert frames_of(revised) == [*range(90), *range(100)], "by the recovery, then by the final world"
    once = stream.from_array(revised[0].trans)[:, 0]
    np.testing.assert_allclose(once, root_at(np.arange(32), 0)[:, 0], atol=1e-6)
    assert recorder.order()[:5] == ["Video", "Body", "People", "View", "Shape"]


def test_rough_frames_can_be_left_out_and_change_no_result(video, tmp_path):
    whole, _, _ = run(video, tmp_path / "a", FakeStages(stretch=30))
    quiet, recorder, _ = run(video, tmp_path / "b", FakeStages(stretch=30), live=False)
    assert frames_of(recorder.of(Frames)) == list(range(100))
    a, b = dict(np.load(whole.results[0])), dict(np.load(quiet.results[0]))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_rough_frames_of_people_not_asked_for_stay_away(video):
    _, recorder, _ = run(video, None, FakeStages(people=2, stretch=30), person=(1,))
    assert {m.person for m in recorder.of(Frames)} == {1}


def test_people_found_later_join_the_list(video):
    class Late(FakeStages):
        def _show(self, person, start, stop, on_track):
            if person == 0 or start >= 60:
                super()._show(person, start, stop, on_track)

    _, recorder, _ = run(video, None, Late(people=2, stretch=30))
    assert [[p["person"] for p in m.people] for m in recorder.of(People)] == [[0], [0, 1], [0, 1]]


def test_values_reach_sink_and_file(video, tmp_path):
    """Expected values from the closed form of the doubles: trans_world = TILT @ trans_cam + 1."""
    done, recorder, _ = run(video, tmp_path, FakeStages(first=5))
    frames = np.arange(5, 100)
    expected_trans = root_at(frames, 0).astype(float) @ TILT.T + 1.0
    revised = np.concatenate([stream.from_array(m.trans) for m in recorder.of(Revise)])
    np.testing.assert_allclose(revised, expected_trans, atol=1e-5)
    motion = result.read_result(done.results[0])
    np.testing.assert_allclose(motion.trans, expected_trans, atol=1e-5)
    np.testing.assert_allclose(motion.poses.reshape(-1, 24, 3)[:, 7, 0], angle_at(frames), atol=1e-6)
    np.testing.assert_allclose(motion.times, frames / 25)
    np.testing.assert_array_equal(motion.keypoints2d[:, 3, 0], frames)
    assert motion.extra["fps"] == pytest.approx(25.0) and motion.extra["body"] == "double"
    assert motion.extra["video"] == video.name and motion.extra["job_quality"] == "standard"
    assert motion.method == DEFAULT_METHOD and motion.vertices_cam is None


def test_the_quality_reaches_perception_and_the_record(video, tmp_path):
    class Listening(FakeStages):
        def perceive(self, reader, *, quality, **options):
            seen.append(quality)
            return super().perceive(reader, **options)

    seen = []
    done, _, _ = run(video, tmp_path, Listening(), quality="draft")
    assert seen == ["draft"] and done.summary["quality"] == "draft"
    assert result.read_result(done.results[0]).extra["job_quality"] == "draft"


def test_provisional_world_is_upright_with_feet_on_the_floor(video):
    """Joints of the doubles lie 1.0 m above (camera y = -1) to 0.7 m below trans: the lowest is at camera y 0.7."""
    _, recorder, _ = run(video, None)
    matrix = stream.from_array(recorder.of(View)[0].matrix)
    np.testing.assert_allclose(matrix, [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0.7], [0, 0, 0, 1]], atol=1e-6)
    first = stream.from_array(recorder.of(Frames)[0].trans)
    cam = root_at(np.arange(20), 0)
    np.testing.assert_allclose(first, np.stack([cam[:, 0], cam[:, 2], -cam[:, 1] + 0.7], -1), atol=1e-5)


def test_height_comes_from_the_shaped_template(video):
    """Template y spans 1.8 m; component 0 scales it by 0.1 a unit; person 1 has betas of 0.1."""
    _, recorder, _ = run(video, None, FakeStages(people=2))
    heights = {m.person: m.height_m for m in recorder.of(Shape)}
    assert heights == {0: pytest.approx(1.8), 1: pytest.approx(1.8 * 1.01)}


def test_body_message_keeps_four_influences(video):
    _, recorder, _ = run(video, None)
    body = recorder.of(Body)[0]
    assert body.weight_joints.shape == (VERTICES, 4)
    joints, values = stream.from_array(body.weight_joints), stream.from_array(body.weight_values)
    np.testing.assert_array_equal(joints[:5, :2], np.stack([np.arange(5), np.arange(5) + 5], -1))
    np.testing.assert_allclose(values[:5], np.tile([0.6, 0.4, 0, 0], (5, 1)), atol=1e-6)
    assert joints[5].tolist() == [9, 2, 20, 4], "the fifth influence, 0.05, is left out"
    np.testing.assert_allclose(values[5], np.array([0.5, 0.2, 0.15, 0.1]) / 0.95, atol=1e-6)
    assert stream.from_array(body.faces)[1].tolist() == [2, 3, 4, -1]


def test_vertices_go_out_in_the_world_and_into_the_file_in_the_camera_frame(video, tmp_path):
    stages = FakeStages()
    done, recorder, _ = run(video, tmp_path, stages, vertices=True)
    template = stages.load_body(None, "cpu").v_template
    sent = stream.from_array(recorder.of(Revise)[1].vertices)
    world_trans = root_at(np.arange(32, 64), 0) @ TILT.T + 1.0
    np.testing.assert_allclose(sent, template + world_trans[:, None], atol=1e-5)
    stored = result.read_result(done.results[0]).vertices_cam
    np.testing.assert_allclose(stored, template @ TILT + root_at(np.arange(100), 0)[:, None], atol=1e-5)
    assert recorder.of(Frames)[0].vertices.shape == (20, VERTICES, 3)


def test_without_vertices_none_travel(video):
    _, recorder, _ = run(video, None)
    assert all(m.vertices.data == b"" for m in recorder.of(Frames) + recorder.of(Revise))


def test_fraction_never_falls(video):
    _, recorder, _ = run(video, None, FakeStages(people=2, delay_s=0.002))
    fractions = [p.fraction for p in recorder.of(Progress)]
    assert fractions == sorted(fractions) and 0 <= fractions[0] and fractions[-1] < 1
    assert all(p.done <= p.total for p in recorder.of(Progress))


def test_nobody_found(video, tmp_path):
    with pytest.raises(NoPersonError, match="No person found in walk.mp4") as info:
        run(video, tmp_path / "out", FakeStages(people=0))
    assert "\n" not in str(info.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_only_chosen_people(video, tmp_path):
    done, recorder, stages = run(video, tmp_path / "out", FakeStages(people=3), person=(2,))
    assert [Path(p).name for p in done.results] == ["walk_person2.npz"]
    assert {person for person, _ in stages.recovered} == {2}
    assert [p["chosen"] for p in recorder.of(People)[0].people] == [False, False, True]
    with pytest.raises(InputError, match="There is no person 7 in walk.mp4: found 0, 1, 2"):
        run(video, None, FakeStages(people=3), person=(7,))


def test_ask_waits_for_the_choice(video):
    answers = iter([None, None, None, (1,), (1,)])
    last = []

    def choose():
        last.append(next(answers, (1,)))
        return last[-1]

    _, recorder, stages = run(video, None, FakeStages(people=2), person="ask", choose=choose)
    assert {person for person, _ in stages.recovered} == {1}
    assert [[p["chosen"] for p in m.people] for m in recorder.of(People)] == [[False, False], [False, True]]


def test_choice_during_the_recovery_drops_and_adds(video, tmp_path):
    """Person 0 is chosen away after its first window; person 1, left out at first, is recovered instead."""
    stages = FakeStages(people=2)
    done, recorder, _ = run(video, tmp_path, stages, person=(0,), choose=lambda: (1,) if stages.recovered else None)
    assert stages.recovered[0] == (0, 0) and stages.recovered[1:] == [(1, f) for f in range(0, 90, 20)]
    assert [Path(p).name for p in done.results] == ["walk_person1.npz"]
    assert [p["chosen"] for p in recorder.of(People)[-1].people] == [False, True]


class Refining(FakeStages):
    """A method with rough frames before its results: 2 m to the right of them, all at once."""

    def _recover(self, track, *rest, on_rough=lambda _: None, known=None, **options):
        guess = self.guess(track, *rest)
        on_rough(replace(guess, trans=guess.trans + np.array([1, 0, 0], np.float32)))
        return super()._recover(track, *rest, **options)


def test_what_a_method_has_before_its_results_is_shown_and_revised(video):
    _, recorder, _ = run(video, None, Refining(window=50))
    assert frames_of(recorder.of(Frames)) == list(range(100))
    right = root_at(np.arange(32), 0)[:, 0] + 2
    np.testing.assert_allclose(stream.from_array(recorder.of(Frames)[0].trans)[:, 0], right, atol=1e-6)
    revised = recorder.of(Revise)
    assert frames_of(revised) == [*range(100), *range(100)], "by the results, then by the final world"
    np.testing.assert_allclose(stream.from_array(revised[0].trans)[:, 0], right - 2, atol=1e-6)


def test_without_live_only_results_are_sent(video):
    _, recorder, _ = run(video, None, Refining(window=50), live=False)
    assert frames_of(recorder.of(Frames)) == list(range(100))
    assert frames_of(recorder.of(Revise)) == list(range(100))


def test_rough_frames_stay_away_from_what_is_recovered(video, tmp_path):
    stages = Refining()
    run(video, tmp_path, stages, should_stop=lambda: len(stages.recovered) >= 3)
    _, recorder, _ = run(video, tmp_path, Refining(), resume=True)
    trans = np.concatenate([stream.from_array(m.trans) for m in recorder.of(Frames)])
    np.testing.assert_allclose(trans[:, 0], root_at(np.arange(100), 0)[:, 0] + 2 * (np.arange(100) >= 60), atol=1e-6)
    assert frames_of(recorder.of(Revise)) == [*range(60, 100), *range(100)]


@pytest.mark.parametrize("refine", [True, False])
def test_refining_is_told_to_the_method_that_knows_it(video, refine, monkeypatch):
    _, _, stages = run(video, None, refine=refine)
    assert stages.refine is refine
    told = []
    monkeypatch.setitem(METHODS, "hyperbolic", lambda track, *, refine: told.append(refine))
    monkeypatch.setitem(METHODS, "fit", lambda track: told.append("nothing"))
    for method in ("hyperbolic", "fit"):
        Stages().recoverer(method, refine=refine)("track")
    assert told == [refine, "nothing"]


@pytest.mark.parametrize("lock_feet", [True, False])
def test_placing_is_told_smoothing_and_whether_to_lock_feet(lock_feet, monkeypatch):
    told = []
    monkeypatch.setattr(world, "place", lambda *args, **named: told.append((args, named)))
    options = JobOptions(smoothing_s=0.2, smoothing_by_limb={"head": 0.1}, lock_feet=lock_feet)
    Stages().place([1], [2], 3, 4, options, {0: 5})
    named = {"smoothing_s": 0.2, "by_limb": {"head": 0.1}, "lock_feet": lock_feet, "turns": {0: 5}}
    assert told == [(([1], [2], 3, 4), named)]


def test_a_panning_camera_is_followed_only_if_asked(video):
    for panning in (False, True):
        _, recorder, stages = run(video, None, panning=panning)
        assert sorted(stages.turns) == (list(range(100)) if panning else [])
        place = [p for p in recorder.of(Progress) if p.stage == "place"]
        assert place[-1].total == (200 if panning else 100) and place[-1].done == place[-1].total
        assert [p.done for p in place] == sorted(p.done for p in place)


def test_methods_that_refine_are_those_said_to():
    assert {n for n, m in METHODS.items() if "refine" in inspect.signature(m).parameters} == REFINABLE_METHODS


def test_unknown_method_and_device(video):
    with pytest.raises(InputError, match="Unknown method 'magic': use one of fit"):
        run(video, None, method="magic")
    with pytest.raises(InputError, match="Device 'mps' is not available"):
        run(video, None, device="mps")


def test_gap_in_what_a_method_hands_out_is_an_error(video):
    class Gappy(FakeStages):
        def _recover(self, track, camera, body, *, on_frames, **others):
            def skip_one(chunk):
                if chunk.frames[0] != 20:
                    on_frames(chunk)

            return super()._recover(track, camera, body, on_frames=skip_one, **others)

    with pytest.raises(ValueError, match="frames 20 to 39 of person 0 are missing"):
        run(video, None, Gappy())
