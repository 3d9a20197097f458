"""Quadric error decimation by half-edge collapses over several poses of one mesh; numpy and heapq only.

Garland and Heckbert, "Surface Simplification Using Quadric Error Metrics" (1997); quadrics summed over poses as in
Mohr and Gleicher, "Deformation Sensitive Decimation" (2003). The kept vertices are vertices of the input. A collapse
is made only where the surface stays a manifold (link condition) and no face turns over. V vertices, P poses, T faces.
"""

from __future__ import annotations

import heapq

import numpy as np

SMALLEST_COSINE = 0.5
"""A collapse may turn a face, in the first pose, by at most the angle of this cosine."""
SMALLEST_QUALITY = 0.04
"""Nor make a face so thin that 4 sqrt(3) area / (sum of squared edges) falls below this (1: equilateral)."""


class Decimation:
    """Collapses vertices of a closed or open manifold triangle mesh one by one, cheapest first.

    poses [P, V, 3]: the same mesh in one or more poses; triangles [T, 3]; evenness: cost per squared metre of the
    collapsed edge and square metre of skin, which keeps flat regions evenly covered; importance [V]: factor on the
    cost of each vertex's own skin.
    """

    def __init__(
        self,
        poses: np.ndarray,
        triangles: np.ndarray,
        *,
        evenness: float = 0.0,
        importance: np.ndarray | None = None,
    ):
        self._poses = np.asarray(poses, np.float64)
        V = self._poses.shape[1]
        self._faces: dict[int, tuple[int, int, int]] = {i: tuple(t) for i, t in enumerate(triangles.tolist())}
        self._faces_of: list[set[int]] = [set() for _ in range(V)]
        for i, face in self._faces.items():
            for vertex in face:
                self._faces_of[vertex].add(i)
        self._kept_by = np.arange(V)
        area = np.zeros(V)
        quadrics = np.zeros((V, len(self._poses), 10))
        for pose, points in enumerate(self._poses):
            a, b, c = points[triangles.T]
            normal = np.cross(b - a, c - a)
            size = np.linalg.norm(normal, axis=1)
            normal = normal / np.maximum(size, 1e-20)[:, None]
            plane = np.concatenate([normal, -(normal * a).sum(1, keepdims=True)], 1)
            products = _symmetric_products(plane) * (size / 6)[:, None]  # a third of the area to each corner
            for corner in range(3):
                np.add.at(quadrics[:, pose], triangles[:, corner], products)
                np.add.at(area, triangles[:, corner], size / 6 / len(self._poses))
            self._add_borders(quadrics[:, pose], points, normal, triangles)
        factor = np.ones(V) if importance is None else np.asarray(importance, np.float64)
        self._quadrics = (quadrics * factor[:, None, None]).reshape(V, -1)
        self._area = area * factor
        homogeneous = np.concatenate([self._poses, np.ones((*self._poses.shape[:2], 1))], -1)
        products = _symmetric_products(homogeneous) * np.array([1, 2, 2, 2, 1, 2, 2, 1, 2, 1])
        self._monomials = products.transpose(1, 0, 2).reshape(V, -1)
        self._rest = self._poses[0]
        self._points = [tuple(p) for p in self._rest.tolist()]
        self._evenness = evenness
        self._stamp = [0] * V
        self._heap: list[tuple[float, int, int]] = []
        self._alive = [bool(faces) for faces in self._faces_of]
        self._count = sum(self._alive)
        self._push(np.flatnonzero(self._alive).tolist())

    def collapse_to(self, count: int) -> None:
        """Collapse until `count` vertices are left. Raises ValueError where no further collapse is allowed."""
        while self._count > count:
            if not self._heap:
                raise ValueError(f"the mesh cannot be reduced below {self._count} vertices")
            cost, vertex, stamp = heapq.heappop(self._heap)
            if not self._alive[vertex] or stamp != self._stamp[vertex]:
                continue
            for target, its_cost in self._targets(vertex):
                if self._is_allowed(vertex, target):
                    if its_cost > cost:  # cheaper targets were not allowed: wait for its turn
                        heapq.heappush(self._heap, (its_cost, vertex, stamp))
                    else:
                        self._collapse(vertex, target)
                    break

    def vertex_ids(self) -> np.ndarray:
        """Vertices left, ascending [C] int64."""
        return np.flatnonzero(self._alive)

    def faces(self) -> np.ndarray:
        """Faces left [F', 3] int64, as vertex numbers of the input mesh."""
        return np.array([self._faces[i] for i in sorted(self._faces)], np.int64)

    def kept_by(self) -> np.ndarray:
        """For each input vertex [V] the vertex it was collapsed into, at the end of the chain (itself if kept)."""
        kept = self._kept_by
        while (kept[kept] != kept).any():
            kept = kept[kept]
        self._kept_by = kept
        return kept

    @staticmethod
    def _add_borders(quadrics: np.ndarray, points: np.ndarray, normal: np.ndarray, triangles: np.ndarray) -> None:
        """Planes that stand on border edges, so that borders keep their course."""
        V = len(points)
        starts = triangles.T.ravel()
        ends = triangles[:, [1, 2, 0]].T.ravel()
        border = ~np.isin(starts * V + ends, ends * V + starts)
        starts, ends, normal = starts[border], ends[border], np.tile(normal, (3, 1))[border]
        along = points[ends] - points[starts]
        upright = np.cross(along, normal)
        length = np.linalg.norm(upright, axis=1, keepdims=True)
        upright = upright / np.maximum(length, 1e-20)
        plane = np.concatenate([upright, -(upright * points[starts]).sum(1, keepdims=True)], 1)
        products = _symmetric_products(plane) * length**2
        np.add.at(quadrics, starts, products)
        np.add.at(quadrics, ends, products)

    def _neighbours(self, vertex: int) -> set[int]:
        found = {v for i in self._faces_of[vertex] for v in self._faces[i]}
        found.discard(vertex)
        return found

    def _costs(self, vertices: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Costs [n] of moving vertices [n] onto targets [n]: squared distances from all planes met, by area."""
        joined = self._quadrics[vertices] + self._quadrics[targets]
        costs = np.einsum("nq,nq->n", joined, self._monomials[targets])
        lengths = ((self._rest[targets] - self._rest[vertices]) ** 2).sum(1)
        return costs + self._evenness * lengths * (self._area[vertices] + self._area[targets])

    def _push(self, vertices: list[int]) -> None:
        """Put vertices into the heap at the cost of their cheapest collapse."""
        neighbours = [self._neighbours(vertex) for vertex in vertices]
        lengths = [len(n) for n in neighbours]
        targets = np.fromiter((v for n in neighbours for v in n), np.int64, sum(lengths))
        costs = self._costs(np.repeat(vertices, lengths), targets)
        starts = np.cumsum([0, *lengths[:-1]])
        for cost, vertex in zip(np.minimum.reduceat(costs, starts).tolist(), vertices):
            heapq.heappush(self._heap, (cost, vertex, self._stamp[vertex]))

    def _targets(self, vertex: int) -> list[tuple[int, float]]:
        """(neighbour, cost), cheapest first; ties by number, so that the result does not depend on set order."""
        neighbours = np.array(sorted(self._neighbours(vertex)), np.int64)
        costs = self._costs(np.full_like(neighbours, vertex), neighbours)
        order = np.argsort(costs, kind="stable")
        return list(zip(neighbours[order].tolist(), costs[order].tolist()))

    def _is_allowed(self, vertex: int, target: int) -> bool:
        shared = self._faces_of[vertex] & self._faces_of[target]
        around, around_target = self._neighbours(vertex), self._neighbours(target)
        opposite = {v for i in shared for v in self._faces[i]} - {vertex, target}
        if around & around_target != opposite or len(opposite) != len(shared):
            return False
        own = self._faces_of[vertex]
        if len(around) > len(own) and len(shared) != 1:  # a border vertex moves along the border only
            return False
        if len(shared) == 2 and len(around | around_target) <= 4:  # would fold a tetrahedron flat
            return False
        p = self._points
        for i in own - shared:
            a, b, c = self._faces[i]
            old = p[a], p[b], p[c]
            before = _normal(*old)
            a, b, c = (target if v == vertex else v for v in (a, b, c))
            after = _normal(p[a], p[b], p[c])
            dot = before[0] * after[0] + before[1] * after[1] + before[2] * after[2]
            sizes = _square(before) * _square(after)
            if dot <= 0 or dot * dot < SMALLEST_COSINE**2 * sizes:
                return False
            if _quality(p[a], p[b], p[c], after) < min(SMALLEST_QUALITY, 0.9 * _quality(*old, before)):
                return False
        return True

    def _collapse(self, vertex: int, target: int) -> None:
        touched = self._neighbours(vertex)
        for i in list(self._faces_of[vertex]):
            face = self._faces[i]
            if target in face:
                for corner in face:
                    self._faces_of[corner].discard(i)
                del self._faces[i]
            else:
                self._faces[i] = tuple(target if corner == vertex else corner for corner in face)
                self._faces_of[target].add(i)
        self._faces_of[vertex] = set()
        self._quadrics[target] += self._quadrics[vertex]
        self._area[target] += self._area[vertex]
        self._kept_by[vertex] = target
        self._alive[vertex] = False
        self._count -= 1
        changed = list(touched | self._neighbours(target))
        for other in changed:
            self._stamp[other] += 1
        self._push(changed)


def _symmetric_products(x: np.ndarray) -> np.ndarray:
    """[..., 4] -> [..., 10]: the upper triangle of x x^T."""
    i, j = np.triu_indices(4)
    return x[..., i] * x[..., j]


def _normal(a, b, c) -> tuple[float, float, float]:
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


def _square(v) -> float:
    return v[0] * v[0] + v[1] * v[1] + v[2] * v[2]


def _quality(a, b, c, normal) -> float:
    """1 for an equilateral triangle, 0 for one without area; normal as _normal gives it."""
    edges = 0.0
    for p, q in ((a, b), (b, c), (c, a)):
        edges += (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 + (p[2] - q[2]) ** 2
    return 2 * 3**0.5 * _square(normal) ** 0.5 / max(edges, 1e-30)
