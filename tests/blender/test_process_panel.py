"""What the panel offers and the job is told of it; what operators ask before they run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import bpy
import process_support as support
import pytest
from panel_support import Layout, asked

from addon.wire import protocol


def test_the_panel_offers_the_qualities_and_the_job_gets_the_choice(addon) -> None:
    from addon.ops.recover_motion import collect_job_options
    from addon.ui.panels import HYPER_MOCAP_PT_recover

    settings = bpy.context.scene.hyper_mocap
    prop = settings.bl_rna.properties["quality"]
    names = [item.identifier for item in prop.enum_items]
    assert tuple(names) == protocol.QUALITIES == ("draft", "standard", "high") and prop.default == "standard"
    assert all(item.description for item in prop.enum_items)
    assert collect_job_options(settings, None)["quality"] == "standard"
    settings.quality = "high"
    assert collect_job_options(settings, None)["quality"] == "high"
    settings.method = "fit"
    layout = Layout()
    panel = SimpleNamespace(layout=layout, _draw_engine=lambda *_: None)
    HYPER_MOCAP_PT_recover.draw(panel, bpy.context)
    assert "refine" not in layout.drawn
    assert layout.drawn.index("people") < layout.drawn.index("quality") < layout.drawn.index("mode")


def test_refining_is_offered_for_the_methods_that_know_it(addon) -> None:
    from addon.ops.recover_motion import collect_job_options
    from addon.ui.panels import HYPER_MOCAP_PT_recover

    settings = bpy.context.scene.hyper_mocap
    assert settings.refine is protocol.REFINES_BY_DEFAULT
    for value in (True, False):
        settings.refine = value
        assert collect_job_options(settings, None)["refine"] is value
    for method, is_offered in (("fit", False), ("hyperbolic", True)):
        layout = Layout()
        context = SimpleNamespace(scene=SimpleNamespace(hyper_mocap=SimpleNamespace(method=method)))
        panel = SimpleNamespace(layout=layout, _draw_engine=lambda *_: None)
        HYPER_MOCAP_PT_recover.draw(panel, context)
        assert ("refine" in layout.drawn) is is_offered, method


def test_each_part_of_the_figure_gets_its_share_of_the_smoothing(addon) -> None:
    from addon.ops.recover_motion import collect_job_options
    from addon.properties import SMOOTHING_PARTS
    from addon.ui.panels import HYPER_MOCAP_PT_recover

    parts = [limb for name in SMOOTHING_PARTS for limb in protocol.SMOOTHING_LIMBS[name]]
    assert sorted(parts) == sorted(name for name, limbs in protocol.SMOOTHING_LIMBS.items() if limbs == (name,))
    settings = bpy.context.scene.hyper_mocap
    assert "smoothing_by_limb" not in collect_job_options(settings, None)
    settings.smoothing, settings.smoothing_arms, settings.smoothing_torso, settings.smoothing_root = 0.1, 0, 1.5, 100
    assert collect_job_options(settings, None)["smoothing_by_limb"] == {"arms": 0.0, "torso": 0.15, "root": 5.0}
    layout = Layout()
    HYPER_MOCAP_PT_recover._draw_smoothing(None, layout, settings)
    assert layout.drawn == [f"smoothing_{part}" for part in ("arms", "legs", "torso", "head", "root")]


def test_feet_are_locked_unless_told_otherwise(addon) -> None:
    from addon.ops.recover_motion import collect_job_options
    from addon.ui.panels import HYPER_MOCAP_PT_recover

    settings = bpy.context.scene.hyper_mocap
    assert collect_job_options(settings, None)["lock_feet"] is True
    settings.lock_feet = False
    assert collect_job_options(settings, None)["lock_feet"] is False
    layout = Layout()
    HYPER_MOCAP_PT_recover.draw(SimpleNamespace(layout=layout, _draw_engine=lambda *_: None), bpy.context)
    assert "lock_feet" in layout.drawn


def test_a_panning_camera_is_told(addon) -> None:
    from addon.ops.recover_motion import collect_job_options

    settings = bpy.context.scene.hyper_mocap
    assert collect_job_options(settings, None)["panning"] is False
    settings.panning = True
    assert collect_job_options(settings, None)["panning"] is True


def test_a_message_is_broken_by_the_width_it_is_drawn_with(addon) -> None:
    import blf

    from addon.ops.build_engine import OFFLINE
    from addon.ui.drawing import draw_message

    class Column(Layout):
        def label(self, text: str, icon: str) -> None:
            self.drawn.append((text, icon))

    layout, preferences = Column(), bpy.context.preferences
    draw_message(layout, OFFLINE, 200.0, icon="ERROR")
    blf.size(0, preferences.ui_styles[0].widget.points * preferences.system.ui_scale)
    assert all(blf.dimensions(0, text)[0] <= 200 for text, _icon in layout.drawn)
    assert " ".join(text for text, _icon in layout.drawn) == OFFLINE
    assert [icon for _text, icon in layout.drawn] == ["ERROR"] + ["BLANK1"] * (len(layout.drawn) - 1)


def test_smoothing_and_height_are_asked_for(addon, monkeypatch, tmp_path: Path) -> None:
    support.use_engine(monkeypatch, tmp_path, frames=16, people=2)
    support.import_clip(tmp_path, frames=16)
    support.recover()
    answer, it = asked("smooth_motion", seconds=0.2)
    assert (answer, it.seconds) == ({"ASKED"}, 0.2)
    bpy.ops.hyper_mocap.smooth_motion(seconds=0.35)
    assert asked("smooth_motion", seconds=0.2)[1].seconds == pytest.approx(0.35)
    answer, it = asked("set_height", height=0.0)
    assert (answer, it.title) == ({"ASKED"}, "Height of Person 1") and 1.0 < it.height < 2.5
    bpy.ops.object.select_all(action="DESELECT")
    bpy.context.view_layer.objects.active = None
    assert asked("set_height", height=0.0)[0] == {"CANCELLED"}, "of two, nobody is meant: nothing to ask"
