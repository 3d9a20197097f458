"""core.systems.tcmr.objective: the loss against a float64 twin, what it ignores, gradients, learning."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from core.body import DEFAULT_PATH, Body, load_body
from core.body_file import read_body_file
from core.models.inputs import CONFIDENCE
from core.rotation import axis_angle_to_matrix, matrix_to_rotation_6d
from core.skeleton import PARENTS
from core.systems.regressor import BodyParameters
from core.systems.tcmr.objective import TCMRObjective, TCMRWeights
from core.systems.tcmr.occlusion import Occlusion
from tests.tcmr_support import HEIGHT, WIDTH, a_batch, double, small_net


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def fixed_theta(count: int) -> BodyParameters:
    g = torch.Generator().manual_seed(11)
    turns = 0.4 * torch.randn(3, count, 24, 3, generator=g)
    camera = torch.randn(3, count, 3, generator=g)
    return BodyParameters(
        matrix_to_rotation_6d(axis_angle_to_matrix(turns)), torch.randn(3, count, 16, generator=g), camera
    )


def rest_oracle(body: Body, betas: np.ndarray) -> np.ndarray:
    return double(body.joint_template) + np.einsum("jds,s->jd", double(body.joint_shapedirs), betas)


def pose_oracle(rest: np.ndarray, rotmats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints from the pelvis and global rotations, joint by joint."""
    places, turned = np.zeros((24, 3)), np.zeros((24, 3, 3))
    turned[0] = rotmats[0]
    for j in range(1, 24):
        parent = PARENTS[j]
        places[j] = places[parent] + turned[parent] @ (rest[j] - rest[parent])
        turned[j] = turned[parent] @ rotmats[j]
    return places, turned


def keypoint_oracle(body: Body, rotmats: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """keypoint_regressor @ skinned vertices, from the pelvis."""
    vertices, joints = body.double().skin(*(torch.from_numpy(x) for x in (rotmats, betas, np.zeros(3))))
    points = body.keypoint_regressor @ vertices - joints[0]
    body.float()
    return points.numpy()


@pytest.mark.parametrize("forecast", [1.0, 0.25, 0.0])
def test_loss_follows_section_3_4(monkeypatch, forecast):
    arrays = read_body_file(DEFAULT_PATH)
    arrays["v_template"] = arrays["v_template"] + np.array([0.1, -0.2, 0.3])  # a body whose pelvis is not the origin
    body = Body(arrays, name="displaced", gender="neutral")
    net = small_net(body).eval()
    batch = a_batch(body, 3)
    theta = fixed_theta(3)
    monkeypatch.setattr(net, "regress_all", lambda *_: theta)
    weights = TCMRWeights(joint=2.0, projection=3.0, rotation=5.0, shape=7.0, forecast=forecast)
    objective = TCMRObjective(net, body, weights=weights)
    loss, parts = objective(batch, "regress")
    with torch.autocast("cpu", torch.bfloat16):
        assert objective(batch, "regress")[0] == loss

    seen = double(batch.inputs()[:, 3])
    expected = dict.fromkeys(("joint", "projection", "rotation", "shape"), 0.0)
    share = np.array([forecast, forecast, 1.0]) / (1 + 2 * forecast)
    confidence = seen[:, :, 4]
    for o in range(3):
        for s in range(3):
            rotmats, betas = double(theta.rotmats[o, s]), double(theta.betas[o, s])
            true_rotmats, true_betas = double(batch.rotmats[s, 3]), double(batch.betas[s])
            joints, _ = pose_oracle(rest_oracle(body, betas), rotmats)
            true_joints, _ = pose_oracle(rest_oracle(body, true_betas), true_rotmats)
            points = keypoint_oracle(body, rotmats, betas)
            scale, tx, ty = double(theta.camera[o, s])
            rx, ry = seen[s, 0, 9], seen[s, 0, 10]
            x = scale * (points[:, 0] - rx * points[:, 2]) + tx - seen[s, :, 2]
            y = scale * (points[:, 1] - ry * points[:, 2]) + ty - seen[s, :, 3]
            expected["joint"] += share[o] * np.mean((joints - true_joints) ** 2) / 3
            expected["projection"] += share[o] * np.sum(confidence[s] * (x**2 + y**2) / 2) / confidence.sum()
            expected["rotation"] += share[o] * np.mean((rotmats - true_rotmats) ** 2) / 3
            expected["shape"] += share[o] * np.mean((betas - true_betas) ** 2) / 3
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name].item(), value, rtol=1e-4, err_msg=name)
    total = 2 * expected["joint"] + 3 * expected["projection"] + 5 * expected["rotation"] + 7 * expected["shape"]
    np.testing.assert_allclose(loss.item(), total, rtol=1e-4)


