"""Lengths of limbs, trunk and shoulders: a mean like people's, and directions of shape beside the principal ones.

MakeHuman's people vary little in proportion, and theirs are not quite those of people: forearms are a tenth shorter
against the stature than measured (de Leva 1996, J. Biomech. 29(9), table 4: men and women together), knees 2 cm
higher. So the template is set right first (CORRECTION), and six more directions, each as wide as people differ
(DEVIATIONS), let every body have lengths of its own. V vertices, J = 24 joints, P = 6; metres, T-pose.
"""

from __future__ import annotations

import numpy as np

from core.skeleton import JOINT_COUNT, JOINT_NAMES, LENGTHS, PARENTS

GROWING: dict[str, tuple[str, ...]] = {
    "upper arm": ("elbow",),
    "forearm": ("wrist",),
    "thigh": ("knee",),
    "shin": ("ankle",),
    "trunk": ("spine1", "spine2", "spine3", "neck", "collar"),
    "shoulders": ("shoulder",),
}
"""Of LENGTHS: the joints (without side) whose offset from the parent is the length."""
CORRECTION = {"upper arm": 1.02, "forearm": 1.09, "thigh": 1.04, "shin": 0.967, "trunk": 1.0, "shoulders": 1.0}
"""Factors that bring the mean near de Leva's lengths over stature (upper arm 0.160, forearm 0.153, thigh 0.228, shin
0.249); arms go only so far that the span is not more than 1.04 times the stature."""
DEVIATIONS = {"upper arm": 0.03, "forearm": 0.04, "thigh": 0.035, "shin": 0.035, "trunk": 0.035, "shoulders": 0.04}
"""Of the factors among people of one stature, which is what a coefficient of 1 means; of the shoulders, of what lies
beyond the collarbones' joints, half the width."""
INNER_CHILD = {"pelvis": "spine1", "spine3": "neck"}
"""Towards which child the skin of a joint with several is stretched."""


def lengthen(template: np.ndarray, joints: np.ndarray, weights: np.ndarray, part: str) -> np.ndarray:
    """How the vertices [V, 3] move, to first order, when the length `part` grows by itself (factor 1 + 1).

    template [V, 3], joints [24, 3], weights [V, 24] skinning weights. Every joint moves with the bones before it;
    skin between a joint and the next moves in proportion to how far along it lies. The pelvis stays.
    """
    moves = np.zeros((JOINT_COUNT, 3))
    for joint in range(1, JOINT_COUNT):
        parent = PARENTS[joint]
        grows = _stem(joint) in GROWING[part]
        moves[joint] = moves[parent] + (joints[joint] - joints[parent] if grows else 0)
    moved = np.zeros_like(template, dtype=np.float64)
    for joint in range(JOINT_COUNT):
        own = np.broadcast_to(moves[joint], template.shape)
        child = _inner_child(joint)
        if child is not None:
            bone = joints[child] - joints[joint]
            along = np.clip((template - joints[joint]) @ bone / (bone @ bone), 0, 1)
            own = own + along[:, None] * (moves[child] - moves[joint])
        moved += weights[:, joint, None] * own
    return moved


def proportion_directions(template: np.ndarray, regressor: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Directions [V, 3, P] of one deviation each, in the order of LENGTHS; the pelvis joint stays at its place."""
    joints = regressor @ template
    columns = [DEVIATIONS[part] * lengthen(template, joints, weights, part) for part in LENGTHS]
    directions = np.stack(columns, -1)
    return directions - np.einsum("v,vcp->cp", regressor[0], directions)


def correct_template(template: np.ndarray, regressor: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The template [V, 3] with CORRECTION's lengths, the pelvis joint at its place."""
    joints = regressor @ template
    moved = sum((factor - 1) * lengthen(template, joints, weights, part) for part, factor in CORRECTION.items())
    return template + moved - regressor[0] @ moved


def _stem(joint: int) -> str:
    """The joint's name without its side."""
    return JOINT_NAMES[joint].removeprefix("left_").removeprefix("right_")


def _inner_child(joint: int) -> int | None:
    """The joint that skin of this one is stretched towards; None at the ends."""
    children = [child for child, parent in enumerate(PARENTS) if parent == joint]
    if not children:
        return None
    inner = INNER_CHILD.get(JOINT_NAMES[joint])
    return children[0] if inner is None else JOINT_NAMES.index(inner)
