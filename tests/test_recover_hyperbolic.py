"""core.recover.mesh_fit, root and hyperbolic: parameters that made the target are found again; whole tracks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from core.body import load_body
from core.evaluate.metrics import mean_point_error, rotation_angle
from core.models.coarse_body import known_coarse_body
from core.models.config import HyperbolicConfig, LifterConfig
from core.models.hyperbolic import HyperbolicNet
from core.records import Camera, Track
from core.recover import hyperbolic, mesh_fit, network
from core.recover.between import carry_between
from core.recover.readings import Settled
from core.recover.refine import refine as refine_motion
from core.recover.root import place_root
from core.rotation import axis_angle_to_matrix


@pytest.fixture(scope="module")
def body():
    return load_body()


def a_pose(frames: int, *, size: float = 0.35) -> torch.Tensor:
    rotmats = axis_angle_to_matrix(torch.randn(frames, 24, 3) * size)
    rotmats[:, 22:] = torch.eye(3)  # hands are straight in all data
    yaw = axis_angle_to_matrix(torch.tensor([0.0, 1.0, 0.0]) * torch.linspace(0, 3, frames)[:, None])
    rotmats[:, 0] = yaw @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    return rotmats


def test_nearest_rotation_is_scipy_s_alignment():
    rng = np.random.default_rng(0)
    points, target = rng.normal(size=(2, 4, 20, 3))
    products = torch.from_numpy(np.einsum("nki,nkj->nij", target, points))
    ours = mesh_fit.nearest_rotation(products)
    for i in range(4):
        expected = Rotation.align_vectors(target[i], points[i])[0].as_matrix()
        np.testing.assert_allclose(ours[i], expected, atol=1e-9)
    torch.testing.assert_close(torch.linalg.det(ours), torch.ones(4, dtype=torch.float64))


def test_spread_vertices_leaves_no_gaps():
    cloud = torch.rand(2000, 3)
    ids = mesh_fit.spread_vertices(cloud, 100)
    assert len(set(ids.tolist())) == 100
    spread = torch.cdist(cloud, cloud[ids]).amin(1).max()
    random = torch.cdist(cloud, cloud[torch.randperm(2000)[:100]]).amin(1).max()
    assert spread < 0.75 * random


def test_frames_between_meshes_turn_on_with_their_neighbours():
    """A steady change of the start is met exactly; scipy's slerp says what a changing one gives."""
    torch.manual_seed(3)
    start = axis_angle_to_matrix(torch.randn(8, 24, 3))
    known = torch.tensor([0, 3, 6, 7])
    turns = torch.randn(4, 24, 3) * 0.3
    fitted = start[known] @ axis_angle_to_matrix(turns)
    found = carry_between(fitted, known, start)
    for j in (0, 5, 23):
        keys = Rotation.from_rotvec(turns[:, j].numpy())
        change = Slerp(known.numpy(), keys)(np.arange(8)).as_matrix()
        np.testing.assert_allclose(found[:, j], start[:, j].numpy() @ change, atol=2e-5)
    torch.testing.assert_close(found[known], fitted, rtol=0, atol=0)
    torch.testing.assert_close(carry_between(start, torch.arange(8), start), start)


@pytest.mark.parametrize("noise,limit_mm,limit_deg", [(0.0, 8.0, 2.5), (0.005, 10.0, 6.0)])
def test_rotations_and_shape_that_made_a_mesh_are_found(body, noise, limit_mm, limit_deg):
    frames = 12
    truth, betas = a_pose(frames), torch.randn(16)
    ids = mesh_fit.spread_vertices(body.v_template, 600)
    vertices, joints = body.skin(truth, betas, torch.zeros(3))
    relative = vertices - joints[:, :1]
    target = relative[:, ids] + noise * torch.randn(frames, 600, 3)
    start = torch.eye(3).repeat(frames, 24, 1, 1)
    start[:, 0] = truth[:, 0] @ axis_angle_to_matrix(torch.tensor([0.4, -0.2, 0.1]))
    rough = mesh_fit.fit_rotations(body, target, ids, torch.zeros(16), start)
    shape = mesh_fit.fit_shape(body, target, ids, rough, start=torch.zeros(16))
    found = mesh_fit.fit_rotations(body, target, ids, shape, rough, rounds=20)
    shape = mesh_fit.fit_shape(body, target, ids, found, start=torch.zeros(16))
    eye = found @ found.transpose(-1, -2)
    torch.testing.assert_close(eye, torch.eye(3).expand_as(eye), atol=1e-4, rtol=0)
    fitted, fitted_joints = body.skin(found, shape, torch.zeros(3))
    assert float(mean_point_error(fitted - fitted_joints[:, :1], relative).mean()) < limit_mm
    assert float(rotation_angle(found, truth).mean()) < limit_deg


