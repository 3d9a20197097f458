"""core.synth.unseen: how far made-up motion goes, by scipy's rotations."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from core.body import load_body
from core.skeleton import JOINT_NAMES, SHAPE_COUNT
from core.synth.unseen import CARTWHEEL, TUCKED, TURN_S, Turn, sway, tuck, turn_over


def steps_of(turns: torch.Tensor) -> np.ndarray:
    """Rotation vectors [B, T - 1, 3] from frame to frame of rotations [B, T, 3, 3]."""
    flat = turns.double().numpy()
    relative = np.swapaxes(flat[:, :-1], -1, -2) @ flat[:, 1:]
    return Rotation.from_matrix(relative.reshape(-1, 3, 3)).as_rotvec().reshape(*relative.shape[:2], 3)


def test_people_turn_over_once_within_the_time_about_one_axis():
    turns = turn_over(400, 150, torch.Generator().manual_seed(0), share=1.0).rotation
    steps = steps_of(turns)
    whole = np.linalg.norm(steps[:, [0, -1]], axis=-1).max(1) < 1e-4  # begun and ended within the clip
    whole &= np.linalg.norm(steps, axis=-1).max(1) > 1e-3  # and not before or after it
    assert whole.mean() > 0.5
    total = np.degrees(steps[whole].sum(1))
    axis = np.abs(total).argmax(1)
    np.testing.assert_allclose(np.abs(total).max(1), 360, atol=1e-2)
    assert set(axis.tolist()) == {0, 2} and abs((axis == 2).mean() - CARTWHEEL) < 0.08
    assert 0.4 < (np.take_along_axis(total, axis[:, None], 1) > 0).mean() < 0.6
    seconds = (np.linalg.norm(steps[whole], axis=-1) > 1e-5).sum(1) / 30
    assert TURN_S[0] - 0.1 < seconds.min() < 0.7 and 1.1 < seconds.max() < TURN_S[1] + 0.1


def test_only_a_share_of_the_people_turns_over():
    turns = turn_over(600, 40, torch.Generator().manual_seed(1), share=0.25).rotation
    moved = (turns - torch.eye(3)).abs().amax((1, 2, 3)) > 1e-3
    assert 0.15 < moved.float().mean() < 0.3
    still = turn_over(50, 40, torch.Generator().manual_seed(1), share=0.0).rotation
    torch.testing.assert_close(still, torch.eye(3).expand_as(still))


def test_turning_takes_as_long_with_frames_further_apart():
    close = turn_over(20, 90, torch.Generator().manual_seed(4), share=1.0)
    wide = turn_over(20, 30, torch.Generator().manual_seed(4), share=1.0, frame_s=0.1)
    fastest = [(turn.done[:, 1:] - turn.done[:, :-1]).amax(1) for turn in (close, wide)]
    assert (fastest[1] / fastest[0] - 3).abs().nanmedian() < 1e-3  # those cut off within a frame differ


def test_people_tuck_while_they_turn_and_only_then():
    turn = turn_over(300, 120, torch.Generator().manual_seed(5), share=0.8)
    standing = torch.eye(3).expand(300, 120, 24, 3, 3)
    tucked = tuck(standing, turn, torch.Generator().manual_seed(6))
    vectors = Rotation.from_matrix(tucked.double().numpy().reshape(-1, 3, 3)).as_rotvec().reshape(300, 120, 24, 3)
    is_turning = ((turn.done > 0) & (turn.done < 1)).numpy()
    assert np.abs(vectors[~is_turning]).max() < 2e-3
    knees = np.degrees(vectors[:, :, [JOINT_NAMES.index("left_knee"), JOINT_NAMES.index("right_knee")], 0])
    turns_over = is_turning.any(1) & ~turn.is_cartwheel.numpy()
    bends = knees.max((1, 2)) > 10
    assert not bends[~turns_over].any()
    assert abs(bends[turns_over].mean() - TUCKED) < 0.1
    assert knees.min() > -1 and 120 < knees.max() < 146


def test_a_tucked_persons_knees_lie_at_the_chest():
    turn = Turn(torch.eye(3).expand(50, 3, 3, 3), torch.full((50, 3), 0.5), torch.zeros(50, dtype=torch.bool))
    tucked = tuck(torch.eye(3).expand(50, 3, 24, 3, 3), turn, torch.Generator().manual_seed(7))
    joints = load_body().skin(tucked[:, 1], torch.zeros(50, SHAPE_COUNT), torch.zeros(50, 3))[1]
    pelvis, knee, foot, chest = (
        joints[:, JOINT_NAMES.index(n)] for n in ("pelvis", "left_knee", "left_foot", "spine3")
    )
    is_tucked = knee[:, 1] > pelvis[:, 1] - 0.1  # thighs level or higher: the figure faces +z, y is up
    assert is_tucked.float().mean() > 0.35  # standing: none
    assert (knee[is_tucked, 2] > pelvis[is_tucked, 2]).all()
    assert (foot[is_tucked, 1] < knee[is_tucked, 1]).all()
    assert (knee - chest)[is_tucked].norm(dim=-1).median() < 0.6  # standing: 0.75


def test_sway_leaves_the_root_and_the_hands_and_moves_slowly():
    turns = sway(200, 30, torch.Generator().manual_seed(2), share=0.5, largest_deg=10.0)
    vectors = Rotation.from_matrix(turns.double().numpy().reshape(-1, 3, 3)).as_rotvec().reshape(200, 30, 24, 3)
    assert np.abs(vectors[:, :, [0, 22, 23]]).max() < 1e-6
    is_moved = np.abs(vectors).max((1, 2, 3)) > 1e-6
    assert 0.4 < is_moved.mean() < 0.6
    deviation = np.degrees(vectors[is_moved][:, :, 1:22].std())
    assert 3 < deviation < 10
    assert np.degrees(np.diff(vectors, axis=1).std()) < 0.5 * deviation
