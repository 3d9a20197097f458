"""core.systems.posture: the forward process, the reverse process, what the stages minimise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from core.body import Body, load_body
from core.coarse import build_coarse
from core.models.coarse_body import coarse_body
from core.models.config import from_dict, to_dict
from core.models.hyperbolic import CoarseBody
from core.rotation import axis_angle_to_matrix
from core.skeleton import PARENTS
from core.systems.posture import fits
from core.systems.posture.labels import FACING_CAMERA, ForwardProcess
from core.systems.posture.network import Posture, PostureConfig
from core.systems.posture.objective import PostureLoss, PostureObjective
from core.train.batch import Batch
from tests.smpl_like import smpl_like

SMALL = PostureConfig(
    feature_dim=20, steps=4, root_steps=4, points=30, mesh2d_dim=32, mesh2d_depth=1, embed_dim=16, dim=24, layers=2,
    heads=2, patches=20, frame_dim=12, upsample_rank=2, residual_rank=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def coarse(body) -> CoarseBody:
    return coarse_body(body, build_coarse(body, 431))


@pytest.fixture(scope="module")
def with_correctives(tmp_path_factory) -> Body:
    path = tmp_path_factory.mktemp("body") / "SMPL_NEUTRAL.npz"
    np.savez(path, **smpl_like(3, pose_correctives=True))
    return load_body(path)


def a_net(coarse: CoarseBody, **changes) -> Posture:
    torch.manual_seed(3)
    return Posture(replace(SMALL, **changes), coarse)


def lively(net: Posture) -> Posture:
    """A network that no longer stands still: its last layers count."""
    for head in (net.decoder.head2, net.mesh2d.head):
        torch.nn.init.normal_(head.weight, std=0.1)
    torch.nn.init.normal_(net.upsample.mlp2, std=0.01)
    return net


def a_batch(body: Body, sequences: int, window: int, *, seed: int = 0, turn: float = 0.4) -> Batch:
    """People about upright, their keypoints by perspective from 4 m away, with features that tell nothing."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=g)

    rotmats = axis_angle_to_matrix(turn * 2 * (rand(sequences, window, 24, 3) - 0.5))
    rotmats[:, :, 0] = torch.diag(torch.tensor(FACING_CAMERA)) @ rotmats[:, :, 0]
    betas = 2 * rand(sequences, 16) - 1
    points = body.keypoints(rotmats, betas[:, None], torch.tensor([0.3, 0.2, 4.0]))
    pixels = 1000 * points[..., :2] / points[..., 2:] + torch.tensor([640.0, 360.0])
    return Batch(
        keypoints=torch.cat((pixels, 0.3 + 0.7 * rand(sequences, window, 25, 1)), -1),
        landmarks3d=points - points[..., 15:17, :].mean(-2, keepdim=True),
        has_landmarks=torch.ones(sequences, window),
        features=rand(sequences, window, 20),
        size=torch.tensor([[1280.0, 720.0]]).repeat(sequences, 1),
        focal_px=torch.full((sequences,), 1000.0),
        frames=torch.arange(window).float().repeat(sequences, 1),
        rotmats=rotmats,
        betas=betas,
    )


def oracle_label(body: Body, rotmats: np.ndarray, betas: np.ndarray, left: float, root_left: float, ids: np.ndarray):
    """One M_k: joints by scipy's Slerp from the T-pose, offsets of the target scaled by `left` = 1 - k/T, then
    skinning by homogeneous matrices in float64."""
    rest = np.tile(np.eye(3), (24, 1, 1))
    rest[0] = np.diag([1.0, -1.0, -1.0])
    turns = np.stack(
        [
            Slerp([0, 1], Rotation.from_matrix([rest[j], rotmats[j]]))(root_left if j == 0 else left).as_matrix()
            for j in range(24)
        ]
    )
    template, directions = body.v_template.double().numpy(), body.shapedirs.double().numpy()[..., : len(betas)]
    shaped = template + left * directions @ betas
    joints, shaped = body.J_regressor.double().numpy() @ shaped, shaped[ids]
    if body.posedirs is not None:
        shaped = shaped + left * body.posedirs[ids].double().numpy() @ (rotmats[1:] - np.eye(3)).ravel()
    chain = []
    for j, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = turns[j]
        local[:3, 3] = joints[j] - (joints[parent] if parent >= 0 else 0)
        chain.append(local if parent < 0 else chain[parent] @ local)
    pelvis = chain[0][:3, 3]
    weights = body.weights.double().numpy()
    points = []
    for i, v in enumerate(ids):
        blend = sum(
            weights[v, j] * chain[j] @ np.block([[np.eye(3), -joints[j][:, None]], [0, 0, 0, 1]]) for j in range(24)
        )
        points.append((blend @ np.append(shaped[i], 1))[:3] - pelvis)
    return np.array(points)


