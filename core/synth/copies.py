"""Find takes that are kept under a second number: in the same folder tree, or in a motion file made another way.

T frames of a take as recorded, N frames of a clip at 30 a second, J joints. The root's rotation does not count, as a
copy may have been turned about.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from core.rotation import matrix_to_quaternion

PROBES = 16
"""Frames of a take that are compared."""
SAME_DEG = 0.05
"""Largest difference between the probes of two takes of the same file format that are one."""
SAME_CLIP_DEG = 1.5
"""Mean difference to a clip that another conversion made of the same take; two different takes differ by far more."""
LENGTH_SLACK = 4
"""Frames by which conversions of one take differ in length."""


class SeenTakes:
    """Takes that were met, to know one that comes again."""

    def __init__(self) -> None:
        self._by_length: dict[int, list[tuple[str, Tensor]]] = defaultdict(list)

    def add(self, name: str, rotmats: Tensor) -> None:
        """Remember the rotations [T, J, 3, 3] of a take."""
        self._by_length[len(rotmats)].append((name, _probe(rotmats)))

    def original_or_none(self, rotmats: Tensor) -> str | None:
        """Name of the take that these rotations [T, J, 3, 3] are a copy of."""
        if not self._by_length.get(len(rotmats)):
            return None
        probe = _probe(rotmats)
        for name, other in self._by_length[len(rotmats)]:
            if float(_angles(probe, other).max()) < SAME_DEG:
                return name
        return None


class SeenClips:
    """Clips of a motion file on the same skeleton, to know a take that one of them was made of."""

    def __init__(self) -> None:
        self._clips: list[tuple[str, Tensor]] = []

    def add(self, name: str, rotmats: Tensor) -> None:
        """Remember the rotations [N, J, 3, 3] of a clip."""
        self._clips.append((name, matrix_to_quaternion(rotmats[:, 1:]).float()))

    def original_or_none(self, quats: Tensor) -> str | None:
        """Name of the clip that shows the same take as these quaternions [N, J, 4] at 30 frames a second."""
        mine = quats[:, 1:].float()
        for name, other in self._clips:
            short, long = sorted((mine, other), key=len)
            if len(long) - len(short) > LENGTH_SLACK:
                continue
            for shift in range(len(long) - len(short) + 1):
                if float(_angles(short, long[shift : shift + len(short)]).mean()) < SAME_CLIP_DEG:
                    return name
        return None


def _probe(rotmats: Tensor) -> Tensor:
    """Quaternions [PROBES, J - 1, 4] of some frames of a take, the root's left away."""
    at = torch.linspace(0, len(rotmats) - 1, PROBES).round().long()
    return matrix_to_quaternion(rotmats[at, 1:])


def _angles(a: Tensor, b: Tensor) -> Tensor:
    """Degrees [...] between unit quaternions [..., 4]; by the chord, which small angles do not drown."""
    chord = torch.minimum((a - b).norm(dim=-1), (a + b).norm(dim=-1))
    return torch.rad2deg(4 * torch.asin((chord / 2).clamp_max(1)))
