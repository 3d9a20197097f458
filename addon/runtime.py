"""What runs at the moment: at most one job and one build, and the timer that serves both. Nothing outlives it.

The timer is an application timer and not a modal operator: a modal one would keep autosave waiting for as long as a
job runs, and end with its window. It is registered when a job or build starts and ends itself when neither runs.
Loading another file ends the job, as its scene is gone; undo and redo do not, as their steps know nothing of it; and
disabling the add-on and quitting Blender end everything.
"""

from __future__ import annotations

import atexit
import logging
import time

import bpy
from bpy.app.handlers import persistent

from .engine_build import EngineBuild
from .errors import AddonError
from .figures import remove_collection, remove_unchosen
from .hiding import Hidden
from .job import State
from .places import find_engine
from .session import TICK_SECONDS, Session
from .viewport import FirstLook

BUSY_INTERVAL_S = 0.02
IDLE_INTERVAL_S = 0.1
REDRAW_SECONDS = 0.2
SHARE_OF_WAIT = 0.2
LONGEST_TICK_SECONDS = 0.1
"""Where Blender itself takes long between two ticks, as with heavy scenes, a tick may take this share of it, up to
that long: otherwise a job would lag behind its engine more and more."""
LOOK_SECONDS = 2.0
"""How long the panel believes what it knows about the engine's files."""
REDRAWN_AREAS = {"VIEW_3D", "DOPESHEET_EDITOR", "GRAPH_EDITOR", "PREFERENCES"}
log = logging.getLogger(__name__)


