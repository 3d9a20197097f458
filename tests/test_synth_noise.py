"""The noise model's statistics against its parameters, the sampler's consistency and determinism, and the fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.body import load_body
from core.rotation import matrix_to_quaternion
from core.skeleton import KEYPOINT_COUNT, KEYPOINT_MIRROR, KEYPOINT_NAMES
from core.synth.cameras import project
from core.synth.detector_errors import Errors, measure
from core.synth.motion import MotionBank
from core.synth.noise import NoiseModel, NoiseParameters, body_axes, crop_side, view_turn
from core.synth.noisefit import fit
from core.synth.sampler import KeypointSampler, MotionSampler, SamplerConfig

K = KEYPOINT_COUNT
SIZE = torch.tensor([[1000, 1000]])


@pytest.fixture(scope="module")
def body():
    return load_body()


def quiet(**changes):
    """Parameters without any error but those asked for."""
    p = NoiseParameters.load()
    zeros, pairs = (0.0,) * K, ((0.0, 0.0),) * K
    rates = {n: 0.0 for n in vars(p) if n.endswith(("_rate", "_rate_hidden", "_rate_back", "_rate_side"))}
    p = replace(p, offset=((0.0,) * 3,) * K, offset3d=((0.0,) * 3,) * K, clip=zeros, slow=zeros, fast=zeros, **rates)
    p = replace(p, clip3d=pairs, slow3d=pairs, fast3d=pairs, turn_deg=(0.0,) * 3, crop_shift=0.0, crop_scale=0.0)
    p = replace(p, size_scale=(1.0, 0.0), depth_scale=(1.0, 0.0), share2d=0.0, hidden_gain=1.0)
    p = replace(p, tail=(0.0,) * 5, confidence_seen=(4.0,) * K, confidence_hidden=(2.0,) * K, confidence_outside=-1.0)
    p = replace(p, confidence_spread=zeros, confidence_slope=20.0)
    return replace(p, **changes)


def standing(body, B, T, yaw=0.0):
    """Keypoints of the T-pose, turned by yaw, seen by a straight camera at 4 m: camera frame and px."""
    c, s = np.cos(yaw), np.sin(yaw)
    points = (body.keypoint_regressor @ body.v_template) @ torch.tensor(
        [[c, 0, -s], [0, 1, 0], [s, 0, c]], dtype=torch.float32
    )
    points = points * torch.tensor([-1.0, -1.0, -1.0]) * torch.tensor([-1.0, 1.0, 1.0]) + torch.tensor(
        [0.0, 0.0, 4.0]
    )
    points = points.expand(B, T, K, 3)
    return points, project(points, torch.tensor([[900.0, 900.0, 500.0, 500.0]]).expand(B, 4))


def observe(body, parameters, B=200, T=64, yaw=0.0, seed=0):
    cam, px = standing(body, B, T, yaw)
    model = NoiseModel(parameters)
    return cam, px, model.observe(cam, px, SIZE.expand(B, 2), torch.Generator().manual_seed(seed))


def test_without_noise_the_truth_comes_back(body):
    cam, px, seen = observe(body, quiet(), B=2, T=4)
    torch.testing.assert_close(seen.keypoints[..., :2], px)
    hips = (cam[..., 15, :] + cam[..., 16, :]) / 2
    expected = (cam - hips[:, :, None]) @ view_turn(hips).transpose(-1, -2)
    torch.testing.assert_close(seen.landmarks3d, expected, atol=1e-5, rtol=0)
    assert not seen.is_swapped.any() and not seen.is_gap.any()


def test_noise_has_the_variance_and_correlation_asked_for(body):
    slow, fast, clip = (0.012,) * K, (0.006,) * K, (0.01,) * K
    _, px, seen = observe(body, quiet(slow=slow, fast=fast, clip=clip))
    e = (seen.keypoints[..., :2] - px) / crop_side(px)[..., None, None]
    assert e.std() == pytest.approx(np.sqrt(0.012**2 + 0.006**2 + 0.01**2), rel=0.05)
    step = (e[:, 1:] - e[:, :-1]).std()
    expected = np.sqrt(2 * (0.012**2 * (1 - 0.9) + 0.006**2 * (1 - 0.3)))
    assert step == pytest.approx(expected, rel=0.05)


def test_swelling_noise_has_long_tails_and_low_confidence(body):
    _, px, seen = observe(body, quiet(slow=(0.01,) * K, tail=(0.8,) * 5))
    e = (seen.keypoints[..., :2] - px).norm(dim=-1) / crop_side(px)[..., None]
    assert e.square().mean().sqrt() == pytest.approx(0.01 * np.sqrt(2), rel=0.15)
    assert torch.quantile(e[:50], 0.9) / torch.quantile(e[:50], 0.5) > 2.2  # 1.82 without tails
    worst = e > torch.quantile(e[:50], 0.95)
    assert seen.keypoints[..., 2][worst].mean() < seen.keypoints[..., 2][~worst].mean() - 0.01


def test_offsets_turn_with_the_body(body):
    offset = [(0.0, 0.0, 0.0)] * K
    offset[0] = (0.0, 0.0, 0.02)  # the nose, forwards
    for yaw, direction in ((np.pi / 2, 1.0), (-np.pi / 2, -1.0)):
        cam, px, seen = observe(body, quiet(offset=tuple(offset)), B=1, T=1, yaw=yaw)
        front = body_axes(cam)[0, 0, :, 2]
        moved = (seen.keypoints[0, 0, 0, :2] - px[0, 0, 0]) / crop_side(px)[0, 0]
        torch.testing.assert_close(moved, 0.02 * front[:2], atol=1e-4, rtol=0)
        assert abs(float(front[0])) > 0.9 and np.sign(float(front[0])) in (-1, 1) and direction


def test_exchanged_points_are_the_other_sides_and_likelier_from_behind(body):
    parameters = quiet(swap_rate=0.0005, swap_rate_back=0.02, swap_duration=20.0)
    shares = {}
    for label, yaw in (("front", 0.0), ("back", np.pi)):
        _, px, seen = observe(body, parameters, yaw=yaw)
        shares[label] = seen.is_swapped.float().mean()
        mirrored = px[:, :, list(KEYPOINT_MIRROR)]
        expected = torch.where(seen.is_swapped[..., None], mirrored, px)
        torch.testing.assert_close(seen.keypoints[..., :2], expected)
    assert shares["back"] > 5 * shares["front"] > 0
    assert shares["back"] == pytest.approx(1 - np.exp(-0.0205 * 21), rel=0.2)  # a Poisson process's


def test_long_exchanges_last_dozens_of_frames(body):
    _, _, seen = observe(body, quiet(swap_rate=0.01, swap_duration=25.0), B=400)
    whole = seen.is_swapped.all(-1)
    lengths = []
    for row in whole.numpy():
        edges = np.flatnonzero(np.diff(np.r_[0, row.astype(int), 0]))
        lengths += [b - a for a, b in zip(edges[::2], edges[1::2]) if a > 0 and b < 64]
    assert np.mean(np.array(lengths) > 12) > 0.3


def test_gaps_hold_the_last_place_with_no_confidence(body):
    _, px, seen = observe(body, quiet(gap_rate=0.01, gap_duration=6.0, slow=(0.01,) * K))
    gap = seen.is_gap
    assert 0.02 < gap.float().mean() < 0.12
    assert (seen.keypoints[..., 2][gap] == 0).all() and (seen.keypoints[..., 2][~gap] > 0).all()
    inside = gap[:, 1:] & gap[:, :-1]
    assert torch.equal(seen.keypoints[:, 1:, :, :2][inside], seen.keypoints[:, :-1, :, :2][inside])


def test_points_outside_the_image_have_little_confidence(body):
    cam, px = standing(body, 4, 3)
    small = torch.tensor([[1000, 620]]).expand(4, 2)
    seen = NoiseModel(quiet()).observe(cam, px, small, torch.Generator().manual_seed(0))
    outside = px[..., 1] > 620
    assert outside.any() and (~outside).any()
    assert seen.keypoints[..., 2][outside].max() < 0.9 * seen.keypoints[..., 2][~outside].min()


def test_view_turn_brings_the_ray_to_the_axis():
    rays = torch.tensor([[0.4, -0.2, 3.0], [0.0, 0.0, 2.0], [-1.0, 0.7, 1.5]])
    turned = (view_turn(rays) @ rays[..., None]).squeeze(-1)
    torch.testing.assert_close(turned[:, :2], torch.zeros(3, 2), atol=1e-5, rtol=0)
    assert (turned[:, 2] > 0).all()


def small_bank(frames=120):
    """Three clips of arms and legs swinging."""
    rng = np.random.default_rng(5)
    t = np.arange(frames)[:, None, None] / 30
    wave = 0.5 * np.sin(3 * t + rng.uniform(0, 6, (1, 24, 3))) * rng.uniform(0, 1, (1, 24, 3))
    wave[:, 22:] = 0
    half = np.linalg.norm(wave, axis=-1, keepdims=True) / 2
    quats = np.concatenate([np.cos(half), wave * np.sinc(half / np.pi) / 2], -1).astype(np.float32)
    pelvis = np.tile([[0.0, 0.95, 0.0]], (frames, 1)).astype(np.float32)
    third = frames // 3
    return MotionBank(
        quats=quats,
        pelvis=pelvis,
        clip_start=np.arange(3) * third,
        clip_len=np.full(3, third),
        name=("a", "b", "c"),
        subject=("x", "y", "z"),
        description=("", "", ""),
        split=("train", "train", "test"),
        leg_length=0.8,
    )


def test_sampler_is_deterministic_and_consistent(body):
    config = SamplerConfig(frames=16)
    batches = [KeypointSampler(small_bank(), body, NoiseModel(), config=config, seed=s).batch(6) for s in (1, 1, 2)]
    a, b, c = batches
    for name, value in vars(a).items():
        assert torch.equal(value, getattr(b, name)), name
    assert not torch.equal(a.keypoints, c.keypoints)
    joints, _ = body.forward_kinematics(a.rotmats, a.betas[:, None], a.trans)
    torch.testing.assert_close(joints, a.joints, atol=1e-5, rtol=0)
    vertices, _ = body.skin(a.rotmats[0], a.betas[:1], a.trans[0])
    torch.testing.assert_close(body.keypoint_regressor @ vertices, a.true_keypoints[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(project(a.true_keypoints, a.intrinsics), a.true_points)
    assert torch.isfinite(a.keypoints).all() and torch.isfinite(a.landmarks3d).all()


def test_sampler_keeps_to_its_split(body):
    sampler = MotionSampler(small_bank(), body, split="test", config=SamplerConfig(frames=8, mixed=1.0))
    motions = sampler.sample(20, torch.Generator().manual_seed(0))
    assert set(motions.clip.tolist()) == {2} and set(motions.other_clip.tolist()) == {2}


def test_mirroring_reflects_the_joints(body):
    bank, generator = small_bank(), torch.Generator().manual_seed(0)
    sampler = MotionSampler(bank, body, config=SamplerConfig(frames=8))
    quats, pelvis = sampler.quats[None, :8], sampler.pelvis[None, :8] + 0.3
    yes = torch.ones(1, dtype=torch.bool)
    again, back = sampler._mirror(*sampler._mirror(quats, pelvis, yes), yes)
    torch.testing.assert_close(again, quats)
    torch.testing.assert_close(back, pelvis)
    from core.rotation import quaternion_to_matrix
    from core.skeleton import JOINT_MIRROR

    betas, trans = torch.zeros(10), torch.zeros(3)
    mirrored, _ = sampler._mirror(quats, pelvis, yes)
    plain, _ = body.forward_kinematics(quaternion_to_matrix(quats[0]), betas, trans)
    other, _ = body.forward_kinematics(quaternion_to_matrix(mirrored[0]), betas, trans)
    flipped = plain[:, list(JOINT_MIRROR)] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(other, flipped, atol=2e-3, rtol=0)  # the body itself is symmetric to a millimetre
    assert generator is not None


def test_speed_changes_how_far_a_motion_gets(body):
    config = SamplerConfig(frames=8, speed=(2.0, 2.0), mirrored=0, mixed=0, tilt_deg=0, wobbled=0)
    sampler = MotionSampler(small_bank(), body, config=config)
    m = sampler.sample(4, torch.Generator().manual_seed(1))
    bank = small_bank()
    for i in range(4):
        at = m.start[i].item() + 2.0 * np.arange(8)
        low = np.floor(at).astype(int)
        share = (at - low)[:, None]
        first = bank.clip_start[m.clip[i]]
        q = (
            bank.quats[first + low, 18] * (1 - share)
            + bank.quats[np.minimum(first + low + 1, first + 39), 18] * share
        )
        q /= np.linalg.norm(q, axis=-1, keepdims=True)
        found = matrix_to_quaternion(m.rotmats[i, :, 18]).numpy()
        assert np.abs(np.abs((q * found).sum(-1)) - 1).max() < 1e-4


def shard_from(body, parameters, clips=12, T=48):
    """What a shard would hold if the detector made exactly the model's errors."""
    config = SamplerConfig(frames=T, tilt_deg=0.0)
    sampler = KeypointSampler(small_bank(300), body, NoiseModel(parameters), config=config, seed=3)
    b = sampler.batch(clips)
    return {
        "clip_start": np.arange(clips) * T,
        "clip_len": np.full(clips, T),
        "quats": matrix_to_quaternion(b.rotmats).flatten(0, 1).numpy(),
        "trans": b.trans.flatten(0, 1).numpy(),
        "keypoints": b.keypoints.flatten(0, 1).numpy(),
        "landmarks3d": b.landmarks3d.flatten(0, 1).numpy(),
        "presence": (~b.is_gap).float().flatten(0, 1).numpy(),
        "hidden": np.zeros((clips * T, K), np.uint8),
        "betas": b.betas.numpy(),
        "camera": b.intrinsics.numpy(),
    }


