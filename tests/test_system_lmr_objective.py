"""core.systems.lmr.objective: losses against float64 loops, what they see and ignore, gradients, learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.body import DEFAULT_PATH, Body, load_body
from core.body_file import read_body_file
from core.models.inputs import CONFIDENCE, CROP_RAY, CROP_XY
from core.rotation import axis_angle_to_matrix
from core.systems.lmr.objective import LmrObjective, LmrWeights, parameter_loss
from tests.lmr_support import a_batch, a_net, numbers


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def test_losses_are_equations_2_to_5(body: Body):
    net, batch = a_net(body, is_wild=True), a_batch(body, 2, 3)
    inputs = batch.inputs()
    found = net(inputs, batch.features)
    weights = LmrWeights(smpl=0.7, joints3d=3.0, joints2d=0.4, shape=0.2)
    loss, parts = LmrObjective(net, body, weights)(batch, "regress")
    regressor = numbers(body.keypoint_regressor)
    smpl = joints3d = joints2d = sure = 0.0
    for s in range(2):
        for t in range(3):
            R, true_R, betas = found.rotmats[s, t], batch.rotmats[s, t], found.betas[s, t]
            squares = ((numbers(R) - numbers(true_R)) ** 2).sum()
            squares += ((0.2 * (numbers(betas) - numbers(batch.betas[s]))) ** 2).sum()
            smpl += squares**0.5 / 6
            vertices, joints = map(numbers, body.skin(R, betas, torch.zeros(3)))
            _, true_joints = map(numbers, body.skin(true_R, batch.betas[s], torch.zeros(3)))
            difference = (joints - joints[0]) - (true_joints - true_joints[0])
            joints3d += np.abs(difference).sum() / (6 * 24 * 3)
            scale, *shift = numbers(found.cameras[s, t])
            ray = numbers(inputs[s, t, 0, CROP_RAY])
            for k, point in enumerate(regressor @ vertices - joints[0]):
                confidence = float(batch.keypoints[s, t, k, 2])
                for axis in range(2):
                    x = scale * (point[axis] - ray[axis] * point[2]) + shift[axis]
                    joints2d += confidence * abs(x - float(inputs[s, t, k, 2 + axis])) / 2
                sure += confidence
    expected = {"smpl": smpl, "joints3d": joints3d, "joints2d": joints2d / sure}
    for name, value in expected.items():
        assert float(parts[name].detach()) == pytest.approx(value, rel=1e-4), name
    total = 0.7 * smpl + 3.0 * joints3d + 0.4 * joints2d / sure
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)


def test_true_parameters_lose_nothing(body: Body):
    """Of people 500 m away, whom a weak perspective shows as the pinhole does; its camera by least squares."""
    net, batch = a_net(body), a_batch(body, 2, 4, distance=500.0, focal=175_000.0)
    inputs = batch.inputs()
    betas = batch.betas[:, None].expand(-1, 4, -1)
    vertices, joints = body.skin(batch.rotmats, betas, torch.zeros(2, 4, 3))
    points = numbers(body.keypoint_regressor @ vertices - joints[..., :1, :])
    cameras = torch.zeros(2, 4, 3)
    for s in range(2):
        for t in range(4):
            ray = numbers(inputs[s, t, 0, CROP_RAY])[:2]
            plane = points[s, t, :, :2] - ray * points[s, t, :, 2:]
            system = np.zeros((50, 3))
            system[:, 0], system[::2, 1], system[1::2, 2] = plane.reshape(-1), 1, 1
            wanted = numbers(inputs[s, t, :, CROP_XY]).reshape(-1)
            cameras[s, t] = torch.from_numpy(np.linalg.lstsq(system, wanted, rcond=None)[0])
    regressed = net(inputs, batch.features)._replace(rotmats=batch.rotmats, betas=betas, cameras=cameras)
    parts = LmrObjective(net, body).losses(regressed, batch, inputs)
    assert parts["smpl"] < 1e-5 and parts["joints3d"] < 1e-6
    assert parts["joints2d"] < 3e-3


def test_unseen_keypoints_do_not_count(body: Body):
    net, batch = a_net(body), a_batch(body, 1, 3)
    inputs = batch.inputs()
    inputs[..., 4, CONFIDENCE] = 0
    moved = inputs.clone()
    moved[..., 4, CROP_XY] += 5
    objective, regressed = LmrObjective(net, body), net(inputs, batch.features)
    before, after = (objective.losses(regressed, batch, x)["joints2d"] for x in (inputs, moved))
    assert torch.equal(before, after)


def test_losses_do_not_depend_on_the_bodys_origin(body: Body):
    """Official SMPL bodies have their pelvis elsewhere than the shipped one."""
    arrays = read_body_file(DEFAULT_PATH)
    arrays["v_template"] = arrays["v_template"] + np.array([0.1, -0.2, 0.05])
    moved = Body(arrays, name="moved", gender="neutral")
    net, batch = a_net(body, is_wild=True), a_batch(body, 1, 3)
    here, there = (LmrObjective(net, b)(batch, "regress")[1] for b in (body, moved))
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, atol=0, rtol=1e-4)


def test_parameter_loss_of_a_known_case():
    R, quarter = torch.eye(3).repeat(1, 1, 24, 1, 1), axis_angle_to_matrix(torch.tensor([0.0, 0.0, torch.pi / 2]))
    turned = R.clone()
    turned[..., 5, :, :] = quarter  # a quarter turn is at distance 2 of the identity
    betas = torch.zeros(1, 1, 16)
    wrong = betas.clone()
    wrong[..., 2] = 10.0
    assert float(parameter_loss(turned, wrong, R, betas, shape_weight=0.15)) == pytest.approx(2.5)


def test_gradients_reach_every_parameter(body: Body):
    net, batch = a_net(body, layers=2), a_batch(body, 2, 16)
    objective = LmrObjective(net, body)
    objective(batch, "regress")[0].backward()
    assert [id(p) for module in objective.trained("regress") for p in module.parameters()] == [
        id(p) for p in net.parameters()
    ]
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize(
    ("name", "iterations"),
    [("pose.parts.root.out.weight", 3), ("shape.4.weight", 3), ("camera.out.weight", 1), ("features.2.weight", 2)],
)
def test_gradient_is_that_of_finite_differences(body: Body, name: str, iterations: int):
    net, batch = a_net(body, is_wild=True, iterations=iterations), a_batch(body, 1, 4)
    objective, weight = LmrObjective(net, body), net.get_parameter(name)
    direction = torch.randn_like(weight)
    objective(batch, "regress")[0].backward()
    slope = float((weight.grad * direction).sum())
    values = []
    with torch.no_grad():
        for step in (1e-3, -2e-3):
            weight += step * direction
            values.append(float(objective(batch, "regress")[0]))
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(slope, rel=0.03)


@pytest.mark.parametrize("name", ["betas", "cameras"])
def test_losses_see_shape_and_camera(body: Body, name: str):
    net, batch = a_net(body, is_wild=True), a_batch(body, 1, 4)
    inputs, objective = batch.inputs(), LmrObjective(net, body)
    with torch.no_grad():
        regressed = net(inputs, batch.features)
    value = getattr(regressed, name).requires_grad_()

    def total(values: torch.Tensor) -> torch.Tensor:
        return sum(objective.losses(regressed._replace(**{name: values}), batch, inputs).values())

    total(value).backward()
    step = 5e-3 * value.grad.sign()  # the steepest way, far above rounding
    with torch.no_grad():
        slope = float(total(value + step) - total(value - step)) / 1e-2
    assert slope == pytest.approx(float(value.grad.abs().sum()), rel=0.02)


def test_autocast_keeps_positions_and_losses_in_float32(body: Body):
    net, batch = a_net(body, is_wild=True), a_batch(body, 2, 16)
    mids = torch.arange(16)
    objective = LmrObjective(net, body)
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = objective(batch, "regress")
        inputs = batch.inputs()
        regressed = net(inputs, batch.features)
        found = net.recover(batch.inputs(), batch.features, torch.zeros_like(mids), mids)
    loss.backward()
    assert {value.dtype for value in (loss, *parts.values(), *found[:3])} == {torch.float32}
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    for name, value in objective.losses(regressed, batch, inputs).items():
        torch.testing.assert_close(parts[name], value, atol=0, rtol=1e-5)
    exact = net.kinematics(found.rotmats, found.betas)
    torch.testing.assert_close(found.joints, exact, atol=1e-6, rtol=0)
    with torch.no_grad():
        assert float(loss) == pytest.approx(float(objective(batch, "regress")[0]), rel=0.05)


def learn(body: Body, steps: int) -> list[float]:
    net, batch = a_net(body, hidden=16, feature_size=24, iterations=2).train(), a_batch(body, 4, 5)
    objective = LmrObjective(net, body)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss, _ = objective(batch, "regress")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_learns_a_small_batch_by_heart(body: Body):
    losses = learn(body, 24)
    assert losses[-1] < 0.5 * losses[0]


def test_learning_is_repeatable(body: Body):
    assert learn(body, 2) == learn(body, 2)
