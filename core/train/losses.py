"""Losses of both training stages. Metres in, scalars out; each is a mean, so batch and mesh size do not scale it.

Paper (section II-D) and PMCE (equation 12): L = L_mesh + L_joint + 0.1 L_normal + 20 L_edge + w_h L_hymesh.
B meshes or frames, V vertices, F triangles, J joints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from core import manifold


def point_loss(predicted: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """L1 between points [..., 3]: L_mesh on vertices, L_joint on joints. weight [...] counts points unequally."""
    error = (predicted - truth).abs().mean(-1)
    return error.mean() if weight is None else (error * weight).sum() / weight.sum().clamp_min(1e-6)


def _edges(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Edge vectors [B, F, 3 edges, 3] of triangles [F, 3]."""
    corners = vertices.index_select(1, triangles.reshape(-1)).unflatten(1, triangles.shape)  # [B, F, 3, 3]
    return corners.roll(-1, dims=2) - corners


def surface_losses(predicted: Tensor, truth: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """L_normal and L_edge between meshes [B, V, 3] with triangles [F, 3].

    L_normal: mean |cosine| between predicted edges and the true normal of their triangle; L_edge: mean difference
    of edge lengths.
    """
    edges, true_edges = _edges(predicted, triangles), _edges(truth, triangles)
    normals = functional.normalize(torch.linalg.cross(true_edges[:, :, 0], true_edges[:, :, 1]), dim=-1, eps=1e-12)
    directions = functional.normalize(edges, dim=-1, eps=1e-6)
    normal = (directions * normals[:, :, None]).sum(-1).abs().mean()
    lengths = (edges.square().sum(-1) + 1e-12).sqrt()
    edge = (lengths - true_edges.norm(dim=-1)).abs().mean()
    return normal, edge


def hyperbolic_mesh_loss(predicted: Tensor, truth: Tensor, *, c: float = 1.0) -> Tensor:
    """L_hymesh: L1 between expmap0(M) and expmap0(M_gt), per vertex. [B, V, 3] metres from the pelvis."""
    return (manifold.expmap0(predicted, c=c) - manifold.expmap0(truth, c=c)).abs().mean()


def velocity_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """L1 between frame-to-frame differences. [B, T, J, 3]."""
    return (predicted.diff(dim=1) - truth.diff(dim=1)).abs().mean()


def rotation_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of rotation matrices [..., 3, 3]."""
    return (predicted - truth).abs().mean()
