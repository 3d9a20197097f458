"""The underside of the feet: which vertices can be the lowest, and where heel and toe are when the body stands.

F foot vertices, S chosen ones.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from core.contacts import CONTACT_KEYPOINTS
from core.recover.chain import Chain, build_chain
from core.skeleton import JOINT_NAMES

FOOT_JOINTS = tuple(
    tuple(JOINT_NAMES.index(f"{side}_{part}") for part in ("ankle", "foot")) for side in ("left", "right")
)
"""Joints whose vertices are a foot's, left and right."""
ELEVATIONS = (-90.0, -60.0, -30.0, 0.0, 30.0, 60.0)
"""degrees: which ways down are tried, seen from a foot that stands flat: one on its toes points straight down, one
that pushes off even backward."""
AZIMUTHS = 8


def foot_vertices(body) -> list[np.ndarray]:
    """Vertices of the left and of the right foot."""
    weights = torch.as_tensor(body.weights).cpu()
    return [(weights[:, list(joints)].sum(-1) > 0.5).nonzero()[:, 0].numpy() for joints in FOOT_JOINTS]


def sole_vertices(body) -> list[np.ndarray]:
    """Few vertices [S] of each foot, those of the mean shape at rest that are farthest out in each way down."""
    template = torch.as_tensor(body.v_template).cpu().double().numpy()
    ways = []
    for elevation in np.radians(ELEVATIONS):
        turns = np.arange(AZIMUTHS) * (2 * np.pi / AZIMUTHS)
        level = np.cos(elevation)
        ways.append(np.stack([level * np.sin(turns), np.full(AZIMUTHS, np.sin(elevation)), level * np.cos(turns)], 1))
    chosen = []
    for ids in foot_vertices(body):
        farthest = (template[ids] @ np.concatenate(ways).T).argmax(0)
        chosen.append(np.unique(ids[farthest]))
    return chosen


def build_sole_chain(body) -> tuple[Chain, np.ndarray]:
    """A chain whose points are the 25 keypoints, then the sole vertices; and the foot (0 left, 1 right) [S] of
    each of those."""
    soles = sole_vertices(body)
    regressor = torch.as_tensor(body.keypoint_regressor).detach().cpu()
    regressor = (regressor.to_dense() if regressor.layout != torch.strided else regressor).double()
    picks = torch.zeros(sum(map(len, soles)), regressor.shape[1], dtype=torch.float64)
    picks[torch.arange(len(picks)), torch.from_numpy(np.concatenate(soles))] = 1
    points = SimpleNamespace(
        keypoint_regressor=torch.cat([regressor, picks]),
        weights=body.weights,
        v_template=body.v_template,
        shapedirs=body.shapedirs,
        joint_template=body.joint_template,
        joint_shapedirs=body.joint_shapedirs,
    )
    return build_chain(points), np.repeat([0, 1], [len(ids) for ids in soles])


def standing_keypoints(body, betas: np.ndarray) -> np.ndarray:
    """Contact keypoints [4, 3] m of a body at rest, y up, y = 0 at its sole."""
    with torch.no_grad():
        like = dict(dtype=body.v_template.dtype, device=body.v_template.device)
        betas = torch.as_tensor(betas, **like)
        eye = torch.eye(3, **like).expand(1, 24, 3, 3)
        points = body.keypoints(eye, betas, torch.zeros(1, 3, **like))[0, list(CONTACT_KEYPOINTS)]
        points[:, 1] -= body.rest_vertices(betas)[:, 1].min()
    return points.double().cpu().numpy()


def sole_heights(body, betas: np.ndarray) -> np.ndarray:
    """Height [4] m of the contact keypoints above the sole of a standing body."""
    return standing_keypoints(body, betas)[:, 1]


def foot_lengths(body, betas: np.ndarray) -> np.ndarray:
    """Level distance [2] m from heel to toe keypoint of each foot of a standing body."""
    points = standing_keypoints(body, betas)[:, [0, 2]]
    return np.linalg.norm(points[1::2] - points[::2], axis=-1)
