"""The coarse mesh of the networks: a few hundred vertices picked from a body, and the way back to all of them.

Decimation (core.decimate) runs over the rest pose and two bent poses, so that rings of vertices stay around the
joints; the lift back is barycentric. V vertices, C coarse vertices, P poses, F' coarse faces. Deterministic.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from core.body import Body
from core.decimate import Decimation
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_COUNT, JOINT_NAMES

COARSE_COUNT = 431
"""As in the papers."""
EVENNESS = 1e-3
HEAD_IMPORTANCE = 0.7
"""Factor on the head's skin: lips and eyelids would otherwise take a third of the vertices."""
INNER_CANDIDATES = 14
CLUSTER_SIZE = 0.04
"""Metres."""
BENDS: dict[str, tuple[float, float, float]] = {
    "hip": (-1.0, 0.0, 0.3),
    "knee": (1.2, 0.0, 0.0),
    "ankle": (-0.4, 0.0, 0.0),
    "foot": (-0.5, 0.0, 0.0),
    "shoulder": (0.3, -0.4, -0.9),
    "elbow": (0.0, -1.4, 0.0),
    "wrist": (0.0, 0.0, -0.8),
    "hand": (0.0, 0.0, -0.9),
    "spine1": (0.4, 0.25, 0.2),
    "spine2": (0.3, 0.3, 0.15),
    "spine3": (0.2, 0.2, 0.1),
    "neck": (0.3, 0.3, 0.0),
}
"""Axis-angle turns of the first bent pose, right side mirrored; in the second those of BOTH_WAYS are reversed."""
BOTH_WAYS = ("hip", "ankle", "shoulder", "wrist", "spine1", "spine2", "spine3", "neck")


@dataclass(frozen=True)
class Coarse:
    """Coarse mesh of a body: `D @ vertices` picks its vertices, `U @ coarse_vertices` lifts them back."""

    D: np.ndarray
    """[C, V] float32, one 1 in each row."""
    U: np.ndarray
    """[V, C] float32: at most three positive numbers in each row, sum 1; the picked vertices' rows are one-hot."""
    faces: np.ndarray
    """[F', 3] int64 into the coarse vertices: a closed surface wound like the body's."""
    vertex_ids: np.ndarray
    """[C] int64, ascending: the picked vertices of the body."""


def build_coarse(body: Body, count: int = COARSE_COUNT) -> Coarse:
    """Decimate a body to exactly `count` vertices. Only its largest connected part is kept (no eyeballs or tongue).

    About three seconds for the shipped body on one core.
    """
    poses = example_poses(body)
    triangles = body.triangles.cpu().numpy()
    triangles = triangles[_largest_part(triangles, poses.shape[1])]
    on_head = body.weights[:, JOINT_NAMES.index("head")].cpu().numpy().astype(np.float64)
    decimation = Decimation(
        poses, triangles, evenness=EVENNESS, importance=1 - (1 - HEAD_IMPORTANCE) * on_head
    )  # fmt: skip
    decimation.collapse_to(count)
    ids = decimation.vertex_ids()
    faces = np.searchsorted(ids, decimation.faces())
    D = np.zeros((len(ids), poses.shape[1]), np.float32)
    D[np.arange(len(ids)), ids] = 1
    U = _lift(poses, ids, faces, decimation.kept_by())
    return Coarse(D, U, faces, ids)


def example_poses(body: Body) -> np.ndarray:
    """The body at rest and in two bent poses [3, V, 3] float64, mean shape."""
    vectors = torch.zeros(3, JOINT_COUNT, 3)
    for joint, turn in BENDS.items():
        turns = torch.tensor(turn)
        back = -turns if joint in BOTH_WAYS else turns
        mirror = torch.tensor([1.0, -1.0, -1.0])
        if joint in JOINT_NAMES:
            vectors[1, JOINT_NAMES.index(joint)], vectors[2, JOINT_NAMES.index(joint)] = turns, back
        else:
            left, right = JOINT_NAMES.index(f"left_{joint}"), JOINT_NAMES.index(f"right_{joint}")
            vectors[1, left], vectors[1, right] = turns, turns * mirror
            vectors[2, left], vectors[2, right] = back, back * mirror
    device, dtype = body.v_template.device, body.v_template.dtype
    rotmats = axis_angle_to_matrix(vectors).to(device, dtype)
    with torch.no_grad():
        posed, _ = body.skin(rotmats, body.v_template.new_zeros(10), body.v_template.new_zeros(3))
    return posed.double().cpu().numpy()


