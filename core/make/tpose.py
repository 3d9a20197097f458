"""Posing anny's people from their rest pose (arms half down, elbows bent) to SMPL's T-pose.

Arms level along x, elbows straight with their hinge vertical (a bent elbow brings the hand forward), palms down,
thumbs forward, shoulder blades raised as a level arm raises them; thighs and shins in the directions of SMPL's rest
pose, soles flat. Trunk, neck and head stay. B people, N bones, V vertices; metres, y up, facing +z.
"""

from __future__ import annotations

import numpy as np

from core.make.anny_source import People

THIGH = (0.0343, -0.3752, -0.0045)
SHIN = (-0.0136, -0.3980, -0.0437)
"""Directions of the left thigh and shin in SMPL's rest pose (not unit length)."""
SHOULDER_RAISE = np.deg2rad(12.0)
"""Turn of clavicle and shoulder blade from the arm 45 degrees down to level: about a third of the arm's turn."""
HIP_INWARD, HIP_DOWN = 0.2, 0.15
"""The hip joint lies this part of the way from anny's upperleg01 to the midline, and to upperleg02."""
OUT = np.array([1.0, 0.0, 0.0])
FORWARD = np.array([0.0, 0.0, 1.0])
FINGERS = ("finger", "metacarpal", "wrist")


def pose_to_t(people: People) -> tuple[np.ndarray, np.ndarray]:
    """Return (vertices [B, V, 3] float32, heads [B, N, 3]) of the same people in the T-pose."""
    turns = t_pose_rotations(people)
    heads = posed_heads(people, turns)
    offsets = heads - np.einsum("bnij,bnj->bni", turns, people.heads)
    # [B, V, 12] = W [V, N] @ (turns | offsets) [B, N, 12]
    transforms = np.concatenate([turns.reshape(*turns.shape[:2], 9), offsets], -1)
    vertices = np.empty_like(people.vertices)
    for b in range(len(vertices)):
        blended = people.bone_weights @ transforms[b]
        turned = np.einsum("vij,vj->vi", blended[:, :9].reshape(-1, 3, 3), people.vertices[b])
        vertices[b] = turned + blended[:, 9:]
    return vertices, heads


def t_pose_rotations(people: People) -> np.ndarray:
    """World rotations [B, N, 3, 3] that carry each bone from anny's rest pose to the T-pose."""
    index = {name: i for i, name in enumerate(people.bones)}
    turns = np.tile(np.eye(3), (len(people.heads), len(people.bones), 1, 1))
    for side, sign in (("L", 1.0), ("R", -1.0)):
        flip = np.array([sign, 1.0, 1.0])

        def head(name: str, side=side) -> np.ndarray:
            return people.heads[:, index[f"{name}.{side}"]]

        c, s = np.cos(SHOULDER_RAISE), sign * np.sin(SHOULDER_RAISE)
        raise_turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])

        shoulder, elbow, wrist = head("upperarm01"), head("lowerarm01"), head("wrist")
        upper, fore = elbow - shoulder, wrist - elbow
        hinge = np.cross(upper, fore)  # left arm: down, so that a bent elbow brings the hand forward
        goal_hinge = np.cross(OUT * flip, FORWARD)
        upper_turn = _aligning(upper, hinge, OUT * flip, goal_hinge)
        fore_turn = _aligning(fore, hinge, OUT * flip, goal_hinge)
        knuckles = head("finger3-1") - wrist
        across = head("finger2-1") - head("finger5-1")
        hand_turn = _aligning(knuckles, across, OUT * flip, FORWARD)
        half = _half_twist(hand_turn @ np.swapaxes(fore_turn, -1, -2), OUT)

        hip_bone, knee = head("upperleg01"), head("lowerleg01")
        hip = hip_joint(hip_bone, head("upperleg02"), people.heads[:, index["root"]])
        length = np.linalg.norm(knee - hip, axis=-1, keepdims=True)
        goal = hip + length * _unit(np.array(THIGH) * flip) - hip_bone
        thigh_turn = _shortest_turn(knee - hip_bone, goal)
        shin = head("foot") - knee
        shin_turn = _shortest_turn(shin, np.array(SHIN) * flip)

        for name in people.bones:
            bone = name.removesuffix(f".{side}")
            if bone == name:
                continue
            turn = None
            if bone in ("clavicle", "shoulder01"):
                turn = raise_turn
            elif bone.startswith("upperarm"):
                turn = upper_turn
            elif bone == "lowerarm01":
                turn = fore_turn
            elif bone == "lowerarm02":
                turn = half @ fore_turn
            elif bone.startswith(FINGERS):
                turn = hand_turn
            elif bone.startswith("upperleg"):
                turn = thigh_turn
            elif bone.startswith("lowerleg"):
                turn = shin_turn
            if turn is not None:
                turns[:, index[name]] = turn
    return turns


def hip_joint(upper: np.ndarray, lower: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Centre of the hip from the starts of upperleg01, upperleg02 and root [..., 3]; moves with the pelvis."""
    inward = upper + HIP_INWARD * (root * [0, 1, 1] - upper) * [1, 0, 0]
    return inward + HIP_DOWN * (lower - upper)


def posed_heads(people: People, turns: np.ndarray) -> np.ndarray:
    """Bone starts [B, N, 3] after each bone has turned its children about its own start."""
    heads = people.heads.copy()
    for bone, parent in enumerate(people.parents):
        if parent >= 0:
            arm = people.heads[:, bone] - people.heads[:, parent]
            heads[:, bone] = heads[:, parent] + np.einsum("bij,bj->bi", turns[:, parent], arm)
    return heads


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Orthonormal columns: first, the part of second across it, their cross product. [..., 3] -> [..., 3, 3]."""
    x = _unit(first)
    y = _unit(second - (second * x).sum(-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], -1)


def _aligning(first, second, goal_first, goal_second) -> np.ndarray:
    """Rotation taking direction first to goal_first, and second as near as possible to goal_second."""
    return _frame(goal_first, goal_second) @ np.swapaxes(_frame(first, second), -1, -2)


def _shortest_turn(direction: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Smallest rotation taking each direction [B, 3] to goal [3] or [B, 3]."""
    a, b = _unit(direction), _unit(goal)
    axis, cosine = np.cross(a, b), (a * b).sum(-1)
    zero = np.zeros_like(cosine)
    x, y, z = axis[:, 0], axis[:, 1], axis[:, 2]
    K = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    return np.eye(3) + K + K @ K / (1 + cosine)[:, None, None]


def _half_twist(turn: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Half of the rotation about `axis` that turn [B, 3, 3] contains (swing-twist decomposition)."""
    skew = np.stack([turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], -1)
    # tan(angle / 2) of the twist = (vector part . axis) / scalar part of the quaternion
    angle = 2 * np.arctan2(skew @ axis, 1 + np.trace(turn, axis1=1, axis2=2))
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    zero, one = np.zeros_like(c), np.ones_like(c)
    return np.stack([one, zero, zero, zero, c, -s, zero, s, c], -1).reshape(-1, 3, 3)
