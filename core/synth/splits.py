"""Which mocap subject trains, validates or tests. Nothing of a test subject is ever trained on.

test        walking, running, jumping, sword play, washing (02), modern dance (05), soccer (10), walking (12),
            karate (135), a charleston and a pirouette of unnamed trials: about a tenth of the frames
validation  boxing and stealth (17), cartwheels, balance and dance (49), hops and stops (131)
train       everyone else. The salsa couple (60, 61) dances the same takes, so both are on this side; the clips of
            `cmu_expmap` carry no subject and may repeat takes of others, so all of it is on this side, less the clips
            that `retarget` finds to repeat a test or validation clip.
"""

from __future__ import annotations

TEST_SUBJECTS = frozenset(
    {"cmu_02", "cmu_05", "cmu_10", "cmu_12", "cmu_135", "cmu_unknown_charleston1", "cmu_unknown_charleston2"}
    | {"cmu_unknown_pirouette"}
)
VALIDATION_SUBJECTS = frozenset({"cmu_17", "cmu_49", "cmu_131"})
SPLITS = ("train", "validation", "test")
TRAIN_ONLY_GROUP = "cmu_expmap"


def split_of(subject: str, group: str) -> str:
    """Return train, validation or test for a mocap subject of a group of the source file."""
    if group == TRAIN_ONLY_GROUP:
        return "train"
    if subject in TEST_SUBJECTS:
        return "test"
    return "validation" if subject in VALIDATION_SUBJECTS else "train"
