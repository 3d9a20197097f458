"""What the landmark network is tuned on: pseudo truth of real crops, features of rendered ones, altered copies."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch

from core.errors import InputError
from core.perception.reading import LANDMARK_MIRROR
from core.perception.roi import Roi, crop_to_image
from core.synth.crops import decode_crops, read_crops
from core.train.landmarks import features as features_module
from core.train.landmarks.alter import AlterConfig, alter_pictures, alter_truth, draw_alterations
from core.train.landmarks.features import CropBank, CropBatch, to_images, to_input
from core.train.landmarks.footage import FootageConfig, _crops_of, carry, read_twice
from core.train.landmarks.tail import run_front

OTHER = AlterConfig(seed=5)


def test_the_reading_of_a_mirrored_crop_is_the_mirrored_reading(original, pictures):
    reading, mirrored = (
        read_twice(original, pictures[0]),
        read_twice(original, np.ascontiguousarray(pictures[0][:, ::-1])),
    )
    sides = list(LANDMARK_MIRROR)
    points = mirrored.points[:, sides] * torch.tensor([-1.0, 1.0]) + torch.tensor([256.0, 0.0])
    torch.testing.assert_close(points, reading.points, atol=1e-2, rtol=0)
    torch.testing.assert_close(mirrored.confidence[:, sides], reading.confidence, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        mirrored.world[:, sides] * torch.tensor([-1.0, 1, 1]), reading.world, atol=1e-4, rtol=0
    )


def test_mirrored_crops_carry_the_mirrored_reading(frame, original):
    """The same crops with and without mirroring: pictures, points, world landmarks and confidence go over."""
    plain, mirrored = (
        _crops_of(*frame, original, FootageConfig(recoloured=0, mirrored=share, variants=2), np.random.default_rng(3))
        for share in (0.0, 1.0)
    )
    for one, other in zip(plain, mirrored, strict=True):
        np.testing.assert_array_equal(one[0][:, ::-1], other[0])
        for k, left in enumerate(LANDMARK_MIRROR):
            np.testing.assert_allclose(other[1][k], [256 - one[1][left, 0], one[1][left, 1]], atol=1e-3)
            np.testing.assert_allclose(other[2][k], one[2][left] * [-1, 1, 1], atol=1e-6)
            assert other[3][k] == one[3][left]


def test_a_carried_reading_stays_where_it_is_in_the_picture(original, pictures):
    """Points by the picture; world landmarks turned by the crops' angles with OpenCV's rotation."""
    reading = read_twice(original, pictures[0])
    base = Roi(torch.tensor([[300.0, 200.0]]), torch.tensor([260.0]), torch.tensor([0.2]))
    other = Roi(torch.tensor([[320.0, 190.0]]), torch.tensor([300.0]), torch.tensor([-0.5]))
    carried = carry(reading, base, other)
    there, here = crop_to_image(carried.points, other), crop_to_image(reading.points, base)
    torch.testing.assert_close(there, here, atol=1e-3, rtol=0)
    turn = [cv2.Rodrigues(np.array([0.0, 0.0, float(roi.angle)]))[0] for roi in (base, other)]
    expected = reading.world[0].double().numpy() @ turn[0].T @ turn[1]
    np.testing.assert_allclose(carried.world[0], expected, atol=1e-5)


def test_features_are_made_once_and_not_taken_for_others(folder, bank, original, tmp_path, monkeypatch):
    stored = bank.stored(1)
    with torch.no_grad():
        expected = run_front(original, to_images(decode_crops(read_crops(bank.paths[0]), np.arange(3))))
    torch.testing.assert_close(to_input(stored[:3]), expected, atol=2e-2, rtol=2e-3)
    monkeypatch.setattr(features_module, "front_features", None)
    np.testing.assert_array_equal(CropBank(folder, "train", original).stored(1), stored)
    other = copy.deepcopy(original)
    other.backbone.stem.bias.data[0] += 0.1
    with pytest.raises(TypeError):
        CropBank(folder, "train", other)
    with pytest.raises(InputError, match="synth crops"):
        CropBank(tmp_path, "train", original)


def test_an_original_batch_has_its_own_truth(bank):
    """Rows drawn from several shards keep features and truth together."""
    drawn = bank.draw(6, torch.Generator().manual_seed(0), shards=3)
    every = bank.every(1)
    assert isinstance(drawn, CropBatch) and len(drawn.xy) == 6
    for i in range(6):
        row = int((every.xy - drawn.xy[i]).abs().sum((1, 2)).argmin())
        assert torch.equal(every.features[row], drawn.features[i]) and torch.equal(every.world[row], drawn.world[i])


def test_altered_copies_are_drawn_beside_the_crops(folder, bank, original):
    """As many as the crops themselves, with the features of their own pictures; all else keeps to the crops."""
    altered = CropBank(folder, "train", original, copies=1, alter=OTHER)
    drawn, rows = altered.draw(400, torch.Generator().manual_seed(0), shards=100), {}
    plain = {tuple(row): k for k, row in enumerate(bank.every(1).xy.flatten(1).tolist())}
    is_plain = [tuple(row) in plain for row in drawn.xy.flatten(1).tolist()]
    assert 0.3 < np.mean(is_plain) < 0.7
    for path in bank.paths:
        alterations = draw_alterations(OTHER, path.stem, 1, 3)
        truth = alter_truth(read_crops(path, with_pictures=False), alterations)
        decoded = decode_crops(read_crops(path), np.arange(3))
        with torch.no_grad():
            features = run_front(original, to_images(alter_pictures(decoded, alterations)))
        for k in range(3):
            rows[tuple(truth["xy"][k].reshape(-1).tolist())] = k, truth, features[k]
    for i in np.flatnonzero(~np.array(is_plain)):
        k, truth, features = rows[tuple(drawn.xy[i].reshape(-1).tolist())]
        for name in ("world", "aux", "hidden"):
            np.testing.assert_array_equal(getattr(drawn, name)[i], truth[name][k])
        torch.testing.assert_close(drawn.features[i], features, atol=2e-2, rtol=2e-3)
    assert len(altered) == len(bank) == 6
    np.testing.assert_array_equal(altered.stored(1), bank.stored(1))
    np.testing.assert_array_equal(altered.pictures(1), bank.pictures(1))
    assert torch.equal(altered.every(1).xy, bank.every(1).xy)


def test_copies_are_made_once_and_not_taken_for_others(folder, original, monkeypatch):
    def drawn(**settings) -> CropBatch:
        return CropBank(folder, "train", original, **settings).draw(60, torch.Generator().manual_seed(0), shards=15)

    before = drawn(copies=2)
    made = set(folder.glob("*.features.npy"))
    monkeypatch.setattr(features_module, "front_features", None)
    again = drawn(copies=2)
    assert torch.equal(again.features, before.features) and torch.equal(again.xy, before.xy)
    assert not torch.equal(drawn(copies=1).xy, before.xy)
    for other in ({"copies": 3}, {"alter": AlterConfig(seed=1)}, {"alter": AlterConfig(mirrored=0.5)}):
        with pytest.raises(TypeError):
            drawn(**{"copies": 2, **other})
    assert set(folder.glob("*.features.npy")) == made
    with pytest.raises(ValueError, match="only training crops"):
        CropBank(folder, "validation", original, copies=1)
