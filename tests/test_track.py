"""core.perception.track in a made-up world: the networks are replaced by doubles that know the truth.

Pictures carry their frame number in the blue channel and people's clothes in the others. The landmark double reads
the person nearest to a crop's middle, if they are visible and not turned too far; the detector sees upright people
in the part of the picture it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from core.perception.anchors import Detection
from core.perception.blazepose import EMBEDDING_SIZE
from core.perception.networks import detector_regions, view_region
from core.perception.person import body_distance
from core.perception.reading import Reading
from core.perception.roi import Roi, wrap_angle
from core.perception.stage import regions_due
from core.perception.track import Tracker, TrackingConfig
from core.skeleton import KEYPOINT_NAMES

WIDTH, HEIGHT = 640, 480
HEIGHTS = {"ear": -0.3, "shoulder": -0.22, "elbow": -0.1, "wrist": 0.0, "pinky": 0.02, "index": 0.03, "thumb": 0.01}
HEIGHTS |= {"hip": 0.0, "knee": 0.17, "ankle": 0.34, "heel": 0.36, "toe": 0.36, "nose": -0.3}
SIDES = {"left": 0.07, "right": -0.07, "nose": 0.0}
TEMPLATE = np.array([(SIDES[n.split("_")[0]], HEIGHTS[n.split("_")[-1]]) for n in KEYPOINT_NAMES])
"""Keypoints of an upright body around its hip centre, in units of the crop's side."""


@dataclass
class Actor:
    """path(frame) -> (x, y, size, angle) or None while hidden or away."""

    path: Callable[[int], tuple[float, float, float, float] | None]
    shirt: tuple[int, int] = (40, 200)
    trousers: tuple[int, int] = (200, 40)
    """Green and red."""

    def roi_or_none(self, frame: int) -> Roi | None:
        place = self.path(frame)
        if place is None:
            return None
        x, y, size, angle = place
        return Roi(
            torch.tensor([float(x), float(y)]), torch.tensor(float(size)), wrap_angle(torch.tensor(float(angle)))
        )

    def keypoints(self, frame: int) -> np.ndarray:
        x, y, size, angle = self.path(frame)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return TEMPLATE * size @ turn.T + (x, y)


class Stage:
    """The truth, and doubles of both networks that know it."""

    def __init__(self, *actors: Actor):
        self.actors = actors
        self.crops_read = 0

    def picture(self, frame: int) -> np.ndarray:
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[..., 0] = frame
        for actor in self.actors:
            if (place := actor.path(frame)) is None:
                continue
            x, y, size, _ = place
            if actor.shirt == actor.trousers:  # looks the same however it is turned
                rows, columns = np.mgrid[:HEIGHT, :WIDTH]
                image[np.hypot(rows - y, columns - x) < 0.45 * size, 1:] = actor.shirt
                continue
            for colour, top, bottom in ((actor.shirt, -0.26, 0.01), (actor.trousers, 0.01, 0.4)):
                rows = slice(max(0, int(y + top * size)), max(0, int(y + bottom * size)))
                columns = slice(max(0, int(x - 0.12 * size)), max(0, int(x + 0.12 * size)))
                image[rows, columns, 1:] = colour
        return image

    def read(self, crops: np.ndarray, roi: Roi, **how: float) -> Reading:
        self.crops_read += len(crops)
        singles = [self._read_one(int(np.median(crop[96:160, 96:160, 0])), roi[k]) for k, crop in enumerate(crops)]
        keypoints, presences, rois = zip(*singles)
        count = len(crops)
        return Reading(
            torch.stack(keypoints),
            torch.zeros(count, 25, 3),
            torch.tensor(presences),
            torch.stack(keypoints)[..., 2].mean(-1),
            torch.zeros(count, EMBEDDING_SIZE),
            roi,
            Roi(*(torch.stack([getattr(r, name) for r in rois]) for name in ("center", "size", "angle"))),
        )

    def _read_one(self, frame: int, roi: Roi) -> tuple[torch.Tensor, float, Roi]:
        best, best_distance = None, 0.35
        for actor in self.actors:
            there = actor.roi_or_none(frame)
            if there is None or abs(float(wrap_angle(there.angle - roi.angle))) > 0.7:
                continue
            distance = float((there.center - roi.center).norm() / roi.size)
            if distance < best_distance and 0.6 < float(there.size / roi.size) < 1.7:
                best, best_distance = actor, distance
        if best is None:
            return torch.zeros(25, 3), 0.05, roi
        points = np.concatenate((best.keypoints(frame), np.full((25, 1), 0.9)), -1)
        return torch.from_numpy(points.astype(np.float32)), 0.95, best.roi_or_none(frame)

    def detect_all(self, views: list) -> list[Detection]:
        found = []
        for square, placed in views:
            frame = int(np.median(square[92:132, 92:132, 0]))
            for actor in self.actors:
                there = actor.roi_or_none(frame)
                if there is None or abs(float(there.angle)) > 0.5:
                    continue
                center = there.center.numpy().astype(float)
                in_view = (center - placed.origin) * placed.scale
                if (in_view < 10).any() or (in_view > 214).any():
                    continue
                above = center - (0, float(there.size) / 2.5)
                points = np.stack((center, above, center, above))
                found.append(Detection(0.9, np.concatenate((above - 20, above + 20)), points))
        return found


