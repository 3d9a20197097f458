"""From a body and its coarse mesh to what the mesh network is built from."""

from __future__ import annotations

import torch
from torch import Tensor

from core.body import Body
from core.coarse import Coarse
from core.models.hyperbolic import CoarseBody
from core.models.upsample import sparse_rows
from core.skeleton import PARENTS


def coarse_body(body: Body, coarse: Coarse) -> CoarseBody:
    """The part of a body that a new network is built from (float32, CPU)."""
    indices, weights = sparse_rows(torch.from_numpy(coarse.U))
    faces = torch.from_numpy(coarse.faces).int()
    return _assemble(body, torch.from_numpy(coarse.vertex_ids), faces, indices, weights)


def known_coarse_body(body: Body, vertex_ids: Tensor, faces: Tensor) -> CoarseBody:
    """The same for a network whose file holds the lift already: nothing is decimated, and the coarse mesh stays what
    it was where another version of the body would be decimated otherwise.

    vertex_ids [V'] and faces [F', 3] as stored in the file.
    """
    empty = torch.zeros(body.vertex_count, 3)
    return _assemble(body, vertex_ids, faces, empty.long(), empty)


def _assemble(body: Body, ids: Tensor, faces: Tensor, indices: Tensor, weights: Tensor) -> CoarseBody:
    def dense(tensor: Tensor) -> Tensor:
        return tensor.detach().float().cpu()

    return CoarseBody(
        vertex_ids=ids,
        faces=faces,
        lift_indices=indices,
        lift_weights=weights,
        template=dense(body.v_template)[ids],
        joints=dense(body.joint_template),
        parents=PARENTS,
        weights=dense(body.weights)[ids],
        shapedirs=dense(body.shapedirs)[ids],
        joint_shapedirs=dense(body.joint_shapedirs),
    )
