"""Rendered crops: their truth against projections written out here, files, determinism, several processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_synth_noise import small_bank

from core.body import load_body
from core.errors import InputError
from core.perception.roi import Roi, crop_affine, roi_from_points
from core.skeleton import KEYPOINT_NAMES
from core.synth.crops import (
    CropConfig,
    Displacement,
    crop_paths,
    decode_crops,
    displace,
    encode,
    make_crop_shard,
    make_crops,
    read_crops,
    truth_in_crops,
    write_crops,
)
from core.synth.dataset import outside_image, roi_of, sampler_config
from core.synth.motion import read_bank, write_bank
from core.synth.sampler import MotionSampler
from core.synth.takes import CONDITIONS, draw_takes
from core.synth.workers import make_crops_in_parallel

HIPS = [KEYPOINT_NAMES.index(f"{side}_hip") for side in ("left", "right")]
SMALL = CropConfig(count=4, batch=1, moments=2, seed=3, chunk=1, hard_every=1)


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def motions(body):
    return MotionSampler(small_bank(), body, config=sampler_config("train", 3, 10))


@pytest.fixture(scope="module")
def seen(motions):
    """Takes, and crops of their second moment that are well off."""
    generator = torch.Generator().manual_seed(2)
    takes = draw_takes(motions, 12, 3, generator, conditions=CONDITIONS["hard"])
    roi = displace(roi_of(takes.points[:, 1]), Displacement(turn=0.6, wide_share=1.0), generator)
    return takes, roi


def pixel(takes, i: int, points: np.ndarray) -> np.ndarray:
    """Camera points [P, 3] of take i -> px of the full image, by the pinhole's formula."""
    fx, fy, cx, cy = takes.cameras.intrinsics[i].double().numpy()
    return np.stack([points[:, 0] / points[:, 2] * fx + cx, points[:, 1] / points[:, 2] * fy + cy], -1)


def test_keypoints_lie_where_warping_the_image_takes_them(body, seen):
    """Keypoints from the body itself, projected, then through OpenCV's inverse of the matrix that cuts crops."""
    takes, roi = seen
    found = truth_in_crops(takes, 1, roi)
    person = takes.person
    keypoints = body.keypoints(person.rotmats[:, 1], person.betas, person.trans[:, 1])
    for i in range(len(takes)):
        points = pixel(takes, i, keypoints[i].double().numpy())
        inverse = cv2.invertAffineTransform(crop_affine(roi[i]).double().numpy())
        expected = (points - 0.5) @ inverse[:, :2].T + inverse[:, 2] + 0.5
        np.testing.assert_allclose(found["xy"][i], expected, atol=0.05)


def test_world_landmarks_turned_back_are_the_keypoints_about_the_hips(seen):
    """Back by the crop's angle, then by the turn (Rodrigues) that takes the optical axis to the crop's middle."""
    takes, roi = seen
    found = truth_in_crops(takes, 1, roi)["world"].double().numpy()
    for i in range(len(takes)):
        k = takes.keypoints[i, 1].double().numpy()
        fx, fy, cx, cy = takes.cameras.intrinsics[i].double().numpy()
        x, y = roi.center[i].double().numpy()
        ray = np.array([(x - cx) / fx, (y - cy) / fy, 1.0])
        axis = np.cross([0.0, 0.0, 1.0], ray)
        angle = np.arctan2(np.linalg.norm(axis), ray[2])
        turn = cv2.Rodrigues(axis / np.linalg.norm(axis) * angle)[0]
        roll = cv2.Rodrigues(np.array([0.0, 0.0, float(roi.angle[i])]))[0]
        np.testing.assert_allclose(found[i] @ roll.T @ turn.T, k - k[HIPS].mean(0), atol=1e-5)


def test_the_auxiliary_points_ask_for_the_true_crop(seen):
    takes, roi = seen
    aux = truth_in_crops(takes, 1, roi)["aux"]
    true = roi_of(takes.points[:, 1])
    for i in range(len(takes)):
        affine = crop_affine(roi[i]).double().numpy()
        back = (aux[i].double().numpy() - 0.5) @ affine[:, :2].T + affine[:, 2] + 0.5
        asked = roi_from_points(*torch.from_numpy(back))
        np.testing.assert_allclose(asked.center, true.center[i], atol=0.02)
        np.testing.assert_allclose(asked.size, true.size[i], rtol=1e-4)
        assert abs(np.sin(float(asked.angle - true.angle[i]))) < 1e-4
    inside = takes.points[:, 1].numpy()
    size = takes.cameras.size.numpy()[:, None]
    np.testing.assert_array_equal(outside_image(takes, 1).numpy(), ((inside < 0) | (inside >= size)).any(-1))


def test_crops_are_off_as_much_as_asked():
    count, off = 40_000, Displacement()
    one = Roi(torch.zeros(count, 2), torch.full((count,), 200.0), torch.zeros(count))
    roi = displace(one, off, torch.Generator().manual_seed(0))
    spread = np.sqrt(0.7 * 0.8**2 + 0.3 * 1.8**2)
    assert (roi.center / 200).std() == pytest.approx(0.05 * spread, rel=0.03)
    assert (roi.size / 200).log().std() == pytest.approx(0.1 * spread, rel=0.03)
    assert roi.angle.std() == pytest.approx(0.15 * spread, rel=0.03)