def follow(stage: Stage, frames: int, config: TrackingConfig | None = None) -> Tracker:
    tracker = Tracker(stage, config)
    for frame in range(frames):
        image = stage.picture(frame)
        due = regions_due(frame, image, tracker.config.detect_every)
        tracker.step(frame, frame / 25, image, [view_region(image, region) for region in due])
    return tracker


def frames_of(tracker: Tracker, k: int = 0) -> list[int]:
    return [sample.frame for sample in tracker.people[k].samples]


@pytest.mark.parametrize(
    ("shift", "size", "goes_on"),
    [(58, 200, True), (62, 200, False), (0, 298, True), (0, 302, False), (0, 134, True), (0, 132, False)],
)
def test_who_leaps_impossibly_far_or_grows_is_not_followed(shift, size, goes_on):
    """From frame 10 on the landmarks ask for a crop `shift` px aside, of another size; who is lost stays it."""
    actor = Actor(lambda k: (250, 240, 200, 0.0) if k < 10 else (250 + shift, 240, size, 0.0))
    tracker = follow(Stage(actor), 12, TrackingConfig(detect_every=100, search_seconds=0.0, asks=0))
    assert frames_of(tracker) == list(range(12 if goes_on else 10))


def assert_follows(tracker: Tracker, k: int, actor: Actor) -> None:
    """Every sample of person k shows this actor."""
    for sample in tracker.people[k].samples:
        np.testing.assert_allclose(sample.keypoints[:, :2], actor.keypoints(sample.frame), atol=0.01)


def stand(x: float, y: float = 240) -> Callable[[int], tuple]:
    return lambda frame: (x, y, 200, 0.0)


def test_a_walker_is_seen_in_every_frame():
    actor = Actor(lambda k: (100 + 4 * k, 240, 200, 0.1 * np.sin(k)))
    tracker = follow(Stage(actor), 60)
    assert len(tracker.people) == 1 and frames_of(tracker) == list(range(60))
    assert_follows(tracker, 0, actor)


@pytest.mark.parametrize("appears", [1, 7, 13, 22])
def test_newcomers_are_followed_back_to_where_they_appeared(appears):
    resident, newcomer = Actor(stand(150)), Actor(lambda k: None if k < appears else (520 - k, 240, 200, 0.0))
    tracker = follow(Stage(resident, newcomer), 40)
    assert len(tracker.people) == 2
    assert frames_of(tracker, 1) == list(range(appears, 40)) and frames_of(tracker, 0) == list(range(40))
    assert_follows(tracker, 1, newcomer)


@pytest.mark.parametrize("hidden", [1, 5, 12, 30])
def test_who_comes_back_soon_is_the_same_person(hidden):
    actor = Actor(lambda k: None if 20 <= k < 20 + hidden else (200 + 3 * k, 240, 200, 0.0))
    tracker = follow(Stage(actor), 20 + hidden + 25)
    assert len(tracker.people) == 1
    assert frames_of(tracker) == [*range(20), *range(20 + hidden, 45 + hidden)]


