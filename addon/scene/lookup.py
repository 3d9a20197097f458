"""Finds the writer's datablocks again, whatever happened in between.

References die with undo and with loading a file, and names can be taken by something else, so every datablock of a
figure carries a token of its own in a custom property: unknown tokens mean that the datablock is gone. (Session ids
would do from 4.4 on; 4.2 does not show them to Python.)
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import bpy

TOKEN = "hyper_mocap_token"


class VanishedError(LookupError):
    """A datablock that work goes on with was deleted or undone meanwhile. Caught by whoever goes on with it."""


@dataclass(frozen=True)
class Handle:
    """Where a datablock was, and how to recognise it: safe to keep over any call."""

    table: str
    """Name of the list in bpy.data, such as "objects"."""
    name: str
    token: str

    def find_or_none(self):
        """Return the datablock, or None if it was deleted, undone, or belongs to a file that is no longer open."""
        table = getattr(bpy.data, self.table)
        first = table.get(self.name)
        if first is not None and first.get(TOKEN) == self.token:
            return first
        return next((block for block in table if block.get(TOKEN) == self.token), None)

    def find(self):
        """Return the datablock. VanishedError if it is gone."""
        block = self.find_or_none()
        if block is None:
            raise VanishedError(self.name)
        return block


def remark(handle: Handle) -> bool:
    """Give the token back to the datablock of that name, which lost it to an undo; False if there is none."""
    block = handle.find_or_none() or getattr(bpy.data, handle.table).get(handle.name)
    if block is None or block.get(TOKEN, handle.token) != handle.token:
        return False
    block[TOKEN] = handle.token
    return True


def mark(block: bpy.types.ID, table: str) -> Handle:
    """Give a datablock a new token and return its handle."""
    token = uuid4().hex
    block[TOKEN] = token
    return Handle(table, block.name, token)


def is_in_scene(obj: bpy.types.Object, scene: bpy.types.Scene) -> bool:
    """Whether the object is still linked into the scene: deleting in the viewport only unlinks it."""
    return scene.objects.get(obj.name) == obj or any(o == obj for o in scene.objects)
