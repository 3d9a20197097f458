"""The list of people the engine found."""

from __future__ import annotations

import bpy

from ..runtime import runtime


class HYPER_MOCAP_UL_people(bpy.types.UIList):
    """One person a row: tick, name, frames, confidence."""

    def draw_item(self, _context, layout, _data, item, _icon, _active_data, _active_property, _index=0, _flag=0):
        """Draw a row."""
        row = layout.row(align=True)
        if runtime.is_running:  # afterwards a tick would do nothing
            row.prop(item, "use", text="")
        row.label(text=item.name, icon="ARMATURE_DATA")
        right = layout.row()
        right.alignment = "RIGHT"
        right.label(text=f"{item.first + 1} to {item.last + 1}")
        bar = layout.row()
        bar.ui_units_x = 3.5
        bar.progress(factor=item.confidence, text=f"{100 * item.confidence:.0f} %")


def register() -> None:
    """Register the list."""
    bpy.utils.register_class(HYPER_MOCAP_UL_people)


def unregister() -> None:
    """Unregister the list."""
    bpy.utils.unregister_class(HYPER_MOCAP_UL_people)
