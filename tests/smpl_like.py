"""A small stand-in for official SMPL files, which may not be shipped: SMPL's format and sizes, random contents."""

from __future__ import annotations

import numpy as np

from core.skeleton import PARENTS

VERTICES = 6890
TRIANGLES = 13776


def smpl_like(
    seed: int = 0, *, betas: int = 10, joints: int = 24, pose_correctives: bool = False
) -> dict[str, np.ndarray]:
    """Arrays named and shaped as in basicmodel_neutral_lbs_10_207_0_v1.1.0;
    every array but posedirs is always there."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((VERTICES, joints))
    rows = np.arange(VERTICES)[:, None]
    picks = np.argsort(rng.random((VERTICES, joints)), 1)[:, :4]
    weights[rows, picks] = rng.dirichlet(np.ones(4), VERTICES)
    regressor = np.zeros((joints, VERTICES))
    for row in regressor:
        row[rng.choice(VERTICES, 30, replace=False)] = rng.dirichlet(np.ones(30))
    parents = np.arange(-1, joints - 1)
    parents[: min(24, joints)] = PARENTS[: min(24, joints)]
    data = {
        "v_template": rng.normal(size=(VERTICES, 3)) * 0.3,
        "shapedirs": rng.normal(size=(VERTICES, 3, betas)) * 0.01,
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.stack([parents, np.arange(joints)]).astype(np.int64),
        "f": rng.integers(0, VERTICES, (TRIANGLES, 3)).astype(np.uint32),
    }
    if pose_correctives:
        data["posedirs"] = rng.normal(size=(VERTICES, 3, 9 * (joints - 1))) * 0.002
    return data
