"""hyper_mocap.recover_motion: start a job on the scene's video; in background mode wait for its end."""

from __future__ import annotations

import itertools
from pathlib import Path

import bpy

from ..batch_options import CACHE_NAME
from ..errors import AddonError
from ..hiding import hide_in_the_way
from ..job import State
from ..launch import launch
from ..places import find_engine, job_log, preferences_or_none, results_folder
from ..properties import SMOOTHING_PARTS
from ..runtime import runtime
from ..scene.options import VERTEX_MODES, WriterOptions
from ..videos import portable, video_path
from ..wire import protocol


def collect_job_options(settings, preferences) -> dict:
    """Return the engine's options for a scene's settings; `preferences` may be None."""
    device = settings.device
    if device == "default":
        device = preferences.device if preferences else "auto"
    options = {
        "method": settings.method,
        "quality": settings.quality,
        "refine": settings.refine,
        "person": "all" if bpy.app.background else settings.people,
        "max_people": settings.max_people,
        "device": device,
        "smoothing_s": round(settings.smoothing, 4),
        "lock_feet": settings.lock_feet,
        "panning": settings.panning,
        "vertices": settings.mode in VERTEX_MODES,
        "out_dir": str(_folder_of_its_own(results_folder(), Path(video_path(settings)).stem)),
        "cache_dir": str(results_folder() / CACHE_NAME),
        "resume": True,  # what was cancelled goes on where it stopped, if clip and options are the same
    }
    by_limb = _smoothing_by_limb(settings)
    if by_limb:
        options["smoothing_by_limb"] = by_limb
    if settings.use_focal:
        options["focal_mm"] = round(settings.focal_mm, 3)
    if settings.use_height:
        options["height_m"] = round(settings.height, 4)
    if preferences and preferences.body_path:
        options["body"] = bpy.path.abspath(preferences.body_path)
    if settings.video_fps > 0:  # the engine counts seconds, so that it agrees on clips of varying rate
        if settings.frame_first > 1:
            options["start"] = (settings.frame_first - 1) / settings.video_fps
        if settings.frame_last < settings.video_frames:
            options["end"] = settings.frame_last / settings.video_fps
    return options


def _folder_of_its_own(root: Path, name: str) -> Path:
    """Return the first folder NAME, NAME 2, NAME 3, ... without results: a figure is smoothed from its file later on,
    so another job, or another clip of that name, must not write over it."""
    names = itertools.chain([name], (f"{name} {number}" for number in itertools.count(2)))
    return next(root / name for name in names if not any((root / name).glob("*.npz")))


def _smoothing_by_limb(settings) -> dict[str, float]:
    """Seconds of the parts whose share of the smoothing is not the whole."""
    shares = {part: getattr(settings, f"smoothing_{part}") for part in SMOOTHING_PARTS}
    return {
        part: round(min(settings.smoothing * share, protocol.LONGEST_SMOOTHING_S), 4)
        for part, share in shares.items()
        if share != 1
    }


class HYPER_MOCAP_OT_recover_motion(bpy.types.Operator):
    """Recover the motion of the people in the video; the figure appears on the timeline while it runs"""

    bl_idname = "hyper_mocap.recover_motion"
    bl_label = "Recover Motion"
    bl_options = {"REGISTER"}  # the runtime pushes one undo step when the job is over

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a video, an engine, and no other job."""
        if runtime.is_running:
            cls.poll_message_set("A job is running: wait for it or cancel it")
            return False
        if context.scene.hyper_mocap.clip is None:
            cls.poll_message_set("Import a video first")
            return False
        problem = runtime.engine_problem()
        if problem:
            cls.poll_message_set(problem)
            return False
        return True

    def execute(self, context):
        """Start the job; in background mode wait for its end."""
        settings, preferences = context.scene.hyper_mocap, preferences_or_none()
        video = Path(video_path(settings))
        if not video.exists():
            self.report({"ERROR"}, f"The video {video} is gone: import it again")
            return {"CANCELLED"}
        if Path(bpy.path.abspath(settings.clip.filepath)) != video:  # it has moved with the .blend
            settings.clip.filepath = portable(str(video))
        hidden = hide_in_the_way(context.view_layer, str(video))
        try:
            session = launch(
                context.scene,
                str(video),
                python=find_engine(),
                job_options=collect_job_options(settings, preferences),
                writer_options=WriterOptions(
                    mode=settings.mode,
                    method=settings.method,
                    use_camera=settings.use_camera,
                    use_background=settings.use_background,
                ),
                log=job_log(),
            )
        except AddonError as error:
            hidden.show(context.view_layer)
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        runtime.follow_job(session, video.name, hidden)
        if hidden.told:
            self.report({"INFO"}, f"Hidden meanwhile and kept: {', '.join(hidden.told)}")
        if not bpy.app.background:
            return {"FINISHED"}
        session.run_blocking()
        runtime.close_job()
        status = session.status
        if session.job.state is State.FAILED:
            self.report({"ERROR"}, status.error)
            return {"FINISHED"} if status.frames else {"CANCELLED"}
        self.report({"INFO"}, f"Recovered {status.frames} frames in {session.seconds:.0f} s")
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_recover_motion)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_recover_motion)
