"""One figure built in small pieces, so that no tick of the timer is long: mesh, armature, weights, shape keys.

Objects are linked into the collection by the last piece, so that a figure appears only when it is whole. Between two
pieces anything may happen: datablocks are looked up anew in each, and `VanishedError` says that one is gone.
"""

from __future__ import annotations

from collections.abc import Iterator

import bpy
import numpy as np

from .. import naming
from ..convert import rest_to_blender
from . import armature as rig
from . import figure
from .bodydata import BodyData
from .lookup import Handle, mark


class FigureBuild:
    """Builds the figure of one person. `step` until it returns False; then `armature` and `mesh` are its handles.

    Without armature the mesh has the person's shape baked in: its vertices will be given frame by frame.
    """

    def __init__(
        self, body: BodyData, betas: np.ndarray, person: int, *, has_armature: bool = True, label: str = ""
    ) -> None:
        self.armature: Handle | None = None
        self.mesh: Handle | None = None
        self.next_piece = "mesh"
        """Kind of the piece that `step` will do."""
        self._body, self._betas, self._person, self._has_armature = body, betas, person, has_armature
        self._title = f"Person {person + 1}{label}"
        self._pieces = self._run()

    def step(self) -> bool:
        """Do one piece; False if only linking is left. VanishedError if a part of the figure is gone."""
        self.next_piece = next(self._pieces, "link")
        return self.next_piece != "link"

    def link(self, collection: bpy.types.Collection) -> tuple[bpy.types.Object | None, bpy.types.Object]:
        """The last piece: let the figure appear in the collection. Returns (armature object or None, mesh object)."""
        obj = self.mesh.find()
        if self.armature is None:
            collection.objects.link(obj)
            return None, obj
        armature = self.armature.find()
        collection.objects.link(armature)
        collection.objects.link(obj)
        obj.parent = armature
        modifier = obj.modifiers.new("Armature", "ARMATURE")
        modifier.object = armature
        modifier.use_deform_preserve_volume = False
        return armature, obj

    def discard(self) -> None:
        """Remove what is there of a figure that will not be completed."""
        blocks = []
        for handle in (self.mesh, self.armature):
            obj = handle.find_or_none() if handle is not None else None
            if obj is not None:
                blocks += [obj, obj.data, *(slot.material for slot in obj.material_slots if slot.material)]
        bpy.data.batch_remove(blocks)

    def _run(self) -> Iterator[str]:
        """Yield the name of the piece that follows."""
        body, title = self._body, self._title
        mesh = figure.new_mesh(f"{title} Body", body)
        obj = bpy.data.objects.new(f"{title} Body" if self._has_armature else title, mesh)
        self.mesh = mark(obj, "objects")
        obj.color = (*figure.COLOURS[self._person % len(figure.COLOURS)], 1.0)
        yield "uv"
        figure.add_uv(self.mesh.find().data, body)
        yield "edges"
        self.mesh.find().data.update(calc_edges=True)
        yield "validate"
        mesh = self.mesh.find().data
        mesh.validate()
        mesh.shade_smooth()
        yield "material"
        self.mesh.find().data.materials.append(figure.build_material(title, self._person))
        if not self._has_armature:
            yield "shape"
            mesh = self.mesh.find().data
            figure.set_points(mesh.vertices, rest_to_blender(body.rest_vertices(self._betas)))
            mesh.update()
            return
        yield "armature"
        armature = rig.build_armature(title, body.rest_joints(self._betas))
        self.armature = mark(armature, "objects")
        rig.store_joints(armature, body.joints, body.joint_shapedirs, self._betas)
        for joint in range(naming.JOINT_COUNT):
            yield "weights"
            figure.add_weights(self.mesh.find(), body, joint)
        yield "shape key"
        figure.add_basis(self.mesh.find())
        for k in range(body.shape_count):
            yield "shape key"
            figure.add_shape_key(self.mesh.find(), body, self._betas, k)
