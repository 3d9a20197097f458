"""The sidebar's Mocap tab: Video, Recover, People, Result."""

from __future__ import annotations

import time
from pathlib import Path

import bpy

from ..frame_rate import is_same_rate, scene_rate
from ..job import State
from ..properties import SMOOTHING_PARTS
from ..runtime import runtime
from ..videos import video_path
from ..wire import protocol
from .drawing import BOX_MARGIN_PX, TAB_MARGIN_PX, draw_build, draw_error, draw_message, room_of
from .texts import format_duration, format_eta, format_frames
from .thumbnail import thumbnail_icon

SILENCE_SECONDS = 20.0
"""After so long without a word from the engine the panel says so."""


def _room(context) -> float:
    return room_of(context, TAB_MARGIN_PX)


def _room_in_box(context) -> float:
    return room_of(context, TAB_MARGIN_PX + BOX_MARGIN_PX)


class _Tab:
    """Where the panels are."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Mocap"


class HYPER_MOCAP_PT_video(_Tab, bpy.types.Panel):
    """The clip."""

    bl_label = "Video"

    def draw(self, context) -> None:
        """Draw what is known of the clip, or the button that chooses one."""
        layout, settings = self.layout, context.scene.hyper_mocap
        if settings.clip is None:
            column = layout.column()
            column.scale_y = 1.5
            column.operator("hyper_mocap.import_video", icon="FILE_MOVIE")
            draw_message(layout, "Any clip in which people can be seen", _room(context), icon="INFO")
            return
        self._draw_clip(context, layout, settings)
        self._draw_range(context, layout, settings)

    def _draw_clip(self, context, layout, settings) -> None:
        row = layout.box().row()
        icon = thumbnail_icon(video_path(settings))
        if icon:
            row.template_icon(icon_value=icon, scale=4.0)
        facts = row.column(align=True)
        facts.scale_y = 0.85
        name = facts.row(align=True)
        name.label(text=Path(video_path(settings)).name)
        name.operator("hyper_mocap.import_video", text="", icon="FILEBROWSER")
        if settings.video_fps > 0:
            facts.label(text=f"{settings.video_width} x {settings.video_height} px")
            facts.label(text=f"{settings.video_fps:.4g} frames per second")
            duration = settings.video_frames / settings.video_fps
            facts.label(text=f"{settings.video_frames} frames, {duration:.1f} s")

    def _draw_range(self, context, layout, settings) -> None:
        column = layout.column(align=True)
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(settings, "frame_first")
        column.prop(settings, "frame_last")
        if settings.video_fps > 0 and not is_same_rate(scene_rate(context.scene), settings.video_fps):
            column = layout.column(align=True)
            text = f"Scene {scene_rate(context.scene):.4g} fps, clip {settings.video_fps:.4g} fps"
            draw_message(column, text, _room(context), icon="ERROR")
            column.operator("hyper_mocap.set_scene_fps", icon="TIME")


class HYPER_MOCAP_PT_recover(_Tab, bpy.types.Panel):
    """Settings and state of the job."""

    bl_label = "Recover"

    def draw(self, context) -> None:
        """Draw settings and button, or what the job is doing; below them how the last one ended."""
        layout, settings = self.layout, context.scene.hyper_mocap
        if runtime.is_running:
            self._draw_running(context, layout, runtime.session)
            return
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(settings, "method")
        if settings.method in protocol.REFINABLE_METHODS:
            column.prop(settings, "refine")
        column.prop(settings, "people")
        column.prop(settings, "quality")
        column.prop(settings, "mode")
        column.prop(settings, "smoothing")
        column.prop(settings, "lock_feet")
        header, body = layout.panel("hyper_mocap_smoothing", default_closed=True)
        header.label(text="Smoothing by Limb")
        if body:
            self._draw_smoothing(body, settings)
        header, body = layout.panel("hyper_mocap_options", default_closed=True)
        header.label(text="Options")
        if body:
            self._draw_options(body, settings)
        button = layout.column()
        button.scale_y = 1.6
        button.operator("hyper_mocap.recover_motion", icon="ARMATURE_DATA")
        self._draw_engine(context, layout)
        if runtime.session is not None:
            self._draw_outcome(context, layout, runtime.session)

    def _draw_smoothing(self, layout, settings) -> None:
        column = layout.column(align=True)
        column.use_property_split = True
        column.use_property_decorate = False
        for part in SMOOTHING_PARTS:
            column.prop(settings, f"smoothing_{part}", slider=True)

    def _draw_options(self, layout, settings) -> None:
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings, "max_people")
        layout.prop(settings, "device")
        row = layout.row(heading="Known Lens")
        row.prop(settings, "use_focal", text="")
        lens = row.row()
        lens.enabled = settings.use_focal
        lens.prop(settings, "focal_mm", text="")
        layout.prop(settings, "panning")
        row = layout.row(heading="Known Height")
        row.prop(settings, "use_height", text="")
        height = row.row()
        height.enabled = settings.use_height
        height.prop(settings, "height", text="")
        column = layout.column(heading="Make", align=True)
        column.prop(settings, "use_camera")
        background = column.row()
        background.enabled = settings.use_camera
        background.prop(settings, "use_background")

    def _draw_running(self, context, layout, session) -> None:
        status = session.status
        label = "Stopping" if session.job.state is State.CANCELLING else status.stage_label
        if session.job.has_ended:
            label = "Finishing the figure"
        layout.label(text=runtime.job_title, icon="FILE_MOVIE")
        bar = layout.column()
        bar.scale_y = 1.3
        bar.progress(factor=status.fraction, text=f"{label}  {100 * status.fraction:.0f} %")
        facts = layout.column(align=True)
        facts.scale_y = 0.85
        is_going_on = session.job.state is State.RUNNING
        left = format_eta(status.eta_now_s(time.monotonic())) if is_going_on else ""
        spent = f"{format_duration(session.seconds)} so far"
        facts.label(text=f"{spent}, {left}" if left else spent, icon="TIME")
        if status.frames:
            facts.label(text=f"{format_frames(status.frames, len(status.figures))} are there", icon="ACTION")
        elif status.total > 1:
            facts.label(text=f"{status.done} of {status.total} frames seen", icon="HIDE_OFF")
        if status.frames:
            layout.operator("hyper_mocap.look_through_camera", icon="VIEW_CAMERA")
        if session.silent_s > SILENCE_SECONDS:
            text = f"The engine has said nothing for {format_duration(session.silent_s)}"
            draw_message(layout, text, _room(context), icon="QUESTION")
        button = layout.column()
        button.scale_y = 1.3
        button.enabled = session.job.is_active and session.job.state is not State.CANCELLING
        button.operator("hyper_mocap.cancel_job", icon="X")

    def _draw_engine(self, context, layout) -> None:
        if runtime.is_building:
            box = layout.box()
            draw_build(box, runtime.build, _room_in_box(context))
            box.operator("hyper_mocap.cancel_build", icon="X")
            return
        problem = runtime.notice or (runtime.build.error if runtime.build else "") or runtime.engine_problem()
        if problem:
            box = layout.box()
            draw_error(box, problem, _room_in_box(context))
            row = box.row(align=True)
            row.operator("hyper_mocap.build_engine", icon="IMPORT")
            row.operator("hyper_mocap.open_preferences", text="", icon="PREFERENCES")

    def _draw_outcome(self, context, layout, session) -> None:
        status, room = session.status, _room_in_box(context)
        arrived = format_frames(status.frames, len(status.figures))
        box = layout.box()
        if session.job.state is State.FAILED:
            draw_error(box, status.error, room)
            if status.frames:
                draw_message(box, f"{arrived} had arrived and are kept", room, icon="BLANK1")
        elif session.job.state is State.CANCELLED:
            kept = f"Cancelled; {arrived} are kept" if status.frames else "Cancelled"
            draw_message(box, kept, room, icon="INFO")
            if status.engine_summary.get("can_resume"):
                draw_message(box, "Recover Motion goes on from there", room, icon="BLANK1")
        else:
            draw_message(box, f"{arrived} in {format_duration(session.seconds)}", room, icon="CHECKMARK")
        for warning in getattr(session.summary, "warnings", ()):
            draw_message(box, warning, room, icon="ERROR")
        row = box.row(align=True)
        row.operator("hyper_mocap.open_log", icon="TEXT").kind = "job"
        row.operator("hyper_mocap.dismiss", text="", icon="X")


class HYPER_MOCAP_PT_people(_Tab, bpy.types.Panel):
    """Who was found."""

    bl_label = "People"

    @classmethod
    def poll(cls, context) -> bool:
        """Only with somebody to show."""
        return bool(context.window_manager.hyper_mocap.people)

    def draw(self, context) -> None:
        """Draw the list and the choice."""
        layout, state = self.layout, context.window_manager.hyper_mocap
        layout.template_list(
            "HYPER_MOCAP_UL_people", "", state, "people", state, "active_person", rows=min(6, len(state.people) + 1)
        )
        if runtime.is_running:
            layout.operator("hyper_mocap.choose_people", icon="CHECKMARK")


class HYPER_MOCAP_PT_result(_Tab, bpy.types.Panel):
    """What to do with a figure."""

    bl_label = "Result"

    def draw(self, context) -> None:
        """Draw what changes a figure, its export, and loading of earlier results."""
        layout = self.layout
        if not runtime.is_running:  # then it stands beside the progress
            layout.operator("hyper_mocap.look_through_camera", icon="VIEW_CAMERA")
        row = layout.row(align=True)
        row.operator("hyper_mocap.smooth_motion", icon="SMOOTHCURVE")
        row.operator("hyper_mocap.compare_smoothing", text="", icon="ARROW_LEFTRIGHT")
        layout.operator("hyper_mocap.set_height", icon="CON_SIZELIKE")
        layout.operator("hyper_mocap.fit_bones", icon="BONE_DATA")
        layout.operator("hyper_mocap.export_fbx", icon="EXPORT")
        layout.operator("hyper_mocap.import_result", icon="IMPORT")


CLASSES = (HYPER_MOCAP_PT_video, HYPER_MOCAP_PT_recover, HYPER_MOCAP_PT_people, HYPER_MOCAP_PT_result)


def register() -> None:
    """Register the panels in their order."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    """Unregister the panels in reverse."""
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
