"""core.systems.tcmr.occlusion: what is hidden, for how long, how often."""

from __future__ import annotations

import torch

from core.models.inputs import CONFIDENCE, CROP_FULL, CROP_RAY, CROP_XY, INPUT_SIZE
from core.skeleton import KEYPOINT_COUNT
from core.systems.tcmr.occlusion import Occlusion, hide
from core.train.augment import LIMBS


def hidden_by(occlusion: Occlusion, seed: int = 0, sequences: int = 64, window: int = 8):
    """Inputs that are nowhere zero, with points that stay where they are, and what became of them."""
    g = torch.Generator().manual_seed(seed)
    inputs = torch.rand(sequences, 1, KEYPOINT_COUNT, INPUT_SIZE, generator=g).repeat(1, window, 1, 1) + 0.1
    inputs[..., CROP_XY] = torch.rand(sequences, 1, KEYPOINT_COUNT, 2, generator=g) * 2 - 1
    features = torch.rand(sequences, window, 4, generator=g) + 0.1
    found, found_features = hide(inputs, features, occlusion, g)
    return inputs, features, found, found_features, found[..., CONFIDENCE][..., 0] == 0


def test_occlusion_hides_points_and_embedding_for_a_spell():
    inputs, features, found, found_features, is_hidden = hidden_by(Occlusion(chance=1.0), sequences=600)
    assert (found[is_hidden][:, :9] == 0).all()  # x and y twice, confidence, landmark, has landmark
    assert torch.equal(found[~is_hidden], inputs[~is_hidden])
    for crop in (CROP_RAY, CROP_FULL):
        assert torch.equal(found[..., crop], inputs[..., crop])
    in_spell = is_hidden.any(-1)
    assert torch.equal(found_features, features * ~in_spell[..., None])
    starts = (in_spell[:, 1:] & ~in_spell[:, :-1]).sum(1) + in_spell[:, 0]
    assert starts.max() == 1  # one spell a window
    lengths = in_spell.sum(1)
    assert set(lengths[lengths > 0].tolist()) == set(range(1, 9))
    first, last = in_spell.float().argmax(1), 7 - in_spell.flip(1).float().argmax(1)
    assert set(first[lengths > 0].tolist()) == set(range(8)) and set(last[lengths > 0].tolist()) == set(range(8))
    torch.testing.assert_close(is_hidden, is_hidden.any(1, keepdim=True) & in_spell[..., None])  # points stood still


def test_occluded_limbs_are_whole():
    *_, is_hidden = hidden_by(Occlusion(chance=1.0, limb=1.0))
    found = {tuple(row.nonzero()[:, 0].tolist()) for row in is_hidden.any(1)}
    assert found == {tuple(sorted(limb)) for limb in LIMBS}


def test_occluded_boxes_have_a_size():
    inputs, *_, is_hidden = hidden_by(Occlusion(chance=1.0, limb=0.0, smallest_box=0.5, largest_box=0.8))
    counts = is_hidden.any(1).sum(1)
    assert counts.float().mean() > 1
    for xy, hidden in zip(inputs[:, 0, :, CROP_XY], is_hidden.any(1)):
        if hidden.any():
            low, high = xy[hidden].amin(0), xy[hidden].amax(0)
            assert (high - low <= 0.8).all()
            inside = ((xy >= low) & (xy <= high)).all(-1)
            assert torch.equal(inside & hidden, inside)


def test_occlusion_by_its_shares():
    for chance in (0.0, 0.5):
        *_, is_hidden = hidden_by(Occlusion(chance=chance, limb=1.0), sequences=2000)
        assert abs(is_hidden.flatten(1).any(1).float().mean() - chance) < 0.05
    *_, is_hidden = hidden_by(Occlusion(chance=1.0, limb=1.0, longest=0.5), sequences=300)
    assert is_hidden.any(-1).sum(1).max() == 4
    _, features, _, found_features, _ = hidden_by(Occlusion(chance=1.0, embedding=0.0))
    assert torch.equal(features, found_features)