class Runtime:
    """The one instance is `runtime`."""

    def __init__(self) -> None:
        self.session: Session | None = None
        """The running job, or the last one, whose outcome the panel shows until it is dismissed."""
        self.job_title = ""
        self.build: EngineBuild | None = None
        self.notice = ""
        """An error that belongs to no job, shown like a job's."""
        self.checked_python = ""
        """The preferences' Engine Python for which Check Engine found everything."""
        self._engine_problem: tuple[float, str] = (0.0, "")
        self._hidden = Hidden()
        """What was put out of sight for the running job; a job without a frame shows it again."""
        self._first_look: FirstLook | None = None
        """Turns a viewport to the job's camera; None once that is done, and in background mode."""
        self._redrawn_at = 0.0
        self._served_at = 0.0

    @property
    def is_running(self) -> bool:
        """True while a job runs."""
        return self.session is not None and not self.session.is_over

    @property
    def is_building(self) -> bool:
        """True while the environment is being built."""
        return self.build is not None and not self.build.is_over

    def engine_problem(self) -> str:
        """Return why no job can start, or an empty string. Looks at most every few seconds, so panels may ask."""
        looked_at, problem = self._engine_problem
        if time.monotonic() - looked_at > LOOK_SECONDS:
            try:
                find_engine()
                problem = ""
            except (AddonError, OSError) as error:
                problem = str(error)
            self._engine_problem = (time.monotonic(), problem)
        return problem

    def forget_engine(self) -> None:
        """Look again at the next question: something about the engine has changed, so what was said may be wrong."""
        self._engine_problem = (0.0, "")
        self.checked_python = self.notice = ""
        self._redraw(force=True)

    def note(self, text: str) -> None:
        """Show an error that belongs to no job wherever the add-on is drawn; an empty text takes it away."""
        self.notice = text
        self._redraw(force=True)

    def follow_job(self, session: Session, title: str, hidden: Hidden) -> None:
        """Serve this session from the timer until it is over. `hidden`: what it may replace."""
        self.session, self.job_title, self.notice, self._hidden = session, title, "", hidden
        self._first_look = None if bpy.app.background else FirstLook(bpy.context.window_manager.windows)
        self._served_at = 0.0
        bpy.context.window_manager.hyper_mocap.people.clear()
        _ensure_timer()

    def follow_build(self, build: EngineBuild) -> None:
        """Show this build's progress until it is over."""
        self.build, self.notice = build, ""
        _ensure_timer()

    def dismiss(self) -> None:
        """Forget the outcome of the last job and build."""
        self.notice = ""
        if not self.is_running:
            self.session = None
        if not self.is_building:
            self.build = None

    def end_job(self) -> None:
        """End a running job now; what is written stays."""
        if self.session is not None:
            try:
                self.session.abort()
            except ReferenceError:  # the scene it wrote into is already gone
                log.debug("job ended without its scene", exc_info=True)
        self.session = None

    def end_all(self) -> None:
        """End job and build, stop the timer. For unregistering and quitting."""
        self.end_job()
        if self.is_building:
            self.build.cancel()
            self.build.join(3.0)
        self.build, self.notice = None, ""

    def serve(self) -> float | None:
        """Do one tick for whatever runs; return the seconds until the next one, None to stop."""
        was_running = self.is_running
        if was_running:
            self.session.tick(self._budget_s())
            self._show_people()
            self._look_once()
            if self.session.is_over:
                self.close_job()
        if self.build is not None and self.build.is_over:
            self.forget_engine()
        self._redraw(force=was_running and not self.is_running)
        self._served_at = time.monotonic()
        if not (self.is_running or self.is_building):
            return None
        return BUSY_INTERVAL_S if self.is_running and self.session.is_busy else IDLE_INTERVAL_S

    def close_job(self) -> None:
        """After the end: a figure without a frame or chosen away goes, anything else becomes one undo step."""
        session = self.session
        collection = getattr(session.summary, "collection", "")
        if not session.status.frames:
            remove_collection(collection)
            self._hidden.show(bpy.context.view_layer)
            return
        if session.job.state is State.DONE:
            remove_unchosen(collection, session.status.people)
        windows = bpy.context.window_manager.windows
        if windows:
            with bpy.context.temp_override(window=windows[0]):
                bpy.ops.ed.undo_push(message="Recover Motion")

    def _budget_s(self) -> float:
        """Return how long a tick may take: less than is noticed, or a share of what Blender took since the last."""
        waited = time.monotonic() - self._served_at if self._served_at else 0.0
        return min(max(TICK_SECONDS, SHARE_OF_WAIT * (waited - IDLE_INTERVAL_S)), LONGEST_TICK_SECONDS)

    def _look_once(self) -> None:
        """Turn a viewport to the figure when its first frames are there."""
        if self._first_look is None or not self.session.status.frames:
            return
        camera = self.session.sink.camera_or_none()
        if camera is not None:
            self._first_look.turn(bpy.context.window_manager.windows, camera)
            self._first_look = None

    def _show_people(self) -> None:
        """Bring the list in step with what the engine says, keeping the user's ticks."""
        rows = bpy.context.window_manager.hyper_mocap.people
        people = self.session.status.people
        if [(row.person, row.last) for row in rows] == [(p["person"], p["last"]) for p in people]:
            return
        unticked = {row.person for row in rows if not row.use}
        rows.clear()
        for found in people:
            row = rows.add()
            row.name = f"Person {found['person'] + 1}"
            row.person, row.first, row.last = found["person"], found["first"], found["last"]
            row.confidence = found["confidence"]
            row.use = found["person"] not in unticked

    def _redraw(self, *, force: bool) -> None:
        now = time.monotonic()
        if not force and now - self._redrawn_at < REDRAW_SECONDS:
            return
        self._redrawn_at = now
        for window in bpy.context.window_manager.windows:
            for area in window.screen.areas:
                if area.type in REDRAWN_AREAS:
                    area.tag_redraw()


runtime = Runtime()


def _tick() -> float | None:
    return runtime.serve()


def _ensure_timer() -> None:
    if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=0.0, persistent=True)


@persistent
def _on_load_pre(*_arguments: object) -> None:
    runtime.end_job()


@persistent
def _on_undo_or_redo(*_arguments: object) -> None:
    if runtime.is_running:
        runtime.session.sink.restore()


def register() -> None:
    """Install the handlers."""
    bpy.app.handlers.load_pre.append(_on_load_pre)
    bpy.app.handlers.undo_post.append(_on_undo_or_redo)
    bpy.app.handlers.redo_post.append(_on_undo_or_redo)
    atexit.register(runtime.end_all)


def unregister() -> None:
    """End everything and take the handlers and the timer away."""
    runtime.end_all()
    atexit.unregister(runtime.end_all)
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    bpy.app.handlers.redo_post.remove(_on_undo_or_redo)
    bpy.app.handlers.undo_post.remove(_on_undo_or_redo)
    bpy.app.handlers.load_pre.remove(_on_load_pre)
