"""Joint rotations and one shape from meshes: what a mesh network says, in the parameters of the body.

Rotations by rounds of weighted Kabsch alignment, all parts and frames at once: every joint turns so that the skin it
carries meets the target. Shape by linear least squares with the rotations held. N frames, n vertices, J joints.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.rotation import nearest_rotation
from core.skeleton import PARENTS

PULL_TO_START = 2e-4
"""Square metres of imaginary skin per joint that hold it at its present rotation: hands and toes have little skin."""


def fit_rotations(
    body,
    vertices: Tensor,
    vertex_ids: Tensor,
    betas: Tensor,
    rotmats: Tensor,
    *,
    rounds: int = 4,
    joints: Tensor | None = None,
) -> Tensor:
    """Local rotations [N, J, 3, 3] whose body meets `vertices` [N, n, 3] (relative to the pelvis) best.

    betas [S]; rotmats [N, J, 3, 3] to start from (the neutral pose will do, a network's own guess is better).
    joints [N, J, 3]: where a network sees the joints; bones then point there, and skin says how they are twisted.
    """
    parents = torch.tensor(PARENTS[1:], device=vertices.device)
    seen = None if joints is None else joints[:, 1:] - joints[:, parents]
    weights = body.weights[vertex_ids]  # [n, J]
    weights = weights / weights.sum(0).clamp_min(1e-6)  # each joint's skin counts 1, so rounds do not depend on n
    for _ in range(rounds):
        posed, global_rotmats, posed_joints = _pose(body, rotmats, betas, vertex_ids)
        mean_posed = torch.einsum("vj,nvk->njk", weights, posed)
        mean_target = torch.einsum("vj,nvk->njk", weights, vertices)
        # sum_v w (target - mean)(posed - mean)^T
        products = torch.einsum("vj,nvk,nvl->njkl", weights, vertices, posed)
        products = products - mean_target[..., :, None] * mean_posed[..., None, :]
        if seen is not None:
            bones = posed_joints[:, 1:] - posed_joints[:, parents]
            products = products.index_add(1, parents, seen[..., :, None] * bones[..., None, :])
        eye = torch.eye(3, device=vertices.device, dtype=vertices.dtype)
        # nearest_rotation(A Q) = nearest_rotation(A) Q for a rotation Q: turned and orthonormal in one
        global_rotmats = nearest_rotation((products + PULL_TO_START * eye) @ global_rotmats)
        local = global_rotmats[:, parents].transpose(-1, -2) @ global_rotmats[:, 1:]
        rotmats = torch.cat((global_rotmats[:, :1], local), dim=1)
    return rotmats


def spread_vertices(template: Tensor, count: int) -> Tensor:
    """Ids [count] of vertices [V, 3] spread evenly over the surface: each the farthest from those before."""
    chosen = torch.zeros(count, dtype=torch.int64)
    distance = (template - template[0]).square().sum(-1)
    for i in range(1, count):
        chosen[i] = distance.argmax()
        distance = torch.minimum(distance, (template - template[chosen[i]]).square().sum(-1))
    return chosen


def fit_shape(
    body, vertices: Tensor, vertex_ids: Tensor, rotmats: Tensor, *, start: Tensor, hold: float = 1e-5
) -> Tensor:
    """Shape [S] that meets vertices [N, n, 3] with rotations [N, J, 3, 3]; `hold` is square metres per unit squared,
    a pull towards `start` [S] in the mean over vertices."""
    base, *_ = _pose(body, rotmats, torch.zeros_like(start), vertex_ids)
    columns = []
    for k in range(len(start)):
        unit = torch.zeros_like(start)
        unit[k] = 1
        columns.append(_pose(body, rotmats, unit, vertex_ids)[0] - base)  # skinning is linear in the shape
    A = torch.stack(columns, -1).flatten(0, -2)  # [N*n*3, S]
    b = (vertices - base).flatten()
    points = len(b) / 3
    normal = A.T @ A / points + hold * torch.eye(len(start), device=A.device, dtype=A.dtype)
    return torch.linalg.solve(normal, A.T @ b / points + hold * start)


def _pose(body, rotmats: Tensor, betas: Tensor, vertex_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices [N, n, 3] relative to the pelvis, global rotations [N, J, 3, 3] and joints [N, J, 3]."""
    zero = torch.zeros(3, device=rotmats.device, dtype=rotmats.dtype)
    joints, global_rotmats = body.forward_kinematics(rotmats, betas, zero)
    vertices, _ = body.skin(rotmats, betas, zero, vertex_ids=vertex_ids)
    return vertices - joints[:, :1], global_rotmats, joints
