"""core.recover.refine: a wrong motion is moved onto the picture and nearer the truth; stopping, going on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from motion_maker import CAMERA, FPS, make_track, make_truth, rodrigues, skin_keypoints
from scipy.spatial.transform import Rotation
from stick_body import build_stick_body

from core.records import CameraMotion
from core.recover.anchor import bone_directions, keypoints_of
from core.recover.chain import ACTIVE, build_chain, shape_chain
from core.recover.evidence import DOUBTED_CONFIDENCE, read_evidence
from core.recover.prior import load_prior
from core.recover.refine import AFTER_NETWORK, FADE_S, carry_on, refine
from core.recover.sides import settle_sides
from core.recover.solve import assemble
from core.recover.terms import PAIRS, Sigmas
from core.skeleton import JOINT_COUNT, KEYPOINT_MIRROR

BODY = build_stick_body()
SHORT = replace(AFTER_NETWORK, window_s=1.0, lookahead_s=0.5)
COUNT = 75


def project(points):
    return points[..., :2] / points[..., 2:] * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]


def posed(motion):
    return skin_keypoints(BODY, motion.rotmats.astype(float), motion.trans.astype(float))


def root_error(motion, truth):
    """Mean joint distance with the roots put on each other, m."""
    joints, _ = posed(motion)
    return np.linalg.norm(joints - joints[:, :1] - truth.joints + truth.joints[:, :1], axis=-1).mean()


def off_the_picture(motion, track):
    """Median distance of projected keypoints, px."""
    return np.median(np.linalg.norm(project(posed(motion)[1]) - track.keypoints[..., :2], axis=-1))


def slow_noise(generator, degrees: float) -> np.ndarray:
    """Rotation vectors [COUNT, J, 3] that sway about once a second."""
    t = np.arange(COUNT)[:, None, None] / FPS
    speed, phase = generator.uniform(0.3, 1.2, (JOINT_COUNT, 3)), generator.uniform(0, 2 * np.pi, (JOINT_COUNT, 3))
    size = np.radians(degrees) * generator.normal(0, 1, (JOINT_COUNT, 3))
    still = [j for j in range(JOINT_COUNT) if j not in ACTIVE]
    vectors = size * np.sin(2 * np.pi * speed * t + phase)
    vectors[:, still] = 0
    return vectors


@pytest.fixture(scope="module")
def scene():
    """Truth, a noisy track of it with landmarks that are nonsense, and a motion as a fair network would give it."""
    truth = make_truth(BODY, COUNT, seed=3)
    track = make_track(truth, noise_px=2.0)
    generator = np.random.default_rng(0)
    track.landmarks3d[:] = generator.normal(0, 0.5, track.landmarks3d.shape)
    motion = CameraMotion(
        person=0,
        frames=track.frames,
        rotmats=(truth.rotmats @ rodrigues(slow_noise(generator, 9.0))).astype(np.float32),
        trans=(truth.trans + [0.03, -0.02, 0.15]).astype(np.float32),
        betas=np.zeros(16, np.float32),
        confidence=track.confidence,
    )
    return truth, track, motion


@pytest.fixture(scope="module")
def refined(scene):
    _, track, motion = scene
    chunks = []
    return refine(track, CAMERA, BODY, motion, options=SHORT, on_frames=chunks.append), chunks


def test_a_wrong_motion_meets_the_picture_and_comes_nearer_the_truth(scene, refined):
    truth, track, motion = scene
    assert off_the_picture(motion, track) > 10 and root_error(motion, truth) > 0.06
    assert off_the_picture(refined[0], track) < 4
    assert root_error(refined[0], truth) < 0.6 * root_error(motion, truth)
    np.testing.assert_array_equal(refined[0].betas, motion.betas)


def test_the_detector_s_landmarks_do_not_matter(scene, refined):
    truth, track, motion = scene
    generator = np.random.default_rng(5)
    hips = truth.keypoints[:, 15:17].mean(1, keepdims=True)
    results = []
    for noise in (0.0, 0.15):
        bent = (truth.keypoints - hips) * [1, 1, 0.6] + noise * generator.normal(0, 1, (1, 25, 3))
        track = replace(track, landmarks3d=bent.astype(np.float32))
        joints, _ = posed(refine(track, CAMERA, BODY, motion, options=SHORT))
        results.append(joints - joints[:, :1])
    assert np.linalg.norm(results[0] - results[1], axis=-1).max() < 0.015  # feet are taken to stand by them, too


def test_bones_point_as_plain_skinning_has_them(scene):
    _, _, motion = scene
    shaped = shape_chain(build_chain(BODY), torch.zeros(16, dtype=torch.float64))
    rotmats, trans = (torch.from_numpy(a).double() for a in (motion.rotmats, motion.trans))
    seen = keypoints_of(shaped, rotmats, trans)
    _, points = posed(motion)
    np.testing.assert_allclose(seen, points, atol=1e-6)
    found = bone_directions(seen)
    for pair, (first, second) in enumerate(PAIRS):
        bone = points[:, second] - points[:, first]
        np.testing.assert_allclose(found[:, pair], bone / np.linalg.norm(bone, axis=-1, keepdims=True), atol=1e-6)


def test_the_anchor_holds(scene):
    _, track, motion = scene
    held = refine(track, CAMERA, BODY, motion, options=replace(SHORT, anchor_strength=1e6))
    np.testing.assert_allclose(held.rotmats, motion.rotmats, atol=1e-3)


def test_going_on_from_known_frames_gives_the_same(scene, refined):
    _, track, motion = scene
    whole, chunks = refined
    later = []
    resumed = refine(track, CAMERA, BODY, motion, options=SHORT, known=chunks[0], on_frames=later.append)
    assert later[0].frames[0] == chunks[0].frames[-1] + 1
    np.testing.assert_allclose(resumed.trans, whole.trans, atol=2e-3)
    np.testing.assert_allclose(resumed.rotmats, whole.rotmats, atol=2e-2)


def test_stopping_keeps_the_windows_that_are_done(scene, refined):
    _, track, motion = scene
    chunks = []
    stopped = refine(
        track, CAMERA, BODY, motion, options=SHORT, on_frames=chunks.append, should_stop=lambda: len(chunks) > 0
    )
    assert len(stopped) == len(refined[1][0]) < COUNT
    np.testing.assert_array_equal(stopped.rotmats, refined[0].rotmats[: len(stopped)])


def test_exchanged_sides_are_undone_by_the_motion(scene, refined):
    """Also for half of the clip, which no comparison of frames could call the exchanged half."""
    _, track, motion = scene
    keypoints = track.keypoints.copy()
    keypoints[20:60] = keypoints[20:60][:, list(KEYPOINT_MIRROR)]
    again = refine(replace(track, keypoints=keypoints), CAMERA, BODY, motion, options=SHORT)
    np.testing.assert_allclose(again.rotmats, refined[0].rotmats, atol=0.02)
    np.testing.assert_allclose(again.trans, refined[0].trans, atol=5e-3)


def test_doubtful_keypoints_count_by_the_square_of_their_confidence(scene, monkeypatch):
    _, track, motion = scene
    hands = slice(7, 15)  # wrists and fingers: feet say more than where they are

    def with_weight(weight):
        keypoints = track.keypoints.copy()
        keypoints[:, hands, 0] += 40
        keypoints[:, hands, 2] = DOUBTED_CONFIDENCE + (1 - DOUBTED_CONFIDENCE) * weight
        return refine(replace(track, keypoints=keypoints), CAMERA, BODY, motion, options=SHORT).rotmats

    squared, linear = with_weight(0.4), with_weight(0.16)
    assert np.abs(squared - linear).max() > 0.03
    monkeypatch.setattr("core.recover.refine.DOUBT", 1)
    np.testing.assert_allclose(squared, with_weight(0.16), atol=0.02)


def test_unseen_frames_stay_where_the_motion_has_them(scene):
    """Who is seen moving, then no more, does not fly on where the motion stands still."""
    truth, track, _ = scene
    last = 25
    confidence, keypoints = track.confidence.copy(), track.keypoints.copy()
    confidence[last:], keypoints[last:] = 0, 0
    trans = truth.trans.copy()
    trans[last:] = trans[last]
    motion = replace(scene[2], rotmats=truth.rotmats.astype(np.float32), trans=trans.astype(np.float32))
    unseen = replace(track, confidence=confidence, keypoints=keypoints)
    found = refine(unseen, CAMERA, BODY, motion, options=replace(SHORT, window_s=20.0))
    assert np.linalg.norm(found.trans[-10:] - trans[-10:], axis=-1).max() < 0.12


def test_settling_the_sides_stops_as_well(scene):
    _, track, motion = scene
    track = replace(track, keypoints=track.keypoints.copy())
    track.keypoints[30:40] = track.keypoints[30:40][:, list(KEYPOINT_MIRROR)]
    evidence, trans = read_evidence(track, CAMERA), torch.from_numpy(motion.trans).double()
    assert settle_sides(evidence, trans)[1].any()
    unsettled, exchanged = settle_sides(evidence, trans, should_stop=lambda: True)
    assert unsettled is evidence and not exchanged.any()


def test_what_a_stop_left_undone_is_carried_on_without_a_jump(scene, refined):
    """Rotations against scipy: what changed at the last refined frame, less of it with every frame."""
    _, track, motion = scene
    done, whole = 40, refined[0]
    part = replace(whole, **{n: getattr(whole, n)[:done] for n in ("frames", "rotmats", "trans", "confidence")})
    joined = carry_on(part, motion, track.times)
    np.testing.assert_array_equal(joined.frames, track.frames)
    np.testing.assert_array_equal(joined.rotmats[:done], part.rotmats)
    for frame in (done, done + 5, done + 30):
        share = max(0.0, 1 - (frame - done + 1) / FPS / FADE_S)
        for joint in (0, 16, 18):
            change = Rotation.from_matrix(motion.rotmats[done - 1, joint].T @ whole.rotmats[done - 1, joint])
            turn = Rotation.from_rotvec(share * change.as_rotvec()).as_matrix()
            np.testing.assert_allclose(joined.rotmats[frame, joint], motion.rotmats[frame, joint] @ turn, atol=1e-5)
        shift = share * (whole.trans[done - 1] - motion.trans[done - 1])
        np.testing.assert_allclose(joined.trans[frame], motion.trans[frame] + shift, atol=1e-5)


def test_with_nothing_or_everything_refined_there_is_nothing_to_carry_on(scene, refined):
    _, track, motion = scene
    whole = refined[0]
    nothing = replace(whole, **{n: getattr(whole, n)[:0] for n in ("frames", "rotmats", "trans", "confidence")})
    assert carry_on(nothing, motion, track.times) is motion
    assert carry_on(whole, motion, track.times) is whole


def test_infinite_sigmas_leave_terms_out_and_the_prior_widens(scene):
    _, track, motion = scene
    shaped = shape_chain(build_chain(BODY), torch.zeros(16, dtype=torch.float64))
    evidence = replace(read_evidence(track, CAMERA), depth=torch.full((COUNT,), 4.0, dtype=torch.float64))
    rotmats, trans = (torch.from_numpy(a).double() for a in (motion.rotmats, motion.trans))

    def energy(**changes):
        sigmas = replace(Sigmas(), **changes)
        equations = assemble(shaped, evidence, rotmats, trans, load_prior(), sigmas)
        return float(equations.cost.sum()), equations.diagonal

    without = {"direction": (math.inf,) * 3, "balance": math.inf, "straight": math.inf}
    cost, matrix = energy(**without)
    nearly, almost = energy(direction=(1e6,) * 3, direction_robust=1e9, balance=1e6, straight=1e6)
    assert cost == pytest.approx(nearly, rel=1e-9) and torch.allclose(matrix, almost, rtol=1e-6)
    assert energy()[0] > cost + 1
    assert cost > energy(**without, prior=math.inf)[0] + 1
    wide, prior = energy(**without, prior=2 * Sigmas().prior)[0], energy(**without, prior=math.inf)[0]
    assert wide - prior == pytest.approx((cost - prior) / 4, rel=1e-9)  # a variance of 4
