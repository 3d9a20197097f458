"""core.models: shapes, symmetries and switches of the lifter and the mesh network, files, whole clips."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from core.errors import SetupError
from core.models import checkpoint, clip
from core.models.config import HyperbolicConfig, LifterConfig, from_dict, to_dict
from core.models.hyperbolic import CoarseBody, HyperbolicNet, take_frames
from core.models.inputs import INPUT_SIZE, ImageGeometry, crop_of, encode_inputs, normalise_full, view_rotation
from core.models.lifter import Lifter
from core.models.motion_prior import MotionPrior, PoseMotion
from core.models.upsample import Upsample, sparse_rows
from core.records import Camera, Track
from core.skeleton import PARENTS

SMALL = LifterConfig(dim=32, depth=2, heads=4, joint_dim=8, head_dim=48, window=12)
NET = HyperbolicConfig(lifter=SMALL, feature_dim=20, window=6, prior_dim=24, dim=16, heads=2)
COARSE, FULL = 40, 90


def small_lift() -> tuple[torch.Tensor, torch.Tensor]:
    template = torch.randn(FULL, 3)
    nearest = torch.cdist(template, template[:COARSE]).topk(3, largest=False).indices
    return nearest, torch.tensor([[0.5, 0.3, 0.2]]).repeat(FULL, 1)


def small_body() -> CoarseBody:
    indices, weights = small_lift()
    return CoarseBody(
        vertex_ids=torch.arange(COARSE) * 2,
        faces=torch.randint(COARSE, (60, 3), dtype=torch.int32),
        lift_indices=indices,
        lift_weights=weights,
        template=torch.randn(COARSE, 3),
        joints=torch.randn(24, 3),
        parents=PARENTS,
        weights=torch.softmax(3 * torch.randn(COARSE, 24), 1),
        shapedirs=0.1 * torch.randn(COARSE, 3, 16),
        joint_shapedirs=0.1 * torch.randn(24, 3, 16),
    )


def full_body(small: CoarseBody) -> SimpleNamespace:
    """A body of FULL vertices whose coarse part is `small`."""
    full = {}
    for name, key in (("v_template", "template"), ("weights", "weights"), ("shapedirs", "shapedirs")):
        values = getattr(small, key)
        full[name] = torch.zeros(FULL, *values.shape[1:])
        full[name][small.vertex_ids] = values
    return SimpleNamespace(
        vertex_count=FULL, joint_template=small.joints, joint_shapedirs=small.joint_shapedirs, **full
    )


def geometry(width: float = 1920, height: float = 1080, focal: float = 1500) -> ImageGeometry:
    return ImageGeometry(*(torch.full((1, 1), v) for v in (width, height, focal)))


def clip_inputs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    keypoints = torch.cat((torch.rand(1, count, 25, 2) * 400 + 300, torch.rand(1, count, 25, 1)), -1)
    has = torch.ones(1, count)
    inputs = encode_inputs(keypoints, torch.randn(1, count, 25, 3), has, geometry())
    return inputs, torch.arange(count).float()[None]


def test_full_image_normalisation_is_pmce_equation_5():
    corners = torch.tensor([[[0.0, 0.0], [1920.0, 1080.0], [960.0, 540.0]]])
    expected = torch.tensor([[[-1.0, -0.5625], [1.0, 0.5625], [0.0, 0.0]]])
    torch.testing.assert_close(normalise_full(corners, geometry()), expected)


def test_inputs_of_unseen_points_say_nothing():
    keypoints = torch.rand(1, 25, 3) * 500
    keypoints[..., 2] = 0.9
    keypoints[0, 4] = torch.tensor([1e5, -1e5, 0.0])
    other = keypoints.clone()
    other[0, 4, :2] = 3.0
    has, landmarks = torch.zeros(1), torch.randn(1, 25, 3)
    first, second = (encode_inputs(k, landmarks, has, geometry()) for k in (keypoints, other))
    assert first.shape == (1, 25, INPUT_SIZE)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not first[..., 5:9].any()  # no landmarks either
    centre, size = crop_of(keypoints)
    assert float(size) <= 500 and (centre < 500).all()


def test_view_rotation_takes_the_axis_to_the_ray():
    centre = torch.tensor([[200.0, 900.0], [960.0, 540.0]])
    R = view_rotation(centre, geometry())
    ray = torch.tensor([(200 - 960) / 1500, (900 - 540) / 1500, 1.0])
    torch.testing.assert_close(R[0, :, 2], ray / ray.norm())
    torch.testing.assert_close(R[0] @ R[0].T, torch.eye(3), atol=1e-6, rtol=0)
    assert float(torch.linalg.det(R[0])) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(R[1], torch.eye(3))
    across = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), ray)  # its axis stays: least rotation
    torch.testing.assert_close(R[0] @ across, across, atol=1e-6, rtol=0)


def test_lifter_depends_on_time_only_by_differences():
    lifter = Lifter(SMALL).eval()
    inputs, frames = clip_inputs(9)
    with torch.no_grad():
        at_zero, later = lifter(inputs, frames), lifter(inputs, frames + 250)
        slower = lifter(inputs, frames * 1.7)
    assert at_zero.joints.shape == (1, 9, 24, 3) and at_zero.rotations6d.shape == (1, 9, 24, 6)
    torch.testing.assert_close(at_zero.joints, later.joints, rtol=1e-3, atol=1e-4)
    assert float((at_zero.joints - slower.joints).abs().max()) > 1e-3
    assert not at_zero.joints[..., 0, :].any()  # relative to the pelvis


def test_lifter_reads_all_frames_and_keypoints():
    lifter = Lifter(SMALL)
    inputs, frames = clip_inputs(7)
    inputs.requires_grad_()
    lifter(inputs, frames).joints[0, 3].sum().backward()
    reached = inputs.grad[0].abs().sum(-1)
    assert reached.shape == (7, 25) and (reached > 0).all()


def test_lifter_without_landmarks_ignores_them():
    lifter = Lifter(dataclasses.replace(SMALL, use_landmarks3d=False)).eval()
    inputs, frames = clip_inputs(5)
    changed = inputs.clone()
    changed[..., 5:8] += 1
    with torch.no_grad():
        torch.testing.assert_close(lifter(inputs, frames).joints, lifter(changed, frames).joints, rtol=0, atol=0)


def test_pose_motion_ends_with_the_mean_difference():
    """A pose that moves evenly has equal differences and the same mean: the GRU gets T equal inputs."""
    seen = []
    tpmi = PoseMotion(24, 8)
    tpmi.gru.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    P = torch.randn(2, 1, 24, 3) + torch.arange(6)[None, :, None, None] * 0.01
    assert tpmi(P).shape == (2, 6, 8)
    torch.testing.assert_close(seen[0], torch.full((2, 6, 72), 0.5), rtol=1e-4, atol=1e-5)


def test_motion_prior_switches():
    P, F, mid = torch.randn(3, 6, 24, 3), torch.randn(3, 6, 8), torch.randn(3, 8)
    prior = MotionPrior(24, 8, use_tpmi=False, use_tmf=False)
    f, E_m = prior(P, F, mid)
    assert E_m is None
    torch.testing.assert_close(f, torch.nn.functional.layer_norm(F[:, 3] + mid, (8,)))
    full = MotionPrior(24, 8, use_tpmi=True, use_tmf=True)
    with torch.no_grad():
        front_changed, same = F.clone(), full(P, F, mid)[0]
        front_changed[:, 0] += 1
        assert float((full(P, front_changed, mid)[0] - same).abs().max()) > 1e-4


def test_upsampling_starts_at_the_body_s_own_lift():
    indices, weights = small_lift()
    U = torch.zeros(FULL, COARSE).scatter(1, indices, weights)
    layer = Upsample(indices, weights, coarse_count=COARSE, rank=4, residual_rank=3, prior_dim=5)
    coarse, f = torch.randn(2, COARSE, 3), torch.randn(2, 5)
    torch.testing.assert_close(layer(coarse, f), U @ coarse)
    torch.nn.init.normal_(layer.A), torch.nn.init.normal_(layer.mlp2)
    ids = torch.tensor([5, 80, 5])
    torch.testing.assert_close(layer(coarse, f, ids), layer(coarse, f)[:, ids])
    found, found_weights = sparse_rows(U)
    torch.testing.assert_close(torch.zeros_like(U).scatter(1, found, found_weights), U)


def test_start_mesh_is_each_vertex_at_its_nearest_joint():
    body = small_body()
    net = HyperbolicNet(NET, body)
    lifted = net.lift(*clip_inputs(8))
    M_0 = net.start_mesh(lifted, torch.zeros(2, dtype=torch.long), torch.tensor([1, 6]))
    for v in (0, 17, COARSE - 1):
        j = int(np.argmin(np.linalg.norm(body.joints.numpy() - body.template[v].numpy(), axis=1)))
        torch.testing.assert_close(M_0[1, v], lifted.joints[0, 6, j])


def test_skinned_start_is_linear_blend_skinning():
    body = small_body()
    net = HyperbolicNet(dataclasses.replace(NET, mesh_start="skinned"), body)
    rotmats = torch.linalg.qr(torch.randn(2, 24, 3, 3)).Q
    rotmats = rotmats * torch.linalg.det(rotmats)[..., None, None]
    betas = torch.randn(2, 16)
    ours = net.skin_coarse(rotmats, betas)
    rest_joints = (body.joints + body.joint_shapedirs @ betas[1]).double().numpy()
    rest = (body.template + body.shapedirs @ betas[1]).double().numpy()
    R, t = [rotmats[1, 0].double().numpy()], [np.zeros(3)]
    for j in range(1, 24):
        p = PARENTS[j]
        t.append(t[p] + R[p] @ (rest_joints[j] - rest_joints[p]))
        R.append(R[p] @ rotmats[1, j].double().numpy())
    for v in (0, 20):
        parts = [w * (R[j] @ (rest[v] - rest_joints[j]) + t[j]) for j, w in enumerate(body.weights[v].numpy())]
        np.testing.assert_allclose(ours[1, v], np.sum(parts, axis=0), atol=1e-4)


SWITCHES = [
    {},
    {"use_tpmi": False, "use_hmo": False},
    {"use_tmf": False},
    {"use_hpo": False},
    {"use_hmo": False},
    {"fusion": "mean"},
    {"mesh_start": "skinned"},
    {"cross_attention": "tangent", "self_attention": "distance"},
    {"curvature": "fixed", "curvature_init": 1.0},
    {"curvature": "euclidean"},
]


@pytest.mark.parametrize("changes", SWITCHES, ids=lambda c: ",".join(map(str, c.values())) or "default")
def test_every_switch_builds_trains_and_differs(changes):
    net = HyperbolicNet(dataclasses.replace(NET, **changes), small_body())
    lifted = net.lift(*clip_inputs(8))
    sequences, mids = torch.zeros(3, dtype=torch.long), torch.tensor([0, 4, 7])
    out = net.recover(lifted, torch.randn(1, 8, 20), sequences, mids)
    assert out.coarse.shape == (3, COARSE, 3) and out.vertices.shape == (3, FULL, 3)
    out.vertices.square().sum().backward()
    missing = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    heads = ("joint_head", "landmark_skip", "rotation_head", "shape_head")  # the mesh's error does not move these
    assert {n.split(".")[1] for n in missing} == set(heads) and all(n.startswith("lifter.") for n in missing)


def test_curvature_reaches_the_mesh_and_small_curvature_is_the_euclidean_network():
    torch.manual_seed(3)
    body = small_body()
    nets = [HyperbolicNet(dataclasses.replace(NET, curvature="fixed", curvature_init=c), body) for c in (1.0, 1e-7)]
    euclidean = HyperbolicNet(dataclasses.replace(NET, curvature="euclidean"), body)
    with torch.no_grad():
        for head in (euclidean.fuse, *(b.embed_mesh for b in (euclidean.hpo, euclidean.hmo))):
            torch.nn.init.normal_(head.weight)
        for name, parameter in euclidean.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    inputs, frames = clip_inputs(8)
    features, sequences, mids = torch.randn(1, 8, 20), torch.zeros(2, dtype=torch.long), torch.tensor([2, 5])
    meshes = []
    for net in (*nets, euclidean):
        net.load_state_dict(euclidean.state_dict())
        net.eval()
        with torch.no_grad():
            meshes.append(net.recover(net.lift(inputs, frames), features, sequences, mids).coarse)
    assert float((meshes[0] - meshes[2]).abs().max()) > 0.05
    torch.testing.assert_close(meshes[1], meshes[2], rtol=1e-2, atol=1e-2)


def test_impossible_switches_are_refused():
    with pytest.raises(ValueError, match="use_hpo"):
        dataclasses.replace(NET, use_hpo=False, use_hmo=False)
    with pytest.raises(ValueError, match="use_tpmi"):
        dataclasses.replace(NET, use_tpmi=False)
    with pytest.raises(ValueError, match="curvature"):
        dataclasses.replace(NET, curvature="flat")
    with pytest.raises(ValueError, match="window"):
        dataclasses.replace(NET, window=5)


def test_config_survives_a_dictionary_and_names_strangers():
    assert from_dict(HyperbolicConfig, to_dict(NET)) == NET
    with pytest.raises(ValueError, match="dims"):
        from_dict(HyperbolicConfig, {"lifter": {"dims": 3}})


def test_take_frames_is_indexing():
    values = torch.randn(3, 7, 2, 5)
    sequences, frames = torch.tensor([[2], [0]]), torch.tensor([[6, 1, 0], [3, 3, 5]])
    torch.testing.assert_close(take_frames(values, sequences, frames), values[sequences, frames], rtol=0, atol=0)


def test_windows_cover_every_frame():
    for count in (1, 12, 13, 40, 1000):
        starts = clip.window_starts(count, 12, 3)
        covered = np.zeros(count, bool)
        for s in starts:
            covered[s : s + 12] = True
        assert covered.all() and starts[0] == 0
        assert all(b - a <= 9 for a, b in zip(starts, starts[1:]))
        assert count <= 12 or starts[-1] == count - 12


def track_of(count: int) -> Track:
    rng = np.random.default_rng(0)
    keypoints = np.concatenate((rng.uniform(300, 700, (count, 25, 2)), rng.uniform(0.3, 1, (count, 25, 1))), -1)
    return Track(
        person=0,
        frames=np.arange(count, dtype=np.int32),
        times=np.arange(count) / 30,
        keypoints=keypoints.astype(np.float32),
        landmarks3d=rng.normal(0, 0.3, (count, 25, 3)).astype(np.float32),
        features=rng.normal(0, 1, (count, 20)).astype(np.float16),
        confidence=np.ones(count, np.float32),
        boxes=np.zeros((count, 4), np.float32),
    )


@pytest.mark.parametrize("count", [1, 5, 12, 31])
def test_every_frame_of_a_clip_gets_a_mesh(count):
    net = HyperbolicNet(NET, small_body()).eval()
    betas, chunks = clip.recover_clip(net, track_of(count), Camera.from_size(1280, 720), device="cpu", chunk=8)
    chunks = list(chunks)
    assert betas.shape == (16,)
    assert sum(len(c.joints) for c in chunks) == count
    assert [c.start for c in chunks] == list(range(0, count, 8))
    assert all(c.vertices.isfinite().all() for c in chunks)


def test_chunks_of_a_clip_do_not_change_it():
    net = HyperbolicNet(NET, small_body()).eval()
    camera = Camera.from_size(1280, 720)
    meshes = []
    for size in (4, 31):
        chunks = clip.recover_clip(net, track_of(31), camera, device="cpu", chunk=size)[1]
        meshes.append(torch.cat([c.vertices for c in chunks]))
    torch.testing.assert_close(*meshes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 12, 31])
def test_meshes_of_some_frames_are_those_of_all(count):
    net = HyperbolicNet(NET, small_body()).eval()
    common = {"device": "cpu", "chunk": 8}
    full = list(clip.recover_clip(net, track_of(count), Camera.from_size(1280, 720), **common)[1])
    some = list(clip.recover_clip(net, track_of(count), Camera.from_size(1280, 720), every=3, **common)[1])
    for a, b in zip(full, some, strict=True):
        n = len(a.joints)
        assert b.meshed.tolist() == sorted({*range(0, n, 3), n - 1}) and a.meshed.tolist() == list(range(n))
        torch.testing.assert_close(b.vertices, a.vertices[b.meshed], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(b.joints, a.joints)
        if a.rotmats is not None:
            assert a.rotmats.shape == (n, 24, 3, 3)
            torch.testing.assert_close(b.rotmats, a.rotmats)


def test_network_files_are_checked(tmp_path):
    body = small_body()
    net = HyperbolicNet(NET, body)
    path = tmp_path / "net.safetensors"
    checkpoint.save_network(path, net.state_dict(), NET, stage="mesh", notes={"mpjpe": 80.5})
    loaded = checkpoint.load_network(path, full_body(body))
    for (name, a), b in zip(net.state_dict().items(), loaded.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3, msg=name)
    assert checkpoint.read_network(path)[2] == {"stage": "mesh", "notes": {"mpjpe": 80.5}}
    inputs, frames = clip_inputs(8)
    sequences, mids, features = torch.zeros(2, dtype=torch.long), torch.tensor([2, 5]), torch.randn(1, 8, 20)
    with torch.no_grad():
        meshes = [n.eval().recover(n.lift(inputs, frames), features, sequences, mids).vertices for n in (net, loaded)]
    torch.testing.assert_close(*meshes, rtol=1e-2, atol=1e-2)
    other = full_body(body)
    other.vertex_count = 6890
    with pytest.raises(SetupError, match="6890"):
        checkpoint.load_network(path, other)
    data = bytearray(path.read_bytes())
    data[-7] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(SetupError, match="checksum"):
        checkpoint.load_network(path, full_body(body))
    path.write_bytes(b"not a network")
    with pytest.raises(SetupError, match="readable"):
        checkpoint.load_network(path, full_body(body))


def test_lifter_files_are_not_taken_for_networks(tmp_path):
    net = HyperbolicNet(NET, small_body())
    path = tmp_path / "lifter.safetensors"
    checkpoint.save_network(path, net.state_dict(), NET, stage="lift")
    assert all(name.startswith("lifter.") for name in checkpoint.read_network(path)[0])
    with pytest.raises(SetupError, match="lifter only"):
        checkpoint.load_network(path, full_body(small_body()))
