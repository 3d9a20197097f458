"""Strong poses for looking at a body's skinning: joint -> axis-angle in degrees about x (left), y (up), z (front)."""

from __future__ import annotations

Pose = dict[str, tuple[float, float, float]]


def _both(joint: str, x: float, y: float, z: float) -> Pose:
    """The same turn on both sides, mirrored."""
    return {f"left_{joint}": (x, y, z), f"right_{joint}": (x, -y, -z)}


POSES: dict[str, Pose] = {
    "rest": {},
    "arms down": {**_both("shoulder", 0, 0, -72), **_both("elbow", 0, -12, 0), **_both("collar", 0, 0, -8)},
    "arms up": {**_both("shoulder", 0, 0, 60), **_both("collar", 0, 0, 22)},
    "arms crossed": {**_both("shoulder", 0, -75, -15), **_both("elbow", 0, -80, 0), **_both("collar", 0, -15, 0)},
    "deep squat": {
        **_both("hip", -115, 10, 12),
        **_both("knee", 130, 0, 0),
        **_both("ankle", -25, 0, 0),
        "spine1": (15, 0, 0),
        **_both("shoulder", 0, -70, -10),
    },
    "forward bend": {
        **_both("hip", -75, 0, 0),
        "spine1": (25, 0, 0),
        "spine2": (15, 0, 0),
        "spine3": (10, 0, 0),
        "neck": (15, 0, 0),
        **_both("shoulder", 0, -60, -60),
    },
    "kick": {
        "left_hip": (-100, 0, 0),
        "left_knee": (10, 0, 0),
        "right_hip": (15, 0, 0),
        **_both("shoulder", 0, 0, -35),
    },
    "splits": {**_both("hip", 0, 0, 55), **_both("shoulder", 0, 0, -30)},
    "twisted": {
        "spine1": (0, 20, 0),
        "spine2": (0, 20, 0),
        "spine3": (0, 20, 0),
        "neck": (0, 25, 0),
        **_both("shoulder", 0, 0, -20),
    },
    "elbows bent": {**_both("elbow", 0, -140, 0)},
    "wrists": {"left_wrist": (0, 0, -70), "right_wrist": (90, 0, 0), **_both("hand", 0, 0, -40)},
    "tiptoe": {**_both("ankle", 40, 0, 0), **_both("foot", -45, 0, 0), **_both("shoulder", 0, 0, -60)},
    "head turned": {"neck": (0, 35, 0), "head": (-15, 35, 10), **_both("shoulder", 0, 0, -65)},
}
