"""Errors by bins and by joint, and what parts of the truth are worth: motions with errors put in on purpose."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from core.__main__ import main
from core.body import load_body
from core.errors import InputError
from core.evaluate.breakdown import CHOICES, Breakdown, bin_labels, choose_breakdowns
from core.evaluate.domain import Domains
from core.evaluate.measure import measure_motion
from core.evaluate.oracles import CORRECTED, GIVEN, with_oracles
from core.evaluate.report import evaluate
from core.records import Camera
from core.rotation import axis_angle_to_matrix, matrix_to_quaternion
from core.skeleton import JOINT_NAMES
from core.synth.format import write_shard
from tests.evaluate_clips import limbs_about_hips, make_clip, motion_of, project

N = 12


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def clip(body):
    return make_clip(body, n=N, moving=True, seed=5)


def joints_of(body, rotmats, betas, trans) -> np.ndarray:
    joints = body.forward_kinematics(rotmats, betas, trans)[0].double().numpy()
    return joints - joints[:, :1]


def procrustes(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance, mm, after scipy's best rotation and the scale and shift that go with it."""
    p, t = found - found.mean(0), truth - truth.mean(0)
    p = Rotation.align_vectors(t, p)[0].apply(p)
    return np.linalg.norm((p * t).sum() / (p * p).sum() * p - t, axis=-1).mean() * 1000


# Bins


def test_frames_of_all_clips_fall_into_bins_by_their_truth(body, clip):
    """Half the frames of one clip are hidden by 40 %; errors differ by frame and by clip."""
    rng = np.random.default_rng(0)
    clips, wrong = [], []
    for k in range(2):
        hidden = np.zeros((N, 25), bool)
        hidden[: 6 * k, :10] = True
        hidden[7] = True
        turns = torch.from_numpy(rng.normal(0, 0.2, (N, 24, 3))).float()
        clips.append(replace(clip, name=str(k), hidden=hidden))
        wrong.append(motion_of(clip, rotmats=(clip.rotmats @ axis_angle_to_matrix(turns)).numpy()))
    breakdown = Breakdown(body, ("occlusion", "joint"))
    breakdown.add(clips[0], {"m": wrong[0]})
    breakdown.add(clips[1], {"m": wrong[1]})
    tables = breakdown.tables()
    truth = joints_of(body, clip.rotmats, clip.betas, clip.trans)
    errors = [
        np.linalg.norm(joints_of(body, torch.from_numpy(m.rotmats), clip.betas, clip.trans) - truth, axis=-1) * 1000
        for m in wrong
    ]
    table = tables["by occlusion"]
    assert list(table) == ["under 5 %", "30 to 50 %", "50 % and over"]
    assert [row["frames"] for row in table.values()] == [16, 6, 2]
    assert table["30 to 50 %"]["m"] == pytest.approx(errors[1][:6].mean(), rel=1e-3)
    assert table["50 % and over"]["m"] == pytest.approx((errors[0][7].mean() + errors[1][7].mean()) / 2, rel=1e-3)
    knee = JOINT_NAMES.index("left_knee")
    expected = np.concatenate([e[:, knee] for e in errors]).mean()
    assert tables["by joint"]["left_knee"]["m"] == pytest.approx(expected, rel=1e-3)
    assert tables["by joint"]["pelvis"]["m"] == 0


def test_limbs_of_methods_and_of_the_detector_are_the_same_points(body, clip):
    points = body.keypoints(clip.rotmats, clip.betas, clip.trans).double().numpy()
    landmarks = clip.track.landmarks3d.copy()
    landmarks[:, 7] += [0.0, 0.36, 0.0]  # left wrist
    confidence = clip.track.confidence.copy()
    confidence[:3] = 0
    centred = clip.track.keypoints.copy()
    box = (centred[..., :2].min(1) + centred[..., :2].max(1)) / 2
    centred[..., :2] += (np.array([640, 360]) - box)[:, None].astype(np.float32)
    track = replace(clip.track, landmarks3d=landmarks, confidence=confidence, keypoints=centred)
    breakdown = Breakdown(body, ("shape", "keypoint_error", "joint"))
    turned = clip.rotmats.clone()
    turned[:, 16] = turned[:, 16] @ axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.4]))
    breakdown.add(replace(clip, track=track), {"m": motion_of(clip, rotmats=turned.numpy())})
    tables = breakdown.tables()
    (row,) = tables["by shape"].values()
    assert row["detector limbs"] == pytest.approx(360 / 12, rel=1e-3)
    moved = body.keypoints(turned, clip.betas, clip.trans).double().numpy()
    expected = np.linalg.norm(limbs_about_hips(moved) - limbs_about_hips(points), axis=-1).mean() * 1000
    assert expected > 5 and row["m limbs"] == pytest.approx(expected, rel=1e-3)
    truth, found = (joints_of(body, R, clip.betas, clip.trans) for R in (clip.rotmats, turned))
    assert row["m pa"] == pytest.approx(np.mean([procrustes(f, t) for f, t in zip(found, truth)]), rel=1e-3)
    unseen = tables["by keypoint error"]["unknown"]
    assert unseen["frames"] == 3 and np.isnan(unseen["detector limbs"]) and unseen["m"] > 0
    by_joint = tables["by joint"]
    assert by_joint["left_wrist"]["detector"] == pytest.approx(360, rel=1e-3)
    assert by_joint["right_wrist"]["detector"] < 0.1 and np.isnan(by_joint["spine1"]["detector"])


