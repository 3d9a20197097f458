"""Read one take of CMU motion as ASCII FBX 6.1 on the DAZ-friendly skeleton, text to rotations; no files.

Such a file holds a bind pose (a T-pose) as world matrices, and one take: for every joint the curves of its local
translation (centimetres) and rotation (degrees, about the fixed axes x, y, z in that order), each with keys of its
own, straight between them. A key whose neighbours have the same value is left away. The hip hangs on a model that
turns the whole from z up to y up and does not move. Files hold fingers and eyes, too; the skeleton names the joints
that are read.

T frames, J joints of the skeleton.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.errors import InputError
from core.rotation import axis_angle_to_matrix, nearest_rotation
from core.synth.mocap import SourceSkeleton

TICKS_A_SECOND = 46186158000
CENTIMETRE = 0.01
REST_TOLERANCE = 1e-3
"""Metres by which a joint may be off the skeleton in the bind pose."""

NUMBER = r"[-+.\dEe]+"
CONNECTION = re.compile(r'Connect: "OO", "Model::([^"]+)", "Model::([^"]+)"')
BIND_NODE = re.compile(rf'Node: "Model::([^"]+)"\s+Matrix: ({NUMBER}(?:,\s*{NUMBER}){{15}})\s')
CURVE_TOKEN = re.compile(
    rf'Model: "Model::(?P<model>[^"]+)"|Channel: "(?P<channel>\w+)"|Default: (?P<default>{NUMBER})'
    r"|KeyCount: (?P<count>\d+)|Key:\s*(?P<keys>[-+.\dEe,L\s]+)"
)


@dataclass(frozen=True)
class DazTake:
    """One take on the joints of a skeleton, where no rotation is the T-pose."""

    times: Tensor
    """[T] float64 seconds, as the file plays; rising, not always evenly."""
    rotmats: Tensor
    """[T, J, 3, 3] float64 local rotations, all joint frames aligned to the world in the T-pose."""
    root_pos: Tensor
    """[T, 3] float64 world position of joint 0, metres, y up."""


@dataclass(frozen=True)
class _Curve:
    """One channel of one joint: keys [K] at ticks, or a constant (no keys)."""

    default: float
    ticks: np.ndarray
    values: np.ndarray

    def at(self, ticks: np.ndarray) -> np.ndarray:
        if not len(self.ticks):
            return np.full(len(ticks), self.default)
        return np.interp(ticks, self.ticks, self.values)


Curves = dict[tuple[str, str, str], _Curve]
"""By model, T or R, and X, Y or Z."""


def read_daz_fbx(text: str, skeleton: SourceSkeleton, *, source: str = "the text") -> DazTake:
    """Read the take of a file on the joints of `skeleton`.

    Raises InputError, one line that begins with `source`, where it is no such file, ends early, or has other bones.
    """
    head, mark, takes = text.partition("\nTakes:")
    if not text.lstrip().startswith("; FBX 6.") or not mark:
        raise InputError(f"{source} is not an ASCII FBX 6 file with takes")
    try:
        curves = {key: curve for key, curve in _curves(takes) if key[0] in skeleton.joint_names}
        R_rest = _rest_rotations(head, skeleton)
        R_base, base_pos = _base(head, skeleton.joint_names[0])
        ticks = np.unique(np.concatenate([curve.ticks for curve in curves.values()]))
        root_pos = _channels(curves, skeleton.joint_names[:1], "T", ticks)[:, 0]
        angles = torch.deg2rad(_channels(curves, skeleton.joint_names, "R", ticks))
    except KeyError as error:
        raise InputError(f"{source} lacks {error.args[0]}") from error
    except ValueError as error:
        raise InputError(f"{source} cannot be read: {error}") from error
    local = _euler_to_matrix(angles)
    local[:, 0] = R_base @ local[:, 0]
    R_world = skeleton.forward_kinematics(local, root_pos)[1] @ R_rest.transpose(-1, -2)  # turned from the T-pose
    rotmats = R_world.clone()
    rotmats[:, 1:] = R_world[:, list(skeleton.parents[1:])].transpose(-1, -2) @ R_world[:, 1:]
    return DazTake(
        times=torch.from_numpy(ticks / TICKS_A_SECOND),
        rotmats=rotmats,
        root_pos=(root_pos @ R_base.T + base_pos) * CENTIMETRE,
    )


def _curves(takes: str) -> Iterator[tuple[tuple[str, str, str], _Curve]]:
    """All curves of the part of the file that holds its takes, in their order."""
    model = kind = axis = ""
    default, count = 0.0, 0
    pending = False  # a curve whose keys, if any, are still to come
    for token in CURVE_TOKEN.finditer(takes):
        part, text = token.lastgroup, token.group(token.lastgroup)
        if part in ("model", "channel") and pending:
            if count:
                raise ValueError(f"the keys of {model} {kind} {axis} are missing")
            yield (model, kind, axis), _Curve(default, np.zeros(0), np.zeros(0))
            pending = False
        if part == "model":
            model, kind = text, ""
        elif part == "channel" and text in ("T", "R", "S"):
            kind = text
        elif part == "channel" and text in ("X", "Y", "Z"):
            axis, default, count, pending = text, 0.0, 0, True
        elif part == "default":
            default = float(text)
        elif part == "count":
            count = int(text)
        elif part == "keys" and pending:
            numbers = [word for word in text.replace("L", " ").split(",") if word.strip()]
            if len(numbers) != 2 * count:
                raise ValueError(f"{model} {kind} {axis} has {len(numbers) / 2:g} keys instead of {count}")
            keys = np.array(numbers, dtype=np.float64).reshape(count, 2)
            yield (model, kind, axis), _Curve(default, keys[:, 0], keys[:, 1])
            pending = False


def _channels(curves: Curves, joint_names: tuple[str, ...], kind: str, ticks: np.ndarray) -> Tensor:
    """Values [T, J, 3] of the three curves T or R of each joint."""
    for key in ((name, kind, axis) for name in joint_names for axis in "XYZ"):
        if key not in curves:
            raise KeyError(f"the curve {' '.join(key)}")
    values = [[curves[name, kind, axis].at(ticks) for axis in "XYZ"] for name in joint_names]
    return torch.from_numpy(np.array(values)).permute(2, 0, 1)


def _rest_rotations(head: str, skeleton: SourceSkeleton) -> Tensor:
    """World rotations [J, 3, 3] of the joints in the bind pose, whose bones must be the skeleton's."""
    matrices = {name: [float(x) for x in numbers.split(",")] for name, numbers in BIND_NODE.findall(head)}
    missing = [name for name in skeleton.joint_names if name not in matrices]
    if missing:
        raise KeyError(f"the bind pose of {missing[0]}")
    # [J, 4, 4] for row vectors: the axes of a joint are rows, its place is the last row
    pose = torch.tensor([matrices[name] for name in skeleton.joint_names], dtype=torch.float64).reshape(-1, 4, 4)
    places = (pose[:, 3, :3] - pose[:1, 3, :3]) * CENTIMETRE
    rest = skeleton.rest_positions() - skeleton.rest_positions()[0]
    off = (places - rest).norm(dim=-1)
    if not off.max() < REST_TOLERANCE:
        raise ValueError(f"its {skeleton.joint_names[int(off.argmax())]} is {off.max():.3f} m off the skeleton's")
    return nearest_rotation(pose[:, :3, :3].transpose(-1, -2))


