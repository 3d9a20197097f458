"""Rotations of all frames from those of some: what changed on them is carried to the frames between."""

from __future__ import annotations

import torch
from torch import Tensor

from core.rotation import matrix_to_quaternion, quaternion_to_matrix, slerp


def carry_between(fitted: Tensor, known: Tensor, start: Tensor) -> Tensor:
    """Local rotations [N, J, 3, 3] of N frames.

    Args:
        fitted: [m, J, 3, 3] rotations of the frames `known`.
        known: [m] rising frame numbers, 0 and N - 1 among them.
        start: [N, J, 3, 3] rotations of all frames that `fitted` started from. Between known frames the change
            start^T fitted turns along the shortest arc.
    """
    count = len(start)
    if len(known) == count:
        return fitted
    change = matrix_to_quaternion(start[known].transpose(-1, -2) @ fitted)  # [m, J, 4]
    frames = torch.arange(count, device=known.device)
    after = torch.searchsorted(known, frames).clamp_min(1)
    before = after - 1
    share = (frames - known[before]).to(start) / (known[after] - known[before]).to(start)
    between = slerp(change[before], change[after], share[:, None])
    carried = start @ quaternion_to_matrix(between)
    carried[known] = fitted
    return carried