def test_frames_and_clips_that_a_method_left_out_do_not_count_for_it(body, clip):
    tilt = axis_angle_to_matrix(torch.tensor([0.0, 0.5, 0.0]))
    rotmats = (clip.rotmats[:4] @ tilt).numpy()
    part = motion_of(clip, frames=clip.track.frames[:4], rotmats=rotmats, trans=clip.trans[:4].numpy())
    breakdown = Breakdown(body, ("size",))
    breakdown.add(clip, {"part": part})
    breakdown.add(clip, {"other": motion_of(clip)})
    (row,) = breakdown.tables()["by size"].values()
    truth = joints_of(body, clip.rotmats[:4], clip.betas, clip.trans[:4])
    given = joints_of(body, torch.from_numpy(rotmats), clip.betas, clip.trans[:4])
    assert row["frames"] == 2 * N
    assert row["part"] == pytest.approx(np.linalg.norm(given - truth, axis=-1).mean() * 1000, rel=1e-3)
    assert row["other"] < 0.01


def test_view_comes_with_the_pitch_and_bins_have_names(body, clip):
    up = np.tile([0.0, -np.cos(0.5), -np.sin(0.5)], (N, 1)).astype(np.float32)
    breakdown = Breakdown(body, choose_breakdowns("view, focal"))
    breakdown.add(replace(clip, up=up), {})
    tables = breakdown.tables()
    assert list(tables) == ["by view", "by pitch", "by focal"]
    assert list(tables["by view"]) == ["front"] and list(tables["by pitch"]) == ["25 deg and over"]
    assert list(tables["by focal"]) == ["28 to 40 mm"]
    assert bin_labels("view") == ("front", "side", "back")
    assert all(len(bin_labels(name)) >= 3 for name in CHOICES if name not in ("joint", "domain"))
    with pytest.raises(InputError, match="weather"):
        choose_breakdowns("joint,weather")


def test_build_is_what_size_leaves_of_the_shape(body, clip):
    shapes = [torch.tensor([3.0, *np.full(9, k)], dtype=torch.float32) for k in (0.0, 0.6, -0.8, 2.0)]
    breakdown = Breakdown(body, ("build",))
    for shape in shapes:
        breakdown.add(replace(clip, betas=shape), {})
    assert list(breakdown.tables()["by build"]) == ["under 0.5", "0.5 to 0.7", "0.7 to 0.9", "0.9 and over"]


def test_rendered_clips_stand_beside_films(body, clip):
    """A motion 1 cm to the side is off by fx * 0.01 / z px in every frame, as share of the person's size."""
    domains, shifted = Domains(), clip.trans.numpy() + np.float32([0.01, 0, 0])
    domains.add_clip(clip, {"m": motion_of(clip)}, body)
    domains.add_clip(clip, {"m": motion_of(clip, trans=shifted)}, body)
    domains.add_film({"detector": {"jitter": 4.0, "covered": 1.0}, "m": {"reprojection": 0.02, "jitter": 3.0}})
    domains.add_film({"detector": {"jitter": 8.0, "covered": 0.5}, "m": {"reprojection": 0.04, "jitter": np.nan}})
    table = domains.table()
    assert list(table) == ["detector, rendered", "detector, filmed", "m, rendered", "m, filmed"]
    assert table["detector, filmed"]["jitter"] == 6.0 and table["detector, filmed"]["covered"] == 0.75
    assert table["m, filmed"]["reprojection"] == pytest.approx(0.03) and table["m, filmed"]["jitter"] == 3.0
    xy = clip.track.keypoints[..., :2].astype(np.float64)
    size = np.percentile((xy.max(1) - xy.min(1)).max(-1), 90)
    depth = body.keypoints(clip.rotmats, clip.betas, clip.trans).double().numpy()[..., 2]
    expected = np.median(clip.camera.fx * 0.01 / depth) / size / 2  # the other clip's is 0
    assert table["m, rendered"]["reprojection"] == pytest.approx(expected, rel=1e-3)
    assert table["m, rendered"]["people"] == 2


