"""Rigid moves of a whole motion, SMPL's way: trans moves the body after it turned about the rest root joint j0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from core.records import CameraMotion


def move_root(
    motion: CameraMotion, body, R: np.ndarray, t: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Local rotations [N, 24, 3, 3] and trans [N, 3] m of a motion in other axes, x' = R x + t; float64.

    R [N, 3, 3], t [N, 3]: trans' = R (j0 + trans) + t - j0.
    """
    rotmats = motion.rotmats.astype(np.float64)
    rotmats[:, 0] = R @ rotmats[:, 0]
    with torch.no_grad():
        betas = torch.as_tensor(motion.betas, dtype=body.v_template.dtype, device=body.v_template.device)
        root = body.rest_joints(betas)[0].cpu().double().numpy()
    return rotmats, np.einsum("nab,nb->na", R, root + motion.trans) + t - root


def turn_motion(motion: CameraMotion, R: np.ndarray, body) -> CameraMotion:
    """The motion in other axes, x' = R x: R [N, 3, 3]."""
    rotmats, trans = move_root(motion, body, R)
    return replace(motion, rotmats=rotmats.astype(np.float32), trans=trans.astype(np.float32))
