"""Keys as arrays on every action API: merge, append, replace, and the time it takes."""

from __future__ import annotations

import time

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world

from addon import action, naming


@pytest.fixture
def thing():
    world.empty_scene()
    return bpy.data.objects.new("Thing", None)


def keys(thing, index=0):
    frames, values = action.read_keys(thing, "location", index)
    return frames.tolist(), values.tolist()


@pytest.mark.parametrize("count", [50, 2000])
def test_new_keys_win_and_others_stay(thing, count):
    frames = np.arange(count, dtype=float)
    writer = action.KeyWriter(thing, "A")
    writer.write("location", 1, frames, frames)
    writer.write("location", 1, np.array([10.0, 11.0, 11.5, 12.0]), np.array([-1.0, -2.0, -3.0, -4.0]))
    expected = {**dict(zip(frames, frames)), 10.0: -1.0, 11.0: -2.0, 11.5: -3.0, 12.0: -4.0}
    assert keys(thing, 1) == (sorted(expected), [expected[f] for f in sorted(expected)])


@pytest.mark.parametrize("count", [50, 2000])
def test_appended_keys_and_keys_in_front(thing, count):
    writer = action.KeyWriter(thing, "A")
    writer.write("location", 0, np.arange(count) + 100.0, np.zeros(count))
    writer.write("location", 0, np.array([1.0]), np.array([7.0]))
    writer.write("location", 0, np.array([count + 100.0, count + 101.0]), np.array([5.0, 6.0]))
    frames, values = keys(thing)
    assert len(frames) == count + 3 and frames == sorted(frames)
    assert (values[0], values[-2:]) == (7.0, [5.0, 6.0])
    writer.update_long_curves()
    (curve,) = action.curves_of(thing)
    assert {p.interpolation for p in curve.keyframe_points} == {"LINEAR"}
    assert curve.evaluate(count + 100.5) == pytest.approx(5.5)


def test_replace_drops_the_rest(thing):
    writer = action.KeyWriter(thing, "A")
    writer.write("location", 0, np.arange(9.0), np.arange(9.0))
    writer.write("location", 0, np.array([3.0, 4.5]), np.array([1.0, 2.0]), replace=True)
    assert keys(thing) == ([3.0, 4.5], [1.0, 2.0])


def test_write_keys_makes_one_curve_a_column(thing):
    values = np.arange(12.0).reshape(4, 3)
    action.write_keys(thing, "location", np.arange(4.0), values, group="Place")
    assert [c.array_index for c in action.curves_of(thing)] == [0, 1, 2]
    assert {c.group.name for c in action.curves_of(thing)} == {"Place"}
    for k in range(3):
        assert keys(thing, k) == ([0.0, 1.0, 2.0, 3.0], values[:, k].tolist())
    thing_keys = action.curves_of(thing)
    action.remove_curves(thing, "location")
    assert thing_keys and action.curves_of(thing) == []


def test_frames_must_increase(thing):
    writer = action.KeyWriter(thing, "A")
    for frames in ([1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match="increase"):
            writer.write("location", 0, np.array(frames), np.zeros(2))


def test_datablocks_share_an_action_by_slot_or_get_their_own(thing):
    other = bpy.data.objects.new("Other", None)
    action.write_keys(thing, "location", np.arange(2.0), np.zeros((2, 3)))
    action.write_keys(other, "location", np.arange(2.0), np.ones((2, 3)))
    assert keys(thing)[1] == [0.0, 0.0] and keys(other)[1] == [1.0, 1.0]
    action.assign_action(other, thing.animation_data.action)
    assert keys(other)[1] == [0.0, 0.0]


def test_no_action_means_no_curves(thing):
    assert action.curves_of(thing) == [] and action.channels_or_none(thing) is None
    assert keys(thing) == ([], [])


def test_a_thousand_frames_of_24_bones_in_half_a_second():
    body, motion = support.synthetic_body(), support.wild_motion(1000)
    writer = world.start_writer(world.empty_scene(), body, {0: np.zeros(10)})
    writer.tick(1.0)
    writer.handle(support.frames_message(0, motion, slice(0, 1000)))
    start = time.perf_counter()
    writer.finish()
    assert time.perf_counter() - start < 0.5
    path = f'pose.bones["{naming.BONE_NAMES[-1]}"].rotation_quaternion'
    assert len(action.read_keys(world.person_object(), path, 3)[0]) == 1000
