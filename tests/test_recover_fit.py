"""The whole of method "fit" on motions with known truth."""

import copy
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from motion_maker import CAMERA, make_track, make_truth, mirror_track, procrustes_error, skin_keypoints
from stick_body import build_stick_body

from core.recover import METHODS
from core.recover.fit import FitOptions, fit, window_bounds
from core.recover.refine import AFTER_NETWORK, refine
from core.skeleton import JOINT_MIRROR, JOINT_NAMES

BODY = build_stick_body()
SHORT = FitOptions(window_s=1.0, lookahead_s=0.5)
SHORT_REFINEMENT = replace(AFTER_NETWORK, window_s=1.0, lookahead_s=0.5)


def project(points):
    return points[..., :2] / points[..., 2:] * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]


def shaped(betas):
    """BODY with the shape betas [16] as its average one."""
    body, betas = copy.copy(BODY), torch.from_numpy(np.asarray(betas)).double()
    body.v_template = BODY.v_template + BODY.shapedirs @ betas
    body.joint_template = BODY.joint_template + BODY.joint_shapedirs @ betas
    return body


def posed(motion):
    return skin_keypoints(shaped(motion.betas), motion.rotmats.astype(float), motion.trans.astype(float))


def root_error(motion, truth):
    """Mean joint distance with the roots put on each other, m."""
    joints, _ = posed(motion)
    return np.linalg.norm(joints - joints[:, :1] - truth.joints + truth.joints[:, :1], axis=-1).mean()


@pytest.fixture(scope="module")
def clean():
    truth = make_truth(BODY, 75)
    track = make_track(truth)
    chunks = []
    return truth, track, fit(track, CAMERA, BODY, options=SHORT, on_frames=chunks.append), chunks


def test_exact_evidence_gives_the_motion_back(clean):
    truth, track, motion, _ = clean
    joints, points = posed(motion)
    height_px = CAMERA.fy * 1.65 / truth.trans[:, 2].mean()
    off = np.linalg.norm(project(points) - track.keypoints[..., :2], axis=-1)
    assert np.median(off) / height_px < 0.005
    assert procrustes_error(joints, truth.joints) < 0.025
    assert root_error(motion, truth) < 0.04


def test_noisy_evidence_gives_a_smooth_motion_near_it():
    truth = make_truth(BODY, 60, seed=5)
    motion = fit(make_track(truth, noise_px=4.0, noise_m=0.06), CAMERA, BODY)
    joints, _ = posed(motion)
    assert root_error(motion, truth) < 0.06

    def bend(x):
        return np.linalg.norm(np.diff(x, 2, axis=0), axis=-1).mean() * 1000

    assert bend(joints - truth.joints) < 5  # mm / frame^2; the noise alone would be about 60


def test_chunks_make_up_the_result_and_seams_do_not_show(clean):
    _, track, motion, chunks = clean
    assert len(chunks) >= 2
    np.testing.assert_array_equal(np.concatenate([c.frames for c in chunks]), track.frames)
    np.testing.assert_array_equal(np.concatenate([c.rotmats for c in chunks]), motion.rotmats)
    joints, _ = posed(motion)
    bend = np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1).max(1)
    seam = len(chunks[0].frames) - 1
    assert bend[seam - 1 : seam + 1].max() < 1.5 * np.sort(bend)[-8]


def test_the_mirrored_track_gives_the_mirrored_motion(clean):
    _, track, motion, _ = clean
    other = fit(mirror_track(track, CAMERA.width), CAMERA, BODY, options=SHORT)
    flip = np.diag([-1.0, 1.0, 1.0])
    expected = flip @ motion.rotmats[:, list(JOINT_MIRROR)] @ flip
    np.testing.assert_allclose(other.trans, motion.trans * [-1, 1, 1], atol=5e-3)
    np.testing.assert_allclose(other.rotmats, expected, atol=0.03)


def test_the_flip_of_a_few_frames_does_not_turn_the_person(clean):
    truth, track, _, _ = clean
    from test_recover_sides import deceive

    motion = fit(deceive(track, [20, 21, 22, 40]), CAMERA, BODY, options=SHORT)
    forward = (motion.rotmats[:, 0, :, 2] * truth.rotmats[:, 0, :, 2]).sum(-1)
    assert forward.min() > np.cos(0.35)


def test_a_gap_is_bridged(clean):
    truth, track, _, _ = clean
    confidence, keypoints = track.confidence.copy(), track.keypoints.copy()
    confidence[30:38], keypoints[30:38] = 0, 0
    landmarks = track.landmarks3d.copy()
    landmarks[30:38] = 0
    motion = fit(replace(track, confidence=confidence, keypoints=keypoints, landmarks3d=landmarks), CAMERA, BODY)
    joints, _ = posed(motion)
    off = np.linalg.norm(joints - joints[:, :1] - truth.joints + truth.joints[:, :1], axis=-1).mean(1)
    assert off[30:38].max() < 0.1
    assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() < 0.12


def part(track, count):
    fields = ("frames", "times", "keypoints", "landmarks3d", "features", "confidence", "boxes")
    return replace(track, **{name: getattr(track, name)[:count] for name in fields})


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_clips(clean, count):
    truth, track, _, _ = clean
    motion = fit(part(track, count), CAMERA, BODY)
    assert len(motion.frames) == count
    joints, points = posed(motion)
    assert np.median(np.linalg.norm(project(points) - track.keypoints[:count, :, :2], axis=-1)) < 5
    assert procrustes_error(joints, truth.joints[:count]) < 0.04


