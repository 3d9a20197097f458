"""core.systems.lmr: parts, iterations and losses against float64 loops, windows of a clip, gradients, learning."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracles import local_recurrent

from core.body import DEFAULT_PATH, Body, load_body
from core.body_file import read_body_file
from core.models.coarse_body import known_coarse_body
from core.models.inputs import CONFIDENCE, CROP_RAY, CROP_XY
from core.rotation import axis_angle_to_matrix
from core.skeleton import PARENTS
from core.systems.contract import image_features, take_windows
from core.systems.lmr.network import Lmr, LmrConfig
from core.systems.lmr.objective import LmrObjective, LmrWeights, parameter_loss
from core.systems.lmr.parts import JOINT_ORDER, OTHERS, PART_ORDER, PARTS, ROOT
from core.train.batch import Batch

FEATURES = 6
SMALL = {"feature_dim": FEATURES, "feature_size": 12, "hidden": 10, "layers": 1, "shape_hidden": 8}
UPRIGHT = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def a_net(body: Body, *, is_wild: bool = False, **changes) -> Lmr:
    """Small; is_wild: its last layers are as large as the others, so that what they read shows in what they say."""
    torch.manual_seed(3)
    empty = torch.zeros(0, 3, dtype=torch.int32)
    net = Lmr(LmrConfig(**(SMALL | changes)), known_coarse_body(body, torch.zeros(0, dtype=torch.int64), empty))
    if is_wild:
        for layer in (net.shape[-1], net.camera.out, *(part.out for part in net.pose.parts.values())):
            torch.nn.init.normal_(layer.weight, std=0.3)
            torch.nn.init.normal_(layer.bias, std=0.1)
    return net.eval()


def a_batch(
    body: Body, sequences: int, window: int, *, seed: int = 0, distance: float = 4.0, focal: float = 1400
) -> Batch:
    """People who stand about upright, off the picture's middle, and move smoothly; keypoints by a pinhole camera."""
    g = torch.Generator().manual_seed(seed)
    bend = 0.25 * torch.randn(sequences, 1, 24, 3, generator=g)
    sway = 0.25 * torch.randn(sequences, 1, 24, 3, generator=g)
    phase = torch.linspace(0, 2, window).sin()[None, :, None, None]
    rotmats = axis_angle_to_matrix(bend + sway * phase)
    rotmats[:, :, 0] = UPRIGHT @ rotmats[:, :, 0]
    betas = 0.5 * torch.randn(sequences, 16, generator=g)
    trans = torch.tensor([0.3, 0.1, 1.0]) * distance
    points = body.keypoints(rotmats, betas[:, None].expand(-1, window, -1), trans.expand(sequences, window, 3))
    xy = focal * points[..., :2] / points[..., 2:] + torch.tensor([640.0, 360.0])
    confidence = 0.3 + 0.7 * torch.rand(sequences, window, 25, 1, generator=g)
    return Batch(
        keypoints=torch.cat((xy, confidence), -1),
        landmarks3d=points - points[..., 15:17, :].mean(-2, keepdim=True),
        has_landmarks=torch.ones(sequences, window),
        features=torch.randn(sequences, window, FEATURES, generator=g),
        size=torch.tensor([[1280.0, 720.0]]).repeat(sequences, 1),
        focal_px=torch.full((sequences,), focal),
        frames=torch.arange(window).float().repeat(sequences, 1),
        rotmats=rotmats,
        betas=betas,
    )


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def oracle_model(model) -> tuple:
    layers = []
    for layer in range(model.gru.num_layers):
        suffixes = [f"_l{layer}"] + ([f"_l{layer}_reverse"] if model.gru.bidirectional else [])
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        layers.append([{n: numbers(getattr(model.gru, n + suffix)) for n in names} for suffix in suffixes])
    return layers, numbers(model.out.weight), numbers(model.out.bias)


def test_parts_are_the_papers():
    assert list(PARTS.items()) == list(local_recurrent.PARTS)
    assert [len(joints) for joints in PARTS.values()] == [4, 2, 5, 5, 4, 4]
    assert sorted(PART_ORDER) == list(range(24))
    assert [PART_ORDER[JOINT_ORDER[joint]] for joint in range(24)] == list(range(24))
    assert ROOT == "root" and len(OTHERS) == 5
    for joints in PARTS.values():  # a chain: each joint hangs on the one before it
        assert all(PARENTS[joint] == before for before, joint in zip(joints, joints[1:]))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("layers", "iterations"), [(1, 3), (2, 1)])
