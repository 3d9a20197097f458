"""core.train: losses against hand-worked values, steps, resume, settings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from core.body import load_body
from core.errors import InputError
from core.models.checkpoint import save_network
from core.models.coarse_body import coarse_body
from core.models.config import HyperbolicConfig, LifterConfig
from core.models.hyperbolic import HyperbolicNet
from core.rotation import axis_angle_to_matrix
from core.train import losses
from core.train.config import StageConfig, TrainConfig, for_device, read_config
from core.train.objective import MeshObjective, StageLoss, Truth, lift_loss
from core.train.progress import History, draw_history
from core.train.run import _build_network
from core.train.trainer import MovingAverage, StageTrainer, learning_rate
from tests.training_support import a_batch

LIFTER = LifterConfig(dim=16, depth=1, heads=2, joint_dim=4, head_dim=32, window=8)
NETWORK = HyperbolicConfig(lifter=LIFTER, feature_dim=6, window=4, prior_dim=8, dim=8, heads=2)


@pytest.fixture(scope="module")
def body():
    return load_body()


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
    net = a_network(body, a_coarse(body))
    objective = MeshObjective(body, net, TrainConfig().loss, hyperbolic_weight=1.0, use_bfloat16=False)
    vertices = body.v_template[None] + 0.01 * torch.randn(1, body.vertex_count, 3)
    ids = objective.draw_vertices(len(objective.support) + 500)
    assert len(ids) == len(objective.support) + 500
    assert len(objective.draw_vertices(1)) > len(objective.support)
    assert sorted(objective.draw_vertices(0).tolist()) == list(range(body.vertex_count))
    expected = body.J_regressor @ vertices[0]
    torch.testing.assert_close(objective.joints_of(vertices[:, ids])[0], expected, atol=1e-4, rtol=0)


def test_a_network_that_goes_on_keeps_its_coarse_mesh(body, tmp_path):
    """Of a body decimated otherwise by now: the file's vertices and faces, at their places on the present body."""
    before = a_network(body, a_coarse(body))
    save_network(tmp_path / "n.safetensors", before.state_dict(), NETWORK, stage="mesh")
    body.v_template += 0.1
    try:
        net = _build_network(NETWORK, body, tmp_path / "n.safetensors")
        assert torch.equal(net.vertex_ids, before.vertex_ids) and torch.equal(net.coarse_faces, before.coarse_faces)
        torch.testing.assert_close(net.body_template, body.v_template[before.vertex_ids])
        torch.testing.assert_close(net.upsample.indices, before.upsample.indices)
    finally:
        body.v_template -= 0.1


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
    net = a_network(body, a_coarse(body))
    config = TrainConfig(network=NETWORK, use_bfloat16=False, validate_every_s=1e9)
    stage = StageConfig(budget_s=1e9, steps=steps, warmup_steps=1, learning_rate=3e-3, meshes_per_sequence=2,
                        mesh_vertices=600)  # fmt: skip
    objective = MeshObjective(body, net, config.loss, hyperbolic_weight=1.0, use_bfloat16=False)
    loss = StageLoss(net, body, config, stage, objective if name == "mesh" else None)
    return StageTrainer(
        name, net, config, stage, trained=net if name == "mesh" else net.lifter, loss=loss,
        draw=lambda: a_batch(4, 8), validate=lambda: {"zero": 0.0}, history=History(folder / "history.jsonl"),
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


@pytest.mark.parametrize("nothing", [{"budget_s": 0.0}, {"steps": 0}])
def test_a_stage_without_budget_is_over_at_once(body, tmp_path, nothing):
    trainer = a_trainer(body, tmp_path, steps=5)
    trainer.stage = replace(trainer.stage, **nothing)
    assert trainer.run() and trainer.step == 0 and not trainer.history.rows


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


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"avx2": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": False}, False),
    ],
)
def test_bfloat16_is_for_processors_that_have_it(monkeypatch, has, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert for_device(TrainConfig(use_bfloat16=True), "cpu").use_bfloat16 is expected
    assert for_device(TrainConfig(use_bfloat16=False), "cpu").use_bfloat16 is False
