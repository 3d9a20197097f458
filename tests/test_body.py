"""Skinning against float64 numpy written from the SMPL paper, smplx and smplfitter; facts of the shipped body."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle

import numpy as np
import pytest
import smplx
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from core import body_file
from core.body import DEFAULT_PATH, Body, load_body
from core.errors import SetupError
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_MIRROR, JOINT_NAMES, KEYPOINT_MIRROR, KEYPOINT_NAMES, PARENTS, PRINCIPAL_COUNT
from core.smpl_keypoints import LANDMARK_VERTICES, keypoint_rows
from tests.smpl_like import smpl_like

FLIP = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def default() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def arrays() -> dict:
    with np.load(DEFAULT_PATH) as stored:
        return {key: stored[key] for key in stored}


@pytest.fixture(scope="module")
def with_correctives(tmp_path_factory) -> Body:
    path = tmp_path_factory.mktemp("body") / "SMPL_NEUTRAL.npz"
    np.savez(path, **smpl_like(3, pose_correctives=True))
    return load_body(path)


def _random_pose(count: int, seed: int, spread: float = 0.6):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 24, 3)) * spread
    return vectors, rng.normal(size=(count, 16)), rng.normal(size=(count, 3))


def _oracle(body: Body, vectors: np.ndarray, betas: np.ndarray, trans: np.ndarray):
    """One body by the SMPL paper: shape and pose blend shapes, joints, G_k' = G_k with the rest joint taken out
    (equations 2 to 4), weighted sum of transforms, in float64 homogeneous coordinates. Returns vertices, joints."""
    template, shapedirs = (x.double().numpy() for x in (body.v_template, body.shapedirs))
    weights, regressor = body.weights.double().numpy(), body.J_regressor.double().numpy()
    shaped = template + shapedirs @ betas
    rest = regressor @ shaped
    turns = Rotation.from_rotvec(vectors).as_matrix()
    if body.posedirs is not None:
        shaped = shaped + body.posedirs.double().numpy() @ (turns[1:] - np.eye(3)).ravel()
    transforms = np.zeros((24, 4, 4))
    for k, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = turns[k]
        local[:3, 3] = rest[k] - (rest[parent] if parent >= 0 else 0)
        transforms[k] = local if parent < 0 else transforms[parent] @ local
    joints = transforms[:, :3, 3] + trans
    removed = transforms.copy()
    for k in range(24):
        back = np.eye(4)
        back[:3, 3] = -rest[k]
        removed[k] = transforms[k] @ back
    homogeneous = np.concatenate([shaped, np.ones((len(shaped), 1))], 1)
    vertices = sum(weights[:, k : k + 1] * (homogeneous @ removed[k].T)[:, :3] for k in range(24)) + trans
    return vertices, joints, transforms[:, :3, :3]


def _torch(*arrays, dtype=torch.float32):
    return tuple(torch.as_tensor(a, dtype=dtype) for a in arrays)


@pytest.mark.parametrize("which", ["default", "with_correctives"])
def test_skinning_is_the_papers_formula(which, request):
    body = request.getfixturevalue(which)
    vectors, betas, trans = _random_pose(3, 1)
    t = _torch(vectors, betas, trans)
    vertices, joints = body.skin(axis_angle_to_matrix(t[0]), t[1], t[2])
    fk_joints, fk_rotmats = body.forward_kinematics(axis_angle_to_matrix(t[0]), t[1], t[2])
    for i in range(3):
        v, j, r = _oracle(body, vectors[i], betas[i], trans[i])
        np.testing.assert_allclose(vertices[i].numpy(), v, atol=1e-5)
        np.testing.assert_allclose(joints[i].numpy(), j, atol=1e-5)
        np.testing.assert_allclose(fk_joints[i].numpy(), j, atol=1e-5)
        np.testing.assert_allclose(fk_rotmats[i].numpy(), r, atol=1e-5)


@pytest.mark.parametrize("which", ["default", "with_correctives"])
def test_skinning_is_that_of_smplx(which, request, arrays):
    body = request.getfixturevalue(which)
    stored = arrays
    if which == "with_correctives":
        stored = smpl_like(3, pose_correctives=True)
    with contextlib.redirect_stdout(io.StringIO()):
        other = smplx.SMPL("unused", data_struct=smplx.utils.Struct(**stored), batch_size=4)
    vectors, betas, trans = _torch(*_random_pose(4, 2))
    betas = betas[:, :PRINCIPAL_COUNT]  # smplx takes no more than ten
    out = other(
        betas=betas, global_orient=vectors[:, 0], body_pose=vectors[:, 1:].reshape(4, -1), transl=trans
    )  # fmt: skip
    vertices, joints = body.skin(axis_angle_to_matrix(vectors), betas, trans)
    assert (vertices - out.vertices).abs().max() < 1e-5
    assert (joints - out.joints[:, :24]).abs().max() < 1e-5


@pytest.mark.parametrize("which", ["default", "with_correctives"])
def test_keypoints_are_the_regressor_on_skinned_vertices(which, request):
    body = request.getfixturevalue(which)
    vectors, betas, trans = _torch(*_random_pose(5, 4))
    rotmats = axis_angle_to_matrix(vectors)
    vertices, _ = body.skin(rotmats, betas, trans)
    expected = torch.einsum("kv,bvc->bkc", body.keypoint_regressor, vertices)
    assert (body.keypoints(rotmats, betas, trans) - expected).abs().max() < 2e-5


def test_leading_dimensions_broadcast(default):
    vectors, betas, trans = _torch(*_random_pose(6, 5))
    rotmats = axis_angle_to_matrix(vectors).reshape(2, 3, 24, 3, 3)
    grid = trans.reshape(2, 3, 3)
    ids = torch.tensor([5, 13000, 77])
    vertices, joints = default.skin(rotmats, betas[0], grid)
    part, _ = default.skin(rotmats, betas[0], grid, vertex_ids=ids)
    assert vertices.shape == (2, 3, default.vertex_count, 3) and joints.shape == (2, 3, 24, 3)
    single, single_joints = default.skin(rotmats[1, 2], betas[0], grid[1, 2])
    torch.testing.assert_close(vertices[1, 2], single, atol=2e-6, rtol=0)
    torch.testing.assert_close(joints[1, 2], single_joints, atol=2e-6, rtol=0)
    torch.testing.assert_close(part, vertices[:, :, ids], atol=2e-6, rtol=0)
    points = default.keypoints(rotmats, betas[0], grid)
    torch.testing.assert_close(
        points[0, 1], default.keypoints(rotmats[0, 1], betas[0], grid[0, 1]), atol=2e-6, rtol=0
    )
    one_pose, _ = default.skin(rotmats[0, 0], betas, grid[0, 0])  # one pose, six shapes
    again, _ = default.skin(rotmats[0, 0], betas[3], grid[0, 0])
    torch.testing.assert_close(one_pose[3], again, atol=2e-6, rtol=0)
    assert default.keypoints(rotmats[0, 0], betas, grid[0, 0]).shape == (6, 25, 3)


def test_turning_the_root_turns_everything_about_the_pelvis(default):
    vectors, betas, trans = _torch(*_random_pose(1, 6))
    rotmats = axis_angle_to_matrix(vectors)
    turn = axis_angle_to_matrix(torch.tensor([0.3, -1.2, 0.5]))
    turned = rotmats.clone()
    turned[:, 0] = turn @ rotmats[:, 0]
    before, joints = default.skin(rotmats, betas, trans)
    after, _ = default.skin(turned, betas, trans)
    pelvis = joints[:, :1]
    torch.testing.assert_close(after, (before - pelvis) @ turn.mT + pelvis, atol=5e-6, rtol=0)


def test_gradients_reach_pose_shape_and_place():
    body = load_body().double()
    vectors, betas, trans = (x.requires_grad_() for x in _torch(*_random_pose(1, 7), dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda a, b, c: body.keypoints(axis_angle_to_matrix(a), b, c)[:, ::6], (vectors, betas, trans), atol=1e-7
    )


def test_double_precision_is_near_single(default):
    inputs = _random_pose(2, 8)
    vectors, betas, trans = _torch(*inputs)
    single, _ = default.skin(axis_angle_to_matrix(vectors), betas, trans)
    vectors, betas, trans = _torch(*inputs, dtype=torch.float64)
    double, _ = load_body().double().skin(axis_angle_to_matrix(vectors), betas, trans)
    assert double.dtype == torch.float64 and (single - double).abs().max() < 1e-5


# The shipped body


def test_zero_pose_is_the_t_pose(default):
    eye = torch.eye(3).expand(24, 3, 3)
    vertices, joints = default.skin(eye, torch.zeros(10), torch.zeros(3))
    torch.testing.assert_close(vertices, default.v_template, atol=1e-6, rtol=0)
    place = {name: joints[i].numpy() for i, name in enumerate(JOINT_NAMES)}
    np.testing.assert_allclose(place["pelvis"], 0, atol=1e-6)
    arm = place["left_wrist"] - place["left_shoulder"]
    assert arm[0] > 0.4 and abs(arm[1]) < 2e-3 and abs(arm[2]) < 2e-3  # level, straight out to the side
    elbow = (place["left_elbow"] - place["left_shoulder"]) / arm[0]
    assert abs(elbow[1]) < 4e-3 and abs(elbow[2]) < 4e-3
    assert place["head"][1] > place["neck"][1] > place["spine3"][1] > place["spine2"][1] > place["spine1"][1] > 0
    assert place["left_ankle"][1] < place["left_knee"][1] < place["left_hip"][1] < 0
    assert place["left_foot"][2] - place["left_ankle"][2] > 0.1  # toes to +z
    height = float(default.height(torch.zeros(10)))
    assert 1.6 < height < 1.8
    # hands: palm down, thumb in front of the little finger and not above the palm
    points = dict(zip(KEYPOINT_NAMES, (default.keypoint_regressor @ default.v_template).numpy()))
    assert points["left_thumb"][2] > points["left_index"][2] > points["left_pinky"][2]
    assert points["left_thumb"][1] < points["left_index"][1] + 0.01


def test_shape_keeps_the_pelvis_and_component_1_is_stature(default):
    assert default.joint_shapedirs[0].abs().max() < 1e-6
    step = torch.eye(16)[:10]
    heights = default.height(torch.cat([torch.zeros(1, 16), step]))
    assert 0.08 < heights[1] - heights[0] < 0.15
    assert (heights[2:] - heights[0]).abs().max() < 0.03


def test_mirror_symmetry(default):
    template = default.v_template.double().numpy()
    distance, mirror = cKDTree(template).query(template * FLIP)
    assert distance.max() < 1e-3
    assert (mirror[mirror] == np.arange(len(mirror))).all()
    np.testing.assert_allclose(default.weights[mirror][:, JOINT_MIRROR].numpy(), default.weights.numpy(), atol=1e-6)
    shapes = default.shapedirs.numpy()
    np.testing.assert_allclose(shapes[mirror] * FLIP[:, None], shapes, atol=1e-6)
    joints = default.joint_template.numpy()
    np.testing.assert_allclose(joints[list(JOINT_MIRROR)] * FLIP, joints, atol=1e-6)
    points = (default.keypoint_regressor @ default.v_template).numpy()
    np.testing.assert_allclose(points[list(KEYPOINT_MIRROR)] * FLIP, points, atol=1e-6)


def test_mirrored_pose_gives_the_mirrored_body(default):
    vectors, betas, trans = _random_pose(1, 9)
    template = default.v_template.double().numpy()
    _, mirror = cKDTree(template).query(template * FLIP)
    opposite = vectors[:, JOINT_MIRROR] * np.array([1.0, -1.0, -1.0])
    t = _torch(vectors, betas, trans, opposite, trans * FLIP)
    a, _ = default.skin(axis_angle_to_matrix(t[0]), t[1], t[2])
    b, _ = default.skin(axis_angle_to_matrix(t[3]), t[1], t[4])
    np.testing.assert_allclose(b.numpy()[0], a.numpy()[0][mirror] * FLIP, atol=2e-5)


def test_weights_and_regressors_are_proper(default, arrays):
    weights = default.weights
    assert (weights > 0).sum(1).max() <= 4 and weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    joints, values = default.influences()
    dense = torch.zeros_like(weights).scatter_(1, joints, values)
    torch.testing.assert_close(dense, weights, atol=1e-6, rtol=0)
    for rows in (default.J_regressor, default.keypoint_regressor):
        torch.testing.assert_close(rows.sum(1), torch.ones(len(rows)), atol=1e-5, rtol=0)
    assert (default.J_regressor >= 0).all()
    assert (default.keypoint_regressor != 0).sum(1).max() <= 16
    assert DEFAULT_PATH.stat().st_size < 8 << 20
    assert not arrays["posedirs"].any() and not arrays["has_posedirs"] and default.posedirs is None


def test_faces_are_closed_and_consistent(default):
    quads = default.quads.numpy()
    assert quads.shape == (13710, 4) and quads.min() >= 0 and quads.max() == default.vertex_count - 1
    assert default.triangles.shape == (27420, 3) and default.uv.shape == (13710 * 4, 2)
    assert default.uv.min() >= 0 and default.uv.max() <= 1
    edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    keys = edges[:, 0] * default.vertex_count + edges[:, 1]
    back = edges[:, 1] * default.vertex_count + edges[:, 0]
    assert len(np.unique(keys)) == len(keys)  # each directed edge once: consistent winding
    # volume by the divergence theorem: outward faces, and the volume of a person
    a, b, c = (default.v_template[default.triangles[:, i]].double() for i in range(3))
    volume = float((a * torch.linalg.cross(b, c)).sum() / 6)
    assert 0.05 < volume < 0.09
    assert np.isin(back, keys).mean() > 0.98  # open only at mouth, eyes and the like


def test_joint_keypoints_stay_while_their_joint_bends(default):
    rest = torch.eye(3).repeat(24, 1, 1)
    zero, origin = torch.zeros(10), torch.zeros(3)
    bends = {
        "elbow": (0, -2.0, 0),
        "knee": (2.0, 0, 0),
        "wrist": (0, 0, -1.0),
        "ankle": (0.7, 0, 0),
        "shoulder": (0, 0, -1.2),
        "hip": (-1.5, 0, 0),
    }
    for name, bend in bends.items():
        joint, point = JOINT_NAMES.index(f"left_{name}"), KEYPOINT_NAMES.index(f"left_{name}")
        bent = rest.clone()
        bent[joint] = axis_angle_to_matrix(torch.tensor(bend, dtype=torch.float32))
        moved = default.keypoints(bent, zero, origin)[point] - default.keypoints(rest, zero, origin)[point]
        assert moved.norm() < 0.004, name
        assert (default.keypoints(rest, zero, origin)[point] - default.joint_template[joint]).norm() < 0.035, name


def test_official_smpl_keypoints(with_correctives):
    body = with_correctives
    rows = body.keypoint_regressor
    torch.testing.assert_close(rows.sum(1), torch.ones(25), atol=1e-5, rtol=0)
    known = smplx.vertex_ids.vertex_ids["smplh"]
    for side, letter in (("left", "l"), ("right", "r")):
        for finger in ("thumb", "index", "pinky"):
            assert LANDMARK_VERTICES[f"{side}_{finger}_tip"] == known[letter + finger]
        assert LANDMARK_VERTICES[f"{side}_ear"] == known[letter + "ear"]
        assert LANDMARK_VERTICES[f"{side}_heel"] == known[letter.upper() + "Heel"]
        assert LANDMARK_VERTICES[f"{side}_big_toe"] == known[letter.upper() + "BigToe"]
    assert LANDMARK_VERTICES["nose"] == known["nose"]
    joints = body.J_regressor @ body.v_template
    points = rows @ body.v_template
    for name in ("left_knee", "right_wrist", "left_shoulder"):
        torch.testing.assert_close(points[KEYPOINT_NAMES.index(name)], joints[JOINT_NAMES.index(name)])


def test_smpl_shares_put_keypoints_where_the_shipped_body_has_them(default):
    """The recipe for SMPL, applied to the shipped body's own joints and landmarks."""
    v = default.v_template.double().numpy()
    owner = default.weights.argmax(1).numpy()

    def farthest(joint: str, direction) -> int:
        part = np.flatnonzero(owner == JOINT_NAMES.index(joint))
        return int(part[np.argmax(v[part] @ np.array(direction, float))])

    left = {
        "left_heel": farthest("left_ankle", (0, -0.6, -0.8)),
        "left_big_toe": farthest("left_foot", (-0.35, 0, 1)),
        "left_thumb_tip": farthest("left_wrist", (0.3, -0.5, 1)),
        "left_index_tip": farthest("left_hand", (1, 0, 0.6)),
        "left_pinky_tip": farthest("left_hand", (1, 0, -1.5)),
    }
    ear = np.array([0.072, 0.621, 0.06])  # the tragus
    _, mirror = cKDTree(v).query(v * FLIP)
    left["left_ear"] = int(cKDTree(v).query(ear)[1])
    landmarks = left | {"right" + k.removeprefix("left"): int(mirror[i]) for k, i in left.items()}
    landmarks["nose"] = farthest("head", (0, 0, 1))
    rows = keypoint_rows(default.J_regressor.double().numpy(), landmarks, hip_outward=0.0)
    off = np.linalg.norm(rows @ v - default.keypoint_regressor.double().numpy() @ v, axis=1)
    for name, distance in zip(KEYPOINT_NAMES, off):
        assert distance < 0.021, (name, distance)


