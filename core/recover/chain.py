"""A body reduced to what fitting needs: 24 joints, 25 keypoints, and their exact derivatives.

A keypoint is a fixed mixture of vertices, and a vertex is a fixed mixture of joint frames (linear blend skinning), so
a keypoint is itself a mixture of joint frames: p_k = sum_j R_j a_kj + w_kj t_j, with R_j, t_j the frame of joint j.
The a_kj and w_kj are summed once per body; a posed keypoint then costs a few products and its derivative with respect
to every rotation is a cross product. Pose-dependent corrections of a body (posedirs) are left out here.

N frames, J = 24 joints, K = 25 keypoints, S = 16 shape coefficients. Everything is float64 on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.skeleton import JOINT_COUNT, JOINT_NAMES, PARENTS

FIXED_JOINTS = ("left_foot", "right_foot", "left_hand", "right_hand")
"""Toes and fingers: no keypoint tells them apart from ankle and wrist."""
ACTIVE = tuple(j for j, name in enumerate(JOINT_NAMES) if name not in FIXED_JOINTS)
POSE_JOINTS = ACTIVE[1:]
"""Active joints without the root: those the prior and the limits speak of."""


@dataclass(frozen=True)
class Chain:
    """The reduced body as linear functions of the shape."""

    joints: Tensor
    """[J, 3] m, rest joints of the mean shape."""
    joints_by_shape: Tensor
    """[J, 3, S] m per unit of shape."""
    anchors: Tensor
    """[K, J, 3] m: a_kj of the mean shape."""
    anchors_by_shape: Tensor
    """[K, J, 3, S]."""
    shares: Tensor
    """[K, J]: w_kj; rows sum to one."""

    @property
    def shape_count(self) -> int:
        return self.joints_by_shape.shape[-1]


@dataclass(frozen=True)
class Shaped:
    """The chain of one shape."""

    chain: Chain
    betas: Tensor
    """[S]."""
    joints: Tensor
    """[J, 3] m, rest joints."""
    offsets: Tensor
    """[J, 3] m: rest joint minus its parent's; the root's own position for the root."""
    anchors: Tensor
    """[K, J, 3]."""


@dataclass(frozen=True)
class Posed:
    """A shaped chain in N poses, camera frame."""

    rotmats: Tensor
    """[N, J, 3, 3] global rotations."""
    joints: Tensor
    """[N, J, 3] m."""
    points: Tensor
    """[N, K, 3] m."""
    parts: Tensor
    """[N, K, J, 3]: what each joint frame adds to each keypoint, R_j a_kj + w_kj t_j."""


def _descendants() -> Tensor:
    """[J, J]: 1 where column j moves with row m (m itself included)."""
    table = torch.zeros(JOINT_COUNT, JOINT_COUNT, dtype=torch.float64)
    for joint in range(JOINT_COUNT):
        above = joint
        while above >= 0:
            table[above, joint] = 1
            above = PARENTS[above]
    return table


DESCENDANTS = _descendants()


def build_chain(body) -> Chain:
    """Reduce a body (core.body.Body) to a Chain."""

    def read(tensor) -> Tensor:
        return torch.as_tensor(tensor).detach().to("cpu", torch.float64)

    regressor = torch.as_tensor(body.keypoint_regressor).detach()
    regressor = read(regressor.to_dense() if regressor.layout != torch.strided else regressor)
    support = regressor.abs().sum(0).nonzero().squeeze(1)  # [P] vertices any keypoint uses
    regressor = regressor[:, support]
    weights = read(body.weights)[support]  # [P, J]
    template, shapedirs = read(body.v_template)[support], read(body.shapedirs)[support]
    joints, joints_by_shape = read(body.joint_template), read(body.joint_shapedirs)
    shares = regressor @ weights
    anchors = torch.einsum("kv,vj,vc->kjc", regressor, weights, template) - shares[..., None] * joints
    anchors_by_shape = torch.einsum("kv,vj,vcs->kjcs", regressor, weights, shapedirs)
    anchors_by_shape = anchors_by_shape - shares[..., None, None] * joints_by_shape
    return Chain(joints, joints_by_shape, anchors, anchors_by_shape, shares)


def shape_chain(chain: Chain, betas: Tensor) -> Shaped:
    """The chain at shape `betas` [S]."""
    joints = chain.joints + chain.joints_by_shape @ betas
    return Shaped(chain, betas, joints, _to_offsets(joints), chain.anchors + chain.anchors_by_shape @ betas)


def _to_offsets(joints: Tensor) -> Tensor:
    """[J, 3, ...] joint positions -> positions relative to the parent's."""
    return torch.cat([joints[:1], joints[1:] - joints[list(PARENTS[1:])]])


