"""core.systems.tcmr and core.systems.regressor: each equation against a float64 twin, windows, training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from core.body import DEFAULT_PATH, Body, load_body
from core.body_file import read_body_file
from core.models.coarse_body import known_coarse_body
from core.models.inputs import (
    CONFIDENCE,
    CROP_FULL,
    CROP_RAY,
    CROP_XY,
    INPUT_SIZE,
)
from core.rotation import axis_angle_to_matrix, matrix_to_rotation_6d
from core.skeleton import JOINT_NAMES, KEYPOINT_COUNT, PARENTS
from core.systems.contract import image_features
from core.systems.regressor import BodyParameters, IterativeRegressor, mean_parameters, project_weakly
from core.systems.tcmr.network import TCMRConfig, TCMRNet
from core.systems.tcmr.objective import TCMRObjective, TCMRWeights
from core.systems.tcmr.occlusion import Occlusion, hide
from core.train.augment import LIMBS
from core.train.batch import Batch

SMALL = TCMRConfig(
    feature_dim=12,
    window=6,
    static_dim=20,
    hidden=10,
    common=18,
    squeezed=8,
    regressor_hidden=24,
    dropout=0.0,
)
UPRIGHT = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
DISTANCE, FOCAL, WIDTH, HEIGHT = 4.0, 1500.0, 1280.0, 960.0


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def small_net(body: Body, seed: int = 0, **changes) -> TCMRNet:
    torch.manual_seed(seed)
    coarse = known_coarse_body(body, torch.arange(3), torch.zeros(1, 3, dtype=torch.int32))
    return TCMRNet(dataclasses.replace(SMALL, **changes), coarse)


def woken(net: TCMRNet) -> TCMRNet:
    """Evaluated, with all weights as large as a trained network's, so that every part shows in the output."""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=g))
    return net.eval()


def a_batch(body: Body, sequences: int = 4, window: int = 6, seed: int = 0) -> Batch:
    """People that turn and move a little, seen by a pinhole camera, some of their keypoints unsure."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g)

    turns = 0.25 * normal(sequences, 1, 24, 3) + 0.03 * normal(sequences, window, 24, 3)
    rotmats = axis_angle_to_matrix(turns)
    rotmats[:, :, 0] = rotmats[:, :, 0] @ UPRIGHT
    betas = 0.5 * normal(sequences, 16)
    trans = torch.tensor([0.0, 0.0, DISTANCE]) + 0.3 * normal(sequences, 1, 3)
    points = body.keypoints(rotmats, betas[:, None], trans)
    middle = torch.tensor([WIDTH, HEIGHT]) / 2
    xy = FOCAL * points[..., :2] / points[..., 2:] + middle
    confidence = torch.rand(sequences, window, KEYPOINT_COUNT, 1, generator=g)
    return Batch(
        keypoints=torch.cat((xy, confidence), -1),
        landmarks3d=points - points[..., 15:17, :].mean(-2, keepdim=True),
        has_landmarks=torch.ones(sequences, window),
        features=normal(sequences, window, SMALL.feature_dim),
        size=torch.tensor([[WIDTH, HEIGHT]]).repeat(sequences, 1),
        focal_px=torch.full((sequences,), FOCAL),
        frames=torch.arange(window).float().repeat(sequences, 1),
        rotmats=rotmats,
        betas=betas,
    )


def a_clip(body: Body, sequences: int, count: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    batch = a_batch(body, sequences, count, seed)
    return batch.inputs(), batch.features


def double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)


def layer(linear: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ double(linear.weight).T + double(linear.bias)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru_oracle(gru: torch.nn.GRU, frames: list[np.ndarray]) -> np.ndarray:
    """Cho et al. 2014 in PyTorch's form, frame by frame from zeros on."""
    W, U = (np.split(double(w), 3) for w in (gru.weight_ih_l0, gru.weight_hh_l0))
    b, c = (np.split(double(w), 3) for w in (gru.bias_ih_l0, gru.bias_hh_l0))
    h = np.zeros(gru.hidden_size)
    for x in frames:
        r = sigmoid(W[0] @ x + b[0] + U[0] @ h + c[0])
        z = sigmoid(W[1] @ x + b[1] + U[1] @ h + c[1])
        n = np.tanh(W[2] @ x + b[2] + r * (U[2] @ h + c[2]))
        h = (1 - z) * n + z * h
    return h


