"""core.options: what a job may be told, and one-line refusals."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from core import protocol
from core.errors import InputError
from core.options import JobOptions


def test_defaults_are_valid_and_dict_round_trip():
    assert JobOptions.from_dict({}) == JobOptions()
    options = JobOptions.from_dict({"person": [2, 0, 2], "start": 1, "end": 2.5, "vertices": True})
    assert options.person == (2, 0) and options.end == 2.5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"metod": "fit"}, "Unknown option 'metod'"),
        ({"method": ""}, "method"),
        ({"quality": "best"}, "one of draft, standard, high"),
        ({"quality": 1}, "quality"),
        ({"quality": ["high"]}, "quality"),
        ({"refine": 1}, "refine"),
        ({"lock_feet": "no"}, "lock_feet"),
        ({"panning": 1}, "panning"),
        ({"person": "first"}, "person"),
        ({"person": []}, "person"),
        ({"person": [-1]}, "person"),
        ({"person": True}, "person"),
        ({"device": "gpu"}, "one of auto, cpu, cuda, mps"),
        ({"start": -1}, "start"),
        ({"start": 2, "end": 2}, "seconds after 2"),
        ({"end": float("nan")}, "end"),
        ({"vertices": 1}, "vertices"),
        ({"out_dir": ""}, "out_dir"),
        ({"out_dir": 3}, "out_dir"),
        ({"focal_px": 0}, "focal_px"),
        ({"focal_px": 1000, "focal_mm": 35}, "not both"),
        ({"smoothing_s": 6}, "smoothing_s"),
        (
            {"smoothing_by_limb": {"tail": 0.1}},
            "root, torso, head, left_arm, right_arm, left_leg, right_leg, arms, legs",
        ),
        ({"smoothing_by_limb": {"arms": -0.1}}, "seconds from 0 to 5"),
        ({"smoothing_by_limb": {"arms": "0.1"}}, "smoothing_by_limb"),
        ({"smoothing_by_limb": {"arms": float("nan")}}, "smoothing_by_limb"),
        ({"smoothing_by_limb": 0.1}, "smoothing_by_limb"),
        ({"smoothing_by_limb": None}, "smoothing_by_limb"),
        ({"height_m": 0.49}, "metres from 0.5 to 2.5"),
        ({"height_m": 172}, "metres from 0.5 to 2.5"),
        ({"height_m": "1.7"}, "height_m"),
        ({"height_m": True}, "height_m"),
        ({"height_m": float("nan")}, "height_m"),
        ({"height_m": {}}, "height_m"),
        ({"height_m": {"0": 3.0}}, "height_m"),
        ({"height_m": {"anna": 1.7}}, "height_m"),
        ({"height_m": {-1: 1.7}}, "height_m"),
        ({"max_people": 0}, "max_people"),
        ({"max_people": 2.0}, "max_people"),
    ],
)
def test_wrong_options_are_refused_in_one_line(values, words):
    with pytest.raises(InputError, match=words) as info:
        JobOptions.from_dict(values)
    assert "\n" not in str(info.value)


def test_focal_length_in_millimetres():
    """A 36 mm lens on a 36 mm wide sensor sees the width at the distance of the width: focal = width."""
    assert JobOptions(focal_mm=36).focal_for(1920) == 1920
    assert JobOptions(focal_mm=50).focal_for(1920) == pytest.approx(2666.6667)
    assert JobOptions(focal_px=1234).focal_for(1920) == 1234
    assert JobOptions().focal_for(1920) is None


def test_heights_of_everybody_or_by_person():
    assert JobOptions().height_for(3) is None
    assert JobOptions(height_m=2).height_for(3) == 2.0
    from_json = JobOptions.from_dict({"height_m": {"0": 1.72, "12": 1}})
    assert from_json == JobOptions(height_m={0: 1.72, 12: 1.0})
    assert [from_json.height_for(person) for person in (0, 1, 12)] == [1.72, None, 1.0]


def test_smoothing_by_limb_holds_sides_apart_and_a_side_goes_before_both():
    assert JobOptions().smoothing_by_limb == {}
    assert JobOptions(smoothing_by_limb={"legs": 1, "head": 0}).smoothing_by_limb == {
        "head": 0.0,
        "left_leg": 1.0,
        "right_leg": 1.0,
    }
    for values in ({"left_arm": 0.2, "arms": 0}, {"arms": 0, "left_arm": 0.2}):
        assert JobOptions(smoothing_by_limb=values).smoothing_by_limb == {"left_arm": 0.2, "right_arm": 0.0}


def test_smoothing_by_limb_survives_the_way_from_blender():
    sent = {"smoothing_by_limb": {"arms": 0, "torso": 0.06}}
    decoder = protocol.Decoder()
    decoder.feed(protocol.encode(protocol.Job("clip.mp4", sent)))
    [job] = decoder.messages()
    options = JobOptions.from_dict(job.options)
    assert options.smoothing_by_limb == {"torso": 0.06, "left_arm": 0.0, "right_arm": 0.0}
    assert JobOptions.from_dict(json.loads(json.dumps(asdict(options)))) == options


def test_cache_folder():
    assert JobOptions().cache_folder() is None
    assert JobOptions(out_dir="o").cache_folder().as_posix() == "o/.hyper_mocap_cache"
    assert JobOptions(out_dir="o", cache_dir="c").cache_folder().as_posix() == "c"
