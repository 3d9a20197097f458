"""What the user finds when a job is over: selection, playhead, and nothing taken away that was touched meanwhile."""

from __future__ import annotations

import bpy
import pytest
import scene_support as support
import scene_world as world

from core import protocol

BETAS = [0.5] * 10


@pytest.fixture
def scene():
    """An emptied file with two objects, the first selected and active."""
    scene = world.empty_scene()
    for name in ("Mine", "Other"):
        scene.collection.objects.link(bpy.data.objects.new(name, None))
    bpy.context.view_layer.update()
    select("Mine")
    assert selection() == ("Mine", {"Mine"})
    return scene


def select(name: str) -> None:
    for obj in bpy.context.view_layer.objects:
        obj.select_set(obj.name == name)
    bpy.context.view_layer.objects.active = bpy.data.objects[name]


def selection() -> tuple[str, set[str]]:
    layer = bpy.context.view_layer
    return layer.objects.active.name, {obj.name for obj in layer.objects.selected}


def run_job(scene, body, people=(0, 1), chosen=None, meanwhile=lambda: None, **options) -> None:
    writer = world.start_writer(scene, body, dict.fromkeys(people, BETAS), **options)
    if chosen is not None:
        entries = [{"person": p, "first": 0, "last": 11, "chosen": p in chosen} for p in people]
        writer.handle(protocol.People(people=entries))
    for person in people:
        writer.handle(support.frames_message(person, support.wild_motion(12), slice(0, 12)))
    writer.tick(1.0)
    meanwhile()
    writer.finish()


def test_figures_are_selected_and_the_first_is_active(scene, body):
    run_job(scene, body)
    assert selection() == ("Person 1", {"Person 1", "Person 2"})


def test_people_who_were_chosen_away_are_not_selected(scene, body):
    run_job(scene, body, chosen={1})
    assert selection() == ("Person 2", {"Person 2"})


def test_a_selection_made_meanwhile_stays(scene, body):
    run_job(scene, body, meanwhile=lambda: select("Other"))
    assert selection() == ("Other", {"Other"})


def test_the_playhead_comes_to_the_clip_but_is_not_taken_away(scene, body):
    scene.frame_set(-20)
    run_job(scene, body)
    assert scene.frame_current == 1
    scene.frame_set(7)
    run_job(scene, body)
    assert scene.frame_current == 7
    scene.frame_set(7)
    run_job(scene, body, meanwhile=lambda: scene.frame_set(-5))
    assert scene.frame_current == -5


@pytest.mark.parametrize(("before", "offset", "expected"), [(250, 1, (1, 60)), (20, 101, (101, 160))])
def test_the_range_can_be_the_clips(scene, body, before, offset, expected):
    scene.frame_end = before
    run_job(scene, body, match_range=True, start_frame=offset)
    assert (scene.frame_start, scene.frame_end) == expected
    assert scene.frame_current == offset
