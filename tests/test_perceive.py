"""core.perception.perceive on a real film of 30 frames (a woman walking, data/walk.mp4; see make_walk_golden.py)."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_video import write_avi

from core.cache import Cache
from core.errors import VideoError
from core.perception import perceive, stage
from core.perception.config import TrackingConfig
from core.perception.networks import Networks
from core.perception.quality import MEANING
from core.perception.roi import Roi, crop_numpy
from core.protocol import QUALITIES
from core.records import Track
from core.skeleton import BLAZEPOSE_INDICES, KEYPOINT_MIRROR, KEYPOINT_NAMES
from core.stages import Stages
from core.video import VideoReader

WALK = Path(__file__).parent / "data" / "walk.mp4"
HEIGHT_PX = 226
"""How tall the woman is."""


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks()


@pytest.fixture(scope="module")
def walk(networks) -> list[Track]:
    return perceive(VideoReader(WALK), networks=networks)


def median_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.median(np.linalg.norm(a[..., :2] - b[..., :2], axis=-1)))


def test_one_person_in_every_frame(walk):
    (track,) = walk
    assert track.person == 0 and track.frames.tolist() == list(range(30))
    np.testing.assert_allclose(track.times, np.arange(30) / 30, atol=1e-3)
    assert (track.confidence > 0.9).all() and track.keypoints[..., 2].mean() > 0.75
    shapes = [a.shape for a in (track.keypoints, track.landmarks3d, track.features, track.boxes)]
    assert shapes == [(30, 25, 3), (30, 25, 3), (30, 1152), (30, 4)]
    assert track.features.dtype == np.float16 and np.abs(track.features.astype(np.float32)).max(1).min() > 0.5


def test_keypoints_are_mediapipes(walk):
    """MediaPipe tracks with its own crops, so the noise of both differs: within 1 % of the body height."""
    with np.load(WALK.parent / "walk_mediapipe.npz") as golden:
        theirs = golden["keypoints"]
    ours = walk[0].keypoints
    assert median_distance(ours, theirs) < 0.01 * HEIGHT_PX
    assert np.abs(np.median(ours[..., :2] - theirs[..., :2], axis=(0, 1))).max() < 1.0


def test_confidence_says_how_sure_a_place_is(walk):
    """She walks to the left: her left arm is before her trunk, the trunk hides much of the right one."""
    confidence = dict(zip(KEYPOINT_NAMES, walk[0].keypoints[..., 2].mean(0)))
    for part in ("elbow", "wrist", "pinky", "index", "thumb"):
        assert confidence[f"left_{part}"] > confidence[f"right_{part}"] + 0.1, part
    assert min(confidence[f"{side}_ear"] for side in ("left", "right")) > 0.95


def test_world_landmarks_are_a_standing_body(walk):
    """Metres, hip-centred, y down, and facing as the picture shows: walking to the left."""
    world = walk[0].landmarks3d.mean(0)
    np.testing.assert_allclose(world[15:17].mean(0), 0, atol=0.02)
    assert -0.8 < world[0, 1] < -0.4 and 0.6 < world[19:21, 1].mean() < 0.95
    assert world[23:25, 0].mean() < world[21:23, 0].mean() - 0.08, "toes point left of heels"


def test_box_holds_the_keypoints(walk):
    track = walk[0]
    assert (track.boxes[:, None, :2] <= track.keypoints[..., :2] + 8).all()
    assert 0.95 < np.median(track.boxes[:, 3] - track.boxes[:, 1]) / HEIGHT_PX < 1.5


def test_large_frames_are_reduced_and_coordinates_are_not(walk, networks, monkeypatch):
    monkeypatch.setattr(stage, "MAX_SIDE", 300)
    (small,) = perceive(VideoReader(WALK), networks=networks)
    assert len(small) == 30 and median_distance(small.keypoints, walk[0].keypoints) < 0.012 * HEIGHT_PX


def test_part_of_a_film_keeps_its_indices(walk, networks):
    (part,) = perceive(VideoReader(WALK, start=9, end=24), networks=networks)
    assert part.frames.tolist() == list(range(9, 24))
    np.testing.assert_allclose(part.times, walk[0].times[9:24])
    assert median_distance(part.keypoints, walk[0].keypoints[9:24]) < 0.01 * HEIGHT_PX


@pytest.fixture(scope="module")
def draft(networks) -> list[Track]:
    return perceive(VideoReader(WALK, start=1), networks=networks, config=TrackingConfig(look_every=2))


def test_a_draft_has_every_frame_and_its_time(draft, walk):
    """29 frames from frame 1 on: looked at are 1, 3, ... 29."""
    (track,) = draft
    assert track.frames.tolist() == list(range(1, 30))
    np.testing.assert_allclose(track.times, walk[0].times[1:])
    assert median_distance(track.keypoints, walk[0].keypoints[1:]) < 0.012 * HEIGHT_PX


def test_frames_between_looks_lie_in_the_middle_and_are_less_sure(draft):
    (track,) = draft
    keypoints = track.keypoints.astype(np.float64)
    before, filled, after = keypoints[:-1:2], keypoints[1::2], keypoints[2::2]
    np.testing.assert_allclose(filled[..., :2], (before + after)[..., :2] / 2, atol=0.05)
    np.testing.assert_allclose(filled[..., 2], 0.7 * np.minimum(before, after)[..., 2], rtol=1e-5)
    least = np.minimum(track.confidence[:-1:2], track.confidence[2::2])
    np.testing.assert_allclose(track.confidence[1::2], 0.7 * least, rtol=1e-5)
    assert (np.abs(track.features).max(1) > 0).all()


def test_a_draft_looks_at_half_the_frames_and_at_the_last(networks, monkeypatch):
    looked = []
    step = stage.Tracker.step
    monkeypatch.setattr(
        stage.Tracker, "step", lambda self, index, *rest: (looked.append(index), step(self, index, *rest))
    )
    calls = []
    config = TrackingConfig(look_every=2)
    (track,) = perceive(
        VideoReader(WALK, end=20), networks=networks, config=config, on_progress=lambda *call: calls.append(call)
    )
    assert looked == [*range(0, 20, 2), 19] and track.frames.tolist() == list(range(20))
    assert calls == [(k, 20) for k in range(1, 21)]


@pytest.mark.parametrize(("quality", "look_every", "crops"), [("draft", 2, 1), ("standard", 1, 1), ("high", 1, 2)])
def test_what_a_quality_means(monkeypatch, quality, look_every, crops):
    seen = {}

    def perceive(reader, *, networks, config, **others):
        batches = []
        networks.landmarks.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
        roi = Roi(torch.tensor([[128.0, 128.0]]), torch.tensor([256.0]), torch.tensor([0.0]))
        networks.read(np.zeros((1, 256, 256, 3), np.uint8), roi)
        seen.update(look_every=config.look_every, crops=sum(batches), max_people=config.max_people)
        return []

    monkeypatch.setattr("core.perception.perceive", perceive)
    monkeypatch.setattr("core.stages._set_fastest_threads", lambda networks: None)
    options = {"on_progress": lambda done, total: None, "should_stop": lambda: False}
    Stages().perceive(
        None, device="cpu", max_people=3, quality=quality, cache=Cache(None, "", resume=False), **options
    )
    assert seen == {"look_every": look_every, "crops": crops, "max_people": 3}


def test_every_quality_that_can_be_asked_for_has_a_meaning():
    assert tuple(MEANING) == QUALITIES


def test_a_mirrored_crop_gives_the_mirrored_reading(networks):
    """Reading both ways, left and right are alike: exactly, but for rounding. Read once, they are not."""
    image = next(iter(VideoReader(WALK))).image
    roi = Roi(torch.tensor([[220.0, 170.0]]), torch.tensor([330.0]), torch.tensor([0.2]))
    turned = Roi(torch.tensor([[image.shape[1] - 220.0, 170.0]]), roi.size, -roi.angle)
    crop = crop_numpy(image, roi[0])
    twice = Networks(reads_mirrored=True)

    def difference(network: Networks) -> tuple[float, float, float]:
        plain = network.read(crop[None], roi)
        other = network.read(np.ascontiguousarray(crop[None, :, ::-1]), turned)
        sides, turn = list(KEYPOINT_MIRROR), torch.tensor([-1.0, 1.0, 1.0])
        back = other.keypoints[:, sides] * turn + torch.tensor([image.shape[1], 0.0, 0.0])
        off = (back - plain.keypoints).abs().amax((0, 1))
        return float(off[:2].max()), float(off[2]), float((other.world[:, sides] * turn - plain.world).abs().max())

    assert np.less(difference(twice), (0.01, 1e-4, 1e-4)).all(), difference(twice)
    assert np.greater(difference(networks), (1.0, 0.01, 0.01)).all(), difference(networks)


def test_reading_both_ways_is_calmer(networks):
    """Mean second difference of the keypoints of somebody who walks."""
    (once,) = perceive(VideoReader(WALK), networks=networks, config=TrackingConfig(mirrored_under=0.0))
    (calm,) = perceive(VideoReader(WALK), networks=Networks(reads_mirrored=True))

    def jitter(track: Track) -> float:
        return float(np.linalg.norm(np.diff(track.keypoints[..., :2], 2, axis=0), axis=-1).mean())

    assert jitter(calm) < 0.9 * jitter(once)
    assert median_distance(calm.keypoints, once.keypoints) < 0.012 * HEIGHT_PX


def test_only_unsure_crops_are_read_in_a_mirror_as_well(networks):
    """A walking woman's crop, and the same turned on its head: the surer one is read once, the other both ways."""
    image = next(iter(VideoReader(WALK))).image
    angles = torch.tensor([0.0, 2.6])
    roi = Roi(torch.tensor([[220.0, 170.0]]).repeat(2, 1), torch.full((2,), 330.0), angles)
    crops = np.stack([crop_numpy(image, roi[k]) for k in range(2)])
    once, both = networks.read(crops, roi), Networks(reads_mirrored=True).read(crops, roi)
    certainty = once.keypoints[..., 2].mean(-1)
    assert certainty[0] > certainty[1] + 0.1
    mixed = networks.read(crops, roi, mirrored_under=float(certainty.mean()))
    for name in ("keypoints", "world", "presence", "visibility", "embedding"):
        np.testing.assert_allclose(getattr(mixed, name)[0], getattr(once, name)[0], rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(getattr(mixed, name)[1], getattr(both, name)[1], rtol=1e-3, atol=2e-2)
    assert (both.keypoints - once.keypoints)[1].abs().max() > 1.0


def test_progress_counts_every_frame(networks):
    calls = []
    perceive(VideoReader(WALK, end=10), networks=networks, on_progress=lambda *call: calls.append(call))
    assert calls == [(k, 10) for k in range(1, 11)]


def test_stopping_keeps_what_was_done_and_ends_the_thread(networks):
    seen = []
    tracks = perceive(
        VideoReader(WALK),
        networks=networks,
        on_progress=lambda done, total: seen.append(done),
        should_stop=lambda: len(seen) >= 12,
    )
    assert seen[-1] == 12 and tracks[0].frames.tolist() == list(range(12))
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]


