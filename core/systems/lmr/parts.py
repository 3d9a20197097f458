"""The six parts of the body and the recurrent models that move them, the root's first, the others knowing the root.

LMR, section 3.2.1. B windows, T frames, D size of a frame's feature Phi, n_i joints of part i, S shape coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.skeleton import JOINT_COUNT, JOINT_NAMES
from core.systems.regressor import DECODER_GAIN

ROTATION_SIZE = 6
"""Numbers of a rotation r_q. The paper leaves the parameters open ("e.g. axis angle"). CHOICE: the 6D form, which is
continuous, so that residuals can be added to it."""


def _joints(*names: str) -> tuple[int, ...]:
    return tuple(JOINT_NAMES.index(name) for name in names)


def _arm(side: str) -> tuple[int, ...]:
    return _joints(*(f"{side}_{name}" for name in ("collar", "shoulder", "elbow", "wrist", "hand")))


def _leg(side: str) -> tuple[int, ...]:
    return _joints(*(f"{side}_{name}" for name in ("hip", "knee", "ankle", "foot")))


PARTS: dict[str, tuple[int, ...]] = {
    "root": _joints("pelvis", "spine1", "spine2", "spine3"),
    "head": _joints("neck", "head"),
    "left_arm": _arm("left"),
    "right_arm": _arm("right"),
    "left_leg": _leg("left"),
    "right_leg": _leg("right"),
}
"""Joints of each part p_1..p_6; every joint belongs to one."""
ROOT, *OTHERS = PARTS
PART_ORDER: tuple[int, ...] = tuple(joint for joints in PARTS.values() for joint in joints)
"""theta = [theta^1, ..., theta^6]: which joint comes where."""
JOINT_ORDER: tuple[int, ...] = tuple(PART_ORDER.index(joint) for joint in range(JOINT_COUNT))
"""Where in theta each joint is."""


class ResidualLinear(nn.Linear):
    """A last layer, which says what to add. In its own precision under autocast too, as the residuals add up; its
    weights start small, so that the first estimates are near the mean parameters."""

    def __init__(self, in_size: int, out_size: int):
        super().__init__(in_size, out_size)
        nn.init.xavier_uniform_(self.weight, gain=DECODER_GAIN)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class ResidualRecurrent(nn.Module):
    """A GRU over the frames of a window and a linear layer: x_t -> the residual of `out_size` numbers in frame t."""

    def __init__(self, in_size: int, out_size: int, *, hidden: int, layers: int, bidirectional: bool):
        super().__init__()
        self.gru = nn.GRU(in_size, hidden, num_layers=layers, bidirectional=bidirectional, batch_first=True)
        self.out = ResidualLinear(hidden * (2 if bidirectional else 1), out_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, in_size] -> [B, T, out_size]."""
        return self.out(self.gru(x)[0])


class LocalRecurrent(nn.Module):
    """One recurrent model per part: [Phi_t, theta^1, beta] for the root, [Phi_t, theta^k, beta, theta^1] for k > 1.

    The pose is kept by part: theta^i [B, T, 6 n_i].
    """

    def __init__(self, feature_size: int, shape_components: int, **recurrent):
        """recurrent: hidden, layers and bidirectional of each `ResidualRecurrent`."""
        super().__init__()
        sizes = {part: ROTATION_SIZE * len(joints) for part, joints in PARTS.items()}
        known = {part: feature_size + shape_components + (sizes[ROOT] if part != ROOT else 0) for part in PARTS}
        self.parts = nn.ModuleDict(
            {part: ResidualRecurrent(known[part] + size, size, **recurrent) for part, size in sizes.items()}
        )

    def forward(self, Phi: Tensor, theta: dict[str, Tensor], beta: Tensor) -> dict[str, Tensor]:
        """One update of the pose, theta^i + Delta theta^i; the other parts are told the updated root.

        Phi [B, T, D], beta [B, T, S].
        """
        root = theta[ROOT] + self.parts[ROOT](torch.cat((Phi, theta[ROOT], beta), dim=-1))
        updated = {ROOT: root}
        for part in OTHERS:
            known = torch.cat((Phi, theta[part], beta, root), dim=-1)
            updated[part] = theta[part] + self.parts[part](known)
        return updated
