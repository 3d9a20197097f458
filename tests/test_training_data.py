"""core.train: batches from shards and the generator, their variation, and rendering beside the training."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from core.body import load_body
from core.rotation import axis_angle_to_matrix, matrix_to_quaternion
from core.skeleton import JOINT_MIRROR, KEYPOINT_NAMES
from core.train.augment import LIMBS, Variation, mirror, vary
from core.train.batch import merge
from core.train.objective import Truth
from core.train.rendering import Renderer, RenderJob
from core.train.shards import ShardBank
from core.train.sources import drop, mixed
from tests.training_support import a_batch

STILL = Variation(mirrored=0, keypoint_noise=0, landmark_noise=0, size_noise=0, limb_gap=0)


@pytest.fixture(scope="module")
def body():
    return load_body()


def a_shard() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths, n = np.array([6, 3, 9], np.int32), 18
    quats = matrix_to_quaternion(axis_angle_to_matrix(torch.randn(n, 24, 3))).numpy()
    return {
        "quats": quats.astype(np.float16),
        "keypoints": rng.uniform(0, 1, (n, 25, 3)).astype(np.float32)
        + np.arange(n)[:, None, None].astype(np.float32),
        "landmarks3d": rng.normal(size=(n, 25, 3)).astype(np.float16),
        "embedding": rng.normal(size=(n, 6)).astype(np.float16),
        "presence": np.where(np.arange(n) == 10, 0, 1).astype(np.float16),
        "clip_start": np.array([0, 6, 9], np.int32),
        "clip_len": lengths,
        "spacing": np.ones(3, np.int32),
        "subject": np.array(["a", "b", "c"]),
        "motion": np.array(["a_1", "b_1", "c_1"]),
        "betas": rng.normal(size=(3, 16)).astype(np.float32),
        "camera": np.array([[900, 900, 640, 360]] * 3, np.float32),
        "size": np.array([[1280, 720]] * 3, np.int32),
    }


def test_shard_windows_are_the_frames_of_one_clip():
    shard = a_shard()
    second = shard | {"keypoints": shard["keypoints"] + np.float32(100)}
    bank = ShardBank([shard, second], device="cpu")
    assert bank.frame_count == 36 and bank.feature_dim == 6 and len(bank) == 6
    batch = bank.windows(torch.tensor([2, 4]), torch.tensor([1, 0]), 4)
    np.testing.assert_array_equal(batch.keypoints[0].numpy(), shard["keypoints"][10:14])
    np.testing.assert_array_equal(batch.keypoints[1].numpy(), second["keypoints"][[6, 7, 8, 8]])  # last one repeated
    np.testing.assert_array_equal(batch.has_landmarks[0].numpy(), [0, 1, 1, 1])
    np.testing.assert_array_equal(batch.betas[1].numpy(), shard["betas"][1])
    R = batch.rotmats[0, 0, 5]
    torch.testing.assert_close(R @ R.T, torch.eye(3), atol=1e-5, rtol=0)
    assert bank.windows(torch.tensor([0]), torch.tensor([0]), 2, with_features=False).features.shape == (1, 2, 0)
    starts = {float(bank.sample(1, 4).keypoints[0, 0, 0, 0] // 1) for _ in range(60)}
    assert {s % 100 for s in starts} <= {0, 1, 2, 6, 9, 10, 11, 12, 13, 14} and len(starts) > 10


def test_thinned_batches_keep_frames_that_belong_together():
    batch = a_batch(2, 11)
    generated = SimpleNamespace(sample=lambda n, window, with_features: batch)
    draw = mixed(generated, None, counts=(2, 0), window=11, kept=4, draw_ahead=1, with_features=True,
                 landmark_dropout=0.0, feature_dropout=0.0, variation=STILL, seed=0, device="cpu")  # fmt: skip
    steps = set()
    for _ in range(20):
        few = draw()
        places = [batch.frames[0].tolist().index(t) for t in few.frames[0].tolist()]
        steps |= set(np.diff(places))
        torch.testing.assert_close(few.keypoints, batch.keypoints[:, places])
        torch.testing.assert_close(few.rotmats, batch.rotmats[:, places])
        torch.testing.assert_close(few.betas, batch.betas, rtol=0, atol=0)
    assert steps == {1, 3}


def test_clips_of_fewer_frames_a_second_keep_their_times():
    shard = a_shard() | {"spacing": np.array([1, 2, 2], np.int32)}
    bank = ShardBank([shard], device="cpu")
    batch = bank.windows(torch.tensor([0, 2]), torch.tensor([1, 1]), 3, step=2)
    np.testing.assert_array_equal(batch.frames.numpy(), [[0, 2, 4], [0, 2, 4]])
    np.testing.assert_array_equal(batch.keypoints[0].numpy(), shard["keypoints"][[1, 3, 5]])  # every second of 30
    np.testing.assert_array_equal(batch.keypoints[1].numpy(), shard["keypoints"][[10, 11, 12]])  # all of 15
    close = bank.windows(torch.tensor([0, 2]), torch.tensor([1, 1]), 3)
    np.testing.assert_array_equal(close.frames.numpy(), [[0, 1, 2], [0, 2, 4]])
    for _ in range(30):
        times = bank.sample(4, 3, step=2).frames
        assert (times[:, 0] == 0).all() and times.max() <= 4


def test_mixing_fills_the_place_of_a_missing_source():
    generated = SimpleNamespace(sample=lambda n, window, with_features: a_batch(n, window))
    common = dict(window=4, kept=0, draw_ahead=3, with_features=True, landmark_dropout=0.0, feature_dropout=0.0,
                  variation=STILL, seed=0, device="cpu")  # fmt: skip
    bank = ShardBank([a_shard()], device="cpu")
    both = mixed(generated, bank, counts=(3, 2), **common)()
    assert len(both.betas) == 5
    torch.testing.assert_close(both.keypoints[:3], a_batch(9, 4).keypoints[-3:])
    assert len(mixed(generated, None, counts=(3, 2), **common)().betas) == 5
    assert len(mixed(None, bank, counts=(3, 2), **common)().betas) == 5
    with pytest.raises(ValueError):
        mixed(None, None, counts=(3, 2), **common)


def test_a_mirrored_batch_is_a_mirrored_body(body):
    """Joints of the mirrored rotations are the reflected joints of the other side; keypoints follow in the image."""
    batch = a_batch(3, 2)
    batch = replace(batch, betas=torch.randn(3, 16))
    other = mirror(batch)
    reflect = torch.tensor([-1.0, 1.0, 1.0])
    joints, mirrored = Truth(body, batch).joints, Truth(body, other).joints
    torch.testing.assert_close(mirrored, joints[:, :, list(JOINT_MIRROR)] * reflect, atol=1e-4, rtol=0)
    again = mirror(other)
    for name in ("keypoints", "landmarks3d", "rotmats"):
        torch.testing.assert_close(getattr(again, name), getattr(batch, name), atol=1e-4, rtol=0)
    left, right = KEYPOINT_NAMES.index("left_knee"), KEYPOINT_NAMES.index("right_knee")
    torch.testing.assert_close(other.keypoints[..., left, 0], 1280 - batch.keypoints[..., right, 0])
    torch.testing.assert_close(other.landmarks3d[..., left, :], batch.landmarks3d[..., right, :] * reflect)


def test_variation_leaves_the_truth_and_mirrors_only_without_features():
    batch = a_batch(60, 10)
    generator = torch.Generator().manual_seed(0)
    varied = vary(batch, Variation(mirrored=1.0), generator)  # all have features
    torch.testing.assert_close(varied.rotmats, batch.rotmats, rtol=0, atol=0)
    moved = (varied.keypoints - batch.keypoints)[..., :2].norm(dim=-1)
    assert 0.5 < float(moved.mean()) < 10
    hidden = (varied.keypoints[..., 2] == 0).float()
    assert 0.01 < float(hidden.mean()) < 0.1 and not hidden[..., :3].any()
    assert all((hidden[..., limb[0]] == hidden[..., limb[-1]]).all() for limb in map(list, LIMBS))
    bare = vary(replace(batch, features=batch.features[..., :0]), Variation(mirrored=1.0), generator)
    torch.testing.assert_close(bare.rotmats, mirror(batch).rotmats, rtol=0, atol=0)
    torch.testing.assert_close(vary(batch, STILL, generator).keypoints, batch.keypoints)


def test_dropout_takes_whole_sequences():
    batch = drop(a_batch(400, 3), landmarks=0.25, features=0.6, generator=torch.Generator().manual_seed(0))
    kept = batch.has_landmarks.mean(1)
    assert set(kept.tolist()) == {0.0, 1.0} and float(kept.mean()) == pytest.approx(0.75, abs=0.07)
    assert float((batch.features.abs().sum((1, 2)) > 0).float().mean()) == pytest.approx(0.4, abs=0.08)


def test_batches_merge_split_and_pick():
    batch = merge([a_batch(2, 4), a_batch(3, 4, seed=1)])
    assert batch.frame_count == 20
    pieces = batch.split(2)
    assert [len(p.betas) for p in pieces] == [2, 2, 1]
    torch.testing.assert_close(merge(pieces).keypoints, batch.keypoints)
    torch.testing.assert_close(batch.pick(slice(2, 5)).betas, a_batch(3, 4, seed=1).betas)


class ScriptedRenderer(Renderer):
    """Runs a line of Python in place of the renderer."""

    def command(self, job: RenderJob) -> list[str]:
        made = self.folder / f"{job.split}-0000.npz"
        code = f"import time, pathlib; pathlib.Path({str(made)!r}).write_text('x'); time.sleep({job.frames})"
        return [sys.executable, "-c", code]


def wait_for(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(0.05)
    return condition()


def test_rendering_goes_on_beside_and_is_stopped(tmp_path):
    jobs = (RenderJob("validation", 0), RenderJob("train", 600))
    renderer = ScriptedRenderer(tmp_path / "shards", tmp_path, device="cpu", seconds=600, jobs=jobs)
    assert wait_for(lambda: (tmp_path / "shards" / "train-0000.npz").exists())
    process = renderer._process
    assert process.poll() is None
    renderer.stop()
    assert process.poll() is not None


def test_rendering_ends_when_its_time_is_up_or_it_fails(tmp_path):
    renderer = ScriptedRenderer(tmp_path, tmp_path, device="cpu", seconds=0.5, jobs=(RenderJob("train", 600),))
    assert wait_for(lambda: not renderer._thread.is_alive())
    failing = Renderer(tmp_path, tmp_path / "none.npz", device="cpu", seconds=60, jobs=(RenderJob("train", 1, 2),))
    assert wait_for(lambda: not failing._thread.is_alive(), 60)
    assert "motion bank" in (tmp_path / "render.log").read_text()


def test_command_names_what_is_rendered(tmp_path):
    renderer = Renderer(tmp_path, tmp_path / "m.npz", device="cuda", seconds=0, jobs=())
    words = renderer.command(RenderJob("test", 3000, 32))
    assert words[1:5] == ["-m", "core", "synth", "clips"] and words[-2:] == ["--batch", "32"]
    pairs = dict(zip(words[5::2], words[6::2]))
    assert pairs == {"--bank": str(tmp_path / "m.npz"), "--out": str(tmp_path), "--split": "test", "--frames": "3000",
                     "--device": "cuda", "--batch": "32"}  # fmt: skip
