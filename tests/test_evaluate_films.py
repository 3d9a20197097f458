"""Mirrored films and tracks, who is who in them, and the tables of films."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.__main__ import main
from core.body import load_body
from core.evaluate.films import measure_tracks
from core.evaluate.mirror import MirroredReader, mirror_track, mirrored_distance, pair_tracks
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES, mirrored_name
from core.video import VideoReader
from tests.evaluate_clips import limbs_about_hips, make_clip, motion_of, project

DEMO = Path(__file__).parent / "data" / "walk.mp4"
SIDES = [KEYPOINT_NAMES.index(mirrored_name(name)) for name in KEYPOINT_NAMES]
N = 12


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def clip(body):
    return make_clip(body, n=N, moving=True, seed=4)


def reflected(points: np.ndarray) -> np.ndarray:
    """The mirror image of a figure [N, 25, 3] in camera axes: x reversed, names of the sides exchanged."""
    return points[:, SIDES] * [-1.0, 1.0, 1.0]


def test_a_mirrored_track_is_the_track_of_the_mirrored_figure(body, clip):
    points = body.keypoints(clip.rotmats, clip.betas, clip.trans).double().numpy()
    turned = mirror_track(clip.track, clip.camera.width)
    np.testing.assert_allclose(turned.keypoints[..., :2], project(reflected(points), clip.camera), atol=0.01)
    landmarks = reflected(clip.track.landmarks3d.astype(np.float64))
    np.testing.assert_allclose(turned.landmarks3d, landmarks, atol=1e-6)
    np.testing.assert_allclose(turned.boxes[:, :2], turned.keypoints[..., :2].min(1), atol=0.01)
    np.testing.assert_allclose(turned.boxes[:, 2:], turned.keypoints[..., :2].max(1), atol=0.01)
    again = mirror_track(turned, clip.camera.width)
    np.testing.assert_allclose(again.keypoints, clip.track.keypoints, atol=1e-3)
    assert np.shares_memory(again.features, clip.track.features)


def test_a_mirrored_reader_turns_columns_round():
    with VideoReader(DEMO, 0, 3) as reader, MirroredReader(DEMO, 0, 3) as mirrored:
        pairs = list(zip(reader, mirrored))
        assert len(pairs) == 3 and reader.clip == mirrored.clip
        for frame, turned in pairs:
            assert (frame.index, frame.time) == (turned.index, turned.time)
            for column in (0, 7, -1):
                np.testing.assert_array_equal(turned.image[:, column], frame.image[:, -1 - column])


def test_mirrored_distance_is_measured_on_common_seen_frames(body, clip):
    points = body.keypoints(clip.rotmats, clip.betas, clip.trans).double().numpy()
    frames, seen = np.arange(N), np.ones(N, bool)
    assert mirrored_distance((frames, points, seen), (frames, reflected(points), seen)) < 1e-9
    moved = reflected(points)
    moved[:, KEYPOINT_NAMES.index("right_knee")] += [0.03, 0.0, 0.04]
    moved[:4] += np.random.default_rng(0).normal(size=(4, 25, 3))
    late = seen.copy()
    late[:4] = False
    value = mirrored_distance((frames, points, seen), (frames, moved, late))
    assert value == pytest.approx(50 / 12, rel=1e-6)
    shifted = mirrored_distance((frames, points, seen), (frames[4:] , moved[4:], late[4:]))  # fmt: skip
    assert shifted == pytest.approx(50 / 12, rel=1e-6)
    assert np.isnan(mirrored_distance((frames, points, seen), (frames + 100, points, seen)))


def test_people_of_the_mirrored_film_are_paired_by_their_boxes(clip):
    def track_at(x: float, first: int, n: int):
        boxes = np.tile(np.array([x, 100, x + 80, 300], np.float32), (n, 1))
        part = replace(clip.track, frames=np.arange(first, first + n, dtype=np.int32), boxes=boxes)
        return part

    tracks = [track_at(100, 0, 12), track_at(400, 0, 12), track_at(800, 0, 12)]
    others = [track_at(410, 2, 8), track_at(130, 0, 12), track_at(105, 50, 12)]
    assert pair_tracks(tracks, others) == {0: 1, 1: 0}  # the last is of no time that anybody is there
    assert pair_tracks([tracks[0], track_at(140, 0, 6)], others) == {0: 1}  # nobody is two people
    assert pair_tracks(tracks, []) == {}


def test_tables_of_a_film(body, clip):
    """A method that answers the truth whatever it is shown is as far from its mirror as the figure is."""
    film = mirror_track(clip.track, clip.camera.width)
    landmarks = film.landmarks3d.copy()
    landmarks[:, KEYPOINT_NAMES.index("left_ankle")] += [0.0, 0.12, 0.0]
    film = replace(film, landmarks3d=landmarks)
    bent = clip.rotmats.clone()
    bent[:, JOINT_NAMES.index("left_shoulder")] = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))

    def stubborn(track, camera):
        return motion_of(clip, frames=track.frames)

    def watchful(track, camera):
        return motion_of(clip, rotmats=bent.numpy()) if track is film else stubborn(track, camera)

    answers = {"stubborn": stubborn, "watchful": watchful}
    tables = measure_tracks([clip.track], [film], clip.camera, answers, body)
    assert set(tables) == {0} and set(tables[0]) == {"detector", "stubborn", "watchful"}
    points = body.keypoints(clip.rotmats, clip.betas, clip.trans).double().numpy()
    apart = limbs_about_hips(points) - limbs_about_hips(reflected(points))
    expected = np.linalg.norm(apart, axis=-1).mean() * 1000
    row = tables[0]["stubborn"]
    assert expected > 20
    assert row["mirror_mm"] == pytest.approx(expected, rel=1e-4)
    assert row["film_mirror_mm"] == pytest.approx(expected, rel=1e-4)
    other = body.keypoints(bent, clip.betas, clip.trans).double().numpy()
    apart = limbs_about_hips(points) - limbs_about_hips(reflected(other))
    assert tables[0]["watchful"]["mirror_mm"] == row["mirror_mm"]
    expected = np.linalg.norm(apart, axis=-1).mean() * 1000
    assert tables[0]["watchful"]["film_mirror_mm"] == pytest.approx(expected, rel=1e-4)
    assert abs(expected - row["film_mirror_mm"]) > 5
    assert row["sunk_mm"] >= 0 and row["fps"] > 0
    assert tables[0]["detector"]["film_mirror_mm"] == pytest.approx(120 / 12, rel=1e-3)
    alone = measure_tracks([clip.track], [], clip.camera, answers, body)[0]
    assert "film_mirror_mm" not in alone["stubborn"] and "film_mirror_mm" not in alone["detector"]


def test_the_command_measures_a_film(capsys, tmp_path):
    """The whole way, perception included, on a real walk."""
    out = tmp_path / "tables.json"
    assert main(["evaluate", "--video", str(DEMO), "--methods", "fit", "--mirror", "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "walk.mp4, person 0" in text and "| fit |" in text and "| detector |" in text
    assert out.stat().st_size > 100
    header = next(line for line in text.splitlines() if line.startswith("| method"))
    assert header.startswith("| method | reprojection | reprojection_90 | jitter |") and "film_mirror_mm" in header