# --- temporal encoding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [3, 6, 7])
def test_temporal_features_follow_sections_3_1_and_3_2(body, window):
    encoder = woken(small_net(body)).encoder
    static = torch.randn(2, window, SMALL.static_dim)
    found = encoder(static)
    current = window // 2
    for b in range(2):
        f = list(double(static[b]))
        past = [f[i] for i in range(current)]
        future = [f[i] for i in range(window - 1, current, -1)]
        g_all = np.concatenate(
            (
                gru_oracle(encoder.all_forward, [*past, f[current]]),
                gru_oracle(encoder.all_backward, [*future, f[current]]),
            )
        )
        expected = (
            layer(encoder.all_to_common, np.maximum(g_all, 0)),
            layer(encoder.past_to_common, np.maximum(gru_oracle(encoder.past, past), 0)),
            layer(encoder.future_to_common, np.maximum(gru_oracle(encoder.future, future), 0)),
        )
        for one, other in zip(found, expected):
            np.testing.assert_allclose(double(one[b]), other, atol=2e-6)


def test_past_and_future_never_see_the_current_frame(body):
    encoder = woken(small_net(body)).encoder
    static = torch.randn(1, 6, SMALL.static_dim, requires_grad=True)
    reaches = []
    for output in encoder(static):
        (gradient,) = torch.autograd.grad(output.sum(), static, retain_graph=True)
        reaches.append((gradient[0].abs().sum(-1) > 0).tolist())
    assert reaches[0] == [True] * 6
    assert reaches[1] == [True] * 3 + [False] * 3
    assert reaches[2] == [False] * 4 + [True] * 2


def test_integration_follows_section_3_3(body):
    integration = woken(small_net(body)).integration
    g_all, g_past, g_future = torch.randn(3, 5, SMALL.common)
    found, attention = integration(g_all, g_past, g_future)
    for b in range(5):
        three = [double(g[b]) for g in (g_all, g_past, g_future)]
        x = np.concatenate([layer(integration.squeeze, g) for g in three])
        x = np.tanh(layer(integration.outer, np.tanh(layer(integration.inner, x))))
        scores = np.exp(layer(integration.score, x))
        a = scores / scores.sum()
        np.testing.assert_allclose(double(attention[b]), a, atol=1e-6)
        np.testing.assert_allclose(double(found[b]), sum(w * g for w, g in zip(a, three)), atol=2e-6)


@pytest.mark.parametrize("window", [5, 6])
def test_windows_lie_around_their_frames(body, window):
    net = woken(small_net(body, window=window))
    inputs, features = a_clip(body, 2, 12)
    static = net.static_features(inputs, features)
    found = net.encode(inputs, features, torch.tensor([1, 0]), torch.tensor([4, 8]))
    for i, (sequence, mid) in enumerate(((1, 4), (0, 8))):
        frames = range(mid - window // 2, mid - window // 2 + window)
        g_all, g_past, g_future = net.encoder(torch.stack([static[sequence, f] for f in frames])[None])
        integrated, attention = net.integration(g_all, g_past, g_future)
        for one, other in zip(found, (g_past, g_future, integrated, attention)):
            torch.testing.assert_close(one[i], other[0], atol=2e-6, rtol=1e-5)


def test_first_attention_is_even(body):
    net = small_net(body).eval()
    inputs, features = a_clip(body, 1, 9)
    attention = net.encode(inputs, features, torch.tensor([0]), torch.tensor([4])).attention
    torch.testing.assert_close(attention, torch.full((1, 3), 1 / 3), atol=0.02, rtol=0)


def test_static_features_are_of_the_frame_alone(body):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 2, 5)
    flat = np.concatenate((double(features[1, 3]), double(inputs[1, 3]).ravel()))
    embedding = flat[: SMALL.feature_dim]
    flat[: SMALL.feature_dim] = (embedding - embedding.mean()) / np.sqrt(embedding.var() + 1e-5)
    expected = np.maximum(layer(net.project, flat), 0)
    np.testing.assert_allclose(double(net.static_features(inputs, features)[1, 3]), expected, atol=1e-5)