def test_truth_seen_from_afar_costs_nothing(body, monkeypatch):
    batch = a_batch(body, 2)
    far = body.keypoints(batch.rotmats, batch.betas[:, None], torch.tensor([60.0, -40.0, 300.0]))
    xy = 60000 * far[..., :2] / far[..., 2:] + torch.tensor([WIDTH, HEIGHT]) / 2
    keypoints = torch.cat((xy, torch.ones_like(xy[..., :1])), -1)
    batch = dataclasses.replace(batch, keypoints=keypoints, focal_px=torch.full((2,), 60000.0))
    size = (xy[:, 3].amax(1) - xy[:, 3].amin(1)).amax(-1)
    middle = (xy[:, 3].amax(1) + xy[:, 3].amin(1)) / 2
    pelvis = torch.tensor([60.0, -40.0, 300.0]) + body.rest_joints(batch.betas)[:, 0]
    shift = 60000 * pelvis[:, :2] / pelvis[:, 2:] + torch.tensor([WIDTH, HEIGHT]) / 2 - middle
    camera = torch.cat((2 * 60000 / 300 / size[:, None], 2 * shift / size[:, None]), -1)
    theta = BodyParameters(matrix_to_rotation_6d(batch.rotmats[:, 3]), batch.betas, camera)
    net = small_net(body).eval()
    monkeypatch.setattr(net, "regress_all", lambda *_: BodyParameters(*(p.expand(3, *p.shape) for p in theta)))
    _, parts = TCMRObjective(net, body)(batch, "regress")
    assert parts["projection"] < 1e-4
    assert max(parts[name] for name in ("joint", "rotation", "shape")) < 1e-10


def test_unseen_points_do_not_count(body):
    net = small_net(body).eval()
    batch = a_batch(body)
    keypoints = batch.keypoints.clone()
    keypoints[..., 7, 2] = 0
    moved = keypoints.clone()
    moved[..., 7, :2] += 500
    objective = TCMRObjective(net, body)
    losses = [objective(dataclasses.replace(batch, keypoints=k), "regress")[0] for k in (keypoints, moved)]
    assert losses[0] == losses[1]
    keypoints[..., 2] = 0  # nobody seen at all
    loss, parts = objective(dataclasses.replace(batch, keypoints=keypoints), "regress")
    assert loss.isfinite() and parts["projection"] == 0


def test_occlusion_is_for_training_and_hides_no_target(body, monkeypatch):
    net = small_net(body)
    batch = a_batch(body)
    objective = TCMRObjective(net, body, occlusion=Occlusion(chance=1.0, limb=1.0))
    given, theta = [], fixed_theta(4)

    def record(inputs, features, sequences, mids):
        given.append((inputs, features))
        assert sequences.tolist() == [0, 1, 2, 3] and mids.tolist() == [3, 3, 3, 3]
        return theta

    monkeypatch.setattr(net, "regress_all", record)
    net.train()
    in_training, _ = objective(batch, "regress")
    net.eval()
    judged, _ = objective(batch, "regress")
    assert torch.equal(given[1][0], batch.inputs()) and torch.equal(given[1][1], batch.features)
    assert (given[0][0][..., CONFIDENCE] == 0).flatten(1).any(1).all()
    assert (given[0][1] == 0).all(-1).any(1).all()
    assert in_training == judged


def test_gradients_reach_every_parameter(body):
    net = small_net(body)
    objective, batch = TCMRObjective(net, body), a_batch(body)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = objective(batch, "regress")
    assert loss.dtype == torch.float32 and all(part.dtype == torch.float32 for part in parts.values())
    loss.backward()
    (trained,) = objective.trained("regress")
    assert trained is net
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_few_steps_fit_a_batch_and_the_same_ones_each_time(body):
    batch = a_batch(body)

    def train(steps: int) -> list[float]:
        net = small_net(body, static_dim=48, hidden=32, common=48, regressor_hidden=64)
        objective = TCMRObjective(net, body, occlusion=Occlusion(chance=0.3))
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        torch.manual_seed(4)
        losses = []
        for _ in range(steps):
            loss, _ = objective(batch, "regress")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    losses = train(50)
    assert np.mean(losses[-5:]) < 0.3 * losses[0]
    assert losses[:5] == train(5)


def test_what_an_objective_refuses(body):
    objective = TCMRObjective(small_net(body), body)
    assert objective.STAGES == ("regress",)
    with pytest.raises(ValueError, match="no stage 'mesh'"):
        objective(a_batch(body), "mesh")
    with pytest.raises(ValueError, match="5 frames"):
        objective(a_batch(body, window=5), "regress")