def pose_chain(shaped: Shaped, rotmats: Tensor, trans: Tensor) -> Posed:
    """Forward kinematics: local rotmats [N, J, 3, 3], trans [N, 3] m (SMPL convention) -> Posed."""
    rotations, positions = [rotmats[:, 0]], [trans + shaped.offsets[0]]
    for joint in range(1, JOINT_COUNT):
        parent = PARENTS[joint]
        rotations.append(rotations[parent] @ rotmats[:, joint])
        positions.append(positions[parent] + rotations[parent] @ shaped.offsets[joint])
    global_rotmats, joints = torch.stack(rotations, 1), torch.stack(positions, 1)
    turned = torch.einsum("njab,kjb->nkja", global_rotmats, shaped.anchors)
    parts = turned + shaped.chain.shares[..., None] * joints[:, None]
    return Posed(global_rotmats, joints, parts.sum(2), parts)


def differentiate_points(shaped: Shaped, posed: Posed, active: tuple[int, ...]) -> Tensor:
    """Derivative of the keypoints, [N, K, 3, 3 * len(active) + 3].

    Columns: for each active joint j the three components of d_j in R_j <- R_j exp(d_j) (local rotations, d in the
    joint's own frame), then the translation.
    """
    index = list(active)
    lever = torch.einsum("nkjc,mj->nkmc", posed.parts, DESCENDANTS[index])
    moved = shaped.chain.shares @ DESCENDANTS[index].T  # [K, M] how much of keypoint k turns with joint m
    lever = lever - moved[..., None] * posed.joints[:, None, index]
    # d p = (R_m d) x lever = R_m (d x R_m^T lever): column c is R_m e_c x lever
    axes = posed.rotmats[:, None, index].transpose(-1, -2)  # rows are R_m e_c: [N, 1, M, c, 3]
    columns = torch.linalg.cross(
        axes.expand(-1, lever.shape[1], -1, -1, -1), lever[..., None, :].expand(-1, -1, -1, 3, -1)
    )  # [N, K, M, c, 3]
    N, K = lever.shape[:2]
    turned = columns.permute(0, 1, 4, 2, 3).reshape(N, K, 3, 3 * len(index))
    eye = torch.eye(3, dtype=lever.dtype).expand(N, K, 3, 3)
    return torch.cat([turned, eye], -1)


def differentiate_by_shape(chain: Chain, posed: Posed) -> Tensor:
    """Derivative of the keypoints with respect to the shape, [N, K, 3, S]."""
    offsets = _to_offsets(chain.joints_by_shape)
    positions = [offsets[0].expand(len(posed.joints), -1, -1)]
    for joint in range(1, JOINT_COUNT):
        parent = PARENTS[joint]
        positions.append(positions[parent] + posed.rotmats[:, parent] @ offsets[joint])
    joints = torch.stack(positions, 1)  # [N, J, 3, S]
    turned = torch.einsum("njab,kjbs->nkas", posed.rotmats, chain.anchors_by_shape)
    return turned + torch.einsum("kj,njas->nkas", chain.shares, joints)
