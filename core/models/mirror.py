"""The lifter asked twice, for the sequence and for its mirror image, and the mean of both answers.

The result of a mirrored clip is then exactly the mirrored result, and the error a little smaller.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.models.inputs import CROP_FULL, CROP_RAY, CROP_XY, FULL_XY, INPUT_SIZE, LANDMARK_XYZ
from core.models.lifter import Lifted, Lifter
from core.skeleton import JOINT_MIRROR, KEYPOINT_MIRROR

REVERSED = tuple(part.start for part in (FULL_XY, CROP_XY, LANDMARK_XYZ, CROP_RAY, CROP_FULL))
"""Input channels that hold an x."""


def mirror_inputs(inputs: Tensor) -> Tensor:
    """Network input [..., K, INPUT_SIZE] of the mirrored image: x reversed, left and right exchanged."""
    signs = torch.ones(INPUT_SIZE, device=inputs.device, dtype=inputs.dtype)
    signs[list(REVERSED)] = -1
    return inputs[..., list(KEYPOINT_MIRROR), :] * signs


def mirror_lifted(lifted: Lifted) -> Lifted:
    """Joints, rotations and shape of the mirrored person; the summaries stay, as nothing says how to mirror them."""
    flip = lifted.joints.new_tensor([-1.0, 1.0, 1.0])
    sides = list(JOINT_MIRROR)
    rotations = lifted.rotations6d
    if rotations is not None:  # R -> F R F, of which the first two columns are kept: signs (-1, 1, 1) x (-1, 1)
        signs = rotations.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])
        rotations = rotations[..., sides, :] * signs
    return lifted._replace(joints=lifted.joints[..., sides, :] * flip, rotations6d=rotations)


def lift_both_ways(lifter: Lifter, inputs: Tensor, frames: Tensor) -> Lifted:
    """Mean of the lifter's answers [S, T, ...] for the sequences and for their mirror images (turned back)."""
    count = len(inputs)
    both = lifter(torch.cat((inputs, mirror_inputs(inputs))), torch.cat((frames, frames)))
    seen = Lifted(*(None if v is None else v[:count] for v in both))
    other = mirror_lifted(Lifted(*(None if v is None else v[count:] for v in both)))
    means = (None if a is None else (a + b) / 2 for a, b in zip(seen[:3], other[:3]))
    return Lifted(*means, seen.features)
