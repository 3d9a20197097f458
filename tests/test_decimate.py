"""Decimation on meshes whose right answer is known: planes, boxes, spheres, borders."""

from __future__ import annotations

import numpy as np
import pytest

from core.decimate import Decimation


def _grid(n: int, fold: float = 0.0):
    """n x n points in the unit square, folded along x = 1/2 by `fold` radians; triangles wound towards +z."""
    x, y = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
    over = np.maximum(x - 0.5, 0)
    points = np.stack([np.minimum(x, 0.5) + over * np.cos(fold), y, over * np.sin(fold)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n - 1), np.arange(n - 1), indexing="ij")
    a = (i * n + j).ravel()
    return points, np.concatenate([np.stack([a, a + n, a + n + 1], 1), np.stack([a, a + n + 1, a + 1], 1)])


def _sphere(rings: int = 24, segments: int = 40):
    """Closed unit sphere with single poles."""
    angle = np.arange(1, rings) * np.pi / rings
    turn = np.arange(segments) * 2 * np.pi / segments
    ring = np.stack(
        [np.outer(np.sin(angle), np.cos(turn)), np.outer(np.sin(angle), np.sin(turn)),
         np.repeat(np.cos(angle)[:, None], segments, 1)], -1
    ).reshape(-1, 3)  # fmt: skip
    points = np.concatenate([ring, [[0, 0, 1], [0, 0, -1]]])
    top, bottom = len(ring), len(ring) + 1
    faces = []
    for s in range(segments):
        t = (s + 1) % segments
        faces.append((top, s, t))
        last = (rings - 2) * segments
        faces.append((bottom, last + t, last + s))
        for r in range(rings - 2):
            a, b = r * segments, (r + 1) * segments
            faces += [(a + s, b + s, b + t), (a + s, b + t, a + t)]
    return points, np.array(faces)


def _box():
    """Axis-aligned cube from six folded 9 x 9 grids, welded; side 1."""
    n = 9
    steps = np.linspace(0, 1, n)
    index: dict[tuple, int] = {}
    faces = []
    for axis in range(3):
        for side in (0.0, 1.0):

            def at(i, j, axis=axis, side=side):
                p = [0.0, 0.0, 0.0]
                p[axis], p[(axis + 1) % 3], p[(axis + 2) % 3] = side, steps[i], steps[j]
                return index.setdefault(tuple(p), len(index))

            for i in range(n - 1):
                for j in range(n - 1):
                    a, b, c, d = at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)
                    quad = (a, b, c, d) if side else (a, d, c, b)
                    faces += [(quad[0], quad[1], quad[2]), (quad[0], quad[2], quad[3])]
    return np.array(list(index)), np.array(faces)


def _edges(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _assert_manifold(faces, *, closed: bool):
    edges = [tuple(e) for e in _edges(faces).tolist()]
    assert len(set(edges)) == len(edges)
    if closed:
        assert all((b, a) in set(edges) for a, b in edges)
        assert len(np.unique(faces)) - len(edges) // 2 + len(faces) == 2  # Euler: a sphere


def _volume(points, faces):
    a, b, c = points[faces.T]
    return float((a * np.cross(b, c)).sum() / 6)


def test_a_cube_is_reduced_to_its_corners_without_loss():
    points, faces = _box()
    assert _volume(points, faces) == pytest.approx(1)
    mesh = Decimation(points[None], faces)
    mesh.collapse_to(8)
    kept = points[mesh.vertex_ids()]
    assert {tuple(p) for p in kept.tolist()} == {(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)}
    _assert_manifold(mesh.faces(), closed=True)
    assert _volume(points, mesh.faces()) == pytest.approx(1)


def test_a_fold_and_the_corners_of_a_sheet_are_kept():
    points, faces = _grid(11, fold=1.0)
    mesh = Decimation(points[None], faces)
    mesh.collapse_to(12)
    left = mesh.faces()
    _assert_manifold(left, closed=False)
    a, b, c = points[left.T]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(1, abs=1e-9)  # border and fold are still straight


def test_a_pose_that_bends_keeps_vertices_at_the_bend():
    flat, faces = _grid(21)
    bent, _ = _grid(21, fold=1.2)
    alone = Decimation(flat[None], faces, evenness=1e-6)
    both = Decimation(np.stack([flat, bent]), faces, evenness=1e-6)
    counts = []
    for mesh in (alone, both):
        mesh.collapse_to(30)
        counts.append(int((np.abs(flat[mesh.vertex_ids(), 0] - 0.5) < 1e-9).sum()))
    assert counts[1] >= 2
    # every face lies on one side of the bend, so the bent sheet is met exactly
    x = flat[both.faces()][..., 0]
    assert ((x <= 0.5 + 1e-9).all(1) | (x >= 0.5 - 1e-9).all(1)).all()
    x = flat[alone.faces()][..., 0]
    assert not ((x <= 0.5 + 1e-9).all(1) | (x >= 0.5 - 1e-9).all(1)).all()


def test_a_sphere_stays_round_and_closed():
    points, faces = _sphere()
    mesh = Decimation(points[None], faces)
    mesh.collapse_to(120)
    ids, left = mesh.vertex_ids(), mesh.faces()
    assert len(ids) == 120 and set(np.unique(left)) == set(ids.tolist())
    _assert_manifold(left, closed=True)
    assert _volume(points, left) > 0.9 * _volume(points, faces)
    a, b, c = points[left.T]
    normal = np.cross(b - a, c - a)
    assert ((normal * (a + b + c)).sum(1) > 0).all()  # nothing turned over


def test_kept_by_leads_to_kept_neighbours():
    points, faces = _sphere()
    mesh = Decimation(points[None], faces)
    mesh.collapse_to(60)
    kept = mesh.kept_by()
    ids = mesh.vertex_ids()
    np.testing.assert_array_equal(kept[ids], ids)
    assert set(kept.tolist()) == set(ids.tolist())
    assert np.linalg.norm(points - points[kept], axis=1).max() < 1.2


def test_importance_draws_vertices():
    points, faces = _sphere()
    importance = np.where(points[:, 2] > 0, 100.0, 1.0)
    mesh = Decimation(points[None], faces, importance=importance)
    mesh.collapse_to(100)
    assert (points[mesh.vertex_ids(), 2] > 0).sum() > 60


def test_impossible_counts_are_refused_and_results_repeat():
    points, faces = _sphere(8, 12)
    with pytest.raises(ValueError, match="cannot be reduced below"):
        Decimation(points[None], faces).collapse_to(3)
    results = []
    for _ in range(2):
        mesh = Decimation(points[None], faces, evenness=0.1)
        mesh.collapse_to(30)
        results.append(mesh.faces())
    np.testing.assert_array_equal(*results)
