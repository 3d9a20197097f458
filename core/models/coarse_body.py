"""From a body and its coarse mesh to what the mesh network is built from."""

from __future__ import annotations

import torch

from core.body import Body
from core.coarse import Coarse
from core.models.hyperbolic import CoarseBody
from core.skeleton import PARENTS


def coarse_body(body: Body, coarse: Coarse) -> CoarseBody:
    """The part of a body that the mesh network is built from (float32, CPU)."""

    def dense(tensor: torch.Tensor) -> torch.Tensor:
        return (tensor.to_dense() if tensor.is_sparse else tensor).detach().float().cpu()

    U = dense(torch.as_tensor(coarse.U))
    ids = dense(torch.as_tensor(coarse.D)).argmax(1)
    return CoarseBody(
        U=U,
        template=dense(body.v_template)[ids],
        joints=dense(body.joint_template),
        parents=PARENTS,
        weights=dense(body.weights)[ids],
        shapedirs=dense(body.shapedirs)[ids],
        joint_shapedirs=dense(body.joint_shapedirs),
    )