def _base(head: str, root_name: str) -> tuple[Tensor, Tensor]:
    """Rotation [3, 3] and place [3], in centimetres, of the unmoving model that the root joint hangs on."""
    parents = dict(CONNECTION.findall(head))
    if root_name not in parents:
        raise KeyError(f"the model that {root_name} hangs on")
    start = head.find(f'Model: "Model::{parents[root_name]}"')
    values = {}
    for kind in ("Rotation", "Translation"):
        pattern = rf'Property: "Lcl {kind}", [^,]*, "A\+",({NUMBER}),({NUMBER}),({NUMBER})'
        found = re.compile(pattern).search(head, start) if start >= 0 else None
        if not found:
            raise KeyError(f"the {kind.lower()} of {parents[root_name]}")
        values[kind] = torch.tensor([float(x) for x in found.groups()], dtype=torch.float64)
    return _euler_to_matrix(torch.deg2rad(values["Rotation"])), values["Translation"]


def _euler_to_matrix(angles: Tensor) -> Tensor:
    """Radians [..., 3] about the fixed axes x, then y, then z -> [..., 3, 3]."""
    x, y, z = (axis_angle_to_matrix(angles[..., i : i + 1] * torch.eye(3).to(angles)[i]) for i in range(3))
    return z @ y @ x
