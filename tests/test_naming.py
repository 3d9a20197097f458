"""Bone names against the engine's joint list, there and back."""

from __future__ import annotations

import pytest

from addon import naming
from core import skeleton


def test_joint_order_is_the_engines() -> None:
    assert naming.JOINT_NAMES == skeleton.JOINT_NAMES
    assert naming.PARENTS == skeleton.PARENTS


@pytest.mark.parametrize("joint", skeleton.JOINT_NAMES)
def test_names_return(joint: str) -> None:
    assert naming.joint_name(naming.bone_name(joint)) == joint


def test_examples() -> None:
    assert naming.bone_name("left_knee") == "knee.L"
    assert naming.bone_name("right_collar") == "collar.R"
    assert naming.bone_name("pelvis") == "pelvis"
    assert [naming.side_of(n) for n in ("left_hip", "hip.R", "spine2")] == ["L", "R", "C"]


def test_mirroring_names_exchanges_sides() -> None:
    for joint in skeleton.JOINT_NAMES:
        mirrored = naming.bone_name(skeleton.mirrored_name(joint))
        expected = naming.bone_name(joint).translate(str.maketrans("LR", "RL"))
        assert mirrored == (expected if naming.side_of(joint) != "C" else naming.bone_name(joint))


def test_every_joint_has_one_limb() -> None:
    assert sorted(j for joints in naming.LIMBS.values() for j in joints) == list(range(24))
    assert "left_foot" in [naming.JOINT_NAMES[j] for j in naming.LIMBS["legs"]]
    assert "right_hand" in [naming.JOINT_NAMES[j] for j in naming.LIMBS["arms"]]


def test_shape_keys_follow_the_engines_coefficients() -> None:
    assert naming.PRINCIPAL_COUNT == skeleton.PRINCIPAL_COUNT and len(naming.SHAPE_KEYS) == skeleton.SHAPE_COUNT
    for key, part in zip(naming.SHAPE_KEYS[naming.PRINCIPAL_COUNT :], skeleton.LENGTHS, strict=True):
        assert key.lower().startswith(part.removesuffix("s"))