def test_embedding_and_keypoints_count_alike_at_first(body):
    net = small_net(body, feature_dim=1152, static_dim=400)
    batch = a_batch(body, 8)
    features = torch.randn(8, 6, 1152)
    given = image_features(batch.inputs(), features)
    weight = net.project.weight
    from_embedding = (given[..., :1152] @ weight[:, :1152].T).std()
    from_keypoints = (given[..., 1152:] @ weight[:, 1152:].T).std()
    assert 0.5 < from_keypoints / from_embedding < 2


# --- regressor -------------------------------------------------------------------------------------------------


def test_regressor_feeds_back_what_it_said(body):
    coarse = known_coarse_body(body, torch.arange(3), torch.zeros(1, 3, dtype=torch.int32))
    start = mean_parameters(coarse, 16)
    torch.manual_seed(1)
    regressor = IterativeRegressor(7, 9, start, iterations=3, dropout=0.0)
    with torch.no_grad():
        for decoder in regressor.decoders:
            decoder.weight.normal_(std=0.2)
            decoder.bias.normal_(std=0.2)
    features = torch.randn(4, 7)
    theta = regressor(features)
    for b in range(4):
        current = [double(part).ravel() for part in start]
        for _ in range(3):
            x = np.concatenate((double(features[b]), *current))
            x = np.maximum(layer(regressor.outer, np.maximum(layer(regressor.inner, x), 0)), 0)
            current = [part + layer(decoder, x) for part, decoder in zip(current, regressor.decoders)]
        for part, expected in zip(theta, current):
            np.testing.assert_allclose(double(part[b]).ravel(), expected, atol=1e-5)


def test_dropout_is_for_training_only(body):
    net = small_net(body, dropout=0.5)
    with torch.no_grad():
        for decoder in net.regressor.decoders:
            decoder.weight.normal_(std=0.2)
    features = torch.randn(3, SMALL.common)
    one, other = (net.regressor(features).rotations6d for _ in range(2))
    assert (one - other).abs().max() > 1e-3
    net.eval()
    assert torch.equal(net.regressor(features).rotations6d, net.regressor(features).rotations6d)


def test_first_estimate_stands_upright_and_faces_the_camera(body):
    net = small_net(body).eval()
    inputs, features = a_clip(body, 1, 9)
    estimate = net.recover(inputs, features, torch.tensor([0]), torch.tensor([4]))
    expected = torch.eye(3).repeat(24, 1, 1)
    expected[0] = UPRIGHT
    torch.testing.assert_close(estimate.rotmats[0], expected, atol=0.05, rtol=0)
    place = dict(zip(JOINT_NAMES, estimate.joints[0].tolist()))
    assert place["head"][1] < -0.4 and place["left_ankle"][1] > 0.6  # y points down
    assert place["left_wrist"][0] > 0.3 > -0.3 > place["right_wrist"][0]
    assert place["left_foot"][2] < place["left_ankle"][2]  # toes towards the camera


def test_mean_camera_fills_the_crop(body):
    coarse = known_coarse_body(body, torch.arange(3), torch.zeros(1, 3, dtype=torch.int32))
    mean = mean_parameters(coarse, 16)
    joints = (coarse.joints - coarse.joints[0]) @ UPRIGHT.T
    seen = project_weakly(joints, mean.camera, torch.zeros(2))
    torch.testing.assert_close(seen[:, 1].aminmax(), torch.return_types.aminmax((-torch.ones(()), torch.ones(()))))
    assert mean.rotmats.shape == (24, 3, 3) and mean.betas.shape == (16,)