def test_bones_point_to_the_joints_where_a_thin_mesh_says_little(body):
    """Limbs drawn in to their bones, as meshes are that average over poses: skin alone hardly tells how they lie."""
    truth, betas = a_pose(12), torch.zeros(16)
    ids = mesh_fit.spread_vertices(body.v_template, 600)
    vertices, joints = body.skin(truth, betas, torch.zeros(3))
    thin = torch.einsum("vj,njk->nvk", body.weights[ids], joints - joints[:, :1])
    thin = thin + 0.1 * ((vertices - joints[:, :1])[:, ids] - thin)
    start = torch.eye(3).repeat(12, 24, 1, 1)

    def off_by(found) -> float:
        placed = body.skin(found, betas, torch.zeros(3))[1]
        return float(mean_point_error(placed - placed[:, :1], joints - joints[:, :1]).mean())

    rough = mesh_fit.fit_rotations(body, thin, ids, betas, start, rounds=12)
    led = mesh_fit.fit_rotations(body, thin, ids, betas, start, rounds=12, joints=joints - joints[:, :1])
    assert off_by(led) < 10 < 40 < off_by(rough)


def test_the_shape_of_meshes_is_drawn_to_the_average_body(body):
    truth, betas = a_pose(30), torch.randn(16)
    ids = mesh_fit.spread_vertices(body.v_template, 600)
    vertices, joints = body.skin(truth, betas, torch.zeros(3))
    relative = (vertices - joints[:, :1])[:, ids]
    chunk = SimpleNamespace(vertices=relative, meshed=torch.arange(30), rotmats=truth)
    found = network._shape(body, chunk, ids, truth, betas)
    torch.testing.assert_close(found, network.SHAPE_SHARE * betas, atol=0.15, rtol=0)
    assert 0 < network.SHAPE_SHARE < 1


def test_true_rotations_stay(body):
    truth, betas = a_pose(4), 0.5 * torch.randn(16)
    ids = mesh_fit.spread_vertices(body.v_template, 600)
    vertices, joints = body.skin(truth, betas, torch.zeros(3))
    found = mesh_fit.fit_rotations(body, (vertices - joints[:, :1])[:, ids], ids, betas, truth, rounds=30)
    assert float(rotation_angle(found, truth).max()) < 0.2


def a_walk(body, frames: int, fps: float = 30.0, speed: float = 0.3):
    rotmats, betas = a_pose(frames, size=0.2), torch.zeros(10)
    points = body.keypoints(rotmats, betas, torch.zeros(3)).double()
    times = torch.arange(frames, dtype=torch.float64) / fps
    path = torch.stack((speed * times, 0 * times, 4 + 0.8 * torch.sin(2 * times)), 1)
    placed = points + path[:, None]
    return points, placed[..., :2] / placed[..., 2:], times, path


def test_root_is_exact_without_noise(body):
    points, rays, times, path = a_walk(body, 40)
    found = place_root(points, rays, torch.ones(40, 25, dtype=torch.float64), times)
    np.testing.assert_allclose(found, path, atol=1.5e-2)


