"""The coarse mesh of the shipped body and of one with another topology, at rest and posed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.body import DEFAULT_PATH, Body, load_body
from core.body_file import read_body_file
from core.coarse import COARSE_COUNT, _nearest_on_triangles, build_coarse, example_poses
from core.decimate import Decimation
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES


@pytest.fixture(scope="module")
def default() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def coarse(default):
    return build_coarse(default)


@pytest.fixture(scope="module")
def other(default) -> Body:
    """A body of another topology: 1,500 vertices, triangles only, no eyes."""
    arrays = read_body_file(DEFAULT_PATH)
    triangles = arrays["f"]
    count = np.bincount(triangles.ravel(), minlength=default.vertex_count)
    mesh = Decimation(arrays["v_template"][None], triangles[(count[triangles] > 0).all(1)], evenness=1e-3)
    mesh.collapse_to(1500)
    ids = mesh.vertex_ids()
    regressor = arrays["J_regressor"][:, ids] + 1e-6
    points = arrays["keypoint_regressor"][:, ids] + 1e-6
    small = dict(
        arrays,
        v_template=arrays["v_template"][ids],
        shapedirs=arrays["shapedirs"][ids],
        weights=arrays["weights"][ids],
        J_regressor=regressor / regressor.sum(1, keepdims=True),
        keypoint_regressor=points / points.sum(1, keepdims=True),
        f=np.searchsorted(ids, mesh.faces()),
        quads=None,
        uv=None,
        quad_uv=None,
    )
    return Body(small, name="small", gender="neutral")


def _assert_proper(coarse, body):
    C, V = COARSE_COUNT, body.vertex_count
    assert coarse.D.shape == (C, V) and coarse.U.shape == (V, C)
    np.testing.assert_array_equal(coarse.D.sum(1), 1)
    np.testing.assert_array_equal(np.sort(np.unique(coarse.D)), [0, 1])
    assert coarse.D.sum(0).max() == 1
    np.testing.assert_array_equal(coarse.D.argmax(1), coarse.vertex_ids)
    np.testing.assert_allclose(coarse.U.sum(1), 1, atol=1e-6)
    assert coarse.U.min() >= 0 and (coarse.U > 0).sum(1).max() <= 3
    np.testing.assert_array_equal(coarse.D @ coarse.U, np.eye(C, dtype=np.float32))
    edges = [tuple(e) for i in range(3) for e in coarse.faces[:, [i, (i + 1) % 3]].tolist()]
    directed = set(edges)
    assert len(directed) == len(edges)
    assert all((b, a) in directed for a, b in edges)
    np.testing.assert_array_equal(np.unique(coarse.faces), np.arange(C))
    v = body.v_template.double().numpy()[coarse.vertex_ids]
    a, b, c = v[coarse.faces.T]
    whole = body.v_template.double().numpy()[body.triangles.numpy()]
    volume = (whole[:, 0] * np.cross(whole[:, 1], whole[:, 2])).sum()
    assert 0.85 * volume < (a * np.cross(b, c)).sum() < 1.02 * volume


def _errors(coarse, vertices):
    return np.linalg.norm(coarse.U @ (coarse.D @ vertices) - vertices, axis=-1)


def test_shipped_body(default, coarse):
    _assert_proper(coarse, default)
    error = _errors(coarse, default.v_template.double().numpy())
    assert np.sqrt((error**2).mean()) < 0.006 and error.max() < 0.03


def test_limbs_fingers_and_toes_are_covered(default, coarse):
    carried = default.weights.numpy()[coarse.vertex_ids]
    # collars own no skin outright: a quarter of a vertex's weight counts
    assert ((carried > 0.25).sum(0) >= 2).all()
    error = _errors(coarse, default.v_template.double().numpy())
    whole = default.weights.argmax(1).numpy()
    for name in ("left_hand", "right_hand", "left_foot", "right_foot", "head"):
        part = error[whole == JOINT_NAMES.index(name)]
        assert part.max() < 0.026, name
        assert np.sqrt((part**2).mean()) < 0.009, name
    lifted = coarse.U @ (coarse.D @ default.v_template.numpy())
    points = default.keypoint_regressor.numpy()
    moved = np.linalg.norm(points @ lifted - points @ default.v_template.numpy(), axis=1)
    assert moved.max() < 0.015, KEYPOINT_NAMES[moved.argmax()]


def test_posed_and_shaped_bodies(default, coarse):
    rng = np.random.default_rng(0)
    vectors = torch.as_tensor(rng.normal(size=(4, 24, 3)) * 0.35, dtype=torch.float32)
    vectors[:, [JOINT_NAMES.index(f"spine{i}") for i in (1, 2, 3)]] *= 0.5  # three joints share what a back can do
    betas = torch.as_tensor(rng.normal(size=(4, 16)), dtype=torch.float32)
    posed, _ = default.skin(axis_angle_to_matrix(vectors), betas, torch.zeros(3))
    for vertices in [*example_poses(default), *posed.double().numpy()]:
        error = _errors(coarse, vertices)
        assert np.sqrt((error**2).mean()) < 0.0085
        assert error.max() < 0.05


def test_example_poses_start_at_rest_and_mirror(default):
    poses = example_poses(default)
    np.testing.assert_allclose(poses[0], default.v_template.numpy(), atol=1e-6)
    assert np.abs(poses[1] - poses[2]).max() > 0.2
    low, high = poses.min(1), poses.max(1)
    np.testing.assert_allclose(low[0, 0], -high[0, 0], atol=1e-5)


def test_another_topology(other):
    coarse = build_coarse(other)
    _assert_proper(coarse, other)
    error = _errors(coarse, other.v_template.double().numpy())
    assert np.sqrt((error**2).mean()) < 0.01
    again = build_coarse(other)
    np.testing.assert_array_equal(coarse.faces, again.faces)
    np.testing.assert_array_equal(coarse.U, again.U)
    assert len(build_coarse(other, 200).vertex_ids) == 200


def test_nearest_point_on_a_triangle():
    rng = np.random.default_rng(1)
    points, triangles = rng.normal(size=(40, 3)), rng.normal(size=(30, 3, 3))
    weights = _nearest_on_triangles(points, triangles)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-12)
    assert weights.min() >= 0
    found = np.linalg.norm(np.einsum("amk,mkc->amc", weights, triangles) - points[:, None], axis=-1)
    n = 60
    grid = np.array([(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]) / n
    samples = np.einsum("gk,mkc->mgc", grid, triangles)
    best = np.linalg.norm(samples[None] - points[:, None, None], axis=-1).min(-1)
    assert (found <= best + 1e-9).all() and (best - found).max() < 0.06
