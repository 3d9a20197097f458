"""core.train: losses against hand-worked values, batches from shards and the generator, steps, resume, settings."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from core.body import load_body
from core.errors import InputError
from core.models.coarse_body import coarse_body
from core.models.config import HyperbolicConfig, LifterConfig
from core.models.hyperbolic import HyperbolicNet
from core.rotation import axis_angle_to_matrix, matrix_to_quaternion
from core.skeleton import JOINT_MIRROR, KEYPOINT_NAMES
from core.train import losses
from core.train.augment import LIMBS, Variation, mirror, vary
from core.train.batch import Batch, merge
from core.train.config import StageConfig, TrainConfig, read_config
from core.train.objective import MeshObjective, Truth, lift_loss
from core.train.progress import History, draw_history
from core.train.rendering import Renderer, RenderJob
from core.train.shards import ShardBank
from core.train.sources import drop, mixed
from core.train.trainer import MovingAverage, StageTrainer, learning_rate

STILL = Variation(mirrored=0, keypoint_noise=0, landmark_noise=0, size_noise=0, limb_gap=0)
LIFTER = LifterConfig(dim=16, depth=1, heads=2, joint_dim=4, head_dim=32, window=8)
NETWORK = HyperbolicConfig(lifter=LIFTER, feature_dim=6, window=4, prior_dim=8, dim=8, heads=2)


@pytest.fixture(scope="module")
def body():
    return load_body()


def a_batch(sequences: int, window: int, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=g)

    rotmats = axis_angle_to_matrix(0.3 * (rand(sequences, 1, 24, 3) - 0.5)).repeat(1, window, 1, 1, 1)
    return Batch(
        keypoints=torch.cat((rand(sequences, window, 25, 2) * 300 + 200, rand(sequences, window, 25, 1)), -1),
        landmarks3d=rand(sequences, window, 25, 3) - 0.5,
        has_landmarks=torch.ones(sequences, window),
        features=rand(sequences, window, 6),
        size=torch.tensor([[1280.0, 720.0]]).repeat(sequences, 1),
        focal_px=torch.full((sequences,), 1468.0),
        frames=torch.arange(window).float().repeat(sequences, 1),
        rotmats=rotmats,
        betas=rand(sequences, 10) - 0.5,
    )


def a_coarse(body):
    """Every 90th vertex, lifted by its nearest three; any triangles will do."""
    ids = torch.arange(0, body.vertex_count, 90)
    nearest = torch.cdist(body.v_template, body.v_template[ids]).topk(3, largest=False).indices
    U = torch.zeros(body.vertex_count, len(ids)).scatter_(1, nearest, 1 / 3)
    faces = torch.cdist(body.v_template[ids], body.v_template[ids]).topk(3, largest=False).indices
    return SimpleNamespace(U=U.numpy(), faces=faces.numpy(), vertex_ids=ids.numpy())


def a_network(body, coarse) -> HyperbolicNet:
    return HyperbolicNet(NETWORK, coarse_body(body, coarse))


def test_surface_losses_of_a_stretched_triangle():
    """Right triangle in the plane z = 0; the prediction lifts one corner by 3 and so lengthens two edges."""
    truth = torch.tensor([[[0.0, 0, 0], [4, 0, 0], [0, 4, 0]]])
    predicted = truth.clone()
    predicted[0, 1, 2] = 3
    normal, edge = losses.surface_losses(predicted, truth, torch.tensor([[0, 1, 2]]))
    long = math.sqrt(32 + 9)
    assert float(normal) == pytest.approx((3 / 5 + 3 / long + 0) / 3, rel=1e-5)
    assert float(edge) == pytest.approx((1 + (long - math.sqrt(32)) + 0) / 3, rel=1e-4)


def test_surface_losses_ignore_rigid_motion_of_edges_but_not_of_normals():
    truth = torch.randn(2, 12, 3)
    triangles = torch.stack([torch.randperm(12)[:3] for _ in range(7)])
    turned = truth @ axis_angle_to_matrix(torch.tensor([0.4, -0.2, 0.9])).T + 5
    normal, edge = losses.surface_losses(turned, truth, triangles)
    assert float(edge) < 1e-5 and float(normal) > 0.05
    assert float(losses.surface_losses(truth, truth, triangles)[0]) < 1e-4


def test_hyperbolic_mesh_loss_is_l1_of_tanh_on_a_line():
    predicted, truth = torch.tensor([[[0.5, 0.0, 0.0]]]), torch.tensor([[[0.2, 0.0, 0.0]]])
    expected = (math.tanh(0.5) - math.tanh(0.2)) / 3
    assert float(losses.hyperbolic_mesh_loss(predicted, truth)) == pytest.approx(expected, rel=1e-5)
    halved = (math.tanh(0.25) - math.tanh(0.1)) / 0.5 / 3
    assert float(losses.hyperbolic_mesh_loss(predicted, truth, c=0.25)) == pytest.approx(halved, rel=1e-5)


def test_point_velocity_and_rotation_losses():
    truth = torch.zeros(1, 3, 2, 3)
    predicted = truth.clone()
    predicted[0, 1, 0, 0] = 0.6  # one of 18 numbers; two of 12 differences
    assert float(losses.point_loss(predicted, truth)) == pytest.approx(0.6 / 18)
    assert float(losses.velocity_loss(predicted, truth)) == pytest.approx(1.2 / 12)
    weight = torch.zeros(1, 3, 2)
    weight[0, 1, 0] = 2
    assert float(losses.point_loss(predicted, truth, weight)) == pytest.approx(0.2)
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    assert float(losses.rotation_loss(half_turn, torch.eye(3))) == pytest.approx(4 / 9)


def test_truth_agrees_with_the_body(body):
    batch = a_batch(2, 3)
    truth = Truth(body, batch)
    vertices, joints = body.skin(batch.rotmats[1, 2], batch.betas[1], torch.zeros(3))
    torch.testing.assert_close(truth.joints[1, 2], joints - joints[:1], atol=1e-5, rtol=0)
    ids = torch.tensor([3, 900, 13000])
    ours = truth.vertices(torch.tensor([1]), torch.tensor([2]), ids)[0]
    torch.testing.assert_close(ours, (vertices - joints[:1])[ids], atol=1e-5, rtol=0)


def test_lift_loss_is_zero_for_the_truth(body):
    batch = a_batch(2, 4)
    truth = Truth(body, batch)
    rotations = batch.rotmats[..., :2].transpose(-1, -2).flatten(-2)  # first two columns
    betas = batch.betas[:, None].expand(-1, 4, -1)
    lifted = SimpleNamespace(joints=truth.joints, rotations6d=rotations, betas=betas)
    total, parts = lift_loss(lifted, truth, TrainConfig().loss)
    assert float(total) < 1e-4 and set(parts) == {"joint", "velocity", "kinematic_joint", "rotation", "shape"}
    worse = SimpleNamespace(joints=truth.joints + 0.1, rotations6d=rotations, betas=betas)
    assert float(lift_loss(worse, truth, TrainConfig().loss)[0]) > 0.05


def test_mesh_objective_joints_are_the_regressor_s(body):
    coarse = a_coarse(body)
    objective = MeshObjective(
        body, coarse, TrainConfig().loss, hyperbolic_weight=1.0, device="cpu", use_bfloat16=False
    )
    vertices = body.v_template[None] + 0.01 * torch.randn(1, body.vertex_count, 3)
    ids = objective.draw_vertices(len(objective.support) + 500)
    assert len(ids) == len(objective.support) + 500
    assert len(objective.draw_vertices(1)) > len(objective.support)
    assert sorted(objective.draw_vertices(0).tolist()) == list(range(body.vertex_count))
    expected = body.J_regressor @ vertices[0]
    torch.testing.assert_close(objective.joints_of(vertices[:, ids])[0], expected, atol=1e-4, rtol=0)


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
        "betas": rng.normal(size=(3, 10)).astype(np.float32),
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
    batch = replace(batch, betas=torch.randn(3, 10))
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


def test_learning_rate_warms_up_and_falls():
    stage = StageConfig(learning_rate=1.0, final_rate=0.1, warmup_steps=10)
    assert learning_rate(stage, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(stage, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(stage, 500, 0.5) == pytest.approx(0.1 + 0.9 * 0.5)
    assert learning_rate(stage, 500, 1.0) == learning_rate(stage, 500, 1.3) == pytest.approx(0.1)


def test_moving_average_swaps_both_ways():
    p = torch.nn.Parameter(torch.zeros(3))
    average = MovingAverage([p], 0.9)
    with torch.no_grad():
        p.fill_(1.0)
    average.update()
    expected = 1 - 2 / 11
    average.swap()
    torch.testing.assert_close(p.detach(), torch.full((3,), expected))
    average.swap()
    torch.testing.assert_close(p.detach(), torch.ones(3))


def a_trainer(body, folder, *, steps: int, name: str = "lift", seed: int = 0) -> StageTrainer:
    torch.manual_seed(seed)
    coarse = a_coarse(body)
    net = a_network(body, coarse)
    config = TrainConfig(network=NETWORK, use_bfloat16=False, validate_every_s=1e9)
    stage = StageConfig(budget_s=1e9, steps=steps, warmup_steps=1, learning_rate=3e-3, meshes_per_sequence=2,
                        mesh_vertices=600)  # fmt: skip
    objective = MeshObjective(body, coarse, config.loss, hyperbolic_weight=1.0, device="cpu", use_bfloat16=False)
    return StageTrainer(
        name, net, body, config, stage, draw=lambda: a_batch(4, 8), validate=lambda: {"zero": 0.0},
        mesh_objective=objective if name == "mesh" else None, history=History(folder / "history.jsonl"),
        folder=folder, device="cpu",
    )  # fmt: skip


def test_training_learns_a_batch_by_heart_and_leaves_a_history(body, tmp_path):
    trainer = a_trainer(body, tmp_path, steps=60)
    assert trainer.run()
    rows = [r for r in trainer.history.rows if r["kind"] == "loss"]
    assert rows[0]["step"] == 1 and rows[-1]["step"] == 60
    assert rows[-1]["joint"] < 0.4 * rows[0]["joint"] and rows[-1]["total"] < 0.8 * rows[0]["total"]
    draw_history(trainer.history, tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 1000
    assert json.loads((tmp_path / "history.jsonl").read_text().splitlines()[0])["stage"] == "lift"


def test_mesh_stage_trains_every_loss(body, tmp_path):
    trainer = a_trainer(body, tmp_path, steps=25, name="mesh")
    assert trainer.run()
    rows = [r for r in trainer.history.rows if r["kind"] == "loss"]
    assert {"mesh", "mesh_joint", "normal", "edge", "hymesh", "joint"} <= set(rows[0])
    assert rows[-1]["mesh"] < 0.9 * rows[0]["mesh"] and rows[-1]["edge"] < rows[0]["edge"]


def test_training_resumes_where_it_stopped(body, tmp_path):
    whole = a_trainer(body, tmp_path / "whole", steps=12) if (tmp_path / "whole").mkdir() is None else None
    whole.run()
    (tmp_path / "parts").mkdir()
    first = a_trainer(body, tmp_path / "parts", steps=12)
    first.stage = replace(first.stage, steps=12)
    assert first.run(stop_after_s=0.0) is False and first.step == 1
    second = a_trainer(body, tmp_path / "parts", steps=12, seed=99)
    assert second.run() and second.step == 12
    for a, b in zip(whole.net.lifter.parameters(), second.net.lifter.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_step_that_is_not_finite_is_left_out(body, tmp_path):
    trainer = a_trainer(body, tmp_path, steps=1)
    bad = a_batch(4, 8)
    trainer.draw = lambda: replace(
        bad, keypoints=bad.keypoints * float("nan"), landmarks3d=bad.landmarks3d * math.nan
    )
    before = [p.detach().clone() for p in trainer.parameters]
    trainer._train_step()
    for a, b in zip(before, trainer.parameters):
        torch.testing.assert_close(a, b.detach(), rtol=0, atol=0)


def test_batches_merge_split_and_pick():
    batch = merge([a_batch(2, 4), a_batch(3, 4, seed=1)])
    assert batch.frame_count == 20
    pieces = batch.split(2)
    assert [len(p.betas) for p in pieces] == [2, 2, 1]
    torch.testing.assert_close(merge(pieces).keypoints, batch.keypoints)
    torch.testing.assert_close(batch.pick(slice(2, 5)).betas, a_batch(3, 4, seed=1).betas)


def test_shipped_settings_can_be_read_and_strangers_are_named(tmp_path):
    from pathlib import Path

    import core.train

    folder = Path(core.train.__file__).parent / "configs"
    configs = {path.stem: read_config(path) for path in folder.glob("*.toml")}
    assert {"gpu", "paper", "tiny"} <= set(configs)
    assert configs["paper"].network.lifter.use_landmarks3d is False
    changed = read_config(folder / "gpu.toml", ('network.mesh_start="skinned"', "lift.budget_s=7"))
    assert changed.network.mesh_start == "skinned" and changed.lift.budget_s == 7
    assert changed.mesh == configs["gpu"].mesh
    with pytest.raises(InputError, match="lift.bud=7"):
        read_config(None, ("lift.bud=7",))
    path = tmp_path / "wrong.toml"
    path.write_text("[network]\nwindows = 16\n")
    with pytest.raises(InputError, match="windows"):
        read_config(path)


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
