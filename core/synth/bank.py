"""Make the motion bank: source clips retargeted to the body, split by subject, repeats of held-out takes dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.body import Body
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES
from core.synth.mocap import read_mocap
from core.synth.motion import MotionBank
from core.synth.retarget import Target, retarget, straighten_heads
from core.synth.splits import TRAIN_ONLY_GROUP, split_of

logger = logging.getLogger(__name__)

LIMBS = tuple(
    i for i, name in enumerate(JOINT_NAMES) if any(part in name for part in ("hip", "knee", "shoulder", "elbow"))
)
REPEAT_DEG = 4.0
"""A clip without a subject whose every limb follows a held-out take within this mean angle is that take again."""
PROBES = 16


def target_of(body: Body) -> Target:
    """Rest geometry of a body: joints, and points on the floor under heels and toes."""
    template = body.v_template.double().cpu()
    keypoints = body.keypoint_regressor.double().cpu() @ template
    floor = template[:, 1].min()
    soles, joints = [], []
    for side in ("left", "right"):
        for point, joint in (("heel", "ankle"), ("toe", "foot")):
            place = keypoints[KEYPOINT_NAMES.index(f"{side}_{point}")].clone()
            place[1] = floor
            soles.append(place)
            joints.append(JOINT_NAMES.index(f"{side}_{joint}"))
    return Target(body.joint_template.double().cpu(), torch.stack(soles), tuple(joints))


def build_bank(
    mocap: Iterable[str | Path], body: Body, *, on_progress: Callable[[int, str], None] | None = None
) -> tuple[MotionBank, list[str]]:
    """Retarget every clip of some mocap files.

    Returns the bank and the names of the clips that were left out as repeats of test or validation takes.
    """
    target = target_of(body)
    quats, pelvis, table = [], [], []
    for number, clip in enumerate(clip for path in mocap for clip in read_mocap(path)):
        result = retarget(clip, target)
        quats.append(result.quats)
        pelvis.append(result.pelvis.float())
        table.append((clip.name, clip.subject, clip.description, split_of(clip.subject, clip.group), clip.group))
        if on_progress:
            on_progress(number + 1, clip.name)
    for subject in {row[1] for row in table}:
        own = [i for i, row in enumerate(table) if row[1] == subject]
        for i, straight in zip(own, straighten_heads([quats[i] for i in own])):
            quats[i] = straight
    quats = [q.float() for q in quats]
    repeats = _repeats(quats, table)
    keep = [i for i in range(len(table)) if i not in repeats]
    lengths = np.array([len(quats[i]) for i in keep])
    bank = MotionBank(
        quats=torch.cat([quats[i] for i in keep]).numpy(),
        pelvis=torch.cat([pelvis[i] for i in keep]).numpy(),
        clip_start=np.cumsum(lengths) - lengths,
        clip_len=lengths,
        name=tuple(table[i][0] for i in keep),
        subject=tuple(table[i][1] for i in keep),
        description=tuple(table[i][2] for i in keep),
        split=tuple(table[i][3] for i in keep),
        leg_length=target.leg_length,
    )
    return bank, [table[i][0] for i in sorted(repeats)]


def _repeats(quats: list[Tensor], table: list[tuple[str, ...]]) -> set[int]:
    """Clips of the group without subjects that follow a held-out clip closely all along."""
    held_out = [i for i, row in enumerate(table) if row[3] != "train"]
    result = set()
    for i, row in enumerate(table):
        if row[4] != TRAIN_ONLY_GROUP:
            continue
        at = torch.linspace(0, len(quats[i]) - 1, PROBES).long()
        probe = quats[i][at][:, LIMBS]
        nearest = min(float(_angles(probe, quats[k][:, LIMBS]).amin(1).mean()) for k in held_out)
        if nearest < REPEAT_DEG:
            logger.info("%s repeats a held-out take (%.1f degrees)", row[0], nearest)
            result.add(i)
    return result


def _angles(a: Tensor, b: Tensor) -> Tensor:
    """Mean rotation angle in degrees [A, B] between poses a [A, L, 4] and b [B, L, 4]."""
    dot = torch.einsum("alc,blc->abl", a, b).abs().clamp_max(1)
    return torch.rad2deg(2 * torch.acos(dot)).mean(-1)