# Oracles


def seen_badly(clip):
    """The clip as a bad detector sees it through an unknown lens."""
    rng = np.random.default_rng(1)
    keypoints = clip.track.keypoints + rng.normal(0, 9, clip.track.keypoints.shape).astype(np.float32)
    keypoints[..., 2] = 0.3
    landmarks = rng.normal(size=(N, 25, 3)).astype(np.float32)
    track = replace(clip.track, keypoints=keypoints, landmarks3d=landmarks, confidence=np.zeros(N, np.float32))
    told = Camera.from_size(1280, 720, 900.0)
    return replace(clip, track=track, camera=told, true_camera=clip.camera)


def test_what_is_given_is_the_truth(body, clip):
    bad = seen_badly(clip)
    points = body.keypoints(clip.rotmats, clip.betas, clip.trans).double().numpy()
    given = {name: give(bad, body) for name, give in GIVEN.items()}
    for name, told in given.items():
        has_2d, has_3d, has_focal = "2D" in name, "3D" in name, "focal" in name
        assert (told.camera.fx == clip.camera.fx) == has_focal
        off = np.abs(told.track.keypoints[..., :2] - project(points, clip.camera)).max()
        assert (off < 0.01) == has_2d and (told.track.confidence.min() == 1) == has_2d
        assert (told.track.keypoints[..., 2].min() == 1) == has_2d
        # turned to a camera that looks at the crop's middle: lengths and the depths along that ray stay
        flat = told.track.keypoints[..., :2].astype(np.float64)
        middle = (flat.min(1) + flat.max(1)) / 2 - [640, 360]
        ray = np.concatenate([middle / clip.camera.fx, np.ones((N, 1))], -1)
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        about = points - points[:, 15:17].mean(1, keepdims=True)
        depths = np.einsum("nkc,nc->nk", about, ray)
        is_true = np.allclose(told.track.landmarks3d[..., 2], depths, atol=1e-4)
        assert is_true == has_3d
        if has_3d:
            lengths = np.linalg.norm(told.track.landmarks3d, axis=-1)
            np.testing.assert_allclose(lengths, np.linalg.norm(about, axis=-1), atol=1e-4)
            assert told.track.landmarks3d[:, 0, 1].max() < 0  # the nose is still up


def test_corrections_take_out_their_part_and_no_other(body, clip):
    rotmats = clip.rotmats.clone()
    rotmats[:, 0] = rotmats[:, 0] @ axis_angle_to_matrix(torch.tensor([0.1, 0.6, 0.0]))
    wrong_root = motion_of(clip, rotmats=rotmats.numpy().copy())
    wrong_shape = motion_of(clip, betas=clip.betas.numpy() + 2)
    wrong_both = motion_of(clip, betas=clip.betas.numpy() + 2, rotmats=rotmats.numpy())

    def error(motion) -> float:
        return measure_motion(motion, clip, body)["mpjpe"]

    assert error(wrong_root) > 50 and error(wrong_shape) > 5
    assert error(CORRECTED["true root"](wrong_root, clip)) < 0.01
    assert error(CORRECTED["true shape"](wrong_shape, clip)) < 0.01
    average = motion_of(clip, betas=np.zeros(16, np.float32))
    assert error(CORRECTED["average shape"](wrong_shape, clip)) == pytest.approx(error(average), rel=1e-5)
    assert error(CORRECTED["true shape"](wrong_both, clip)) == pytest.approx(error(wrong_root), rel=1e-4)
    assert error(CORRECTED["true root"](wrong_both, clip)) == pytest.approx(error(wrong_shape), rel=1e-4)
    assert error(CORRECTED["true shape and root"](wrong_both, clip)) < 0.01
    np.testing.assert_array_equal(wrong_root.rotmats, rotmats.numpy())  # not changed in place


