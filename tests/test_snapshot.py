"""core.perception.snapshot: an interrupted tracker goes on as one that never stopped. A double reads the crops."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch

from core.cache import Cache
from core.perception.blazepose import EMBEDDING_SIZE
from core.perception.person import Person, Sample
from core.perception.reading import Reading
from core.perception.roi import Roi
from core.perception.snapshot import Checkpoint
from core.perception.track import Tracker

IMAGE = np.zeros((64, 64, 3), np.uint8)


class FakeNetworks:
    """Reads anything as a person who stands still and changes a little with every call."""

    def __init__(self, calls: int = 0) -> None:
        self.calls = calls

    def read(self, crops, roi, **how):
        self.calls += 1
        count = len(crops)
        rng = np.random.default_rng(self.calls)
        noise = torch.from_numpy(rng.normal(size=(count, 25, 3)).astype(np.float32))
        keypoints = roi.center[:, None] + 10 * noise[..., :2]
        return Reading(
            keypoints=torch.cat([keypoints, torch.full((count, 25, 1), 0.9)], -1),
            world=noise,
            presence=torch.full((count,), 0.95),
            visibility=torch.full((count,), 0.9),
            embedding=torch.from_numpy(rng.normal(size=(count, EMBEDDING_SIZE)).astype(np.float32)),
            roi=roi,
            next_roi=Roi(roi.center + 0.1, roi.size, roi.angle),
        )


def make_tracker(networks: FakeNetworks) -> Tracker:
    tracker = Tracker(networks)
    for k, at in enumerate((20.0, 400.0)):
        roi = Roi(torch.tensor([at, 30.0]), torch.tensor(40.0), torch.tensor(0.1))
        tracker.people.append(Person(k, roi, qualities=deque(maxlen=10), shadows={1 - k: k}))
    tracker._near = list(tracker.people)
    return tracker


def step(tracker: Tracker, frame: int) -> float:
    tracker.step(frame, frame / 25, IMAGE, [])
    return frame / 25


def assert_same(a: Tracker, b: Tracker) -> None:
    for x, y in zip(a.people, b.people, strict=True):
        assert (x.id, x.is_lost, x.asked, x.shadows) == (y.id, y.is_lost, y.asked, y.shadows)
        assert x.qualities == y.qualities and x.qualities.maxlen == y.qualities.maxlen
        assert x.followed_time == y.followed_time
        np.testing.assert_array_equal(x.appearance, y.appearance)
        for name in ("center", "size", "angle"):
            assert torch.equal(getattr(x.roi, name), getattr(y.roi, name))
        for s, t in zip(x.samples, y.samples, strict=True):
            for name, value in vars(s).items():
                other = getattr(t, name)
                assert type(value) is type(other), name
                np.testing.assert_array_equal(value, other, err_msg=name)
    assert [a.people.index(p) for p in a._near] == [b.people.index(p) for p in b._near]


def run_and_keep(tmp_path, frames: int, every: int = 7) -> tuple[Tracker, list[float]]:
    networks = FakeNetworks()
    tracker, times = make_tracker(networks), []
    checkpoint = Checkpoint(Cache(tmp_path, "k", resume=False), interval_s=0.0)
    for frame in range(frames):
        times.append(step(tracker, frame))
        if frame % every == every - 1:
            checkpoint.keep(tracker, times)
    checkpoint.keep_all(tracker, times, is_complete=False)
    return tracker, times


def restored(tmp_path) -> tuple[Tracker, list[float], Checkpoint]:
    networks = FakeNetworks()
    tracker = Tracker(networks)
    checkpoint = Checkpoint(Cache(tmp_path, "k", resume=True))
    times = checkpoint.restore(tracker)
    networks.calls = len(times)
    return tracker, times, checkpoint


def test_state_comes_back_exactly(tmp_path):
    tracker, times = run_and_keep(tmp_path, 30)
    again, times_again, checkpoint = restored(tmp_path)
    assert times_again == times and not checkpoint.is_complete
    assert_same(tracker, again)


def test_what_follows_is_the_same(tmp_path):
    """Frames 30 to 39 after a restart equal those of a run without one."""
    run_and_keep(tmp_path, 30)
    again, times, _ = restored(tmp_path)
    whole, _ = run_and_keep(tmp_path / "other", 30)
    assert len(whole.people[0].samples) == 30, "the double's people are followed"
    for frame in range(30, 40):
        step(again, frame)
        step(whole, frame)
    assert_same(whole, again)


def test_samples_that_were_taken_back_stay_away(tmp_path):
    networks = FakeNetworks()
    tracker, times = make_tracker(networks), []
    checkpoint = Checkpoint(Cache(tmp_path, "k", resume=False), interval_s=0.0)
    for frame in range(10):
        times.append(step(tracker, frame))
    checkpoint.keep(tracker, times)
    del tracker.people[1].samples[-3:]
    times.append(step(tracker, 10))
    checkpoint.keep(tracker, times)
    again, _, _ = restored(tmp_path)
    assert_same(tracker, again)


def test_a_complete_perception_is_known_to_be_complete(tmp_path):
    tracker, times = run_and_keep(tmp_path, 20)
    checkpoint = Checkpoint(Cache(tmp_path, "k", resume=True))
    checkpoint.restore(Tracker(FakeNetworks()))
    checkpoint.keep_all(tracker, times, is_complete=True)
    assert restored(tmp_path)[2].is_complete


def test_chunks_of_another_kind_are_computed_again(tmp_path, caplog):
    run_and_keep(tmp_path, 20)
    path = sorted((tmp_path / "k").glob("perceive-*"))[1]
    data = dict(np.load(path))
    del data["sample_angle"]
    np.savez(path, **data)
    again, times, checkpoint = restored(tmp_path)
    assert len(times) == 7 and "another kind" in caplog.text
    assert len(again.people[0].samples) == 7
    assert [p.name for p in (tmp_path / "k").glob("perceive-*")] == ["perceive-00000000-00000007.npz"]


def test_unknown_state_is_not_lost_silently(tmp_path):
    networks = FakeNetworks()
    tracker = make_tracker(networks)
    tracker._new_thing = object()
    checkpoint = Checkpoint(Cache(tmp_path, "k", resume=False), interval_s=0.0)
    with pytest.raises(TypeError, match="object in the tracker's state cannot be stored"):
        checkpoint.keep(tracker, [step(tracker, 0)])


def test_nothing_is_kept_before_the_interval(tmp_path):
    now = [0.0]
    tracker, times = make_tracker(FakeNetworks()), []
    checkpoint = Checkpoint(Cache(tmp_path, "k", resume=False), interval_s=5.0, clock=lambda: now[0])
    for frame in range(12):
        times.append(step(tracker, frame))
        now[0] += 1.0
        checkpoint.keep(tracker, times)
    assert len(list((tmp_path / "k").glob("perceive-*"))) == 2
    assert all(isinstance(s, Sample) for s in tracker.people[0].samples)