def test_pictures_keep_their_colours_and_order():
    pictures = np.zeros((3, 256, 256, 3), np.uint8)
    for i in range(3):
        pictures[i, ..., i] = 200
    coded = [encode(picture) for picture in pictures]
    shard = {"jpeg": np.concatenate(coded), "offset": np.cumsum([0, *map(len, coded)])}
    found = decode_crops(shard, np.array([2, 0]))
    assert np.abs(found.astype(int) - pictures[[2, 0]]).max() <= 3


def test_shards_follow_from_the_seed_and_missing_ones_are_made_again(tmp_path: Path, body):
    paths = make_crops(tmp_path, small_bank(), body, config=SMALL)
    assert (
        [p.name for p in paths]
        == ["train-s3-0000.npz", "train-s3-0001.npz"]
        == [p.name for p in crop_paths(tmp_path, "train")]
    )
    before = [p.read_bytes() for p in paths]
    assert np.abs(read_crops(paths[0])["xy"] - read_crops(paths[1])["xy"]).max() > 1
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    told = []
    make_crops(tmp_path, small_bank(), body, config=SMALL, on_progress=lambda *v: told.append(v))
    assert [p.read_bytes() for p in paths] == before and paths[0].stat().st_mtime_ns == kept
    assert told == [(2, 4), (4, 4)]
    shard = read_crops(paths[1])
    assert shard["xy"].shape == (2, 25, 2) and decode_crops(shard, np.arange(2)).shape == (2, 256, 256, 3)
    assert set(read_crops(paths[1], with_pictures=False)) == {"xy", "world", "aux", "hidden", "roi"}


def test_each_so_manieth_shard_is_hard(motions, monkeypatch):
    drawn = []

    def remember(*_, conditions, **__):
        drawn.append(conditions)
        raise InterruptedError

    monkeypatch.setattr("core.synth.crops.draw_takes", remember)
    for number in range(6):
        with pytest.raises(InterruptedError):
            make_crop_shard(motions, CropConfig(), number)
    assert [c == CONDITIONS["hard"] for c in drawn] == [True, False, False, False, False, True]


def draw_nobody(takes, person, index, *_):
    size = (len(index), 256, 256)
    return torch.zeros(*size, 3), torch.zeros(size), torch.full(size, 1e6)


def test_pictures_show_the_person_at_the_keypoints(motions, monkeypatch):
    """Drawn with and without the person, a crop differs around the trunk's keypoints and not in its corners."""
    shard = make_crop_shard(motions, replace(SMALL, batch=2, moments=2), 1)
    monkeypatch.setattr("core.synth.render._draw", draw_nobody)
    empty = make_crop_shard(motions, replace(SMALL, batch=2, moments=2), 1)
    np.testing.assert_array_equal(shard["xy"], empty["xy"])
    rows = np.arange(4)
    change = np.abs(decode_crops(shard, rows).astype(int) - decode_crops(empty, rows)).max(-1) > 12
    trunk = [KEYPOINT_NAMES.index(f"{side}_{part}") for side in ("left", "right") for part in ("hip", "shoulder")]
    seen = []
    for i in rows:
        at = shard["xy"][i, trunk].mean(0).astype(int)
        if (shard["hidden"][i, trunk] == 0).any():
            seen.append(change[i, at[1] - 6 : at[1] + 6, at[0] - 6 : at[0] + 6].mean())
    assert len(seen) >= 2 and min(seen) > 0.5


def test_workers_share_the_shards(tmp_path: Path, body):
    paths = make_crops(tmp_path / "half", small_bank(), body, config=SMALL, worker=1, workers=2)
    assert [p.name for p in paths] == ["train-s3-0001.npz"]


@pytest.mark.slow
def test_two_processes_make_the_files_of_one(tmp_path: Path, body):
    write_bank(tmp_path / "bank.npz", small_bank())
    told = []
    make_crops_in_parallel(
        tmp_path / "many", tmp_path / "bank.npz", config=SMALL, workers=2, on_progress=lambda *v: told.append(v)
    )
    for path in make_crops(tmp_path / "one", read_bank(tmp_path / "bank.npz"), body, config=SMALL):
        one, other = read_crops(path), read_crops(tmp_path / "many" / path.name)
        for name in ("xy", "world", "aux", "roi"):
            np.testing.assert_allclose(other[name], one[name], atol=1e-3)
    assert told[-1] == (4, 4)


def test_files_that_are_no_shards_are_refused(tmp_path: Path):
    np.savez(tmp_path / "clip.npz", quats=np.zeros(3))
    with pytest.raises(InputError, match="make it again"):
        read_crops(tmp_path / "clip.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match="not a shard"):
        read_crops(tmp_path / "text.npz")
    fields = {"xy": (2, 25, 2), "world": (2, 25, 3), "aux": (2, 2, 2), "roi": (2, 4)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in fields.items()}
    arrays |= {"hidden": np.zeros((2, 25), np.uint8), "jpeg": np.zeros(9, np.uint8), "offset": np.array([0, 4, 10])}
    with pytest.raises(InputError, match="cut off"):
        write_crops(tmp_path / "cut.npz", arrays)
    with pytest.raises(InputError, match="world"):
        write_crops(tmp_path / "half.npz", {**arrays, "world": arrays["world"].astype(np.float16)})