def _largest_part(triangles: np.ndarray, V: int) -> np.ndarray:
    """Mask [T] of the triangles of the largest connected part."""
    label = np.arange(V)
    while True:  # the smallest number spreads over each part
        lowest = label[triangles].min(1)
        new = label.copy()
        for corner in range(3):
            np.minimum.at(new, triangles[:, corner], lowest)
        new = new[new]
        if (new == label).all():
            break
        label = new
    parts, counts = np.unique(label[triangles[:, 0]], return_counts=True)
    return label[triangles[:, 0]] == parts[counts.argmax()]


def _lift(poses: np.ndarray, ids: np.ndarray, faces: np.ndarray, kept_by: np.ndarray) -> np.ndarray:
    """U [V, C]: each vertex by its nearest point of the coarse faces near the vertex it was collapsed into.

    Of those faces the one nearest over all poses counts, with the place on it from the rest pose.
    """
    V = poses.shape[1]
    coarse_of = np.full(V, -1)
    coarse_of[ids] = np.arange(len(ids))
    own = coarse_of[kept_by]
    U = np.zeros((V, len(ids)), np.float32)
    lost = np.flatnonzero(own < 0)  # vertices of dropped parts
    if len(lost):
        U[lost] = _lift_inner(poses, lost, ids)
    faces_at: list[list[int]] = [[] for _ in ids]
    for i, face in enumerate(faces.tolist()):
        for corner in face:
            faces_at[corner].append(i)
    for c in range(len(ids)):
        members = np.flatnonzero(own == c)
        ring = {v for i in faces_at[c] for v in faces[i].tolist()}
        near = np.array(sorted({i for v in ring for i in faces_at[v]}))
        corners = ids[faces[near]]  # [M, 3]
        weights = _nearest_on_triangles(poses[0][members], poses[0][corners])  # [m, M, 3]
        error = np.zeros(weights.shape[:2])
        for points in poses:
            lifted = np.einsum("amk,mkc->amc", weights, points[corners])
            error += ((lifted - points[members][:, None]) ** 2).sum(-1)
        best = error.argmin(1)
        for vertex, face, weight in zip(members, near[best], weights[np.arange(len(members)), best]):
            np.add.at(U[vertex], faces[face], weight.astype(np.float32))
    U[ids] = np.eye(len(ids), dtype=np.float32)
    return U / U.sum(1, keepdims=True)


def _lift_inner(poses: np.ndarray, lost: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Rows [len(lost), C] for vertices inside the surface: by whichever three of the coarse vertices nearest to all
    of them span a triangle that passes them most closely over all poses."""
    rest = poses[0]
    rows = np.zeros((len(lost), len(ids)), np.float32)
    for part in _clusters(rest[lost]):
        members = lost[part]
        distance = np.linalg.norm(rest[ids] - rest[members].mean(0), axis=1)
        near = np.argsort(distance, kind="stable")[:INNER_CANDIDATES]
        triples = near[np.array(list(itertools.combinations(range(len(near)), 3)))]
        weights = _nearest_on_triangles(rest[members], rest[ids[triples]])
        error = np.zeros(weights.shape[:2])
        for points in poses:
            lifted = np.einsum("amk,mkc->amc", weights, points[ids[triples]])
            error += ((lifted - points[members][:, None]) ** 2).sum(-1)
        best = error.argmin(1)
        chosen = np.arange(len(members))
        rows[np.flatnonzero(part)[:, None], triples[best]] = weights[chosen, best]
    return rows


def _clusters(points: np.ndarray) -> list[np.ndarray]:
    """Masks [n] that part points [n, 3] into boxes of CLUSTER_SIZE, so that each has its own surroundings."""
    boxes, box_of = np.unique(np.floor(points / CLUSTER_SIZE), axis=0, return_inverse=True)
    return [box_of.ravel() == i for i in range(len(boxes))]


def _nearest_on_triangles(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Barycentric coordinates [m, M, 3] of the point of each triangle [M, 3, 3] nearest to each of points [m, 3]."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    ab, ac = b - a, c - a
    ap = points[:, None] - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-24)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = np.stack([1 - v - w, v, w], -1)
    # outside: the nearest of the three edges
    best = np.full(v.shape, np.inf)
    on_edge = np.zeros_like(inside)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, along = triangles[:, i], triangles[:, j] - triangles[:, i]
        t = ((points[:, None] - start) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-24)
        t = np.clip(t, 0, 1)
        distance = ((start + t[..., None] * along - points[:, None]) ** 2).sum(-1)
        candidate = np.zeros_like(inside)
        candidate[..., i], candidate[..., j] = 1 - t, t
        nearer = distance < best
        best = np.where(nearer, distance, best)
        on_edge = np.where(nearer[..., None], candidate, on_edge)
    return np.where((inside >= 0).all(-1, keepdims=True), inside, on_edge)
