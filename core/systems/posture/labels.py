"""The forward process: what the mesh is at each step between the target (k = 0) and the T-pose (k = T).

Paper, section 3.2, equations 2 to 4: joints turn along the shortest path, the blend shape offsets shrink linearly,
and the skin follows by linear blend skinning. B meshes, J joints, S shape coefficients, n vertices. Camera axes,
metres, relative to the pelvis.

The text leaves the root open (its theta holds 23 joints). The reverse process must start from one fixed mesh, so the
T-pose stands upright and faces the camera, and the root turns from there to the target along the shortest path. For
someone seen from behind the sense of that turn is a matter of chance; done within `root_steps` of the T steps, few
meshes depend on it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from core.skeleton import JOINT_COUNT

FACING_CAMERA = (1.0, -1.0, -1.0)
"""Diagonal of the root's rotation at rest: the body's y is up and the camera's is down."""


def t_pose() -> Tensor:
    """Local rotations [J, 3, 3] of the mesh that the reverse process starts from."""
    rest = torch.eye(3).repeat(JOINT_COUNT, 1, 1)
    rest[0] = torch.diag(torch.tensor(FACING_CAMERA))
    return rest


class ForwardProcess:
    """Meshes M_k of a body for given targets. Nothing to learn."""

    def __init__(self, body, *, steps: int, root_steps: int):
        """body: core.body.Body. steps: T. root_steps: the root has turned fully so many steps after the T-pose."""
        self.body, self.steps, self.root_steps = body, steps, root_steps
        self.rest = t_pose().to(body.v_template.device)

    def rotations(self, rotmats: Tensor, k: Tensor) -> Tensor:
        """theta_k = theta_0 + k/T (theta_T - theta_0) (equation 4), as turns away from the T-pose.

        rotmats [B, J, 3, 3] of the target, k [B] in 0..T -> [B, J, 3, 3].
        """
        turns = matrix_to_axis_angle(self.rest.mT @ rotmats)  # [B, J, 3]
        share = self._left(k)[:, None].repeat(1, rotmats.shape[1])
        share[:, 0] = ((self.steps - k) / self.root_steps).clamp(max=1)
        return self.rest @ axis_angle_to_matrix(share[..., None] * turns)

    def _left(self, k: Tensor) -> Tensor:
        """1 - k/T: how much of the target's pose and shape is in M_k. [B]."""
        return 1 - k / self.steps

    def meshes(self, rotmats: Tensor, betas: Tensor, k: Tensor, vertex_ids: Tensor) -> Tensor:
        """M_k (equations 2 and 3). rotmats [B, J, 3, 3], betas [B, S] of the target, k [B] -> [B, n, 3]."""
        body, left = self.body, self._left(k)
        turned, betas_k = self.rotations(rotmats, k), left[:, None] * betas
        joints, global_rotmats = body.forward_kinematics(turned, betas_k, torch.zeros_like(betas[:, :3]))
        offsets = joints - (global_rotmats @ body.rest_joints(betas_k)[..., None])[..., 0]
        shapedirs = body.shapedirs[vertex_ids, :, : betas.shape[1]]
        shaped = body.v_template[vertex_ids] + torch.einsum("vcs,bs->bvc", shapedirs, betas_k)
        if body.posedirs is not None:
            # the offsets of the target's pose shrink (equation 3), which are not those of the pose at step k
            feature = (rotmats[:, 1:] - torch.eye(3, device=rotmats.device)).flatten(1)
            shaped = shaped + left[:, None, None] * torch.einsum("vcp,bp->bvc", body.posedirs[vertex_ids], feature)
        stacked = torch.cat((global_rotmats.flatten(2), offsets - joints[:, :1]), dim=-1)  # [B, J, 12]
        blended = body.weights[vertex_ids] @ stacked  # [B, n, 12]
        return (blended[..., :9].unflatten(-1, (3, 3)) @ shaped[..., None])[..., 0] + blended[..., 9:]