def test_an_unseen_person_is_a_still_finite_figure():
    track = make_track(make_truth(BODY, 12))
    empty = replace(
        track,
        keypoints=np.zeros_like(track.keypoints),
        landmarks3d=np.zeros_like(track.landmarks3d),
        confidence=np.zeros_like(track.confidence),
    )
    motion = fit(empty, CAMERA, BODY)
    assert np.isfinite(motion.rotmats).all() and np.isfinite(motion.trans).all()
    assert (motion.trans[:, 2] > 0).all()


def test_legs_outside_the_picture_hang_down():
    truth = make_truth(BODY, 45)
    track = make_track(truth, noise_px=1.0)
    generator = np.random.default_rng(0)
    legs = slice(17, 25)
    track.keypoints[:, legs, 1] += 600  # beyond the lower edge, made up by the detector
    track.landmarks3d[:, legs] += generator.normal(0, 0.5, track.landmarks3d[:, legs].shape)
    track.keypoints[:, legs, 2] = 0.05
    joints, _ = posed(fit(track, CAMERA, BODY))
    for side in ("left", "right"):
        hip, knee, ankle = (joints[:, JOINT_NAMES.index(f"{side}_{n}")] for n in ("hip", "knee", "ankle"))
        assert ((knee - hip)[:, 1] > 0.25).all()  # camera y points down
        assert ((ankle - hip)[:, 1] > 0.45).all()
    assert np.abs(np.diff(joints, 2, axis=0)).max() < 0.02


def test_stopping_returns_what_is_done_at_once(clean):
    _, track, _, _ = clean
    chunks = []
    stopped = fit(track, CAMERA, BODY, options=SHORT, on_frames=chunks.append, should_stop=lambda: len(chunks) > 0)
    assert len(stopped.frames) == len(chunks[0].frames) < len(track)
    start = time.monotonic()
    nothing = fit(track, CAMERA, BODY, options=SHORT, should_stop=lambda: True)
    assert len(nothing.frames) == 0 and time.monotonic() - start < 1.0


def test_going_on_from_known_frames_gives_the_same(clean):
    _, track, motion, chunks = clean
    later = []
    resumed = fit(track, CAMERA, BODY, options=SHORT, known=chunks[0], on_frames=later.append)
    assert later[0].frames[0] == chunks[0].frames[-1] + 1
    np.testing.assert_allclose(resumed.trans, motion.trans, atol=1e-3)
    np.testing.assert_allclose(resumed.rotmats, motion.rotmats, atol=1e-2)


def test_refining_the_truth_stays_at_it(clean):
    truth, track, motion, _ = clean
    given = replace(
        motion,
        rotmats=truth.rotmats.astype(np.float32),
        trans=truth.trans.astype(np.float32),
        betas=np.zeros(16, np.float32),
    )
    refined = refine(track, CAMERA, BODY, given, options=SHORT_REFINEMENT)
    assert root_error(refined, truth) < 0.02


def test_refining_moves_a_motion_to_the_picture(clean):
    truth, track, motion, _ = clean
    shifted = replace(
        motion,
        rotmats=truth.rotmats.astype(np.float32),
        trans=(truth.trans + [0.1, -0.05, 0.3]).astype(np.float32),
        betas=np.zeros(16, np.float32),
    )
    refined = refine(track, CAMERA, BODY, shifted, options=SHORT_REFINEMENT)
    _, points = posed(refined)
    assert np.median(np.linalg.norm(project(points) - track.keypoints[..., :2], axis=-1)) < 3
    with pytest.raises(ValueError, match="different frames"):
        refine(part(track, 10), CAMERA, BODY, shifted)


def test_a_shape_that_frames_say_little_of_is_the_average_one():
    """Legs longer by 12 %: found where frames count for much, the average's where they count for nothing."""
    legs = np.array([0, 2.0, *[0] * 14])
    track = make_track(make_truth(shaped(legs), 12))
    found = [
        fit(track, CAMERA, BODY, options=replace(SHORT, shape_weight=weight)).betas[1]
        for weight in (12.0, 1.0, 0.001)
    ]
    assert found[0] > 1 and found[0] > found[1] > found[2] and abs(found[2]) < 0.1


def test_progress_counts_frames(clean):
    _, track, _, chunks = clean
    seen = []
    fit(track, CAMERA, BODY, options=SHORT, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (75, 75) and len(seen) == len(chunks)


def test_threads_are_given_back(clean):
    before = torch.get_num_threads()
    fit(part(clean[1], 2), CAMERA, BODY)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("fps", [24.0, 30.0, 120.0])
def test_windows_cover_every_frame_once(fps):
    times = np.arange(1000) / fps
    bounds = window_bounds(times, FitOptions())
    assert bounds[0][0] == 0 and bounds[-1][1] == 1000
    assert all(a[1] == b[0] for a, b in zip(bounds, bounds[1:]))
    assert all(start < end <= seen for start, end, seen in bounds)


def test_fit_is_a_method():
    assert METHODS["fit"] is fit
