"""Rendered clips: silhouettes against the mesh, occlusion flags, determinism, files; and the demo clip's truth."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_synth_noise import small_bank

from core.body import load_body
from core.errors import InputError
from core.perception.checkpoint import load_networks
from core.perception.roi import Roi, image_to_crop
from core.rotation import axis_angle_to_matrix, quaternion_to_matrix
from core.skeleton import KEYPOINT_NAMES
from core.synth.cameras import CameraConfig, project
from core.synth.dataset import DatasetConfig, make_dataset, roi_of, sampler_config, shard_seed
from core.synth.degrade import Lens, degrade, dim_lenses, draw_lenses
from core.synth.figure import SKIN, draw_wardrobe, garment_at
from core.synth.format import CLIP_FIELDS, FRAME_FIELDS, clips_of, join_shards, read_shard, read_shards, write_shard
from core.synth.render import render_crops
from core.synth.sampler import MotionSampler
from core.synth.takes import CONDITIONS, Variety, draw_takes

DATA = Path(__file__).parent / "data"
CLEAN = dict(sharpness=1.0, shutter=0.0, gamma=1.0, gain=1.0, noise=0.0, jpeg=0.0)


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def detector():
    return load_networks()[1]


def clean_lens(count):
    return Lens(cast=torch.ones(count, 3), **{n: torch.full((count,), v) for n, v in CLEAN.items()})


@pytest.fixture(scope="module")
def takes(body):
    motions = MotionSampler(small_bank(), body, config=replace(sampler_config("train", 3), handed=0.0))
    still = CameraConfig(handheld=0.0, following=0.0, truncated=0.0)
    alone = replace(CONDITIONS["hard"], occluded=0.0, accompanied=0.0, variety=Variety())
    drawn = draw_takes(motions, 3, 3, torch.Generator().manual_seed(4), cameras=still, conditions=alone)
    wardrobe = replace(drawn.person.wardrobe, looseness=torch.zeros_like(drawn.person.wardrobe.looseness))
    black = torch.zeros_like(drawn.backgrounds)
    return replace(drawn, person=replace(drawn.person, wardrobe=wardrobe), backgrounds=black, lens=clean_lens(3))


def fill(points, triangles, size):
    """Silhouette by OpenCV: every triangle filled."""
    mask = np.zeros((size, size), np.uint8)
    for corner in np.round(points[triangles] * 16).astype(np.int32):
        cv2.fillConvexPoly(mask, corner, 255, cv2.LINE_8, 4)
    return mask > 0


def test_crops_show_the_body_where_the_truth_says(body, takes):
    roi = roi_of(takes.points[:, 1])
    crops, hidden = render_crops(takes, 1, roi, body, torch.Generator().manual_seed(0))
    assert crops.shape == (3, 3, 256, 256) and crops.min() >= 0 and crops.max() <= 1
    vertices, _ = body.skin(takes.person.rotmats[:, 1], takes.person.betas, takes.person.trans[:, 1])
    points = image_to_crop(project(vertices[:, None], takes.cameras.intrinsics)[:, 0], roi).numpy()
    width, height = takes.cameras.size[0].tolist()
    for i in range(3):
        expected = fill(points[i] - 0.5, body.triangles.numpy(), 256)
        found = crops[i].amax(0).numpy() > 0.02
        both, either = (expected & found).sum(), (expected | found).sum()
        assert both / either > 0.9, (i, both, either)
    assert hidden.shape == (3, 25)


def test_an_occluder_hides_what_it_covers(body, takes):
    roi = roi_of(takes.points[:, 0])
    nose = takes.points[:, 0, 0]
    wall = torch.zeros((3, 3, 12))
    wall[:, 0, :2] = nose
    wall[:, 0, 2:4] = roi.size[:, None] * 0.05
    wall[:, 0, 6:9] = torch.tensor([0.0, 1.0, 0.0])
    wall[:, 0, 9], wall[:, 0, 11] = 10.0, 1.0
    crops, hidden = render_crops(replace(takes, occluders=wall), 0, roi, body, torch.Generator().manual_seed(0))
    assert hidden[:, 0].all()
    at = image_to_crop(nose[:, None], roi)[:, 0].long()
    for i in range(3):
        torch.testing.assert_close(crops[i, :, at[i, 1], at[i, 0]], torch.tensor([0.0, 1.0, 0.0]))
    knee = KEYPOINT_NAMES.index("left_knee")
    assert not hidden[:, knee].all()


def test_the_far_side_of_the_body_is_hidden(body, takes):
    """Wrists moved well behind and before the chest."""
    keypoints = takes.keypoints.clone()
    chest = keypoints[:, :, [3, 4, 15, 16]].mean(2)
    away = torch.nn.functional.normalize(chest, dim=-1)
    keypoints[:, :, 7] = chest + away * 0.4
    keypoints[:, :, 8] = chest - away * 0.4
    points = project(keypoints, takes.cameras.intrinsics)
    moved = replace(takes, keypoints=keypoints, points=points)
    _, hidden = render_crops(moved, 0, roi_of(takes.points[:, 0]), body, torch.Generator().manual_seed(0))
    assert hidden[:, 7].all() and not hidden[:, 8].any()


def test_outside_the_image_is_black(body, takes):
    roi = Roi(torch.zeros((3, 2)), torch.full((3,), 200.0), torch.zeros(3))
    bright = replace(takes, backgrounds=torch.ones_like(takes.backgrounds))
    crops, _ = render_crops(bright, 0, roi, body, torch.Generator().manual_seed(0))
    assert crops[:, :, :127, :].max() == 0 and crops[:, :, :, :127].max() == 0
    assert crops[:, :, 130:, 130:].min() > 0.9


def test_clean_lens_changes_nothing_but_rounding():
    crops = torch.rand((2, 3, 256, 256), generator=torch.Generator().manual_seed(0))
    found = degrade(crops, clean_lens(2), torch.full((2,), 500.0), torch.zeros(2, 2), torch.Generator())
    assert (found - crops).abs().max() <= 0.5 / 255 + 1e-3  # values below 1e-4 are lifted


def test_low_resolution_blurs_and_blocks_appear():
    generator = torch.Generator().manual_seed(0)
    crops = torch.rand((2, 3, 256, 256), generator=generator)
    small = degrade(crops, clean_lens(2), torch.tensor([500.0, 60.0]), torch.zeros(2, 2), generator)
    assert small[1].std() < 0.4 * small[0].std()
    coarse = degrade(
        crops * 0.02 + 0.5,
        replace(clean_lens(2), jpeg=torch.tensor([0.0, 0.5])),
        torch.full((2,), 500.0),
        torch.zeros(2, 2),
        generator,
    )
    blocks = coarse[1].reshape(3, 32, 8, 32, 8).permute(0, 1, 3, 2, 4)
    assert blocks.std((-1, -2)).max() < 0.01 < coarse[0].std() * 3  # every block has become flat
    assert draw_lenses(50, generator).jpeg.max() > 0


def test_motion_blur_runs_along_the_motion():
    crops = torch.zeros((1, 3, 256, 256))
    crops[:, :, 128, 128] = 1.0
    lens = replace(clean_lens(1), shutter=torch.ones(1))
    found = degrade(crops, lens, torch.full((1,), 500.0), torch.tensor([[12.0, 0.0]]), torch.Generator())[0, 0]
    rows, columns = torch.nonzero(found > 0.02, as_tuple=True)
    assert rows.max() - rows.min() <= 2 and 8 <= columns.max() - columns.min() <= 16


def test_low_light_is_dark_noisy_and_in_its_share():
    plain = draw_lenses(1000, torch.Generator().manual_seed(0), poor=0.0)
    lens = dim_lenses(plain, torch.Generator().manual_seed(1), share=0.2)
    is_dim = lens.gain != plain.gain
    assert is_dim.float().mean() == pytest.approx(0.2, abs=0.04)
    assert lens.gain[is_dim].max() < 0.6 < plain.gain.min()
    assert lens.noise[is_dim].mean() > 2 * plain.noise.mean()
    for name in ("gain", "noise", "shutter", "cast", "jpeg"):
        assert torch.equal(getattr(lens, name)[~is_dim], getattr(plain, name)[~is_dim])


def test_clothes_lie_where_they_should(body):
    wardrobe = draw_wardrobe(30, torch.Generator().manual_seed(0))
    keypoints = body.keypoint_regressor @ body.v_template
    nose, hand = keypoints[0], keypoints[11]
    chest = torch.tensor([0.0, 0.25, 0.1])
    cut = wardrobe.cut.clone()
    cut[:, 10], cut[:, 9] = 0.0, 9.0
    garments = garment_at(torch.stack([nose, hand, chest])[None], cut[:, None])
    assert (garments[:, 0] == SKIN).all() and (garments[:, 1] == SKIN).all()
    assert (garments[:, 2] == 1).float().mean() > 0.8
    left, right = keypoints[[13, 17, 19]], keypoints[[14, 18, 20]]
    assert torch.equal(garment_at(left[None], cut[:, None]), garment_at(right[None], cut[:, None]))


def test_dataset_is_deterministic_resumable_and_whole(tmp_path, body, detector):
    config = DatasetConfig(frames=16, clip_frames=4, spacing=2, batch=2, seed=5, chunk=2)
    assert config.shards == 2
    bank = small_bank()
    first = make_dataset(tmp_path / "a", bank, body, detector, config=config)
    assert [p.name for p in first] == ["train-s5-0000.npz", "train-s5-0001.npz"]
    shard = read_shard(first[0])
    stamp = first[0].stat().st_mtime_ns
    first[1].unlink()
    seen = []
    again = make_dataset(
        tmp_path / "a", bank, body, detector, config=config, on_progress=lambda d, t: seen.append((d, t))
    )
    assert again == first and first[0].stat().st_mtime_ns == stamp and first[1].exists()
    assert seen[-1] == (16, 16)
    alone = make_dataset(tmp_path / "b", bank, body, detector, config=replace(config, frames=8))
    for name, value in read_shard(alone[0]).items():
        assert np.array_equal(value, shard[name]), name

    assert shard.keys() == FRAME_FIELDS.keys() | CLIP_FIELDS.keys()
    assert len(list(read_shards(tmp_path / "a", split="train"))) == 2
    assert list(read_shards(tmp_path / "a", split="test")) == []
    pair = [read_shard(path) for path in first]
    for whole, clip in zip(clips_of(join_shards(pair)), [c for one in pair for c in clips_of(one)], strict=True):
        assert all(np.array_equal(whole[name], clip[name]) for name in clip if name != "clip_start")
    for clip in clips_of(shard):
        assert clip["keypoints"].shape == (4, 25, 3) and clip["embedding"].shape == (4, 1152)
        assert clip["spacing"] == 2 and 1.2 <= clip["speed"] <= 3.0
        assert clip["restarted"][0] and np.isfinite(clip["landmarks3d"]).all()
        rotmats = quaternion_to_matrix(torch.from_numpy(clip["quats"]).float())
        points = body.keypoints(rotmats, torch.from_numpy(clip["betas"])[None], torch.from_numpy(clip["trans"]))
        px = project(points[None], torch.from_numpy(clip["camera"])[None])[0]
        outside = ((px < 0) | (px >= torch.from_numpy(clip["size"]))).any(-1).numpy()
        assert (outside == (clip["hidden"] & 2 > 0)).mean() > 0.98  # half floats at the very edge
        side = clip["roi"][:, 2]
        error = np.linalg.norm(clip["keypoints"][..., :2] - px.numpy(), axis=-1) / side[:, None]
        if clip["presence"].min() > 0.9:
            assert np.median(error) < 0.1


def test_seeds_of_shards_and_splits_differ():
    configs = [DatasetConfig(seed=s, split=p) for s in (0, 1) for p in ("train", "validation", "test")]
    seeds = [shard_seed(c, n) for c in configs for n in range(3)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("version", [2, 9])
def test_shards_of_another_version_are_refused(tmp_path, body, detector, version):
    config = DatasetConfig(frames=2, clip_frames=2, batch=1, spacing=3)
    (path,) = make_dataset(tmp_path, small_bank(), body, detector, config=config)
    arrays = read_shard(path)
    assert arrays["spacing"].tolist() == [3]
    np.savez(path, version=np.int32(version), **arrays)
    with pytest.raises(InputError, match="another version"):
        read_shard(path)


def test_a_broken_shard_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="x.npz"):
        read_shard(tmp_path / "x.npz")
    with pytest.raises(InputError, match="missing"):
        write_shard(tmp_path / "y.npz", {"clip_len": np.zeros(1, np.int32)})
    assert not (tmp_path / "y.npz").exists()


@pytest.fixture(scope="module")
def demo():
    with np.load(DATA / "demo_truth.npz", allow_pickle=False) as archive:
        truth = {name: archive[name] for name in archive.files}
    reader, frames = cv2.VideoCapture(str(DATA / "demo.mp4")), []
    while (frame := reader.read())[0]:
        frames.append(frame[1])
    reader.release()
    return truth, np.stack(frames)


def test_demo_truth_hangs_together(body, demo):
    truth, frames = demo
    N = len(frames)
    assert 90 <= N <= 150 and (DATA / "demo.mp4").stat().st_size < 1_000_000
    fx, fy, cx, cy, width, height = truth["camera"]
    assert frames.shape[1:] == (height, width, 3)
    rotmats = axis_angle_to_matrix(torch.from_numpy(truth["poses"]).reshape(N, 24, 3))
    betas, trans = torch.from_numpy(truth["betas"])[None], torch.from_numpy(truth["trans"])
    joints, _ = body.forward_kinematics(rotmats, betas, trans)
    assert np.abs(joints.numpy() - truth["joints_cam"]).max() < 1e-3
    keypoints = body.keypoints(rotmats, betas, trans).numpy()
    assert np.abs(keypoints - truth["keypoints_cam"]).max() < 1e-3
    px = keypoints[..., :2] / keypoints[..., 2:] * [fx, fy] + [cx, cy]
    assert np.abs(px - truth["keypoints"]).max() < 0.05
    world = np.einsum("nij,nkj->nki", truth["R_world_from_cam"], truth["joints_cam"])
    world += truth["t_world_from_cam"][:, None]
    assert -0.05 < world[..., 2].min() < 0.15 and 1.2 < world[:, 15, 2].max() < 2.0
    step = np.linalg.norm(np.diff(world[:, 0], axis=0), axis=-1)
    assert 0.2 < step.sum() < 5 and step.max() < 0.15


def test_demo_truth_lies_on_the_person_in_the_film(demo):
    truth, frames = demo
    still = np.median(frames[::6], axis=0)
    inside, total = 0, 0
    for i in range(0, len(frames), 10):
        changed = np.abs(frames[i].astype(float) - still).max(-1) > 22
        changed = cv2.dilate(changed.astype(np.uint8), np.ones((9, 9)))
        for x, y in truth["keypoints"][i]:
            inside += bool(changed[int(np.clip(y, 0, 719)), int(np.clip(x, 0, 639))])
            total += 1
        far = truth["keypoints"][i].mean(0) + [0, -330]
        if far[1] > 0:
            assert not changed[int(far[1]), int(far[0])]
    assert inside / total > 0.9