@pytest.mark.parametrize("which", ["body", "with_correctives"])
@pytest.mark.parametrize("root_steps", [5, 2])
def test_labels_are_equations_2_to_4(which, root_steps, request):
    body = request.getfixturevalue(which)
    rng = np.random.default_rng(1)
    rotmats = Rotation.from_rotvec(0.7 * rng.normal(size=(72, 3))).as_matrix().reshape(3, 24, 3, 3)
    rotmats[:, 0] = np.diag(FACING_CAMERA) @ rotmats[:, 0]
    betas, ids = rng.normal(size=(3, 10)), rng.integers(0, body.vertex_count, 6)
    process = ForwardProcess(body, steps=5, root_steps=root_steps)
    for k in range(6):
        found = process.meshes(
            torch.tensor(rotmats).float(), torch.tensor(betas).float(), torch.full((3,), k), torch.tensor(ids)
        )
        for i in range(3):
            wanted = oracle_label(body, rotmats[i], betas[i], 1 - k / 5, min(1, (5 - k) / root_steps), ids)
            np.testing.assert_allclose(found[i].numpy(), wanted, atol=2e-5)


def test_labels_end_at_the_target_and_at_the_start_mesh(body, coarse):
    net, batch = a_net(coarse), a_batch(body, 3, 1, turn=1.0)
    process = ForwardProcess(body, steps=4, root_steps=4)
    rotmats, betas, k = batch.rotmats[:, 0], batch.betas, torch.zeros(3)
    vertices, joints = body.skin(rotmats, betas, torch.zeros(3, 3), vertex_ids=net.vertex_ids)
    torch.testing.assert_close(
        process.meshes(rotmats, betas, k, net.vertex_ids), vertices - joints[:, :1], atol=1e-5, rtol=0
    )
    ends = process.meshes(rotmats, betas, k + 4, net.vertex_ids)
    torch.testing.assert_close(ends, net.start.expand_as(ends), atol=1e-5, rtol=0)


def test_start_mesh_stands_upright_and_faces_the_camera(body, coarse):
    start = a_net(coarse).start
    assert start[:, 1].min() < -0.5 and start[:, 1].max() > 0.8  # y is down: the head is up, the feet below
    nose = int(body.keypoint_regressor[0].argmax())
    highest = torch.cdist(body.v_template[coarse.vertex_ids], body.v_template[nose][None])[:, 0].argmin()
    assert start[highest, 2] < -0.03  # towards the camera
    moved = a_net(coarse._replace(template=coarse.template + 1, joints=coarse.joints + 1)).start
    torch.testing.assert_close(moved, start, atol=1e-5, rtol=0)  # wherever the body has its pelvis


def test_fitted_rows_are_the_least_squares_that_sum_to_one():
    rng = np.random.default_rng(0)
    sources, targets = rng.normal(size=(9, 7, 3)), rng.normal(size=(9, 4, 3))
    found = fits.coefficients(torch.tensor(sources), torch.tensor(targets)).numpy()
    for q in range(4):
        squared = ((targets[0, q] - sources[0]) ** 2).sum(-1)
        # the last coefficient is 1 minus the others; ordinary least squares for those
        to_all = np.concatenate((np.eye(6), -np.ones((1, 6))))
        rows = np.concatenate(
            (sources.transpose(0, 2, 1).reshape(-1, 7), np.diag(np.sqrt(9 * fits.LOCALITY * squared)))
        )
        right = np.concatenate((targets[:, q].reshape(-1), np.zeros(7)))
        free = np.linalg.lstsq(rows @ to_all, right - rows[:, 6], rcond=None)[0]
        np.testing.assert_allclose(found[q], np.append(free, 1 - free.sum()), atol=1e-5)


def test_examples_are_skinned_as_the_body_is_and_joints_follow_from_them(body, coarse):
    batch = a_batch(body, 6, 1, turn=0.6)
    nowhere = torch.zeros(6, 3)
    vertices, joints = body.skin(batch.rotmats[:, 0], batch.betas, nowhere, vertex_ids=coarse.vertex_ids)
    vertices, joints = vertices - joints[:, :1], joints - joints[:, :1]
    found = fits.skin(coarse, batch.rotmats[:, 0], batch.betas)
    torch.testing.assert_close(found[0], vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], joints, atol=1e-5, rtol=0)
    error = (a_net(coarse).joints_of(vertices) - joints).norm(dim=-1)
    assert error.mean() < 0.002 and error.max() < 0.015


