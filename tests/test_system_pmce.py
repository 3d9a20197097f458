"""core.systems.pmce: each equation against numpy in float64, windows and clips, gradients, both training stages."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import pmce as oracle

from core.body import load_body
from core.coarse import build_coarse
from core.models.coarse_body import coarse_body, known_coarse_body
from core.models.config import from_dict, to_dict
from core.models.inputs import CROP_XY, FULL_XY, INPUT_SIZE, LANDMARK_XYZ
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES
from core.systems.pmce.coevolution import CoevolutionBlock
from core.systems.pmce.encoder import PAPER_CHANNELS, FrameTokens, ImageStream, PoseStream
from core.systems.pmce.network import Pmce, PmceConfig
from core.systems.pmce.objective import PmceLossConfig, PmceObjective
from core.train.batch import Batch
from core.train.losses import point_loss

FEATURES, T = 6, 4
SMALL = PmceConfig(
    feature_dim=FEATURES, window=T, pose_dim=16, pose_depth=2, pose_heads=2, token_dim=4, reduced_dim=12, image_dim=8,
    gru_layers=1, dim=8, depth=2, joint_heads=4, vertex_heads=2, mlp_ratio=2.0, upsample_rank=3, residual_rank=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def coarse(body):
    return coarse_body(body, build_coarse(body, 431))


@pytest.fixture
def net(coarse) -> Pmce:
    return Pmce(SMALL, coarse).eval()


def a_batch(sequences: int, window: int, seed: int = 0) -> Batch:
    """People upright before the camera, turned and bent a little; keypoints, landmarks and features at random."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=g)

    rotmats = axis_angle_to_matrix(0.6 * (rand(sequences, window, 24, 3) - 0.5))
    rotmats[:, :, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ rotmats[:, :, 0]
    keypoints = torch.cat((rand(sequences, window, 25, 2) * 300 + 200, rand(sequences, window, 25, 1)), -1)
    keypoints[..., 2] *= keypoints[..., 2] > 0.1  # some are not seen
    return Batch(
        keypoints=keypoints,
        landmarks3d=rand(sequences, window, 25, 3) - 0.5,
        has_landmarks=(rand(sequences, 1) < 0.8).float().repeat(1, window),
        features=rand(sequences, window, FEATURES),
        size=torch.tensor([[1280.0, 720.0]]).repeat(sequences, 1),
        focal_px=torch.full((sequences,), 1175.0),
        frames=torch.arange(window).float().repeat(sequences, 1),
        rotmats=rotmats,
        betas=rand(sequences, 16) - 0.5,
    )


def shaken(module: torch.nn.Module, std: float = 0.3) -> torch.nn.Module:
    """Every parameter moved, so that none of those that start at zero hides a term."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += std * torch.randn_like(parameter)
    return module


# --- equations ---


def test_a_block_is_equations_6_to_10():
    block = shaken(CoevolutionBlock(joints=5, coarse_count=7, dim=8, heads=(4, 2), mlp_ratio=2.0, image_dim=6))
    P, coarse, f = torch.randn(2, 5, 3), torch.randn(2, 7, 3), torch.randn(2, 6)
    refined, moved = block(P, coarse, f)
    p = oracle.arrays(block)
    for i in range(2):
        points = {"pose": P[i].double().numpy(), "mesh": coarse[i].double().numpy()}
        expected = oracle.half_of_block(p, "pose", "mesh", points, f[i].double().numpy(), 4)
        np.testing.assert_allclose(refined[i].detach(), expected, rtol=1e-3, atol=1e-4)
        expected = oracle.half_of_block(p, "mesh", "pose", points, f[i].double().numpy(), 2)
        np.testing.assert_allclose(moved[i].detach(), expected, rtol=1e-3, atol=1e-4)


def a_pose_stream(**changes) -> PoseStream:
    sizes = {
        "image_size": 5, "window": 3, "dim": 8, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "token_dim": 3,
        "channels": PAPER_CHANNELS, "rest_pose": torch.randn(24, 3),
    }  # fmt: skip
    return PoseStream(**sizes | changes)


def test_the_pose_stream_alternates_over_keypoints_and_frames():
    stream = shaken(a_pose_stream(), 0.1)
    inputs, F = torch.randn(2, 3, 25, INPUT_SIZE), torch.randn(2, 3, 5)
    poses = stream(stream.read_frames(inputs, F))
    p, one, features = oracle.arrays(stream), inputs[1].double().numpy(), F[1].double().numpy()
    X = np.empty((3, 25, 8))
    for t in range(3):
        for k in range(25):
            x, y, seen, landmark, has = one[t, k, 0], one[t, k, 1], one[t, k, 4], one[t, k, 5:8], one[t, k, 8]
            X[t, k] = oracle.linear(p, "embed_keypoints", np.array([x, y, seen, *landmark, has]))
            X[t, k] += oracle.linear(p, "embed_image", features[t]) + p["position_space"][k]
    for layer in range(2):
        X = np.stack([oracle.transformer_layer(p, f"spatial.{layer}", X[t], 2) for t in range(3)])
        if layer == 0:
            X = X + p["position_time"][:, None]
        X = np.stack([oracle.transformer_layer(p, f"temporal.{layer}", X[:, k], 2) for k in range(25)], axis=1)
    frames = np.empty((3, 24, 3))
    for t in range(3):
        normed = oracle.standardised(X[t]) * p["norm.weight"] + p["norm.bias"]
        pose = oracle.linear(p, "regress", oracle.linear(p, "reduce", normed).reshape(-1))
        pose = pose + p["from_landmarks.weight"] @ np.append(one[t, :, 5:8].reshape(-1), one[t, 0, 8])
        frames[t] = pose.reshape(24, 3) - pose.reshape(24, 3)[0]
    np.testing.assert_allclose(poses.frames[1].detach(), frames, rtol=1e-3, atol=2e-4)
    middle = sum(w * frame for w, frame in zip(p["fusion"], frames))
    np.testing.assert_allclose(poses.middle[1].detach(), middle, rtol=1e-3, atol=2e-4)


def test_the_paper_s_keypoints_are_those_by_the_full_image():
    inputs, F = torch.randn(1, 3, 25, INPUT_SIZE), torch.randn(1, 3, 5)
    for channels, sees_crop in ((PAPER_CHANNELS, False), ((slice(0, INPUT_SIZE),), True)):
        stream = a_pose_stream(channels=channels)
        for part, is_seen in ((FULL_XY, True), (LANDMARK_XYZ, True), (CROP_XY, sees_crop)):
            changed = inputs.clone()
            changed[..., part] += 1
            first, second = (stream.read_frames(x, F).tokens for x in (inputs, changed))
            assert bool((first != second).any()) == is_seen


def test_a_new_pose_stream_says_the_middle_frame_s_pose():
    stream = a_pose_stream(window=4, depth=1)
    poses = stream(FrameTokens(torch.randn(2, 4, 25, 8), torch.randn(2, 4, 24, 3)))
    torch.testing.assert_close(poses.middle, poses.frames[:, 2])
    assert not poses.frames[:, :, 0].any()


@pytest.mark.parametrize("reduced", [0, 4])
def test_f_is_the_bidirectional_gru_at_the_middle_frame(reduced):
    stream = ImageStream(image_size=5, reduced=reduced, dim=6, layers=1)
    F = torch.randn(2, 5, 5)
    p, seen = oracle.arrays(stream), F[1].double().numpy()
    if reduced:
        x = oracle.linear(p, "reduce", seen)
        seen = x * np.array([[(1 + math.erf(v / math.sqrt(2))) / 2 for v in row] for row in x])
    expected = np.concatenate((oracle.gru(p, seen[:3], "l0"), oracle.gru(p, seen[:1:-1], "l0_reverse")))
    np.testing.assert_allclose(stream(stream.read_frames(F))[1].detach(), expected, rtol=1e-4, atol=1e-5)


def test_start_mesh_is_each_vertex_at_its_nearest_joint(net, coarse):
    P_0 = torch.randn(2, 24, 3)
    M_0 = net.start_mesh(P_0)
    for v in (0, 17, 230, 430):
        distances = [math.dist(joint, coarse.template[v].tolist()) for joint in coarse.joints.tolist()]
        torch.testing.assert_close(M_0[1, v], P_0[1, distances.index(min(distances))], rtol=0, atol=0)


def test_decoding_chains_the_blocks_and_lifts_by_equation_11(net):
    shaken(net, 0.05)
    P_0, f = torch.randn(2, 24, 3), torch.randn(2, SMALL.image_dim)
    P_0 = P_0 - P_0[:, :1]
    ids = torch.tensor([3, 900, 13000, 3])
    decoded = net.decode(P_0, f, ids)
    P, coarse = net.blocks[1](*net.blocks[0](P_0, P_0[:, net.nearest_joint], f), f)
    torch.testing.assert_close(decoded.pose, P - P[:, :1])
    torch.testing.assert_close(decoded.coarse, coarse)
    p = oracle.arrays(net.upsample)
    for n, v in enumerate(ids.tolist()):
        row = (p["A"] @ p["B"])[v]
        for corner, weight in zip(p["indices"][v].astype(int), p["weights"][v]):
            row[corner] += weight
        codes = np.tanh(oracle.linear(p, "mlp1", f[1].double().numpy())).reshape(3, -1)  # MLP1(f)^T is its transpose
        expected = row @ coarse[1].detach().double().numpy() + codes @ p["mlp2"][v]
        np.testing.assert_allclose(decoded.vertices[1, n].detach(), expected, rtol=1e-3, atol=1e-4)


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


# --- windows and clips ---


def a_clip(count: int, sequences: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    batch = a_batch(sequences, count)
    return batch.inputs(), batch.features


@torch.no_grad()
def test_shapes_and_rows_asked_for(net, body):
    inputs, features = a_clip(9, 2)
    sequences, mids = torch.tensor([1, 0, 1]), torch.tensor([8, 3, 0])
    out = net.recover(inputs, features, sequences, mids)
    assert out.joints.shape == (3, 24, 3) and out.vertices.shape == (3, body.vertex_count, 3)
    assert out.rotmats is None and out.betas is None
    assert not out.joints[:, 0].any()
    ids = torch.tensor([7, 13000, 7])
    some = net.recover(inputs, features, sequences, mids, ids)
    torch.testing.assert_close(some.vertices, out.vertices[:, ids])
    torch.testing.assert_close(some.joints, out.joints)


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_frames_together_are_frames_one_by_one(net, count):
    shaken(net, 0.05)
    inputs, features = a_clip(count, 2)
    sequences, mids = torch.tensor([0, 1]).repeat_interleave(count), torch.arange(count).repeat(2)
    together = net.recover(inputs, features, sequences, mids, torch.arange(50))
    assert together.vertices.isfinite().all()
    for i in range(2 * count):
        s, t = i // count, i % count
        # the same window as a clip of its own, its edges repeated by hand
        rows = [min(max(t + offset, 0), count - 1) for offset in range(-(T // 2), T - T // 2)]
        alone = net.recover(
            inputs[s : s + 1, rows], features[s : s + 1, rows], torch.tensor([0]), torch.tensor([T // 2]),
            torch.arange(50),
        )  # fmt: skip
        torch.testing.assert_close(alone.joints[0], together.joints[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.vertices[0], together.vertices[i], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_estimate_depends_on_its_window_and_nothing_else(net):
    shaken(net, 0.05)
    inputs, features = a_clip(12, 2)

    def joints(inputs, features):
        return net.recover(inputs, features, torch.tensor([1]), torch.tensor([6]), torch.arange(5)).joints

    first = joints(inputs, features)
    for frame in range(12):
        for is_feature in (False, True):
            changed = [inputs.clone(), features.clone()]
            changed[is_feature][1, frame, 0] += 1
            changed[is_feature][0] += 1
            is_same = torch.allclose(joints(*changed), first, rtol=0, atol=1e-7)
            assert is_same == (frame not in range(4, 8)), (frame, is_feature)


@torch.no_grad()
def test_a_new_network_shows_a_person_upright_and_facing_the_camera(net, coarse):
    inputs, features = a_clip(5)
    out = net.recover(inputs, features, torch.zeros(5, dtype=torch.long), torch.arange(5))
    upright = (coarse.joints - coarse.joints[0]) * torch.tensor([1.0, -1.0, -1.0])
    assert float((out.joints - upright).norm(dim=-1).max()) < 0.1
    head, left, toe = (out.joints[:, JOINT_NAMES.index(n)] for n in ("head", "left_shoulder", "left_foot"))
    ankle = out.joints[:, JOINT_NAMES.index("left_ankle")]
    assert (head[:, 1] < -0.3).all() and (left[:, 0] > 0).all() and (toe[:, 2] < ankle[:, 2]).all()
    assert float((out.vertices.amin(1) - out.joints.amin(1)).abs().max()) < 0.05  # the mesh starts at the joints
    assert out.vertices.isfinite().all()


@torch.no_grad()
def test_a_file_s_network_is_rebuilt_without_decimating(net, body):
    shaken(net, 0.05)
    state = net.state_dict()
    again = Pmce(SMALL, known_coarse_body(body, state["vertex_ids"], state["coarse_faces"])).eval()
    again.load_state_dict(state)
    inputs, features = a_clip(5)
    ours, theirs = (n.recover(inputs, features, torch.tensor([0]), torch.tensor([2])) for n in (net, again))
    torch.testing.assert_close(ours.vertices, theirs.vertices, rtol=0, atol=0)


# --- training ---


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


def test_settings_survive_a_dictionary_and_impossible_ones_are_refused(net, body):
    assert from_dict(PmceConfig, to_dict(SMALL)) == SMALL
    with pytest.raises(ValueError, match="window"):
        replace(SMALL, window=1)
    with pytest.raises(ValueError, match="depth"):
        replace(SMALL, depth=0)
    with pytest.raises(ValueError, match="image_dim"):
        ImageStream(image_size=5, reduced=0, dim=7, layers=1)
    with pytest.raises(ValueError, match="lift"):
        PmceObjective(net, body)(a_batch(1, T), "lift")