def lying(k: int) -> float:
    """Turned too far for the detector between frames 15 and 40, slowly enough for crops to follow."""
    return float(np.interp(k, (0, 15, 20, 30, 36, 50), (0, 0, 1.2, 1.2, 0, 0)))


def test_somebody_is_recognised_where_the_trail_begins():
    """Hidden for 3 frames, then away fast: by the time the detector sees them they are far, their trail is not."""
    same = (40, 200)
    actor = Actor(lambda k: None if 21 <= k < 24 else (120 + max(0, k - 24) * 22, 240, 200, lying(k)), same, same)
    assert np.hypot(actor.path(40)[0] - 120, 0) / 200 > 0.35 + 20 / 25
    tracker = follow(Stage(actor), 46, TrackingConfig(search_turns=()))
    assert len(tracker.people) == 1 and set(frames_of(tracker)) == {*range(21), *range(24, 46)}


def test_a_wrong_reading_before_the_loss_does_not_make_a_stranger():
    """In frames 19 and 20 a shadow beside the actor is read instead, then nothing until the detector looks."""
    config = TrackingConfig(search_turns=(), asks=0, detect_every=8)
    actor = Actor(lambda k: None if k in (19, 20) else (300, 240, 200, 0.0))
    shadow = Actor(lambda k: (350, 240, 200, 0.0) if k in (19, 20) else None)
    stage = Stage(actor, shadow)
    tracker = Tracker(stage, config)
    for frame in range(40):
        if frame == 21:  # the crop has drifted away
            tracker._active()[0].roi = Roi(torch.tensor([600.0, 100.0]), torch.tensor(200.0), torch.tensor(0.0))
        if frame == 24:  # what a look back will find in the frames of the shadow
            actor.path, shadow.path = stand(300), lambda k: None
        image = stage.picture(frame)
        due = regions_due(frame, image, config.detect_every)
        tracker.step(frame, frame / 25, image, [view_region(image, region) for region in due])
    assert len(tracker.people) == 1 and frames_of(tracker) == list(range(40))


def test_who_comes_back_late_is_somebody_new():
    actor = Actor(lambda k: None if 20 <= k < 80 else (300, 240, 200, 0.0))
    assert len(follow(Stage(actor), 110).people) == 2


@pytest.mark.parametrize(("shirt", "trousers"), [((220, 220), (10, 10)), ((110, 200), (200, 140))])
def test_other_clothes_in_the_same_place_are_somebody_else(shirt, trousers):
    first = Actor(lambda k: (300, 240, 200, 0.0) if k < 20 else None)
    second = Actor(lambda k: (300, 240, 200, 0.0) if k >= 40 else None, shirt, trousers)
    tracker = follow(Stage(first, second), 60)
    assert [frames_of(tracker, k) for k in range(2)] == [list(range(20)), list(range(40, 60))]


def test_light_may_change_while_somebody_is_hidden_for_a_moment():
    """The same two colours, a tenth of a second apart in the same place, are one person in other light."""
    first = Actor(lambda k: (300, 240, 200, 0.0) if k < 20 else None)
    second = Actor(lambda k: (300, 240, 200, 0.0) if k >= 22 else None, (110, 200), (200, 140))
    assert len(follow(Stage(first, second), 40, TrackingConfig(search_turns=())).people) == 1


@pytest.mark.parametrize("hidden", [4, 10])
def test_people_who_cross_keep_their_ids(hidden):
    """They meet at frame 40; whoever is behind is hidden for some frames, and their crop settles on the other."""
    front = Actor(lambda k: (160 + 4 * k, 240, 200, 0.0))
    behind = Actor(
        lambda k: None if abs(k - 40) <= hidden // 2 else (480 - 4 * k, 236, 200, 0.0), (220, 60), (30, 160)
    )
    tracker = follow(Stage(front, behind), 90)
    assert len(tracker.people) == 2
    by_start = sorted(range(2), key=lambda k: tracker.people[k].samples[0].center[0])
    assert_follows(tracker, by_start[0], front)
    assert_follows(tracker, by_start[1], behind)
    assert len(frames_of(tracker, by_start[0])) >= 85
    assert len(frames_of(tracker, by_start[1])) >= 85 - 2 * hidden and frames_of(tracker, by_start[1])[-1] == 89


