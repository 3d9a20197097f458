"""Retargeting against the source skeleton's own kinematics, the motion bank's file, and the splits."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from core.errors import InputError
from core.skeleton import JOINT_NAMES, PARENTS
from core.synth.mocap import SourceClip, SourceSkeleton
from core.synth.motion import MotionBank, read_bank, write_bank
from core.synth.retarget import Target, retarget, smallest_rotation
from core.synth.splits import SPLITS, TEST_SUBJECTS, VALIDATION_SUBJECTS, split_of

SPREAD = math.radians(20)


def source_skeleton():
    """A person with the source's joints: T-pose, legs spread by 20 degrees, feet belonging to the legs."""
    table = [("root", -1, (0, 0, 0))]
    for side, s in (("l", 1), ("r", -1)):
        leg = np.array([s * math.sin(SPREAD), -math.cos(SPREAD), 0])
        foot = Rotation.from_euler("z", s * SPREAD).apply([0, -0.03, 0.13])
        first = len(table)
        table += [(side + "hipjoint", 0, (0, 0, 0)), (side + "femur", first, (s * 0.09, -0.1, 0.03))]
        table += [(side + "tibia", first + 1, 0.43 * leg), (side + "foot", first + 2, 0.41 * leg)]
        table += [(side + "toes", first + 3, foot)]
    spine = len(table)
    table += [
        ("lowerback", 0, (0, 0, 0)),
        ("upperback", spine, (0, 0.12, -0.01)),
        ("thorax", spine + 1, (0, 0.12, 0)),
    ]
    table += [("lowerneck", spine + 2, (0, 0.12, 0)), ("upperneck", spine + 3, (0, 0.08, 0.01))]
    table += [("head", spine + 4, (0, 0.09, 0))]
    for side, s in (("l", 1), ("r", -1)):
        first = len(table)
        table += [(side + "clavicle", spine + 2, (0, 0.12, 0)), (side + "humerus", first, (s * 0.2, 0.05, -0.01))]
        table += [(side + "radius", first + 1, (s * 0.28, 0, 0)), (side + "wrist", first + 2, (s * 0.2, 0, 0))]
        table += [(side + "hand", first + 3, (s * 0.09, 0, 0)), (side + "fingers", first + 4, (s * 0.04, 0, 0))]
        table += [(side + "thumb", first + 3, (s * 0.09, 0, 0))]
    offsets = torch.tensor(np.array([row[2] for row in table], float))
    return SourceSkeleton(tuple(r[0] for r in table), tuple(r[1] for r in table), offsets, torch.zeros_like(offsets))


def target_body():
    """Rest joints near SMPL's, not quite symmetric, arms hanging a little."""
    left = {"hip": (0.07, -0.09, -0.01), "knee": (0.1, -0.47, 0.0), "ankle": (0.09, -0.87, -0.05)}
    left |= {"foot": (0.11, -0.93, 0.07), "collar": (0.08, 0.42, -0.03), "shoulder": (0.18, 0.45, -0.04)}
    left |= {"elbow": (0.43, 0.42, -0.06), "wrist": (0.68, 0.43, -0.06), "hand": (0.77, 0.42, -0.07)}
    middle = {"pelvis": (0, 0, 0), "spine1": (0, 0.11, -0.03), "spine2": (0, 0.25, -0.02), "spine3": (0, 0.3, 0)}
    middle |= {"neck": (0, 0.51, -0.04), "head": (0, 0.6, 0.01)}
    joints = []
    for name in JOINT_NAMES:
        side, _, part = name.partition("_")
        place = np.array(left[part] if part else middle[name], float)
        joints.append(place * [-1.02, 1.01, 1] if side == "right" else place)
    soles = [(0.09, -0.95, -0.09), (0.12, -0.95, 0.13), (-0.09, -0.96, -0.09), (-0.12, -0.96, 0.13)]
    return Target(torch.tensor(np.array(joints)), torch.tensor(soles, dtype=torch.float64), (7, 10, 8, 11))