@pytest.mark.parametrize("fps", [30.0, 60.0])
def test_root_survives_noise_outliers_and_gaps(body, fps):
    points, rays, times, path = a_walk(body, 60, fps)
    rays = rays + 0.004 * torch.randn_like(rays)
    rays[:, 7] += 0.3
    confidence = torch.ones(60, 25, dtype=torch.float64)
    rays[20:26], confidence[20:26] = 9.0, 0.0
    found = place_root(points, rays, confidence, times)
    error = (found - path).norm(dim=-1)
    seen = torch.ones(60, dtype=torch.bool)
    seen[20:26] = False
    assert float(error[seen].mean()) < 0.05 and float(error[seen].max()) < 0.15
    assert float((found[seen, :2] - path[seen, :2]).abs().mean()) < 0.01
    depth = found[:, 2] - path[:, 2]
    assert float(torch.diff(depth, n=2).abs().max()) < 0.01


def a_net(body) -> HyperbolicNet:
    lifter = LifterConfig(dim=16, depth=1, heads=2, joint_dim=4, head_dim=16, window=16)
    config = HyperbolicConfig(lifter=lifter, feature_dim=6, window=4, prior_dim=8, dim=8, heads=2)
    ids, no_faces = torch.arange(0, body.vertex_count, 60), torch.zeros(0, 3, dtype=torch.int32)
    net = HyperbolicNet(config, known_coarse_body(body, ids, no_faces))
    net.upsample.indices = torch.randint(len(net.vertex_ids), (body.vertex_count, 3))
    return net.eval()


