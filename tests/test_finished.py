"""core.finished: keys follow what shapes the work or the result, and nothing else."""

from __future__ import annotations

import os

import pytest

from core.errors import VideoError
from core.finished import cache_key, finished_results, result_key
from core.options import JobOptions
from core.protocol import REFINES_BY_DEFAULT


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "walk.mp4"
    path.write_bytes(os.urandom(1000))
    return path


@pytest.mark.parametrize(
    ("change", "is_other_work", "is_other_result"),
    [
        ({"focal_px": 900.0}, True, True),
        ({"start": 1.0}, True, True),
        ({"method": "m"}, True, True),
        ({"refine": not REFINES_BY_DEFAULT}, True, True),
        ({"max_people": 2}, True, True),
        ({"quality": "high"}, True, True),
        ({"person": 1}, False, True),
        ({"vertices": True}, False, True),
        ({"smoothing_s": 0.3}, False, True),
        ({"smoothing_by_limb": {"arms": 0.0}}, False, True),
        ({"lock_feet": False}, False, True),
        ({"panning": True}, False, True),
        ({"height_m": 1.7}, False, True),
        ({"height_m": {0: 1.7}}, False, True),
        ({"device": "cuda"}, False, False),
        ({"resume": True}, False, False),
        ({"live": False}, False, False),
        ({"out_dir": "elsewhere"}, False, False),
    ],
)
def test_keys_follow_options(video, change, is_other_work, is_other_result):
    before, after = JobOptions(), JobOptions(**change)
    assert (cache_key(video, before) != cache_key(video, after)) is is_other_work
    assert (result_key(video, before) != result_key(video, after)) is is_other_result


def test_keys_follow_refining_where_the_method_can_be_refined(video):
    on, off = (JobOptions(method="hyperbolic", refine=refine) for refine in (True, False))
    assert cache_key(video, on) != cache_key(video, off)
    assert result_key(video, on) != result_key(video, off)
    on, off = (JobOptions(method="fit", refine=refine) for refine in (True, False))
    assert cache_key(video, on) == cache_key(video, off) and result_key(video, on) == result_key(video, off)


def test_keys_are_one_for_two_ways_to_name_the_same_limbs(video):
    ways = ({"arms": 0.0, "head": 0.1}, {"head": 0.1, "right_arm": 0, "left_arm": 0})
    assert len({result_key(video, JobOptions(smoothing_by_limb=way)) for way in ways}) == 1


def test_keys_follow_the_content_of_the_body_file(video, tmp_path):
    body = tmp_path / "body.npz"
    body.write_bytes(b"one")
    options = JobOptions(body=str(body))
    before = cache_key(video, options)
    moved = tmp_path / "moved.npz"
    moved.write_bytes(b"one")
    os.utime(moved, ns=(0, body.stat().st_mtime_ns))
    assert cache_key(video, JobOptions(body=str(moved))) == before
    body.write_bytes(b"two")
    assert cache_key(video, options) != before


def test_a_video_that_cannot_be_read_is_a_video_error(tmp_path):
    with pytest.raises(VideoError, match="none.mp4 cannot be read"):
        cache_key(tmp_path / "no" / "none.mp4", JobOptions())


def test_no_folder_no_results(video, tmp_path):
    assert finished_results(video, JobOptions(out_dir=str(tmp_path / "none"))) == []
    assert finished_results(video, JobOptions()) == []
    (tmp_path / "walk_person0.npz").write_bytes(b"not a result")
    assert finished_results(video, JobOptions(out_dir=str(tmp_path))) == []
