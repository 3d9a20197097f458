"""Read the source motion file (`mocap_30fps.npz`): groups of clips on their own skeletons, y up, metres, 30 fps.

In every group a zero rotation is the T-pose facing +z with the left side at +x and all joint frames aligned to the
world, so a global rotation says how far a bone has turned from its rest direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import InputError
from core.rotation import quaternion_to_matrix


@dataclass(frozen=True)
class SourceSkeleton:
    """One skeleton of a group. A joint sits at the start of the bone of its name."""

    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    rest_offsets: Tensor
    """[J, 3] float64, joint relative to its parent at rest."""
    end_offsets: Tensor
    """[J, 3] float64, tip of a leaf bone relative to its joint."""

    def index(self, name: str) -> int:
        return self.joint_names.index(name)

    def rest_positions(self) -> Tensor:
        """[J, 3], the root at its offset from the origin."""
        eye = torch.eye(3, dtype=torch.float64).expand(len(self.parents), 3, 3)
        return self.forward_kinematics(eye, self.rest_offsets[0])[0]

    def forward_kinematics(self, rotmats: Tensor, root_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Local rotations [..., J, 3, 3] and root [..., 3] -> positions [..., J, 3], global rotations."""
        rotations, positions = [rotmats[..., 0, :, :]], [root_pos]
        for j, parent in enumerate(self.parents[1:], 1):
            rotations.append(rotations[parent] @ rotmats[..., j, :, :])
            positions.append(positions[parent] + rotations[parent] @ self.rest_offsets[j])
        return torch.stack(positions, -2), torch.stack(rotations, -3)


@dataclass(frozen=True)
class SourceClip:
    group: str
    name: str
    subject: str
    description: str
    skeleton: SourceSkeleton
    rotmats: Tensor
    """[T, J, 3, 3] float64 local rotations."""
    root_pos: Tensor
    """[T, 3] float64 world position of joint 0."""
    floor: float
    """Height of the floor, metres; meaningless where a whole clip is climbed."""

    def forward_kinematics(self) -> tuple[Tensor, Tensor]:
        return self.skeleton.forward_kinematics(self.rotmats, self.root_pos)


def read_mocap(path: str | Path, *, groups: tuple[str, ...] | None = None) -> Iterator[SourceClip]:
    """Yield every clip of the file in its order; raises InputError where the file is not of this layout."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        names = [str(group) for group in arrays["groups"]]
        for group in names:
            if groups is None or group in groups:
                yield from _clips_of_group(group, {k.split("/")[1]: v for k, v in arrays.items() if f"{group}/" in k})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a motion file with groups of clips: {error}") from error


def _clips_of_group(group: str, arrays: dict[str, np.ndarray]) -> Iterator[SourceClip]:
    joint_names = tuple(str(name) for name in arrays["joint_names"])
    parents = tuple(int(p) for p in arrays["parents"])
    skeletons = [
        SourceSkeleton(joint_names, parents, torch.from_numpy(rest).double(), torch.from_numpy(end).double())
        for rest, end in zip(arrays["rest_offsets"], arrays["end_offsets"])
    ]
    for i, (start, length) in enumerate(zip(arrays["clip_start"], arrays["clip_len"])):
        span = slice(int(start), int(start) + int(length))
        yield SourceClip(
            group=group,
            name=str(arrays["clip_name"][i]),
            subject=str(arrays["clip_subject"][i]),
            description=str(arrays["clip_desc"][i]),
            skeleton=skeletons[int(arrays["clip_skel"][i])],
            rotmats=quaternion_to_matrix(torch.from_numpy(arrays["quat"][span]).double()),
            root_pos=torch.from_numpy(arrays["root_pos"][span]).double(),
            floor=float(arrays["clip_floor_y"][i]),
        )