def test_projection_is_the_pinhole_of_a_body_far_away():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.4, (25, 3))
    centre = np.array([0.5, -0.3, 1.0]) * 200  # far to the side, 200 m away
    placed = points + centre
    pinhole = 3000 * placed[:, :2] / placed[:, 2:]
    crop_middle, crop_size = 3000 * np.array([0.5, -0.3]), 40.0
    expected = 2 * (pinhole - crop_middle) / crop_size
    camera = torch.tensor([2 * 3000 / 200 / crop_size, 0.0, 0.0])
    ray = torch.tensor([0.5, -0.3])
    found = project_weakly(torch.from_numpy(points).float(), camera, ray)
    np.testing.assert_allclose(double(found), expected, atol=0.01)
    straight = project_weakly(torch.from_numpy(points).float(), camera, torch.zeros(2))
    assert np.abs(double(straight) - expected).max() > 0.2  # what the ray is for


def test_projection_by_hand():
    points = torch.tensor([[0.5, -0.25, 2.0], [0.0, 0.0, 0.0]])
    found = project_weakly(points, torch.tensor([2.0, 0.1, -0.3]), torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(found, torch.tensor([[0.1, -2.8], [0.1, -0.3]]))


# --- recovery --------------------------------------------------------------------------------------------------


def test_many_frames_at_once_equal_frame_by_frame(body):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 2, 9)
    sequences = torch.tensor([0, 1, 1, 0, 1, 0])
    mids = torch.tensor([0, 8, 4, 5, 1, 8])
    together = net.recover(inputs, features, sequences, mids)
    assert together.vertices is None
    assert together.joints.shape == (6, 24, 3) and together.betas.shape == (6, 16)
    for i in range(6):
        s = sequences[i]
        alone = net.recover(inputs[s : s + 1], features[s : s + 1], torch.tensor([0]), mids[i : i + 1])
        for one, all_ in zip(alone[:3], together[:3]):
            torch.testing.assert_close(one[0], all_[i], atol=2e-6, rtol=1e-5)
    assert (together.joints[1] - together.joints[2]).norm(dim=-1).max() > 1e-3


@pytest.mark.parametrize("count", [1, 3, 9])
def test_edge_frames_are_repeated(body, count):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 1, count)
    mids = torch.arange(count)
    zeros = torch.zeros_like(mids)
    found = net.recover(inputs, features, zeros, mids)
    padded = [
        torch.cat((x[:, :1].repeat_interleave(6, 1), x, x[:, -1:].repeat_interleave(6, 1)), 1)
        for x in (inputs, features)
    ]
    expected = net.recover(*padded, zeros, mids + 6)
    torch.testing.assert_close(found.joints, expected.joints, atol=2e-6, rtol=1e-5)


def test_recover_is_the_integrated_output(body):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 2, 9)
    sequences, mids = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 7])
    theta = net.regress_all(inputs, features, sequences, mids)
    found = net.recover(inputs, features, sequences, mids)
    torch.testing.assert_close(found.rotmats, theta.rotmats[2], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(found.betas, theta.betas[2], atol=2e-6, rtol=1e-5)
    temporal = net.encode(inputs, features, sequences, mids)
    for i, feature in enumerate((temporal.past, temporal.future)):
        torch.testing.assert_close(net.regressor(feature).betas, theta.betas[i], atol=2e-6, rtol=1e-5)


def test_sequences_without_embedding(body):
    net = woken(small_net(body))
    inputs, features = a_clip(body, 1, 6)
    found = net.recover(inputs, torch.zeros_like(features), torch.tensor([0]), torch.tensor([3]))
    assert found.joints.isfinite().all()


def test_joints_stay_exact_under_autocast(body):
    net = woken(small_net(body))
    rotmats, clip = a_batch(body).rotmats[:, 0], a_clip(body, 1, 6)
    betas = torch.randn(4, 16)
    exact = net.joints(rotmats, betas)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.joints(rotmats, betas), exact)
        found = net.recover(*clip, torch.tensor([0]), torch.tensor([3]))
    assert found.joints.dtype == found.rotmats.dtype == torch.float32