def test_an_inexact_detection_of_somebody_known_is_nobody_new():
    """The detector sees the body 50 px away; the landmarks then lead back to the person there is."""
    stage = Stage(Actor(stand(320)))
    detect = stage.detect_all
    stage.detect_all = lambda views: [replace(d, points=d.points + (50, 0)) for d in detect(views)]
    tracker, ids = Tracker(stage), set()
    for frame in range(30):
        image = stage.picture(frame)
        tracker.step(frame, frame / 25, image, [view_region(image, (0, 0, WIDTH, HEIGHT))])
        ids |= {person.id for person in tracker.people}
    assert ids == {0} and frames_of(tracker) == list(range(30))


def test_detections_without_size_are_ignored():
    stage = Stage(Actor(stand(320)))
    detect = stage.detect_all
    stage.detect_all = lambda views: [replace(d, points=np.repeat(d.points[:1], 4, 0)) for d in detect(views)]
    assert follow(stage, 15).people == [] and stage.crops_read == 0


def test_two_detections_of_one_body_are_one_person():
    actor = Actor(stand(320))
    twice = Stage(actor, Actor(lambda k: (323, 242, 202, 0.0)))
    assert len(follow(twice, 30).people) == 1


def test_a_somersault_is_followed_by_turned_crops():
    """From frame 30 on the body turns by 1.1 rad a frame, faster than the reader's reach of 0.7 rad."""
    actor = Actor(lambda k: (320, 240, 200, 1.1 * max(0, min(k - 30, 17))), (40, 200), (40, 200))
    stage = Stage(actor)
    tracker = follow(stage, 70)
    assert frames_of(tracker) == list(range(70)) and len(tracker.people) == 1
    no_search = follow(Stage(actor), 70, TrackingConfig(search_turns=()))
    assert len(frames_of(no_search)) < 70, "the test needs the search"


def test_an_impossible_jump_is_not_believed():
    """At frame 25 the body seems to leap by 40 % of a crop's side, back at frame 26."""
    actor = Actor(lambda k: (320 + (68 if k == 25 else 0), 240, 200, 0.0))
    tracker = follow(Stage(actor), 40, TrackingConfig(search_turns=(), detect_every=40, lost_reach=0.2, near=0.1))
    assert 25 not in frames_of(tracker) and set(range(25)) | set(range(26, 40)) == set(frames_of(tracker))


def test_nobody_is_followed_out_of_the_picture():
    actor = Actor(lambda k: (300 + 10 * k, 240, 200, 0.0) if 300 + 10 * k < 640 else None)
    stage = Stage(actor)
    tracker = follow(stage, 90)
    assert frames_of(tracker) == list(range(34))
    before = stage.crops_read
    for frame in range(90, 100):
        tracker.step(frame, frame / 25, stage.picture(frame), [])
    assert stage.crops_read == before, "an empty picture costs no crops"


def test_no_more_people_than_asked_for_and_one_spare():
    stage = Stage(*(Actor(stand(80 + 120 * k)) for k in range(5)))
    assert len(follow(stage, 20, TrackingConfig(max_people=2)).people) == 3


def test_body_distance_by_hand():
    a = np.concatenate((TEMPLATE * 200, np.ones((25, 1))), -1)
    b = a + (3, 4, 0)
    b[KEYPOINT_NAMES.index("left_wrist")] += 500  # hands do not count
    assert body_distance(a, b, 200) == pytest.approx(5 / 200)


def test_memory_of_past_frames_is_bounded():
    config = TrackingConfig(look_back_bytes=5 * HEIGHT * WIDTH * 3)
    tracker = follow(Stage(Actor(stand(320))), 40, config)
    assert len(tracker._past) == 5
    assert len(follow(Stage(Actor(stand(320))), 40)._past) == 6 * len(detector_regions(WIDTH, HEIGHT))
