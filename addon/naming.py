"""Names: the 24 SMPL joints as Blender bones (left_knee <-> knee.L), so that Blender's mirror tools see the sides.

The joints and their order are those of core.protocol.
"""

from __future__ import annotations

from .wire import protocol

JOINT_NAMES, PARENTS = protocol.JOINT_NAMES, protocol.PARENTS
JOINT_COUNT = len(JOINT_NAMES)
PRINCIPAL_COUNT = 10
SHAPE_KEYS: tuple[str, ...] = (
    *(f"Shape {k + 1}" for k in range(PRINCIPAL_COUNT)),
    "Upper Arm Length",
    "Forearm Length",
    "Thigh Length",
    "Shin Length",
    "Trunk Length",
    "Shoulder Width",
)
"""Shape keys of a body's mesh, in the order of the shape's coefficients; a body may have the first of them only."""
_SIDES = {"left_": ".L", "right_": ".R"}


def bone_name(joint: str) -> str:
    """Return the bone of a joint: left_knee -> knee.L, pelvis -> pelvis."""
    for prefix, suffix in _SIDES.items():
        if joint.startswith(prefix):
            return joint[len(prefix) :] + suffix
    return joint


def joint_name(bone: str) -> str:
    """Return the joint of a bone: knee.L -> left_knee, pelvis -> pelvis."""
    for prefix, suffix in _SIDES.items():
        if bone.endswith(suffix):
            return prefix + bone[: -len(suffix)]
    return bone


def side_of(name: str) -> str:
    """Return "L", "R" or "C" (centre) for a joint or a bone name."""
    bone = bone_name(name)
    return bone[-1] if bone.endswith((".L", ".R")) else "C"


BONE_NAMES: tuple[str, ...] = tuple(bone_name(name) for name in JOINT_NAMES)
CONTACT_NAMES: tuple[str, ...] = ("contact_left_heel", "contact_left_toe", "contact_right_heel", "contact_right_toe")
"""Custom properties of the armature object that carry the foot contacts, in the order of Frames.contacts."""
CONFIDENCE_NAME = "confidence"
LIMBS: dict[str, tuple[int, ...]] = {
    "root": (0,),
    "spine": tuple(JOINT_NAMES.index(n) for n in ("spine1", "spine2", "spine3", "neck", "head")),
    "arms": tuple(
        i for i, n in enumerate(JOINT_NAMES) if n.split("_")[-1] in ("collar", "shoulder", "elbow", "wrist", "hand")
    ),
    "legs": tuple(i for i, n in enumerate(JOINT_NAMES) if n.split("_")[-1] in ("hip", "knee", "ankle", "foot")),
}
"""Joint indices by limb: every joint belongs to exactly one."""
