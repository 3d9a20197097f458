"""Metrics of a network on fixed sequences with truth, in millimetres; used while training and by `evaluate`."""

from __future__ import annotations

import torch
from torch import Tensor

from core.evaluate.metrics import acceleration_error, mean_point_error, procrustes_error, rotation_angle
from core.models.hyperbolic import HyperbolicNet
from core.rotation import rotation_6d_to_matrix
from core.train.batch import Batch
from core.train.objective import MeshObjective, Truth


@torch.inference_mode()
def lifter_metrics(net: HyperbolicNet, body, batch: Batch) -> dict[str, float]:
    """MPJPE, PA-MPJPE and Accel of P3D and, with the rotation head, of its joints by forward kinematics."""
    truth = Truth(body, batch)
    lifted = net.lift(batch.inputs(), batch.frames)
    result = _joint_metrics(lifted.joints, truth.joints)
    if lifted.rotations6d is not None:
        rotmats = rotation_6d_to_matrix(lifted.rotations6d)
        betas = lifted.betas.mean(1, keepdim=True).expand_as(lifted.betas)
        joints, _ = body.forward_kinematics(rotmats, betas, torch.zeros_like(betas[..., :3]))
        joints = joints - joints[..., :1, :]
        result |= {f"fk_{name}": value for name, value in _joint_metrics(joints, truth.joints).items()}
        result["angle_deg"] = float(rotation_angle(rotmats, batch.rotmats).mean())
    return result


@torch.inference_mode()
def mesh_metrics(
    net: HyperbolicNet, objective: MeshObjective, body, batch: Batch, *, frames: int
) -> dict[str, float]:
    """MPJPE, PA-MPJPE, Accel (joints regressed from the mesh) and MPVPE on the middle `frames` of every sequence."""
    truth = Truth(body, batch)
    lifted = net.lift(batch.inputs(), batch.frames)
    s, t = batch.frames.shape
    first = (t - frames) // 2
    device = batch.frames.device
    ids = torch.cat((objective.support, torch.arange(0, body.vertex_count, 7, device=device)))
    joints, true_joints, vertex_error = [], [], []
    for i in range(s):
        mids = torch.arange(first, first + frames, device=device)
        sequences = torch.full_like(mids, i)
        predicted = net.recover(lifted, batch.features, sequences, mids, ids).vertices
        wanted = truth.vertices(sequences, mids, ids)
        joints.append(objective.joints_of(predicted))
        true_joints.append(objective.joints_of(wanted))
        n = len(objective.support)
        shift, true_shift = joints[-1][:, :1], true_joints[-1][:, :1]
        vertex_error.append(mean_point_error(predicted[:, n:] - shift, wanted[:, n:] - true_shift))
    result = _joint_metrics(_rooted(torch.stack(joints)), _rooted(torch.stack(true_joints)))
    result["mpvpe"] = float(torch.stack(vertex_error).mean())
    return {f"mesh_{name}": value for name, value in result.items()}


def _rooted(joints: Tensor) -> Tensor:
    return joints - joints[..., :1, :]


def _joint_metrics(joints: Tensor, truth: Tensor) -> dict[str, float]:
    """joints, truth [S, T, J, 3] relative to the pelvis."""
    return {
        "mpjpe": float(mean_point_error(joints, truth).mean()),
        "pa": float(procrustes_error(joints, truth).mean()),
        "accel": float(acceleration_error(joints, truth).mean()),
    }
