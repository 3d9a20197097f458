"""One person of a running job: the figure's handles, its frames, and which channels still have to be keyed."""

from __future__ import annotations

from dataclasses import dataclass, field

import bpy
import numpy as np

from .. import naming
from ..action import KeyWriter
from ..convert import scene_frames_from_times
from . import armature as rig
from .bodydata import BodyData
from .build import FigureBuild
from .frames import FrameStore
from .lookup import Handle, VanishedError, is_in_scene

PERSON = "hyper_mocap_person"
START_FRAME = "hyper_mocap_start_frame"
RATE = "hyper_mocap_scene_fps"
HEIGHT = "hyper_mocap_height_m"
SCALE = "hyper_mocap_scale"
"""Custom property of a figure: its size over that of its result file, once it was given another height."""
SHIFT = "hyper_mocap_shift_m"
"""Custom property of a figure: what is added to the places [3] of its result file (after SCALE), once its bones were
fitted to another shape."""


@dataclass
class Channel:
    """One curve: which property, and which column of which array of the store it shows."""

    path: str
    index: int
    group: str
    source: str
    """Name of the array in FrameStore."""
    column: tuple[int, ...]
    """Index into one frame of it."""
    joint: int = -1
    """Joint whose quaternion this belongs to, else -1."""
    dirty: tuple[int, int] | None = None
    """Source frames first..last that are not keyed yet."""

    def soil(self, first: int, last: int) -> None:
        self.dirty = (first, last) if self.dirty is None else (min(first, self.dirty[0]), max(last, self.dirty[1]))


def make_channels() -> list[Channel]:
    """Root location, 24 rotations, confidence and four foot contacts, in this order."""
    bones = [f'pose.bones["{name}"]' for name in naming.BONE_NAMES]
    root = naming.BONE_NAMES[0]
    channels = [Channel(f"{bones[0]}.location", k, root, "location", (k,)) for k in range(3)]
    for j, bone in enumerate(bones):
        path = f"{bone}.rotation_quaternion"
        channels += [Channel(path, k, naming.BONE_NAMES[j], "quaternions", (j, k), j) for k in range(4)]
    channels.append(Channel(f'["{naming.CONFIDENCE_NAME}"]', 0, "Quality", "confidence", ()))
    for k, name in enumerate(naming.CONTACT_NAMES):
        channels.append(Channel(f'["{name}"]', 0, "Foot Contacts", "contacts", (k,)))
    return channels


@dataclass
class PersonState:
    """Everything the writer keeps of one person; no Blender reference in it."""

    person: int
    betas: np.ndarray
    height_m: float
    first_frame: int | None = None
    """First source frame of the track, if the engine said so: index 0 of a point cache."""
    store: FrameStore = field(default_factory=FrameStore)
    armature: Handle | None = None
    mesh: Handle | None = None
    building: FigureBuild | None = None
    """The figure while it is being built, before it is in the scene."""
    is_built: bool = False
    is_gone: bool = False
    """The figure was deleted; it is not made again."""
    channels: list[Channel] = field(default_factory=make_channels)

    def build(
        self,
        collection: bpy.types.Collection,
        body: BodyData,
        properties: dict,
        *,
        has_armature: bool = True,
        label: str = "",
    ) -> None:
        """Do the next piece of making the figure; at the last one remember its handles. label: see Stage."""
        if self.building is None:
            self.building = FigureBuild(body, self.betas, self.person, has_armature=has_armature, label=label)
        try:
            if self.building.next_piece != "link":
                self.building.step()
                return
            armature, mesh = self.building.link(collection)
        except VanishedError:  # it was not in the scene yet, so nobody deleted it on purpose: begin again
            self.stop_building()
            return
        self.mesh, self.armature, self.building = self.building.mesh, self.building.armature, None
        owner = armature or mesh
        if armature is not None:
            for name in (naming.CONFIDENCE_NAME, *naming.CONTACT_NAMES):
                armature[name] = 0.0
                armature.id_properties_ui(name).update(min=0.0, max=1.0)
        for key, value in {**properties, PERSON: self.person, HEIGHT: self.height_m}.items():
            owner[key] = value
        self.is_built = True

    def stop_building(self) -> None:
        """Remove a figure that is not complete yet."""
        if self.building is not None:
            self.building.discard()
            self.building = None

    def give_up(self) -> None:
        """Its place is gone: it is not made again, and nothing half built stays."""
        self.stop_building()
        self.is_gone = True

    def owner_or_none(self, scene: bpy.types.Scene | None) -> bpy.types.Object | None:
        """Return the armature (or the mesh, if it stands alone) while it is in the scene; else it is gone."""
        if not self.is_built or self.is_gone or scene is None:
            self.is_gone |= self.is_built and scene is None
            return None
        obj = (self.armature or self.mesh).find_or_none()
        if obj is None or not is_in_scene(obj, scene):
            self.is_gone = True
            return None
        return obj

    def restore(self, scene: bpy.types.Scene) -> None:
        """After undo or redo: key all frames anew, and if the figure went with the undo, let it be built again."""
        self.stop_building()
        if self.is_gone or not self.is_built:
            return
        obj = (self.armature or self.mesh).find_or_none()
        if obj is None or not is_in_scene(obj, scene):
            self.is_built, self.armature, self.mesh = False, None, None
        self.store.wait_all()

    def mesh_or_none(self) -> bpy.types.Object | None:
        """Return the body mesh object, or None if it was deleted."""
        return self.mesh.find_or_none() if self.mesh is not None else None

    def convert(self, armature: bpy.types.Object, joints_rest: np.ndarray) -> bool:
        """Turn waiting frames into channel values and mark what must be keyed. False if a bone was deleted."""
        try:
            axes = rig.rest_axes(armature)
        except KeyError:
            self.is_gone = True
            return False
        result = self.store.convert(joints_rest, axes)
        if result is not None:
            first, last, flipped = result
            for channel in self.channels:
                channel.soil(first, last)
                if channel.joint >= 0 and flipped[channel.joint]:
                    channel.soil(first, int(self.store.frames[-1]))
        return True

    @property
    def has_dirty(self) -> bool:
        return any(c.dirty is not None for c in self.channels)

    def write_channel(self, writer: KeyWriter, channel: Channel, start_frame: float, scene_fps: float) -> None:
        """Key what is dirty in one curve."""
        rows = self.store.rows(*channel.dirty)
        frames = scene_frames_from_times(self.store.times[rows], start_frame, scene_fps).astype(np.float32)
        keep = strictly_increasing(frames)
        values = getattr(self.store, channel.source)[(rows, *channel.column)]
        writer.write(channel.path, channel.index, frames[keep], values[keep], group=channel.group)
        channel.dirty = None


def strictly_increasing(frames: np.ndarray) -> np.ndarray:
    """Mask [N] of frames greater than all before them: times that stand still or run back make no second key."""
    if len(frames) == 0:
        return np.zeros(0, dtype=bool)
    highest = np.maximum.accumulate(frames)
    return np.concatenate([[True], frames[1:] > highest[:-1] + 1e-3])