def moving_clip(frames=80, seed=0):
    """Every joint swings smoothly by up to about 40 degrees; the root turns and travels."""
    rng = np.random.default_rng(seed)
    skeleton = source_skeleton()
    J, t = len(skeleton.parents), np.linspace(0, 6, frames)[:, None, None]
    wave = 0.4 * np.sin(t * rng.uniform(0.5, 2, (J, 3)) + rng.uniform(0, 6, (J, 3)))
    wave[:, 0] *= [0.5, 3, 0.5]
    wave[:, [skeleton.index(name) for name in ("lowerback", "upperback", "thorax")]] *= 0.3
    rotmats = Rotation.from_rotvec(wave.reshape(-1, 3)).as_matrix().reshape(frames, J, 3, 3)
    root = np.stack([t[:, 0, 0] * 0.3, 0.95 + 0 * t[:, 0, 0], 0.1 * t[:, 0, 0]], -1)
    return SourceClip(
        "cmu_asf", "trial", "someone", "", skeleton, torch.tensor(rotmats), torch.tensor(root), floor=0.02
    )


def numpy_kinematics(quats, pelvis, joints):
    """Joint positions and global rotations of the target, written from the formula."""
    local = Rotation.from_quat(quats.numpy().reshape(-1, 4)[:, [1, 2, 3, 0]]).as_matrix().reshape(-1, 24, 3, 3)
    G, p = [local[:, 0]], [pelvis.numpy()]
    for j in range(1, 24):
        parent = PARENTS[j]
        p.append(p[parent] + G[parent] @ (joints[j] - joints[parent]))
        G.append(G[parent] @ local[:, j])
    return np.stack(p, 1), np.stack(G, 1)


def angle_deg(a, b):
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


