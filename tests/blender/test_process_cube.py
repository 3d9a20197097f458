"""The default cube: hidden for a figure where nobody has used it, and any other cube left alone."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import bpy
import process_support as support
import pytest

from addon.default_cube import hide_default_cube, is_untouched, show_default_cube


@pytest.fixture
def cube() -> bpy.types.Object:
    """The cube of this Blender's own start-up file; ask for the add-on first where it is needed."""
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=False)
    return bpy.data.objects["Cube"]


def is_shown(cube: bpy.types.Object) -> bool:
    return cube.visible_get() and not cube.hide_render


def test_the_factory_cube_is_known_hidden_and_shown(cube) -> None:
    layer = bpy.context.view_layer
    assert is_untouched(cube) and hide_default_cube(layer)
    assert cube.hide_get() and cube.hide_render and not cube.visible_get()
    assert not hide_default_cube(layer), "already out of sight: not this job's doing"
    show_default_cube(layer)
    assert is_shown(cube) and is_untouched(cube) and cube.select_get()
    hide_default_cube(layer)
    cube.select_set(False)
    bpy.data.objects["Light"].select_set(True)
    show_default_cube(layer)
    assert is_shown(cube) and not cube.select_get()


def principled(cube: bpy.types.Object) -> bpy.types.Node:
    return cube.active_material.node_tree.nodes["Principled BSDF"]


def link_elsewhere(cube: bpy.types.Object) -> None:
    bpy.data.scenes.new("Another").collection.objects.link(cube)


def link_child(cube: bpy.types.Object) -> None:
    child = bpy.data.objects.new("Child", None)
    child.parent = cube


def link_to_parent(cube: bpy.types.Object) -> None:
    cube.parent = bpy.data.objects["Light"]


def move_corner(cube: bpy.types.Object) -> None:
    cube.data.vertices[3].co.x += 0.001


def add_corner(cube: bpy.types.Object) -> None:
    cube.data.vertices.add(1)


def paint(cube: bpy.types.Object) -> None:
    principled(cube).inputs["Base Color"].default_value = (1.0, 0.0, 0.0, 1.0)


def edit(cube: bpy.types.Object) -> None:
    bpy.ops.object.mode_set(mode="EDIT")


def swap_material(cube: bpy.types.Object) -> None:
    cube.data.materials[0] = bpy.data.materials.new("Other")


TOUCHES: dict[str, Callable[[bpy.types.Object], object]] = {
    "renamed": lambda cube: setattr(cube, "name", "Box"),
    "moved": lambda cube: setattr(cube, "location", (0.0, 0.0, 1.0)),
    "turned": lambda cube: setattr(cube, "rotation_euler", (0.0, 0.0, 0.1)),
    "scaled": lambda cube: setattr(cube, "scale", (1.0, 1.0, 2.0)),
    "moved by delta": lambda cube: setattr(cube, "delta_location", (1.0, 0.0, 0.0)),
    "locked": lambda cube: setattr(cube, "lock_location", (True, False, False)),
    "drawn otherwise": lambda cube: setattr(cube, "display_type", "WIRE"),
    "kept out of selections": lambda cube: setattr(cube, "hide_select", True),
    "an instancer": lambda cube: setattr(cube, "instance_type", "VERTS"),
    "parented": link_to_parent,
    "a parent": link_child,
    "modified": lambda cube: cube.modifiers.new("Bevel", "BEVEL"),
    "constrained": lambda cube: cube.constraints.new("COPY_LOCATION"),
    "animated": lambda cube: cube.keyframe_insert("location"),
    "with a property": lambda cube: cube.__setitem__("mine", 1),
    "with a vertex group": lambda cube: cube.vertex_groups.new(name="Top"),
    "with a shape key": lambda cube: cube.shape_key_add(name="Basis"),
    "with a force": lambda cube: setattr(cube.field, "type", "WIND"),
    "in another scene": link_elsewhere,
    "kept for later": lambda cube: setattr(cube, "use_fake_user", True),
    "edited": move_corner,
    "extended": add_corner,
    "with colours": lambda cube: cube.data.color_attributes.new("Colour", "FLOAT_COLOR", "POINT"),
    "smooth": lambda cube: setattr(cube.data.polygons[0], "use_smooth", True),
    "of a shared mesh": lambda cube: bpy.data.objects.new("Copy", cube.data),
    "painted": paint,
    "painted in the viewport": lambda cube: setattr(cube.active_material, "diffuse_color", (1.0, 0.0, 0.0, 1.0)),
    "of a node material": lambda cube: cube.active_material.node_tree.nodes.new("ShaderNodeTexNoise"),
    "of another material": swap_material,
    "without a material": lambda cube: cube.data.materials.clear(),
    "of two materials": lambda cube: cube.data.materials.append(None),
    "hidden by the user": lambda cube: cube.hide_set(True),
    "not rendered": lambda cube: setattr(cube, "hide_render", True),
    "being edited": edit,
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES.keys())
def test_a_cube_that_differs_in_anything_stays(cube, touch) -> None:
    touch(cube)
    bpy.context.view_layer.update()
    before = cube.hide_get(), cube.hide_render
    assert not hide_default_cube(bpy.context.view_layer)
    assert (cube.hide_get(), cube.hide_render) == before


def test_recovering_hides_the_cube_and_says_so(runtime, cube, monkeypatch, tmp_path, capfd) -> None:
    support.use_engine(monkeypatch, tmp_path, frames=8)
    support.import_clip(tmp_path, frames=8)
    support.recover()
    assert cube.hide_get() and cube.hide_render
    assert "Hidden meanwhile and kept: the default cube, where the figure will stand" in capfd.readouterr().out
    assert bpy.context.view_layer.objects.active == bpy.data.objects["Person 1"]
    support.use_engine(monkeypatch, tmp_path / "bad", error_at=0)
    with pytest.raises(RuntimeError, match="Nobody was found"):
        bpy.ops.hyper_mocap.recover_motion()
    assert cube.hide_get(), "an earlier job's figure still stands there"


def test_a_job_without_a_frame_shows_the_cube_again(runtime, cube, monkeypatch, tmp_path) -> None:
    support.use_engine(monkeypatch, tmp_path, error_at=0)
    support.import_clip(tmp_path)
    with pytest.raises(RuntimeError, match="Nobody was found"):
        bpy.ops.hyper_mocap.recover_motion()
    assert is_shown(cube) and is_untouched(cube)


def test_a_job_that_cannot_start_leaves_the_cube(runtime, cube, monkeypatch, tmp_path) -> None:
    from addon.errors import EngineMissingError

    def fail(*_arguments, **_options):
        assert not is_shown(cube)
        raise EngineMissingError("There is no engine")

    support.use_engine(monkeypatch, tmp_path)
    support.import_clip(tmp_path)
    monkeypatch.setattr("addon.ops.recover_motion.launch", fail)
    with pytest.raises(RuntimeError, match="There is no engine"):
        bpy.ops.hyper_mocap.recover_motion()
    assert is_shown(cube)


def test_an_imported_result_hides_the_cube_too(addon, cube, monkeypatch, tmp_path) -> None:
    summary = SimpleNamespace(people=[0], frames=8, warnings=[])
    monkeypatch.setattr("addon.ops.import_result.load_results", lambda *_arguments: summary)
    assert bpy.ops.hyper_mocap.import_result(filepath=str(tmp_path / "any.npz")) == {"FINISHED"}
    assert not is_shown(cube)