def test_smplfitter_recovers_pose_and_shape(default, arrays, tmp_path):
    smplfitter = pytest.importorskip("smplfitter.pt")
    stored = {key: arrays[key] for key in body_file.REQUIRED} | {"posedirs": arrays["posedirs"]}
    (tmp_path / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl").write_bytes(pickle.dumps(stored))
    np.save(tmp_path / "kid_template.npy", np.zeros_like(arrays["v_template"]))
    subset = np.arange(0, default.vertex_count, 11)
    model = smplfitter.BodyModel("smpl", "neutral", model_root=str(tmp_path), num_betas=10, vertex_subset=subset)
    fitter = smplfitter.BodyFitter(model)
    vectors, betas, trans = _torch(*_random_pose(2, 10, spread=0.25))
    target, joints = default.skin(axis_angle_to_matrix(vectors), betas, trans, vertex_ids=torch.as_tensor(subset))
    fit = fitter.fit(
        target, joints, num_iter=3, beta_regularizer=1e-4, requested_keys=["pose_rotvecs", "shape_betas", "trans"]
    )
    pose = axis_angle_to_matrix(fit["pose_rotvecs"].reshape(2, 24, 3))
    again, _ = default.skin(pose, fit["shape_betas"], fit["trans"])
    whole, _ = default.skin(axis_angle_to_matrix(vectors), betas, trans)
    error = (again - whole).norm(dim=-1)
    assert error.mean() < 0.005 and error.max() < 0.05


def test_readme_tells_size_and_checksum_of_the_file():
    data = DEFAULT_PATH.read_bytes()
    text = (DEFAULT_PATH.parent / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"`{DEFAULT_PATH.name}`"))
    assert line == f"`{DEFAULT_PATH.name}`, {len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}"


def test_missing_shipped_body_is_a_setup_error(monkeypatch, tmp_path):
    monkeypatch.setattr("core.body.DEFAULT_PATH", tmp_path / "gone.npz")
    with pytest.raises(SetupError, match="gone.npz"):
        load_body()