def test_iterations_are_section_3_2(body: Body, bidirectional: bool, layers: int, iterations: int):
    net = a_net(body, is_wild=True, bidirectional=bidirectional, layers=layers, iterations=iterations)
    net.double()
    Phi = torch.randn(2, 7, 12, dtype=torch.float64)
    found = net.regress(Phi)
    models = {part: oracle_model(net.pose.parts[part]) for part in PARTS} | {"camera": oracle_model(net.camera)}
    shape = [(numbers(layer.weight), numbers(layer.bias)) for layer in net.shape[::2]]
    start = np.tile([1.0, 0, 0, 0, 1, 0], (24, 1))
    start[0] = [1, 0, 0, 0, -1, 0]
    for i in range(2):
        rotations, betas, cameras = local_recurrent.regress(
            numbers(Phi[i]), models, shape, start, np.zeros(16), numbers(net.camera_init), iterations
        )
        np.testing.assert_allclose(numbers(found.rotmats[i]), rotations, atol=1e-9)
        np.testing.assert_allclose(numbers(found.betas[i]), betas, atol=1e-9)
        np.testing.assert_allclose(numbers(found.cameras[i]), cameras, atol=1e-9)


def test_frame_features_are_of_each_frame_alone(body: Body):
    net, batch = a_net(body), a_batch(body, 2, 5)
    inputs = batch.inputs()
    Phi = net.frame_features(inputs, batch.features)
    x = numbers(image_features(inputs[1, 3], batch.features[1, 3]))
    for layer in (net.features[0], net.features[2]):
        x = numbers(layer.weight) @ x + numbers(layer.bias)
        x = np.array([v * 0.5 * (1 + torch.erf(torch.tensor(v / 2**0.5)).item()) for v in x])
    np.testing.assert_allclose(numbers(Phi[1, 3]), x, atol=1e-5)


def test_direction_decides_what_a_frame_knows(body: Body):
    Phi = torch.randn(1, 8, 12)
    changed = Phi.clone()
    changed[:, 5] += 1
    for bidirectional in (False, True):
        net = a_net(body, is_wild=True, bidirectional=bidirectional)
        moved = (net.regress(Phi).rotmats - net.regress(changed).rotmats).abs().amax((0, 2, 3, 4)) > 1e-7
        assert moved.tolist() == ([True] * 8 if bidirectional else [False] * 5 + [True] * 3)


def test_first_estimates_are_someone_upright_facing_the_camera(body: Body):
    net, batch = a_net(body), a_batch(body, 3, 16)
    inputs = batch.inputs()
    found = net(inputs, batch.features)
    expected = torch.eye(3).repeat(24, 1, 1)
    expected[0] = UPRIGHT
    assert (found.rotmats - expected).abs().max() < 0.1
    joints = net.kinematics(found.rotmats[0], found.betas[0])
    head, left_foot = joints[:, 15], joints[:, 10]
    assert (head[:, 1] < -0.4).all() and (left_foot[:, 1] > 0.7).all()  # y points down
    assert (joints[:, 16, 0] > joints[:, 17, 0]).all()  # the left shoulder is on the picture's right
    assert (left_foot[:, 2] < joints[:, 7, 2]).all()  # toes towards the camera
    scale, _, shift = found.cameras[0].unbind(-1)
    top, bottom = scale * head[:, 1] + shift, scale * left_foot[:, 1] + shift
    assert ((top - -1).abs() < 0.1).all() and ((bottom - 1).abs() < 0.1).all()  # fills the crop


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


