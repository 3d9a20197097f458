"""Occlusion in training: a limb or a box of the crop is hidden for a spell of the window.

The paper pastes objects on the image. Images are not at hand in training, so what the detector would no longer see is
hidden: the keypoints, their landmarks, and the image embedding of these frames. The crop stays what it was, as in the
paper, so what is true in crop coordinates stays true.

S sequences, T frames, K keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.models.inputs import CROP_XY, FULL_XY, HAS_LANDMARK
from core.train.augment import LIMBS

POINT_CHANNELS = slice(FULL_XY.start, HAS_LANDMARK.stop)
"""What the input says of a point itself; the other channels are of the whole crop."""


@dataclass(frozen=True)
class Occlusion:
    chance: float = 0.5
    """Share of the windows in which something is hidden."""
    limb: float = 0.5
    """Share of those in which it is a limb; in the others it is a box."""
    longest: float = 1.0
    """Longest spell as a share of the window."""
    smallest_box: float = 0.3
    largest_box: float = 1.2
    """Sides of a box, each drawn by itself, where the crop is 2 wide."""
    embedding: float = 1.0
    """Share of the hidden spells that take the image embedding with them."""


def hide(
    inputs: Tensor, features: Tensor, occlusion: Occlusion, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Copies of inputs [S, T, K, INPUT_SIZE] and features [S, T, F] with something hidden in some of the windows."""
    sequences, window = inputs.shape[:2]
    drawn = torch.rand(10, sequences, device=inputs.device, generator=generator)
    happens, spell, begin, is_limb, which, keeps = drawn[:6]
    centre, side = drawn[6:8].T * 2 - 1, drawn[8:].T  # [S, 2] each
    side = occlusion.smallest_box + side * (occlusion.largest_box - occlusion.smallest_box)

    length = (spell * occlusion.longest * window).ceil()  # frames [S]
    first = (begin * (window - length + 1)).floor()
    frame = torch.arange(window, device=inputs.device)
    is_spell = (frame >= first[:, None]) & (frame < (first + length)[:, None])  # [S, T]
    is_spell = is_spell & (happens < occlusion.chance)[:, None]

    members = torch.zeros(len(LIMBS), inputs.shape[2], dtype=torch.bool, device=inputs.device)
    for limb, points in enumerate(LIMBS):
        members[limb, list(points)] = True
    in_limb = members[(which * len(LIMBS)).long()]  # [S, K]
    from_centre = (inputs[..., CROP_XY] - centre[:, None, None]).abs()  # [S, T, K, 2]
    in_box = (from_centre < side[:, None, None] / 2).all(-1)
    is_hidden = torch.where((is_limb < occlusion.limb)[:, None, None], in_limb[:, None], in_box)
    is_hidden = is_hidden & is_spell[..., None]  # [S, T, K]

    hidden_inputs = inputs.clone()
    hidden_inputs[..., POINT_CHANNELS] = inputs[..., POINT_CHANNELS] * ~is_hidden[..., None]
    has_embedding = ~(is_hidden.any(-1) & (keeps < occlusion.embedding)[:, None])
    return hidden_inputs, features * has_embedding[..., None]