def test_an_empty_scene_holds_nobody(tmp_path, networks):
    assert perceive(VideoReader(write_avi(tmp_path / "grey.avi")), networks=networks) == []


def test_a_film_that_breaks_is_reported(networks, tmp_path):
    for k in range(4):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.zeros((60, 80, 3), np.uint8))
    (tmp_path / "3.png").write_bytes(b"broken")
    with pytest.raises(VideoError, match="3.png is not an image"):
        perceive(VideoReader(tmp_path), networks=networks)
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]


def test_colours_reach_the_network_in_its_order(networks):
    """The interpreter was given RGB in 0..1; crops here are 8-bit BGR."""
    with np.load(WALK.parent / "blazepose_golden.npz") as golden:
        crop = cv2.imdecode(golden["crop1_png"], cv2.IMREAD_COLOR)
        world = golden["crop1_world"].reshape(39, 3)[list(BLAZEPOSE_INDICES)]
    roi = Roi(torch.tensor([[128.0, 128.0]]), torch.tensor([256.0]), torch.tensor([0.0]))
    np.testing.assert_allclose(networks.read(crop[None], roi).world[0], world, atol=1e-3)


@pytest.mark.slow
def test_8k_frames(tmp_path, networks, walk):
    for frame in VideoReader(WALK, end=10):
        large = cv2.resize(frame.image, (7680, 4320))
        cv2.imwrite(str(tmp_path / f"{frame.index}.jpg"), large)
    (track,) = perceive(VideoReader(tmp_path), networks=networks)
    scaled = track.keypoints[..., :2] / (7680 / 440, 4320 / 320)
    assert len(track) == 10 and median_distance(scaled, walk[0].keypoints[:10]) < 0.02 * HEIGHT_PX


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_half_precision_on_a_gpu_reads_the_same(networks):
    image = next(iter(VideoReader(WALK))).image
    roi = Roi(torch.tensor([[220.0, 170.0]]), torch.tensor([330.0]), torch.tensor([0.0]))
    crops = crop_numpy(image, roi[0])[None]
    on_gpu, on_cpu = Networks(device="cuda").read(crops, roi), networks.read(crops, roi)
    assert float((on_gpu.keypoints - on_cpu.keypoints)[..., :2].abs().max()) < 1.5
    assert float((on_gpu.world - on_cpu.world).abs().max()) < 0.02