def test_oracles_are_rows_and_a_method_runs_once_for_its_corrections(body, clip):
    calls = []

    def method(c):
        calls.append(c)
        return motion_of(c, betas=c.betas.numpy() + 1)

    other = replace(clip, name="b")
    table = evaluate([clip, other], with_oracles({"m": method}, body), body)
    assert list(table) == ["detector", "m", *(f"m + {what}" for what in (*GIVEN, "true height", *CORRECTED))]
    assert len(calls) == 2 * (1 + len(GIVEN))
    assert table["m + true shape"]["height_mm"] == 0 < table["m"]["height_mm"]
    assert table["m + true height"]["height_mm"] < 0.01 < table["m + true height"]["limb_ratio_pct"]


# The command


@pytest.fixture
def shards(tmp_path, body):
    clips = [make_clip(body, n=24, seed=s) for s in (1, 2)]
    joined = {
        "quats": np.concatenate([matrix_to_quaternion(c.rotmats).numpy() for c in clips]).astype(np.float16),
        "trans": np.concatenate([c.trans.numpy() for c in clips]),
        "up": np.tile([0, -1, 0], (48, 1)).astype(np.float16),
        "keypoints": np.concatenate([c.track.keypoints for c in clips]),
        "heat": np.tile(np.float16([0.9, 0.9, 0.05, 0.02, 0.005, 0.01]), (48, 25, 1)),
        "depth": np.zeros((48, 25), np.float16),
        "landmarks3d": np.concatenate([c.track.landmarks3d for c in clips]).astype(np.float16),
        "embedding": np.zeros((48, 4), np.float16),
        "presence": np.ones(48, np.float16),
        "roi": np.zeros((48, 4), np.float32),
        "restarted": np.zeros(48, bool),
        "hidden": np.repeat(np.uint8([[0], [2]]), 24, 0) * np.ones((1, 25), np.uint8),
        "clip_start": np.int32([0, 24]),
        "clip_len": np.int32([24, 24]),
        "subject": np.array(["s1", "s2"]),
        "motion": np.array(["walk", "run"]),
        "motion_start": np.zeros(2, np.float32),
        "speed": np.ones(2, np.float32),
        "spacing": np.ones(2, np.int32),
        "is_mirrored": np.zeros(2, bool),
        "split": np.array(["test", "test"]),
        "betas": np.stack([c.betas.numpy() for c in clips]),
        "camera": np.tile(np.float32([1000, 1000, 640, 360]), (2, 1)),
        "size": np.tile(np.int32([1280, 720]), (2, 1)),
        "seed": np.zeros(2, np.int64),
    }
    write_shard(tmp_path / "test-0000.npz", joined)
    return tmp_path


def test_the_command_breaks_down_and_asks_oracles(shards, capsys):
    out = shards / "tables.json"
    by = "joint,view,occlusion,build,size,domain"
    argv = ["evaluate", "--shards", str(shards), "--methods", "fit", "--by", by, "--oracles", "--json", str(out)]
    assert main(argv) == 0
    text, tables = capsys.readouterr().out, json.loads(out.read_text())
    assert [t.removeprefix("rendered, test") for t in tables] == [
        "", ", by joint", ", by view", ", by pitch", ", by occlusion", ", by build", ", by size", "by domain",
    ]  # fmt: skip
    assert [(name, row["people"]) for name, row in tables["by domain"].items()] == [
        ("detector, rendered", 2), ("fit, rendered", 2),
    ]  # fmt: skip
    assert "| fit + true root |" in text and "| left_knee |" in text and "| occlusion | frames |" in text
    main_table = tables["rendered, test"]
    assert main_table["fit"]["covered"] == 1 and main_table["fit"]["fps"] > 0
    assert "fps" not in main_table["fit + true root"]
    assert {k: v["frames"] for k, v in tables["rendered, test, by occlusion"].items()} == {
        "under 5 %": 24, "50 % and over": 24,
    }  # fmt: skip
    assert main_table["fit + true shape"]["height_mm"] == 0


@pytest.mark.parametrize("arguments,said", [
    ([], "Nothing to evaluate"),
    (["--video", "x.mp4", "--by", "joint"], "need truth"),
    (["--video", "x.mp4", "--oracles"], "need truth"),
    (["--shards", ".", "--by", "weather"], "weather"),
    (["--shards", ".", "--methods", "guess"], "guess"),
    (["--shards", "no-such-folder"], "holds no clips of the test split"),
    (["--shards", ".", "--count", "0"], "at least one clip"),
    (["--video", "no-such-film.mp4", "--methods", "fit"], "not found"),
])  # fmt: skip
def test_wrong_use_is_one_line(arguments, said, capsys):
    assert main(["evaluate", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
