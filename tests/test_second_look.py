"""core.perception.second_look, alone and in tracking with a landmark double that misreads some crops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from core.perception.config import TrackingConfig
from core.perception.reading import Reading
from core.perception.roi import Roi
from core.perception.second_look import GAIN, OTHER_CROPS, UNSURE, other_crops, surest
from tests.test_track import Actor, Stage, assert_follows, follow, frames_of, stand


def a_roi(x: float, size: float, angle: float = 0.0) -> Roi:
    return Roi(torch.tensor([[x, 50.0]]), torch.tensor([size]), torch.tensor([angle]))


def test_other_crops_keep_the_middle():
    crops = other_crops(a_roi(30.0, 100.0, 3.0))
    assert len(crops) == len(OTHER_CROPS)
    for crop, (turn, factor) in zip(crops, OTHER_CROPS):
        assert crop.center.tolist() == [[30.0, 50.0]] and math.isclose(crop.size.item(), 100 * factor, rel_tol=1e-6)
        assert math.isclose(math.cos(crop.angle.item()), math.cos(3 + turn), abs_tol=1e-6)
        assert -math.pi <= crop.angle.item() < math.pi


def test_the_surest_counts_where_the_first_is_doubted_and_it_is_much_surer():
    assert surest(0.3, [0.2, 0.3 + 2 * GAIN, 0.3]) == 1
    assert surest(0.3, [0.3 + GAIN / 2, 0.1]) is None
    assert surest(UNSURE + 0.01, [0.9, 0.8]) is None


class Misreader(Stage):
    """Reads the person wrongly, and says so, in crops that are not smaller than the person asks for."""

    def __init__(self, *actors: Actor, since: int = 10, confidence: float = 0.2):
        super().__init__(*actors)
        self.since, self.confidence = since, confidence

    def read(self, crops: np.ndarray, roi: Roi, **how: float) -> Reading:
        reading = super().read(crops, roi, **how)
        frame = int(np.median(crops[0][96:160, 96:160, 0]))
        if frame < self.since:
            return reading
        wrong = (roi.size >= 0.9 * reading.next_roi.size)[:, None]
        keypoints = reading.keypoints.clone()
        keypoints[..., 2] = torch.where(wrong, self.confidence, keypoints[..., 2])
        keypoints[..., 1] += torch.where(wrong, 40.0, 0.0)
        return replace(reading, keypoints=keypoints)


def test_a_misread_person_is_read_again():
    actor = Actor(lambda k: (100 + 4 * k, 240, 200, 0.0))
    tracker = follow(Misreader(actor), 30)
    assert len(tracker.people) == 1 and frames_of(tracker) == list(range(30))
    assert_follows(tracker, 0, actor)


def test_a_sure_reading_is_read_once():
    actor = Actor(lambda k: (100 + 4 * k, 240, 200, 0.0))
    plain, sure = Stage(actor), Misreader(actor, confidence=UNSURE + 0.05)
    follow(plain, 30)
    tracker = follow(sure, 30)
    assert sure.crops_read == plain.crops_read
    assert abs(tracker.people[0].samples[20].keypoints[0, 1] - actor.keypoints(20)[0, 1] - 40) < 0.01


def test_somebody_else_is_not_taken_for_a_better_reading():
    """In smaller crops the double sees the second person, surely: the first keeps the doubtful reading."""
    first, second = Actor(stand(250)), Actor(stand(300), shirt=(200, 40), trousers=(40, 200))

    class Confuser(Misreader):
        def read(self, crops: np.ndarray, roi: Roi, **how: float) -> Reading:
            reading = super().read(crops, roi, **how)
            frame = int(np.median(crops[0][96:160, 96:160, 0]))
            if frame < self.since:
                return reading
            keypoints = reading.keypoints.clone()
            for k in range(len(crops)):
                if float(roi.size[k]) < 180 and abs(float(roi.center[k, 0]) - 250) < 25:
                    keypoints[k, :, :2] = torch.from_numpy(second.keypoints(frame))
            return replace(reading, keypoints=keypoints)

    tracker = follow(Confuser(first, second), 20)
    assert len(tracker.people) == 2
    for k, person in enumerate(tracker.people):
        assert frames_of(tracker, k) == list(range(20)), "nobody is lost"
        xs = [float(sample.keypoints[15:17, 0].mean()) for sample in person.samples]
        assert np.ptp(xs) < 1, "nobody jumps to the other's place"


class Dazzled(Stage):
    """From frame 30 to 36 nothing can be made out, but somebody seems to be there; later the same holds for crops
    that are turned too far."""

    def read(self, crops: np.ndarray, roi: Roi, **how: float) -> Reading:
        reading = super().read(crops, roi, **how)
        frame = int(np.median(crops[0][96:160, 96:160, 0]))
        blind = (reading.presence < 0.5) if frame > 36 else torch.full_like(reading.presence, frame >= 30).bool()
        keypoints = torch.cat((roi.center[:, None].expand(-1, 25, 2), torch.full((len(roi.size), 25, 1), 0.15)), -1)
        asked = reading.next_roi
        return replace(
            reading,
            keypoints=torch.where(blind[:, None, None], keypoints, reading.keypoints),
            presence=torch.where(blind, 0.9, reading.presence),
            next_roi=Roi(
                torch.where(blind[:, None], roi.center, asked.center),
                torch.where(blind, roi.size, asked.size),
                torch.where(blind, roi.angle, asked.angle),
            ),
        )


def test_who_turned_on_while_nothing_could_be_made_out_is_found_again():
    """Turning by 0.3 rad a frame from frame 20 on, 2.1 rad of it unseen, three times what is read."""
    actor = Actor(lambda k: (320, 240, 200, 0.3 * max(0, min(k - 20, 21))), (40, 200), (40, 200))
    tracker = follow(Dazzled(actor), 45, TrackingConfig(detect_every=100))
    assert len(tracker.people) == 1 and frames_of(tracker) == list(range(45))
    found = tracker.people[0].samples[38]
    np.testing.assert_allclose(found.keypoints[:, :2], actor.keypoints(38), atol=0.01)
    lost = follow(Dazzled(actor), 45, TrackingConfig(detect_every=100, search_turns=()))
    off = np.abs(lost.people[0].samples[38].keypoints[:, :2] - actor.keypoints(38))
    assert off.max() > 50, "the test needs the turned crops"
