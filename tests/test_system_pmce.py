"""core.systems.pmce: each equation against numpy in float64, windows and clips."""

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
from core.skeleton import JOINT_NAMES
from core.systems.pmce.coevolution import CoevolutionBlock
from core.systems.pmce.encoder import PAPER_CHANNELS, FrameTokens, ImageStream, PoseStream
from core.systems.pmce.network import Pmce, PmceConfig
from core.systems.pmce.objective import PmceObjective
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