@pytest.fixture(scope="module", autouse=True)
def sides_as_named():
    """The motion here is random: it has no sides to settle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "settle_readings", as_named)
        yield


def as_named(track: Track) -> Settled:
    return Settled(track, np.zeros((len(track), 2), bool), np.zeros(len(track), bool))


def a_track(body, frames: int, camera: Camera, speed: float = 1.5) -> Track:
    points, rays, times, path = a_walk(body, frames, speed=speed)
    px = rays * camera.fx + torch.tensor([camera.cx, camera.cy])
    keypoints = torch.cat((px, torch.ones(frames, 25, 1)), -1).float().numpy()
    return Track(
        person=3,
        frames=np.arange(frames, dtype=np.int32) + 7,
        times=times.numpy(),
        keypoints=keypoints,
        landmarks3d=points.float().numpy(),
        features=np.zeros((frames, 6), np.float16),
        confidence=np.ones(frames, np.float32),
        boxes=np.zeros((frames, 4), np.float32),
    )


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("frames", [1, 3, 32, 70])
def test_every_frame_of_a_track_is_recovered_and_streamed(body, frames, refine):
    camera = Camera.from_size(1280, 720)
    track = a_track(body, frames, camera, 0.3 if refine else 1.5)  # what is refined should stay in the picture
    chunks, progress = [], []
    motion = hyperbolic.recover_by_network(
        track,
        camera,
        body,
        net=a_net(body),
        refine=refine,
        on_frames=chunks.append,
        on_progress=lambda *n: progress.append(n),
    )
    np.testing.assert_array_equal(motion.frames, track.frames)
    assert motion.person == 3 and motion.betas.shape == (16,)
    for name in ("rotmats", "trans"):
        together = np.concatenate([getattr(c, name) for c in chunks])
        np.testing.assert_array_equal(together, getattr(motion, name))
        assert np.isfinite(together).all()
    assert progress == sorted(progress) and progress[-1] == (frames, frames)
    keypoints = body.keypoints(*(torch.from_numpy(a) for a in (motion.rotmats, motion.betas, motion.trans)))
    assert float(keypoints[..., 2].min()) > 0  # in front of the camera
    rays = (torch.from_numpy(track.keypoints[..., :2]) - torch.tensor([camera.cx, camera.cy])) / camera.fx
    off = (keypoints[..., :2] - rays * keypoints[..., 2:]).mean(1) / keypoints[..., 2:].mean(1)
    assert float(off.norm(dim=-1).max()) < 0.4
    assert float(off.norm(dim=-1).median()) < 0.2  # on its own frame's rays; those of the next chunk are 0.5 away


@pytest.fixture(scope="module")
def long_clip(body):
    """A track of 200 frames (two windows of the refinement), the network, and its motion without refinement."""
    torch.manual_seed(0)
    camera = Camera.from_size(1280, 720)
    track, net = a_track(body, 200, camera, 0.1), a_net(body)
    return track, camera, net, hyperbolic.recover_by_network(track, camera, body, net=net, refine=False)


def test_the_network_s_frames_come_first_then_what_they_become(body, long_clip):
    track, camera, net, plain = long_clip
    events, progress = [], []
    motion = hyperbolic.recover_by_network(
        track,
        camera,
        body,
        net=net,
        refine=True,
        on_rough=lambda chunk: events.append(("rough", chunk)),
        on_frames=lambda chunk: events.append(("done", chunk)),
        on_progress=lambda done, total: progress.append((events[-1][0], done, total)),
    )
    kinds = [kind for kind, _ in events]
    assert kinds == sorted(kinds, reverse=True) and kinds.count("done") == 2
    rough, done = (
        np.concatenate([chunk.rotmats for kind, chunk in events if kind == name]) for name in ("rough", "done")
    )
    np.testing.assert_array_equal(rough, plain.rotmats)
    np.testing.assert_array_equal(done, motion.rotmats)
    counts = [n for _, n, _ in progress]
    assert counts == sorted(counts) and counts[-1] == 200
    last_rough = max(n for kind, n, _ in progress if kind == "rough")
    first_done = min(n for kind, n, _ in progress if kind == "done")
    share = network.NETWORK_SHARE
    assert last_rough == 200 * share and first_done == round(200 * share + 120 * (1 - share))

    expected = refine_motion(track, camera, body, plain)
    np.testing.assert_allclose(done, expected.rotmats, atol=1e-5)
    assert np.abs(done - rough).max() > 0.01
    later = []
    known = next(chunk for kind, chunk in events if kind == "done")
    again = hyperbolic.recover_by_network(
        track, camera, body, net=net, refine=True, known=known, on_frames=later.append
    )
    assert later[0].frames[0] == known.frames[-1] + 1 and len(again) == 200
    np.testing.assert_array_equal(again.rotmats[: len(known)], known.rotmats)


def test_stopped_while_refining_the_rest_is_the_network_s(body, long_clip):
    track, camera, net, plain = long_clip
    done = []
    motion = hyperbolic.recover_by_network(
        track, camera, body, net=net, refine=True, on_frames=done.append, should_stop=lambda: len(done) > 0
    )
    assert len(motion) == 200 and len(done) == 1
    np.testing.assert_array_equal(motion.rotmats[: len(done[0])], done[0].rotmats)
    fading = np.arange(200) < len(done[0]) + 0.5 * 30
    np.testing.assert_allclose(motion.rotmats[~fading], plain.rotmats[~fading], atol=1e-5)
    np.testing.assert_allclose(motion.trans[~fading], plain.trans[~fading], atol=1e-5)


@pytest.mark.parametrize("refine", [False, True])
def test_a_stopped_recovery_returns_what_it_has(body, refine):
    camera, net = Camera.from_size(1280, 720), a_net(body)
    chunks = []
    options = {"net": net, "refine": refine, "on_rough" if refine else "on_frames": chunks.append}
    motion = hyperbolic.recover_by_network(
        a_track(body, 100, camera), camera, body, should_stop=lambda: len(chunks) > 0, **options
    )
    assert 0 < len(motion.frames) < 100 and len(motion.trans) == len(motion.frames)
    nothing = hyperbolic.recover_by_network(
        a_track(body, 100, camera), camera, body, net=net, refine=refine, should_stop=lambda: True
    )
    assert len(nothing) == 0


def test_lifting_a_long_clip_stops_on_request(body):
    asked = iter([False, False, True])
    camera = Camera.from_size(1280, 720)
    motion = hyperbolic.recover_by_network(
        a_track(body, 400, camera), camera, body, net=a_net(body), should_stop=lambda: next(asked)
    )
    assert len(motion) == 0  # 33 windows of the lifter are five batches


def test_shape_of_another_body_has_the_same_bones(body):
    betas = torch.randn(16)
    same = network.match_bones(body, body, betas)
    wanted, found = (body.rest_joints(b) for b in (betas, same))
    torch.testing.assert_close(found - found[:1], wanted - wanted[:1], atol=5e-3, rtol=0)