def test_keypoints_stand_on_their_joints():
    joints = torch.arange(24.0)[None, :, None].expand(1, 24, 3)
    picked = fits.keypoint_stand_ins(joints)[0, :, 0].long().tolist()
    assert picked == [15, 15, 15, 16, 17, 18, 19, 20, 21, *[22, 23] * 3, 1, 2, 4, 5, 7, 8, 7, 8, 10, 11]


@pytest.mark.parametrize("tell_frame", [False, True])
def test_reverse_process_adds_up_steps_from_the_start_mesh(body, coarse, tell_frame):
    net, batch = lively(a_net(coarse, tell_frame=tell_frame)), a_batch(body, 5, 1)
    with torch.no_grad():
        condition = net.read(batch.inputs()[:, 0], batch.features[:, 0])
        until = torch.tensor([0, 3, 4, 1, 2])
        found, whole = net.descend(condition, until), net.descend(condition)
        for i in range(5):
            mesh = net.start[None]
            own = type(condition)(*(value[i : i + 1] for value in condition))
            for k in range(4, int(until[i]), -1):
                mesh = mesh + net.step(mesh, own, torch.tensor([k]))
            torch.testing.assert_close(found[i], mesh[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2], net.start)
    torch.testing.assert_close(found[0], whole[0], atol=1e-5, rtol=0)
    assert (whole - net.start).abs().max() > 0.01
    f = (condition.f + 1).requires_grad_()
    told_else = net.descend(condition._replace(f=f))
    assert ((told_else - whole).abs().max() > 1e-3) == tell_frame
    (gradient,) = torch.autograd.grad(told_else.square().sum(), f, allow_unused=True)
    assert (gradient is not None and gradient.abs().max() > 0) == tell_frame