def test_fit_finds_the_parameters_that_made_the_errors(body, monkeypatch):
    truth = quiet(
        slow=(0.012,) * K,
        fast=(0.004,) * K,
        clip=(0.008,) * K,
        offset=((0.01, -0.005, 0.0),) * K,
        turn_deg=(4.0, 8.0, 2.0),
        size_scale=(0.95, 0.0),
    )
    shard = shard_from(body, truth, clips=40)

    def clips_of(arrays):
        for i, (start, length) in enumerate(zip(arrays["clip_start"], arrays["clip_len"])):
            clip = {n: v[start : start + length] for n, v in arrays.items() if len(v) == len(arrays["quats"])}
            yield clip | {"betas": arrays["betas"][i], "camera": arrays["camera"][i], "spacing": 1}

    monkeypatch.setattr("core.synth.detector_errors.clips_of", clips_of)
    errors = measure(shard, body)
    assert isinstance(errors[0], Errors)
    found = fit(errors, quiet())
    assert np.mean(found.slow) == pytest.approx(0.012, rel=0.3)
    assert np.mean(found.fast) == pytest.approx(0.004, abs=0.002)
    assert np.mean([o[0] for o in found.offset]) == pytest.approx(0.01, abs=0.003)
    assert found.size_scale[0] == pytest.approx(0.95, abs=0.03)
    assert found.turn_deg[1] == pytest.approx(8.0, rel=0.4)
    assert found.swap_rate < 0.003


def test_parameters_come_back_from_their_file(tmp_path):
    p = NoiseParameters.load()
    p.save(tmp_path / "p.json")
    assert NoiseParameters.load(tmp_path / "p.json") == p
    assert len(p.offset) == len(p.clip) == len(p.clip3d) == len(KEYPOINT_NAMES)
