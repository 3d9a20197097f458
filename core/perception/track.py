"""Following several people from frame to frame: each has their own crop, the detector finds who is new.

A person is read from the crop that the previous frame's landmarks ask for, and from others where that is unsure.
Where it fails, crops turned several ways are tried, then the detector. Every few frames the detector looks at a part
of the frame; proposals that are nobody's become new people, or people lost a moment ago, judged by place, size and
colours, and they are followed back through the frames kept in memory, to where they appeared. Two crops that settle
on one body are told apart by the motion before; the other is lost. Keypoints are never smoothed here, and sides that
the network swaps stay swapped. `stitch.py` makes tracks of what this leaves.
"""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
import torch

from core.perception.anchors import Detection, Letterbox, suppress_overlaps
from core.perception.appearance import appearance_distance
from core.perception.config import TrackingConfig
from core.perception.networks import Networks, detector_regions, view_region
from core.perception.person import Look, Person, Sample, body_distance
from core.perception.reading import Reading
from core.perception.recognise import recognise_or_none
from core.perception.roi import Roi, crop_numpy, roi_from_points, stack_rois, wrap_angle
from core.perception.second_look import LOST, UNSURE, other_crops, surest


class Tracker:
    """Feed frames in order with `step`; `people` holds everybody found so far."""

    def __init__(self, networks: Networks, config: TrackingConfig | None = None):
        self.networks = networks
        self.config = config or TrackingConfig()
        self.people: list[Person] = []
        self.numbers: dict[int, int] = {}
        """Numbers under which people were handed out already, by person's id (sofar.py)."""
        self._near: list[Person] = []
        """Followed now, or lost a moment ago."""
        self._past: deque[tuple[int, float, np.ndarray]] = deque()

    def step(self, index: int, time: float, image: np.ndarray, views: list[tuple[np.ndarray, Letterbox]]) -> None:
        """One frame. image [H, W, 3] uint8 BGR; views: the parts of it that the detector is due to look at."""
        followed = self._active()
        clear: list[tuple[Person, Look]] = []
        for person, look in zip(followed, self._follow(index, time, image, followed)):
            if self._is_believable(look):
                clear.append((person, look))
                person.qualities.append(look.quality)
                person.followed_time = time
                person.add(index, time, look)
            else:
                person.lose()
        self._search(index, time, image)
        self._separate()
        for person, look in clear:
            if not person.is_lost and self._is_alone(person):
                person.remember_looks(look)
        self._near = [p for p in self._near if not p.is_lost or time - p.last.time <= self.config.lost_seconds]
        missing = [p for p in self._near if p.is_lost and p.asked < self.config.asks]
        missing = [p for p in missing if index - p.last.frame >= 2**p.asked]
        for person in missing:
            person.asked += 1
        if missing:
            views = [view_region(image, region) for region in detector_regions(image.shape[1], image.shape[0])]
        if views and len(self._active()) < self.config.max_people + self.config.spare_people:
            self._admit(index, time, image, self.networks.detect_all(views))
        self._remember(index, time, image)

    def _active(self) -> list[Person]:
        return [person for person in self._near if not person.is_lost]

    def _look(self, image: np.ndarray, rois: list[Roi], *, mirrored_under: float = 0.0) -> list[Look]:
        """Read all crops of one frame in one batch, and those that are less sure in a mirror as well."""
        if not rois:
            return []
        crops = np.stack([crop_numpy(image, roi) for roi in rois])
        batch = self.networks.read(crops, stack_rois(rois), mirrored_under=mirrored_under)
        return [Look(batch[k], crops[k]) for k in range(len(rois))]

    def _follow(self, index: int, time: float, image: np.ndarray, people: list[Person]) -> list[Look]:
        """Read everybody, again where that is unsure and the other reading is not of somebody else."""
        looks = self._look(image, [person.roi for person in people], mirrored_under=self.config.mirrored_under)
        others = [[other for other in self._near if other is not person] for person in people]
        wide = [
            self._turned_rois(person, index)
            if look.certainty < LOST and time - person.latest_sure()[-1].time <= self.config.search_seconds_at_most
            else []
            for person, look in zip(people, looks)
        ]
        return self._look_again(image, looks, others, wide)

    def _turned_rois(self, person: Person, index: int) -> list[Roi]:
        """Crops where the person is expected, turned several ways."""
        expected = person.expected_roi(index, coming_to_rest=True)
        turns = self.config.search_turns
        return [Roi(expected.center, expected.size, wrap_angle(expected.angle + turn)) for turn in turns]

    def _look_again(
        self, image: np.ndarray, looks: list[Look], others: list[list[Person]], wide: list[list[Roi]] | None = None
    ) -> list[Look]:
        """The surest of each look and, where it is unsure, of looks from other crops (second_look.py) and from its
        own in `wide`. Readings of what others were in their latest frames do not count."""
        wide = wide or [[]] * len(looks)
        doubted = [k for k, look in enumerate(looks) if look.certainty < UNSURE and self._is_believable(look)]
        crops = {k: [*other_crops(looks[k].reading.roi), *wide[k]] for k in doubted}
        again = iter(self._look(image, [roi for k in doubted for roi in crops[k]]))
        chosen = list(looks)
        for k in doubted:
            tries = [next(again) for _ in crops[k]]
            sure = [look.certainty if self._is_own_body(look, others[k]) else 0.0 for look in tries]
            which = surest(looks[k].certainty, sure)
            if which is not None:
                chosen[k] = tries[which]
        return chosen

    def _is_own_body(self, look: Look, others: list[Person]) -> bool:
        if not self._is_believable(look) or self._contradicts_itself(look):
            return False
        keypoints, size = look.reading.keypoints.numpy(), float(look.reading.next_roi.size)
        return all(body_distance(keypoints, p.last.keypoints, size) > 2 * self.config.same_body for p in others)

    def _is_believable(self, look: Look) -> bool:
        """A person is there, and not impossibly far or large compared with the crop."""
        crop, asked = look.reading.roi, look.reading.next_roi
        shift = float((asked.center - crop.center).norm() / crop.size)
        growth = float(asked.size / crop.size)
        is_near = shift <= self.config.max_shift and 1 / self.config.max_growth <= growth <= self.config.max_growth
        return look.presence >= self.config.min_presence and is_near

    def _contradicts_itself(self, look: Look) -> bool:
        """The landmarks ask for a crop that is turned far from theirs."""
        turned = wrap_angle(look.reading.next_roi.angle - look.reading.roi.angle)
        return abs(float(turned)) > self.config.max_search_turn

    def _is_taken(self, reading: Reading, frame: int, but: Person | None = None) -> bool:
        """True if the reading shows somebody who is known in that frame already."""
        keypoints, size = reading.keypoints.numpy(), float(reading.next_roi.size)
        others = (p.sample_or_none(frame) for p in self._near if p is not but)
        return any(
            body_distance(keypoints, other.keypoints, size) <= 2 * self.config.same_body for other in others if other
        )

    # Lost a moment ago

    def _search(self, index: int, time: float, image: np.ndarray) -> None:
        """Try turned crops where people lost a moment ago are expected, all in one batch."""
        config = self.config
        tries: list[tuple[Person, float, Roi]] = []
        for person in self._near:
            if person.is_lost and self._is_worth_searching(person, index, time, image):
                tries += zip(itertools.repeat(person), config.search_turns, self._turned_rois(person, index))
        best: dict[int, tuple[float, Person, Look]] = {}
        for (person, turn, _), look in zip(tries, self._look(image, [roi for _, _, roi in tries])):
            reading = look.reading
            if not self._is_believable(look) or float(reading.visibility) < config.min_search_visibility:
                continue
            if look.certainty < LOST or self._contradicts_itself(look) or self._is_taken(reading, index):
                continue
            tolerated = config.tolerated_colours(time - person.last.time)
            if appearance_distance(person.appearance, look.describe()) > tolerated:
                continue
            score = look.certainty - 0.1 * abs(turn)
            if person.id not in best or score > best[person.id][0]:
                best[person.id] = (score, person, look)
        for _, person, look in best.values():
            person.add(index, time, look)

    def _is_worth_searching(self, person: Person, index: int, time: float, image: np.ndarray) -> bool:
        config = self.config
        if time - person.last.time > config.search_seconds:
            return False
        if time - person.followed_time > config.search_seconds_at_most:
            return False
        if len(person.qualities) < config.search_frames or np.mean(person.qualities) < config.search_quality:
            return False
        points = person.last.keypoints[:, :2] + person.expected_roi(index).center.numpy() - person.last.center
        low, high = points.min(0), points.max(0)
        inside = np.clip(np.minimum(high, image.shape[1::-1]) - np.maximum(low, 0), 0, None)
        return bool(np.prod(inside) >= config.search_inside * np.prod(high - low))

    # Two crops on one body

    def _separate(self) -> None:
        """Where two people's readings have become one body, keep the one it continues and lose the other."""
        active = self._active()
        for k, first in enumerate(active):
            for second in active[k + 1 :]:
                if first.is_lost or second.is_lost:
                    continue
                distance = body_distance(first.last.keypoints, second.last.keypoints, first.last.size)
                if distance > self.config.same_body:
                    first.shadows.pop(second.id, None)
                    second.shadows.pop(first.id, None)
                    continue
                together = first.shadows.get(second.id, 0) + 1
                first.shadows[second.id] = second.shadows[first.id] = together
                if together >= self.config.same_frames:
                    self._lose_one(first, second, together)

    def _is_alone(self, person: Person) -> bool:
        """True if nobody else is so near that their clothes could be taken for this person's."""
        near = self.config.crowded * person.last.size
        others = (p for p in self._near if p is not person and p.last.time >= person.last.time - 0.5)
        return all(np.linalg.norm(other.last.center - person.last.center) > near for other in others)

    def _lose_one(self, first: Person, second: Person, together: int) -> None:
        loser, keeper = sorted((first, second), key=lambda person: person.continuity(together))
        del loser.samples[-together:]
        loser.lose()
        keeper.shadows.pop(loser.id, None)
        if not loser.samples:
            self._near.remove(loser)
            self.people.remove(loser)

    # New people, and people who come back

    def _admit(self, index: int, time: float, image: np.ndarray, detections: list[Detection]) -> None:
        """Turn detections that are nobody's into people: those lost a moment ago, or new ones."""
        active = self._active()
        fresh = [roi_from_detection(detection) for detection in suppress_overlaps(detections)]
        fresh = [roi for roi in fresh if not any(self._is_own(person, roi) for person in active)]
        fresh = [roi for roi in fresh if float(roi.size) >= self.config.min_size]
        rough = self._look(image, fresh[: 2 * self.config.max_people])
        # The detector's crop is rough: look again where the landmarks say.
        there = [look.reading.next_roi for look in rough if look.presence >= self.config.min_presence]
        there = [roi for roi in there if float(roi.size) >= self.config.min_size]
        looks = [look for look in self._look(image, there) if look.presence >= self.config.min_presence]
        looks = self._look_again(image, looks, [active] * len(looks))
        for look in sorted(looks, key=lambda look: -look.quality * float(look.reading.next_roi.size)):
            if self._is_taken(look.reading, index):
                continue
            before = self._look_back(look)
            lost = [person for person in self._near if person.is_lost]
            sights = [*before, Sample.from_reading(index, time, look.reading)]
            person = recognise_or_none(lost, sights, look.describe(), self.config)
            if person is None:
                if len(self._active()) >= self.config.max_people + self.config.spare_people:
                    continue
                person = Person(len(self.people) and self.people[-1].id + 1, look.reading.next_roi)
                self.people.append(person)
                self._near.append(person)
            person.shadows.clear()
            person.samples += [s for s in before if not person.samples or s.frame > person.last.frame]
            person.add(index, time, look)
            person.remember_looks(look)

    def _is_own(self, person: Person, roi: Roi) -> bool:
        return float((person.roi.center - roi.center).norm()) <= self.config.near * float(person.roi.size)

    def _look_back(self, look: Look) -> list[Sample]:
        """Follow somebody just found through the frames before, as far as they are remembered and clear.

        Where that meets somebody who was lost, it ends: what is found comes after their last sight.
        """
        found: list[Sample] = []
        for index, time, image in reversed(self._past):
            look = self._look_again(image, self._look(image, [look.reading.next_roi]), [[]])[0]
            if not self._is_believable(look) or look.quality < self.config.look_back_quality:
                break
            if self._is_taken(look.reading, index):
                break
            found.append(Sample.from_reading(index, time, look.reading))
        return found[::-1]

    def _remember(self, index: int, time: float, image: np.ndarray) -> None:
        """Keep this frame until the detector has looked everywhere once more."""
        cycle = self.config.detect_every * len(detector_regions(image.shape[1], image.shape[0]))
        self._past.append((index, time, image))
        while len(self._past) > min(cycle, max(1, self.config.look_back_bytes // image.nbytes)):
            self._past.popleft()


def roi_from_detection(detection: Detection) -> Roi:
    """The crop a detection asks for, by its hip centre and full-body scale point."""
    points = torch.from_numpy(detection.points.astype(np.float32))
    return roi_from_points(points[0], points[1])