def window_by_hand(net: Lmr, batch: Batch, sequence: int, frame: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations and shape of a frame: its run's window, built frame by frame."""
    window, stride, count = net.config.window, net.config.stride, batch.frames.shape[1]
    before = window // 2 - stride // 2
    first = frame // stride * stride - before
    frames = [min(max(t, 0), count - 1) for t in range(first, first + window)]
    found = net(batch.inputs()[sequence : sequence + 1, frames], batch.features[sequence : sequence + 1, frames])
    return found.rotmats[0, frame - first], found.betas[0, frame - first]


@pytest.mark.parametrize("count", [1, 5, 16, 37])
@pytest.mark.parametrize("stride", [1, 3, 8, 16])
@torch.no_grad()
def test_recover_reads_each_frame_from_its_window(body: Body, count: int, stride: int):
    net, batch = a_net(body, is_wild=True, stride=stride), a_batch(body, 2, count)
    frames = sorted({0, count // 2, count - 1})
    sequences = torch.tensor([s for s in (1, 0) for _ in frames])
    found = net.recover(batch.inputs(), batch.features, sequences, torch.tensor(frames * 2))
    for row, (sequence, frame) in enumerate(zip(sequences.tolist(), frames * 2)):
        rotmats, betas = window_by_hand(net, batch, sequence, frame)
        torch.testing.assert_close(found.rotmats[row], rotmats, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.betas[row], betas, atol=1e-5, rtol=0)
        _, joints = body.skin(rotmats, betas, torch.zeros(3))
        torch.testing.assert_close(found.joints[row], joints - joints[:1], atol=1e-5, rtol=0)
    assert found.vertices is None


@torch.no_grad()
def test_stride_1_gives_the_middle_of_every_frames_own_window(body: Body):
    net, batch = a_net(body, is_wild=True, stride=1), a_batch(body, 2, 9)
    inputs, sequences, mids = batch.inputs(), torch.tensor([0, 1, 1]), torch.tensor([0, 8, 4])
    windows = net(*(take_windows(values, sequences, mids, 16) for values in (inputs, batch.features)))
    found = net.recover(inputs, batch.features, sequences, mids)
    torch.testing.assert_close(found.rotmats, windows.rotmats[:, 8], atol=1e-5, rtol=0)


@torch.no_grad()
def test_recover_of_many_frames_equals_frame_by_frame(body: Body):
    net, batch = a_net(body, is_wild=True), a_batch(body, 3, 29)
    inputs = batch.inputs()
    sequences, mids = torch.arange(3).repeat_interleave(29), torch.arange(29).repeat(3)
    mixed = torch.randperm(87)[:60]
    sequences, mids = (
        torch.cat((sequences[mixed], torch.tensor([2, 2]))),
        torch.cat((mids[mixed], torch.tensor([7, 7]))),
    )
    together = net.recover(inputs, batch.features, sequences, mids)
    for row in range(0, 62, 5):
        one = net.recover(inputs, batch.features, sequences[row : row + 1], mids[row : row + 1])
        for many, single in zip(together[:3], one[:3]):
            torch.testing.assert_close(many[row], single[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_neighbours_share_windows_and_features(body: Body, monkeypatch: pytest.MonkeyPatch):
    net, batch = a_net(body), a_batch(body, 1, 64)
    regress, project, seen = net.regress, net.frame_features, []
    monkeypatch.setattr(net, "regress", lambda Phi: seen.append(tuple(Phi.shape[:2])) or regress(Phi))
    monkeypatch.setattr(net, "frame_features", lambda x, f: seen.append(len(x)) or project(x, f))
    for frames in (range(16, 32), range(20, 21)):
        mids = torch.tensor(list(frames))
        net.recover(batch.inputs(), batch.features, torch.zeros_like(mids), mids)
    assert seen == [24, (2, 16), 16, (1, 16)]  # 16 frames: two windows, of frames 12 to 27 and 20 to 35


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
    step = 1e-3 * value.grad.sign()  # the steepest way, far above rounding
    with torch.no_grad():
        slope = float(total(value + step) - total(value - step)) / 2e-3
    assert slope == pytest.approx(float(value.grad.abs().sum()), rel=0.02)


def test_nothing_seen_is_finite(body: Body):
    net = a_net(body, is_wild=True)
    inputs, features = torch.zeros(1, 3, 25, 15), torch.zeros(1, 3, FEATURES)
    found = net.recover(inputs, features, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert all(torch.isfinite(values).all() for values in found[:3])


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


def test_residuals_keep_their_digits_under_autocast(body: Body):
    net, states, hidden = a_net(body, is_wild=True), torch.randn(2, 20), torch.randn(2, 8)
    for layer, x in ((net.camera.out, states), (net.shape[-1], hidden)):
        with torch.autocast("cpu", torch.bfloat16):
            found = layer(x.bfloat16())
        exact = x.bfloat16().double() @ layer.weight.double().T + layer.bias.double()
        torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=0)


def test_a_body_of_ten_shape_coefficients(body: Body):
    net, batch = a_net(body, is_wild=True, shape_components=10), a_batch(body, 2, 4)
    found = net.recover(batch.inputs(), batch.features, torch.tensor([1]), torch.tensor([2]))
    assert found.betas.shape == (1, 10)
    _, joints = body.skin(found.rotmats, found.betas, torch.zeros(1, 3))
    torch.testing.assert_close(found.joints, joints - joints[:, :1], atol=1e-5, rtol=0)
    assert torch.isfinite(LmrObjective(net, body)(batch, "regress")[0])


def test_file_holds_what_is_learned_and_no_more(body: Body):
    net = a_net(body, is_wild=True)
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}
    other = a_net(body)
    other.load_state_dict(copy.deepcopy(net.state_dict()), strict=True)
    Phi = torch.randn(1, 4, 12)
    assert torch.equal(net.regress(Phi).rotmats, other.regress(Phi).rotmats)


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


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"stride": 17}, {"iterations": 0}])
def test_impossible_settings_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LmrConfig(**wrong)