@pytest.mark.parametrize("window", [1, 4])
def test_recover_at_once_is_recover_one_by_one(body, coarse, window):
    """Also in a clip shorter than the window, at its first and last frame; and only the frame itself is read."""
    net, batch = lively(a_net(coarse, window=window)).eval(), a_batch(body, 2, 3)
    inputs, ids = batch.inputs(), torch.tensor([5, 13000, 7])
    sequences, mids = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.inference_mode():
        found = net.recover(inputs, batch.features, sequences, mids, ids)
        again = net.recover(inputs, batch.features, sequences, mids)
        for i in range(6):
            s, n = int(sequences[i]), int(mids[i])
            alone = net.recover(
                inputs[s : s + 1, n : n + 1],
                batch.features[s : s + 1, n : n + 1],
                torch.tensor([0]),
                torch.tensor([0]),
            )
            torch.testing.assert_close(found.joints[i], alone.joints[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(found.vertices[i], alone.vertices[0, ids], atol=1e-5, rtol=0)
    assert found.joints.shape == (6, 24, 3) and found.vertices.shape == (6, 3, 3) and found.rotmats is None
    assert again.vertices.shape == (6, body.vertex_count, 3)
    assert torch.equal(found.joints, again.joints)  # no chance in it
    torch.testing.assert_close(found.joints[:, 0], torch.zeros(6, 3))
    assert (found.joints[0] - found.joints[1]).abs().max() > 1e-3


def test_first_estimate_is_the_start_mesh(body, coarse):
    net, batch = a_net(coarse), a_batch(body, 1, 1)
    zero = torch.tensor([0])
    found = net.recover(batch.inputs(), batch.features, zero, zero)
    wanted = (body.v_template - body.joint_template[0]) * torch.tensor(FACING_CAMERA)
    assert (found.vertices[0] - wanted).norm(dim=-1).mean() < 0.02
    assert (found.joints[0] - (body.joint_template - body.joint_template[0]) * torch.tensor(FACING_CAMERA)).norm(
        dim=-1
    ).max() < 0.02


def test_decode_parts_are_equation_7_and_the_terms_of_every_step(body, coarse):
    """With as many frames as steps each step comes up once, whatever the order."""
    net, batch = lively(a_net(coarse)), a_batch(body, 2, 2)
    objective = PostureObjective(net, body, PostureLoss(own_states=0.0))
    torch.manual_seed(5)
    loss, parts = objective(batch, "decode")
    torch.manual_seed(5)
    ks = (torch.randperm(4) % 4 + 1).tolist()
    assert sorted(ks) == [1, 2, 3, 4]
    step = vertex = joint = 0.0
    regressor = net.regressor.double().numpy()
    with torch.no_grad():
        for i, k in enumerate(ks):
            s, t = divmod(i, 2)
            M_k, M_next = (
                objective.process.meshes(
                    batch.rotmats[s, t][None], batch.betas[s][None], torch.tensor([at]), net.vertex_ids
                )
                for at in (k, k - 1)
            )
            condition = net.read(batch.inputs()[s, t][None], batch.features[s, t][None])
            change = net.step(M_k, condition, torch.tensor([k])).double().numpy()[0]
            gap = (M_next - M_k).double().numpy()[0] - change
            step += (gap**2).sum() / 431
            vertex += np.abs(gap).mean() / 4
            joint += np.abs(regressor @ gap).mean() / 4
    np.testing.assert_allclose(parts["step"].item(), step, rtol=1e-3)
    np.testing.assert_allclose(parts["vertex"].item(), vertex, rtol=1e-3)
    np.testing.assert_allclose(parts["joint"].item(), joint, rtol=1e-3)
    weights = PostureLoss()
    total = sum(getattr(weights, name) * value.item() for name, value in parts.items())
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_own_states_take_the_place_of_labels(body, coarse):
    net, batch = lively(a_net(coarse)), a_batch(body, 4, 1)
    objective = PostureObjective(net, body)
    condition = net.read(batch.inputs()[:, 0], batch.features[:, 0])
    labels, k = torch.randn(4, 431, 3), torch.tensor([4, 3, 1, 2])
    found = objective._own_states(labels, condition, k, torch.tensor([False, True, True, False]))
    reached = net.descend(condition, k)
    torch.testing.assert_close(found[[0, 3]], labels[[0, 3]])
    torch.testing.assert_close(found[[1, 2]], reached[[1, 2]].detach(), atol=1e-5, rtol=0)
    assert not found.requires_grad


@pytest.mark.parametrize("tell_frame", [False, True])
@pytest.mark.parametrize("stage", PostureObjective.STAGES)
def test_gradients_reach_all_that_is_trained(body, coarse, stage, tell_frame):
    net, batch = lively(a_net(coarse, tell_frame=tell_frame)), a_batch(body, 8, 1)
    torch.nn.init.normal_(net.upsample.A, std=0.01)
    objective = PostureObjective(net, body)
    net.requires_grad_(False)
    for module in objective.trained(stage):
        module.requires_grad_(True)
    loss, _ = objective(batch, stage)
    loss.backward()
    names = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    assert len(names) > 5
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("stage", PostureObjective.STAGES)
def test_a_short_training_fits_one_batch(body, coarse, stage):
    net, batch = a_net(coarse), a_batch(body, 4, 2)
    objective = PostureObjective(net, body, PostureLoss(mesh_vertices=100, rendered=1))
    parameters = [p for module in objective.trained(stage) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    losses = []
    for _ in range(30):
        loss, _ = objective(batch, stage)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    first, last = np.mean(losses[:4]), np.mean(losses[-4:])
    assert last < 0.7 * first, losses


def test_same_seed_same_loss_and_bfloat16_keeps_metres(body, coarse):
    net, batch = lively(a_net(coarse)), a_batch(body, 4, 2)
    objective = PostureObjective(net, body)
    for stage in PostureObjective.STAGES:
        torch.manual_seed(1)
        loss, _ = objective(batch, stage)
        torch.manual_seed(1)
        assert objective(batch, stage)[0] == loss
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            rough, parts = objective(batch, stage)
        assert all(value.dtype == torch.float32 for value in parts.values())
        assert rough.item() == pytest.approx(loss.item(), rel=0.05)
    zero = torch.tensor([0])
    net.decoder.head2.weight.data.zero_()  # now all that is left of the mesh is the labels
    torch.manual_seed(1)
    _, wanted = objective(batch, "decode")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.manual_seed(1)
        _, parts = objective(batch, "decode")
        for name in ("step", "vertex", "joint", "edge"):
            torch.testing.assert_close(parts[name], wanted[name].detach())
        found = net.recover(batch.inputs(), batch.features, zero, zero)
    joints = net.joints_of(net.start[None])
    torch.testing.assert_close(found.joints, joints - joints[:, :1])  # bfloat16 would be 2 mm off


def test_settings_go_through_a_dictionary_and_are_checked():
    assert from_dict(PostureConfig, to_dict(SMALL)) == SMALL
    with pytest.raises(ValueError, match="root_steps must be 1 to 4"):
        replace(SMALL, root_steps=5)