BONES = [
    ("hip", "knee", "femur", "tibia"),
    ("knee", "ankle", "tibia", "foot"),
    ("shoulder", "elbow", "humerus", "radius"),
    ("elbow", "wrist", "radius", "wrist"),
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bone", BONES, ids=lambda b: b[0])
def test_limb_directions_are_the_sources(side, bone):
    clip, target = moving_clip(), target_body()
    result = retarget(clip, target)
    found, _ = numpy_kinematics(result.quats, result.pelvis, target.joints.numpy())
    source, _ = clip.forward_kinematics()
    a, b = (JOINT_NAMES.index(f"{side}_{name}") for name in bone[:2])
    c, d = (clip.skeleton.index(side[0] + name) for name in bone[2:])
    error = angle_deg(found[:, b] - found[:, a], (source[:, d] - source[:, c]).numpy())
    assert error.max() < 1e-3


def test_trunk_leans_as_the_sources_does():
    clip, target = moving_clip(), target_body()
    result = retarget(clip, target)
    found, _ = numpy_kinematics(result.quats, result.pelvis, target.joints.numpy())
    source = clip.forward_kinematics()[0].numpy()
    index = clip.skeleton.index
    theirs = source[:, index("lowerneck")] - (source[:, index("lfemur")] + source[:, index("rfemur")]) / 2
    ours = found[:, 12] - (found[:, 1] + found[:, 2]) / 2
    assert angle_deg(ours, theirs).mean() < 6.0


def test_rest_pose_stays_a_t_pose_with_level_feet():
    skeleton, target = source_skeleton(), target_body()
    J = len(skeleton.parents)
    rotmats = torch.eye(3, dtype=torch.float64).repeat(20, J, 1, 1)
    close = Rotation.from_euler("z", [[-SPREAD], [SPREAD]]).as_matrix()  # legs together, feet following
    for name, R in zip(("lfemur", "rfemur"), close):
        rotmats[:, skeleton.index(name)] = torch.tensor(R)
    root = torch.tensor([[1.0, 0.97, 2.0]], dtype=torch.float64).repeat(20, 1)
    clip = SourceClip("cmu_asf", "rest", "someone", "", skeleton, rotmats, root, floor=0.0)
    result = retarget(clip, target)
    joints, G = numpy_kinematics(result.quats, result.pelvis, target.joints.numpy())
    turned = Rotation.from_matrix(G[0]).magnitude()
    feet = [7, 8, 10, 11]
    assert np.degrees(turned[feet]).max() < 0.1
    assert np.degrees(turned).max() < 10  # arms: their own rest direction against the source's
    assert angle_deg(joints[0, 4] - joints[0, 1], np.array([0.0, -1.0, 0.0])) < 0.1
    assert joints[0, 16, 0] > joints[0, 17, 0]  # left at +x, facing +z
    assert abs(float(result.lowest_sole[0])) < 1e-9
    assert np.allclose(joints[0, 0, [0, 2]], 0, atol=1e-9)


def test_path_is_scaled_by_leg_length():
    clip, target = moving_clip(), target_body()
    result = retarget(clip, target)
    source, rotations = clip.forward_kinematics()
    found, _ = numpy_kinematics(result.quats, result.pelvis, target.joints.numpy())
    hips = (found[:, 1] + found[:, 2]) / 2
    index = clip.skeleton.index
    theirs = ((source[:, index("lfemur")] + source[:, index("rfemur")]) / 2).numpy()
    scale = target.leg_length / 0.84
    assert np.allclose(np.diff(hips, axis=0), scale * np.diff(theirs, axis=0), atol=1e-9)


def test_hand_twist_is_shared_with_the_forearm():
    clip, target = moving_clip(), target_body()
    rotmats = torch.eye(3, dtype=torch.float64).repeat(20, len(clip.skeleton.parents), 1, 1)
    twist = Rotation.from_euler("x", 60, degrees=True).as_matrix()
    rotmats[:, clip.skeleton.index("lhand")] = torch.tensor(twist)
    still = SourceClip("cmu_asf", "a", "b", "", clip.skeleton, rotmats, clip.root_pos[:20], 0.0)
    quats = retarget(still, target).quats[0]
    wrist = JOINT_NAMES.index("left_wrist")
    angle = np.degrees(2 * np.arccos(np.clip(quats[wrist, 0].item(), -1, 1)))
    assert 25 < angle < 35


def test_smallest_rotation_takes_one_direction_to_the_other():
    rng = np.random.default_rng(3)
    for _ in range(20):
        a, b = torch.tensor(rng.normal(size=3)), torch.tensor(rng.normal(size=3))
        R = smallest_rotation(a, b).numpy()
        assert angle_deg(R @ a.numpy(), b.numpy()) < 1e-5
        assert Rotation.from_matrix(R).magnitude() == pytest.approx(np.radians(angle_deg(a.numpy(), b.numpy())))


def small_bank(seed=0):
    rng = np.random.default_rng(seed)
    lengths = np.array([40, 25, 1])
    steps = rng.normal(0, 0.15, (lengths.sum(), 24, 3)).cumsum(0)
    quats = Rotation.from_rotvec(steps.reshape(-1, 3)).as_quat()[:, [3, 0, 1, 2]].reshape(-1, 24, 4)
    quats[:, 22:] = [1, 0, 0, 0]
    quats *= np.where(quats[..., :1] < 0, -1, 1)
    return MotionBank(
        quats=quats.astype(np.float32),
        pelvis=rng.normal(0, 0.5, (lengths.sum(), 3)).astype(np.float32),
        clip_start=np.array([0, 40, 65]),
        clip_len=lengths,
        name=("a", "b", "c"),
        subject=("x", "y", "y"),
        description=("walk", "é", ""),
        split=("train", "test", "test"),
        leg_length=0.8,
    )


def test_bank_comes_back_from_its_file(tmp_path):
    bank = small_bank()
    write_bank(tmp_path / "bank.npz", bank)
    back = read_bank(tmp_path / "bank.npz")
    dot = np.abs((bank.quats.astype(float) * back.quats).sum(-1)).clip(0, 1)
    assert np.degrees(2 * np.arccos(dot)).max() < 0.05
    assert np.abs(back.pelvis - bank.pelvis).max() < 3e-4
    assert (back.quats[..., 0] >= 0).all()
    assert (back.name, back.subject, back.description, back.split) == (
        bank.name,
        bank.subject,
        bank.description,
        bank.split,
    )
    assert back.clips("test") == [1, 2] and back.clips(("train", "test")) == [0, 1, 2]
    assert back.frames(1) == slice(40, 65)


def test_a_missing_bank_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="core synth bank"):
        read_bank(tmp_path / "nothing.npz")


def test_splits_share_no_subject():
    assert not TEST_SUBJECTS & VALIDATION_SUBJECTS
    for subject in TEST_SUBJECTS:
        assert split_of(subject, "cmu_asf") == "test"
    assert split_of("cmu_14", "cmu_asf") == "train"
    assert split_of("cmu_49", "cmu_asf") == "validation"
    assert {split_of(s, "cmu_expmap") for s in ("cmu_unknown", "cmu_02", "cmu_49")} == {"train"}
    assert {split_of(s, "cmu_asf") for s in ("cmu_02", "cmu_17", "cmu_29")} == set(SPLITS)
