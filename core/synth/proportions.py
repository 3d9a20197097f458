"""People of other proportions: keypoints of a body whose limbs, trunk, widths and feet are longer or shorter.

On films a detector's points lie farther apart or nearer together than the shipped body's, by person and because it
puts a wrist or a hip elsewhere than on renderings: forearms against the trunk 1.1 to 1.2 times as long, shins 0.9 to
1 times. A lifter that knows one set of lengths takes the difference for depth. So some sequences are seen with other
lengths, while what is to be recovered stays the pose on the body's own. B sequences, T frames, K = 25 keypoints.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.skeleton import KEYPOINT_NAMES

SEGMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "upper arm": ("shoulder", ("elbow",)),
    "forearm": ("elbow", ("wrist",)),
    "hand": ("wrist", ("pinky", "index", "thumb")),
    "thigh": ("hip", ("knee",)),
    "shin": ("knee", ("ankle",)),
    "foot": ("ankle", ("heel", "toe")),
}
"""Of either side: name -> where it begins, what lies at its end; from the trunk outward."""
LIMB_DEVIATION = 0.06
WIDTH_DEVIATION = 0.055
"""Of the logarithms of the factors of segments, and of trunk, neck, shoulders' and hips' width."""
SIDE_DEVIATION = 0.015
"""Of the difference of left and right."""
INDEX = {name: i for i, name in enumerate(KEYPOINT_NAMES)}


def draw_factors(count: int, generator: torch.Generator, *, share: float) -> dict[str, Tensor]:
    """Factors of lengths: of trunk, neck, shoulders and hips [B], of each segment [B, 2] (left, right).

    All are 1 for the people that keep the body's proportions, 1 - share of them.
    """
    device = generator.device
    happens = (torch.rand(count, generator=generator, device=device) < share).float()

    def factor(deviation: float, *shape: int) -> Tensor:
        return deviation * torch.randn((count, *shape), generator=generator, device=device)

    factors = {name: (happens * factor(WIDTH_DEVIATION)).exp() for name in ("trunk", "neck", "shoulders", "hips")}
    for name in SEGMENTS:
        sides = factor(LIMB_DEVIATION)[:, None] + factor(SIDE_DEVIATION, 2)
        factors[name] = (happens[:, None] * sides).exp()
    return factors


def stretch(points: Tensor, factors: dict[str, Tensor]) -> Tensor:
    """Keypoints [B, T, K, 3] in any axes with the lengths that `draw_factors` drew; the hips' middle stays."""

    def of(name: str) -> Tensor:
        return points[:, :, INDEX[name]]

    def times(name: str, side: int | None = None) -> Tensor:
        factor = factors[name] if side is None else factors[name][:, side]
        return factor[:, None, None]

    out = points.clone()
    hips = (of("left_hip") + of("right_hip")) / 2
    shoulders = (of("left_shoulder") + of("right_shoulder")) / 2
    chest = hips + times("trunk") * (shoulders - hips)
    for name in ("nose", "left_ear", "right_ear"):
        out[:, :, INDEX[name]] = chest + times("neck") * (of(name) - shoulders)
    for side, prefix in enumerate(("left_", "right_")):
        hip, shoulder = prefix + "hip", prefix + "shoulder"
        out[:, :, INDEX[hip]] = hips + times("hips") * (of(hip) - hips)
        out[:, :, INDEX[shoulder]] = chest + times("shoulders") * (of(shoulder) - shoulders)
        for name, (start, ends) in SEGMENTS.items():
            moved = out[:, :, INDEX[prefix + start]]
            for end in ends:
                bone = of(prefix + end) - of(prefix + start)
                out[:, :, INDEX[prefix + end]] = moved + times(name, side) * bone
    return out