def test_configurations_that_cannot_be(body):
    with pytest.raises(ValueError, match="window must be at least 3"):
        dataclasses.replace(SMALL, window=2)
    with pytest.raises(ValueError, match="iterations"):
        dataclasses.replace(SMALL, iterations=0)
    with pytest.raises(ValueError, match="shape_components is 10, the body has 16"):
        small_net(body, shape_components=10)


# --- occlusion -------------------------------------------------------------------------------------------------


def hidden_by(occlusion: Occlusion, seed: int = 0, sequences: int = 64, window: int = 8):
    """Inputs that are nowhere zero, with points that stay where they are, and what became of them."""
    g = torch.Generator().manual_seed(seed)
    inputs = torch.rand(sequences, 1, KEYPOINT_COUNT, INPUT_SIZE, generator=g).repeat(1, window, 1, 1) + 0.1
    inputs[..., CROP_XY] = torch.rand(sequences, 1, KEYPOINT_COUNT, 2, generator=g) * 2 - 1
    features = torch.rand(sequences, window, 4, generator=g) + 0.1
    found, found_features = hide(inputs, features, occlusion, g)
    return inputs, features, found, found_features, found[..., CONFIDENCE][..., 0] == 0


def test_occlusion_hides_points_and_embedding_for_a_spell():
    inputs, features, found, found_features, is_hidden = hidden_by(Occlusion(chance=1.0), sequences=600)
    assert (found[is_hidden][:, :9] == 0).all()  # x and y twice, confidence, landmark, has landmark
    assert torch.equal(found[~is_hidden], inputs[~is_hidden])
    for crop in (CROP_RAY, CROP_FULL):
        assert torch.equal(found[..., crop], inputs[..., crop])
    in_spell = is_hidden.any(-1)
    assert torch.equal(found_features, features * ~in_spell[..., None])
    starts = (in_spell[:, 1:] & ~in_spell[:, :-1]).sum(1) + in_spell[:, 0]
    assert starts.max() == 1  # one spell a window
    lengths = in_spell.sum(1)
    assert set(lengths[lengths > 0].tolist()) == set(range(1, 9))
    first, last = in_spell.float().argmax(1), 7 - in_spell.flip(1).float().argmax(1)
    assert set(first[lengths > 0].tolist()) == set(range(8)) and set(last[lengths > 0].tolist()) == set(range(8))
    torch.testing.assert_close(is_hidden, is_hidden.any(1, keepdim=True) & in_spell[..., None])  # points stood still


def test_occluded_limbs_are_whole():
    *_, is_hidden = hidden_by(Occlusion(chance=1.0, limb=1.0))
    found = {tuple(row.nonzero()[:, 0].tolist()) for row in is_hidden.any(1)}
    assert found == {tuple(sorted(limb)) for limb in LIMBS}


def test_occluded_boxes_have_a_size():
    inputs, *_, is_hidden = hidden_by(Occlusion(chance=1.0, limb=0.0, smallest_box=0.5, largest_box=0.8))
    counts = is_hidden.any(1).sum(1)
    assert counts.float().mean() > 1
    for xy, hidden in zip(inputs[:, 0, :, CROP_XY], is_hidden.any(1)):
        if hidden.any():
            low, high = xy[hidden].amin(0), xy[hidden].amax(0)
            assert (high - low <= 0.8).all()
            inside = ((xy >= low) & (xy <= high)).all(-1)
            assert torch.equal(inside & hidden, inside)


def test_occlusion_by_its_shares():
    for chance in (0.0, 0.5):
        *_, is_hidden = hidden_by(Occlusion(chance=chance, limb=1.0), sequences=2000)
        assert abs(is_hidden.flatten(1).any(1).float().mean() - chance) < 0.05
    *_, is_hidden = hidden_by(Occlusion(chance=1.0, limb=1.0, longest=0.5), sequences=300)
    assert is_hidden.any(-1).sum(1).max() == 4
    _, features, _, found_features, _ = hidden_by(Occlusion(chance=1.0, embedding=0.0))
    assert torch.equal(features, found_features)


# --- objective -------------------------------------------------------------------------------------------------


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
