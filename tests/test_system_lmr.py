"""core.systems.lmr: parts and iterations against float64 loops, windows of a clip, what a file holds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracles import local_recurrent

from core.body import Body, load_body
from core.skeleton import PARENTS
from core.systems.contract import image_features, take_windows
from core.systems.lmr.network import Lmr, LmrConfig
from core.systems.lmr.objective import LmrObjective
from core.systems.lmr.parts import JOINT_ORDER, OTHERS, PART_ORDER, PARTS, ROOT
from core.train.batch import Batch
from tests.lmr_support import FEATURES, UPRIGHT, a_batch, a_net, numbers


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


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


def test_nothing_seen_is_finite(body: Body):
    net = a_net(body, is_wild=True)
    inputs, features = torch.zeros(1, 3, 25, 15), torch.zeros(1, 3, FEATURES)
    found = net.recover(inputs, features, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert all(torch.isfinite(values).all() for values in found[:3])


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


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"stride": 17}, {"iterations": 0}])
def test_impossible_settings_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LmrConfig(**wrong)
