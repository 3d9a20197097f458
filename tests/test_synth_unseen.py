"""core.synth.unseen: how far made-up motion goes, by scipy's rotations."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from core.synth.unseen import CARTWHEEL, TURN_S, sway, turn_over


def steps_of(turns: torch.Tensor) -> np.ndarray:
    """Rotation vectors [B, T - 1, 3] from frame to frame of rotations [B, T, 3, 3]."""
    flat = turns.double().numpy()
    relative = np.swapaxes(flat[:, :-1], -1, -2) @ flat[:, 1:]
    return Rotation.from_matrix(relative.reshape(-1, 3, 3)).as_rotvec().reshape(*relative.shape[:2], 3)


def test_people_turn_over_once_within_the_time_about_one_axis():
    turns = turn_over(400, 150, torch.Generator().manual_seed(0), share=1.0)
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
    turns = turn_over(600, 40, torch.Generator().manual_seed(1), share=0.25)
    moved = (turns - torch.eye(3)).abs().amax((1, 2, 3)) > 1e-3
    assert 0.15 < moved.float().mean() < 0.3
    still = turn_over(50, 40, torch.Generator().manual_seed(1), share=0.0)
    torch.testing.assert_close(still, torch.eye(3).expand_as(still))


def test_sway_leaves_the_root_and_the_hands_and_moves_slowly():
    turns = sway(200, 30, torch.Generator().manual_seed(2), share=0.5, largest_deg=10.0)
    vectors = Rotation.from_matrix(turns.double().numpy().reshape(-1, 3, 3)).as_rotvec().reshape(200, 30, 24, 3)
    assert np.abs(vectors[:, :, [0, 22, 23]]).max() < 1e-6
    is_moved = np.abs(vectors).max((1, 2, 3)) > 1e-6
    assert 0.4 < is_moved.mean() < 0.6
    deviation = np.degrees(vectors[is_moved][:, :, 1:22].std())
    assert 3 < deviation < 10
    assert np.degrees(np.diff(vectors, axis=1).std()) < 0.5 * deviation
