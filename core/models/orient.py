"""Rotations that agree with joints: every bone turned to where the lifter's joints put it, twist from its rotations.

In closed form: the global rotation of a joint is the one that best takes its bones at rest to their directions in
P3D and its axes to those of the rotation head (Kabsch); joints without children keep their local rotation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from core.rotation import nearest_rotation

HEAD_WEIGHT = 0.1
"""Weight of the rotation head's axes beside a bone's direction."""


def global_rotations(rotmats: Tensor, parents: tuple[int, ...]) -> Tensor:
    """Local rotations [B, J, 3, 3] -> rotations from each joint's rest axes to the camera's [B, J, 3, 3]."""
    chain = [rotmats[:, 0]]
    for j, parent in enumerate(parents[1:], 1):
        chain.append(chain[parent] @ rotmats[:, j])
    return torch.stack(chain, 1)


def turn_to_joints(
    rotmats: Tensor, joints: Tensor, rest: Tensor, parents: tuple[int, ...], *, head_weight: float = HEAD_WEIGHT
) -> Tensor:
    """Local rotations whose bones point as in `joints`.

    rotmats [B, J, 3, 3] local, of the rotation head; joints P3D [B, J, 3]; rest [B, J, 3] joints of the resting body.
    """
    turned = global_rotations(rotmats, parents)
    child, parent = torch.arange(1, len(parents), device=joints.device), torch.tensor(parents[1:])
    parent = parent.to(joints.device)
    seen = functional.normalize(joints[:, child] - joints[:, parent], dim=-1)  # [B, J-1, 3]
    at_rest = functional.normalize(rest[:, child] - rest[:, parent], dim=-1)
    products = head_weight * turned
    products = products.index_add(1, parent, seen[..., :, None] * at_rest[..., None, :])
    kabsch = nearest_rotation(products)
    is_parent = torch.zeros(len(parents), dtype=torch.bool, device=joints.device)
    is_parent[parent] = True
    world = [kabsch[:, 0]]
    local = [world[0]]
    for j in range(1, len(parents)):
        above = world[parents[j]]
        own = above.transpose(-1, -2) @ kabsch[:, j] if is_parent[j] else rotmats[:, j]
        local.append(own)
        world.append(above @ own)
    return torch.stack(local, 1)
