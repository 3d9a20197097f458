"""Recorded detector errors replayed on other motions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_synth_noise import small_bank

from core.body import load_body
from core.rotation import matrix_to_quaternion
from core.skeleton import KEYPOINT_MIRROR
from core.synth.cameras import project
from core.synth.noise import LEFT_HIP, RIGHT_HIP, crop_side
from core.synth.replay import RecordedErrors
from core.synth.sampler import KeypointSampler, MotionSampler, SamplerConfig

T = 12
STANDING = SamplerConfig(frames=T, mixed=0.0, wobbled=0.0, tilt_deg=0.0)
SHIFT = np.array([0.03, -0.02])
"""Of the crop's side."""
SIDES = list(KEYPOINT_MIRROR)


@pytest.fixture(scope="module")
def body():
    return load_body()


def recording(body, *, swapped: bool, seen: bool = True) -> dict[str, np.ndarray]:
    """A shard of two clips whose detector shifts every point by SHIFT, or also takes it from the other side."""
    m = MotionSampler(small_bank(), body, config=STANDING).sample(2, torch.Generator().manual_seed(1))
    rotmats, betas = m.rotmats, m.betas
    rotmats = torch.cat([torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ rotmats[:, :, :1], rotmats[:, :, 1:]], 2)
    trans = torch.tensor([0.0, 0.0, 4.0]).expand(2, T, 3)
    keypoints = body.keypoints(rotmats, betas[:, None].expand(2, T, -1), trans)
    camera = torch.tensor([[900.0, 900.0, 500.0, 400.0]]).expand(2, 4)
    points = project(keypoints, camera)
    shown = points[:, :, SIDES] if swapped else points
    found = shown + crop_side(points)[..., None, None] * torch.from_numpy(SHIFT).float()
    hips = keypoints[:, :, [LEFT_HIP, RIGHT_HIP]].mean(2)
    flat = {
        "quats": matrix_to_quaternion(rotmats).half(),
        "trans": trans,
        "keypoints": torch.cat([found, torch.full((2, T, 25, 1), 0.7)], -1),
        "landmarks3d": (keypoints - hips[:, :, None])[:, :, SIDES if swapped else list(range(25))].half(),
        "presence": torch.full((2, T), 1.0 if seen else 0.0).half(),
        "hidden": torch.zeros((2, T, 25), dtype=torch.uint8),
    }
    arrays = {name: v.flatten(0, 1).numpy() for name, v in flat.items()}
    names = ("heat", "depth", "embedding", "roi", "restarted", "up")
    arrays |= {name: np.zeros((2 * T, 1), np.float32) for name in names}
    clip = {
        name: np.zeros(2) for name in ("subject", "motion", "motion_start", "speed", "is_mirrored", "split", "seed")
    }
    return arrays | clip | {
        "clip_start": np.array([0, T], np.int32),
        "clip_len": np.array([T, T], np.int32),
        "spacing": np.ones(2, np.int32),
        "betas": betas.numpy(),
        "camera": camera.numpy(),
        "size": np.array([[1000, 800]] * 2, np.int32),
    }  # fmt: skip


@pytest.mark.parametrize("swapped", [False, True])
def test_errors_come_back_on_other_motions(body, swapped):
    recorded = RecordedErrors(body)
    recorded.add(recording(body, swapped=swapped))
    batch = KeypointSampler(small_bank(), body, recorded, config=STANDING, seed=2).batch(16)
    assert batch.is_swapped.float().mean() == float(swapped)
    truth = batch.true_points[:, :, SIDES] if swapped else batch.true_points
    off = (batch.keypoints[..., :2] - truth) / crop_side(batch.true_points)[..., None, None]
    off = off.flatten(0, 2).numpy()
    is_mirrored = off[:, 0] < 0
    np.testing.assert_allclose(np.abs(off), np.broadcast_to(np.abs(SHIFT), off.shape), atol=2e-3)
    assert 0.1 < is_mirrored.mean() < 0.9  # some as recorded, some in a mirror
    np.testing.assert_allclose(batch.keypoints[..., 2].numpy(), 0.7, atol=1e-3)


def test_recordings_of_fewer_frames_are_played_at_their_speed(body):
    shard = recording(body, swapped=False)
    shard["keypoints"][:, :, 2] = np.arange(2 * T)[:, None] / (2 * T)
    recorded = RecordedErrors(body)
    recorded.add(shard | {"spacing": np.array([3, 1], np.int32)})
    assert recorded.length.tolist() == [3 * T, T]
    slow = recorded.frames["confidence"][: 3 * T, 0].numpy() * 2 * T
    wanted = np.minimum(np.arange(3 * T) / 3, T - 1)
    np.testing.assert_allclose(slow, wanted, atol=1e-4)
    assert not recorded.frames["whole"].any() and recorded.frames["present"].all()


def test_people_nobody_saw_stay_unseen(body):
    recorded = RecordedErrors(body)
    recorded.add(recording(body, swapped=False, seen=False))
    batch = KeypointSampler(small_bank(), body, recorded, config=STANDING, seed=2).batch(3)
    assert batch.is_gap.all() and (batch.keypoints[..., 2] == 0).all()


def test_recordings_face_about_as_the_motion_does(body):
    recorded = RecordedErrors(body)
    turned = recording(body, swapped=False)
    recorded.add(turned)
    axes = recorded.frames["axes"].clone()
    axes[T:, :, 0], axes[T:, :, 2] = -axes[T:, :, 0], -axes[T:, :, 2]  # the second clip as if seen from behind
    recorded.frames["axes"] = axes
    generator = torch.Generator().manual_seed(0)
    none = torch.zeros(20, dtype=torch.bool)
    for clip in (0, 1):
        wanted = axes[clip * T + T // 2].expand(20, 3, 3)
        rows = recorded._alike(wanted, none, none, T, generator)
        assert (rows // T == clip).all()


def test_some_sequences_get_the_errors_of_a_clip_that_was_read_well(body):
    shard, points = recording(body, swapped=False), slice(0, 2)
    well = shard["keypoints"].copy()
    well[:T, :, points] += 300  # the first clip read badly, by about a third of the crop
    recorded = RecordedErrors(body)
    recorded.add(shard | {"keypoints": well})
    off = np.hypot(*SHIFT)
    assert recorded.off[1] == pytest.approx(off, abs=2e-3) and recorded.off[0] > 5 * off
    recorded.frames["axes"] = torch.eye(3).expand(2 * T, 3, 3)
    alike, none = torch.eye(3).expand(400, 3, 3), torch.zeros(400, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    calm, usual = (recorded._alike(alike, none, is_calm, T, generator)[:, 0] // T for is_calm in (~none, none))
    assert (calm == 1).all() and 0.3 < usual.float().mean() < 0.7
