"""core.systems.pmce.objective: losses against numpy in float64, gradients, both training stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.body import load_body
from core.coarse import build_coarse
from core.models.coarse_body import coarse_body
from core.systems.pmce.network import Pmce
from core.systems.pmce.objective import PmceLossConfig, PmceObjective
from core.train.losses import point_loss
from tests.pmce_support import SMALL, T, a_batch, shaken


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def coarse(body):
    return coarse_body(body, build_coarse(body, 431))


@pytest.fixture
def net(coarse) -> Pmce:
    return Pmce(SMALL, coarse).eval()


def test_losses_are_equations_13_to_18(net, body, coarse):
    shaken(net, 0.05)
    batch = a_batch(2, T)
    weights = PmceLossConfig(pose=0.3, frames=0.7, refined=1.3, mesh=1.1, joint=0.9, edge=20.0, mesh_vertices=0)
    total, parts = PmceObjective(net, body, weights)(batch, "mesh")
    sequences, mids = torch.arange(2), torch.full((2,), 2)
    encoded = net.encode(batch.inputs(), batch.features, sequences, mids)
    decoded = net.decode(encoded.poses.middle, encoded.f)
    joints, meshes = [], []
    for i in range(2):
        vertices, places = body.skin(batch.rotmats[i], batch.betas[i].expand(T, -1), torch.zeros(T, 3))
        joints.append((places - places[:, :1]).double().numpy())
        meshes.append((vertices[2] - places[2, :1]).double().numpy())
    joints, meshes = np.stack(joints), np.stack(meshes)

    def l1(predicted, truth) -> float:
        return float(np.abs(np.asarray(predicted.detach(), float) - truth).mean())

    M, coarse_mesh = decoded.vertices.detach().double().numpy(), decoded.coarse.detach().double().numpy()
    true_coarse = meshes[:, coarse.vertex_ids]
    normal, edge = [], []
    for m, true in zip(coarse_mesh, true_coarse):
        for a, b, c in coarse.faces.tolist():
            n = np.cross(true[b] - true[a], true[c] - true[a])
            n = n / np.linalg.norm(n)
            for i, j in ((a, b), (b, c), (c, a)):
                length = np.linalg.norm(m[i] - m[j])
                normal.append(abs((m[i] - m[j]) @ n) / length)
                edge.append(abs(length - np.linalg.norm(true[i] - true[j])))
    J = body.J_regressor.double().numpy()
    expected = {
        "pose": l1(encoded.poses.middle, joints[:, 2]),
        "frames": l1(encoded.poses.frames, joints),
        "mesh": l1(decoded.vertices, meshes) + l1(decoded.coarse, true_coarse),
        "joint": float(np.abs(J @ M - J @ meshes).mean()),
        "normal": float(np.mean(normal)),
        "edge": float(np.mean(edge)),
        "refined": l1(decoded.pose, joints[:, 2]),
    }
    assert set(parts) == set(expected)
    for name, value in expected.items():
        assert float(parts[name].detach()) == pytest.approx(value, rel=1e-3), name
    by_hand = (
        0.3 * expected["pose"] + 0.7 * expected["frames"] + 1.3 * expected["refined"] + 1.1 * expected["mesh"]
        + 0.9 * expected["joint"] + 0.1 * expected["normal"]
        + 20 * expected["edge"]
    )  # fmt: skip
    assert float(total.detach()) == pytest.approx(by_hand, rel=1e-3)


def test_the_first_stage_judges_poses_alone(net, body):
    batch = a_batch(3, T)
    pose_total, pose_parts = PmceObjective(net, body)(batch, "pose")
    _, mesh_parts = PmceObjective(net, body)(batch, "mesh")
    assert set(pose_parts) == {"pose", "frames"}
    for name, value in pose_parts.items():
        torch.testing.assert_close(value, mesh_parts[name])
    torch.testing.assert_close(pose_total, sum(pose_parts.values()))


@pytest.mark.parametrize("stage", PmceObjective.STAGES)
def test_gradients_reach_all_that_a_stage_trains(net, body, stage):
    objective = PmceObjective(shaken(net, 0.02), body)
    loss, _ = objective(a_batch(4, T), stage)
    loss.backward()
    trained = {id(p) for module in objective.trained(stage) for p in module.parameters()}
    assert trained
    for name, parameter in net.named_parameters():
        if id(parameter) in trained:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        else:
            assert parameter.grad is None, name
    assert (len(trained) == len(list(net.parameters()))) == (stage == "mesh")


@pytest.mark.parametrize("moves", [True, False])
def test_the_mesh_moves_the_pose_only_where_it_may(coarse, body, moves):
    net = shaken(Pmce(replace(SMALL, mesh_moves_pose=moves), coarse), 0.02)
    weights = PmceLossConfig(pose=0.0, frames=0.0)
    PmceObjective(net, body, weights)(a_batch(2, T), "mesh")[0].backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in net.pose_stream.parameters()) == moves
    assert all(p.grad.any() for p in net.image_stream.parameters())


def train(net: Pmce, body, stage: str, steps: int, rate: float) -> list[float]:
    objective = PmceObjective(net, body, PmceLossConfig(mesh_vertices=300))
    batch = a_batch(4, T)
    optimizer = torch.optim.Adam([p for m in objective.trained(stage) for p in m.parameters()], lr=rate)
    losses = []
    for _ in range(steps):
        loss, _ = objective(batch, stage)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_both_stages_learn_a_batch_by_heart(coarse, body):
    net = Pmce(SMALL, coarse)
    pose = train(net, body, "pose", 30, 5e-3)
    assert pose[-1] < 0.5 * pose[0]
    mesh = train(net, body, "mesh", 35, 2e-3)
    assert mesh[-1] < 0.8 * mesh[0]


def test_training_is_deterministic(coarse, body):
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append(train(Pmce(SMALL, coarse), body, "mesh", 3, 2e-3))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("stage", PmceObjective.STAGES)
def test_positions_stay_float32_under_bfloat16(net, body, stage, monkeypatch):
    targets = []

    def recording(predicted, truth):
        targets.append(truth)
        return point_loss(predicted, truth)

    monkeypatch.setattr("core.systems.pmce.objective.point_loss", recording)
    batch = a_batch(3, T)
    heads = [m for name, m in net.named_modules() if name.endswith((".regress", ".from_landmarks"))]
    given = []  # types of what gives metres
    for head in heads:
        head.register_forward_hook(lambda _, inputs, output: given.extend((inputs[0].dtype, output.dtype)))
    exact, exact_parts = PmceObjective(net, body, PmceLossConfig(mesh_vertices=0))(batch, stage)
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = PmceObjective(net, body, PmceLossConfig(mesh_vertices=0))(batch, stage)
        out = net.recover(batch.inputs(), batch.features, torch.tensor([0]), torch.tensor([1]), torch.arange(5))
    assert {loss.dtype, out.joints.dtype, out.vertices.dtype, *given} == {torch.float32} and len(heads) == 6
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
    for name, value in parts.items():
        torch.testing.assert_close(value, exact_parts[name], rtol=2e-2, atol=0)
    half = len(targets) // 2
    for rounded, true in zip(targets[half:], targets[:half], strict=True):
        torch.testing.assert_close(rounded, true, rtol=0, atol=0)
    loss.backward()
