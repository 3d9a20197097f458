"""What a caller may ask of the scene writer, and what it reports back. Plain data, no bpy."""

from __future__ import annotations

from dataclasses import dataclass, field

MODES = ("ARMATURE", "CORRECTIVES", "SHAPE_KEYS", "POINT_CACHE")
"""ARMATURE: bone keys. CORRECTIVES: bone keys and up to 16 corrective shape keys. SHAPE_KEYS: one shape key a
frame, no armature. POINT_CACHE: exact vertices in a PC2 file, bone keys beside it."""
VERTEX_MODES = ("CORRECTIVES", "SHAPE_KEYS", "POINT_CACHE")
"""Modes for which the engine should be asked to send vertices (JobOptions.vertices)."""


@dataclass(frozen=True)
class WriterOptions:
    """How the figure is written."""

    mode: str = "ARMATURE"
    start_frame: int | None = None
    """Scene frame of time 0; None: the scene's first frame."""
    name: str = ""
    """Base name of collection and camera; empty: the video's file name without its ending."""
    method: str = ""
    """Recovery method, kept as a property of the figure."""
    version: str = ""
    """Version of the add-on or engine, kept as a property of the figure."""
    cache_dir: str = ""
    """Folder for point caches while the .blend file is unsaved, and for temporary vertices. Empty: temporary."""
    use_camera: bool = True
    use_background: bool = True
    """Show the video behind the camera."""
    match_fps: bool = False
    """Set the scene's frame rate to the clip's (keeps video and figure together)."""
    match_range: bool = False
    """Let the scene show the clip alone: first frame, last frame and current frame become the clip's. Otherwise the
    scene is only made longer where the clip is."""
    match_resolution: bool = True
    """Set the render size to the clip's, so that the camera frames exactly the picture."""
    shape_key_limit: int = 300
    """Frames beyond which SHAPE_KEYS warns: FBX export of shape keys is quadratic in their number."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} is not one of {', '.join(MODES)}")


@dataclass
class WriterSummary:
    """What `SceneWriter.finish` did."""

    collection: str = ""
    """Name of the collection, or empty if nothing was built or it is gone."""
    people: list[int] = field(default_factory=list)
    frames: int = 0
    """Keyed frames over all people."""
    dropped_frames: int = 0
    """Frames that arrived for people whose figure was deleted meanwhile."""
    camera: str = ""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the user, each once."""
