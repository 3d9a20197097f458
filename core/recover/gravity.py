"""How far the camera looks down, from how well people standing upright explain the picture.

One picture of one person says little of the camera's pitch: leaning towards a level camera looks almost like standing
before one that looks down. What differs is perspective and what a body can do; over frames spread through a clip the
energy of the fit has a clear minimum in the pitch. On renderings with a known camera that minimum errs by 6 degrees
(1 sigma; guessing "level" errs by 10) and lies some degrees low, as the detector makes people lean forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from core.recover.chain import Chain
from core.recover.evidence import Evidence
from core.recover.prior import PosePrior
from core.recover.solve import solve_shape
from core.recover.terms import Sigmas
from core.rotation import axis_angle_to_matrix

CANDIDATES = (0.0, 0.14, 0.28, -0.14)
"""rad; each is solved from the solution of one before (`STARTS`)."""
STARTS = (None, 0, 1, 0)
ITERATIONS = (6, 3, 3, 3)
LOW_BIAS = 0.07
"""rad the minimum lies under the truth."""
BELIEF = 0.9
"""Pull towards a level camera: error of the estimate against the spread of cameras."""
LARGEST = 0.45
DETECTOR_SHARE = 0.8
"""Part of the camera's pitch that the detector undoes in its landmarks: it sees people upright."""


def pitch_evidence(evidence: Evidence, pitch: float) -> Evidence:
    """Evidence (read for a level camera) under a camera that looks down by `pitch` rad."""
    turn, landmark_turn = (
        axis_angle_to_matrix(torch.tensor([-angle, 0.0, 0.0], dtype=torch.float64))
        for angle in (pitch, DETECTOR_SHARE * pitch)
    )
    upright = turn @ torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    return replace(
        evidence,
        points=evidence.points @ landmark_turn.T,
        directions=evidence.directions @ landmark_turn.T,
        upright=upright.expand(len(evidence), 3),
    )


def estimate_pitch(
    chain: Chain,
    evidence: Evidence,
    rotmats: Tensor,
    trans: Tensor,
    prior: PosePrior,
    sigmas: Sigmas,
    should_stop: Callable[[], bool] = lambda: False,
) -> float:
    """Pitch in rad, positive looking down, from frames spread over a clip and a first motion for them."""
    solutions, energies = [], []
    for pitch, start, iterations in zip(CANDIDATES, STARTS, ITERATIONS):
        if start is not None:
            rotmats, trans = solutions[start].rotmats, solutions[start].trans
        _, solution = solve_shape(
            chain,
            pitch_evidence(evidence, pitch),
            rotmats,
            trans,
            prior,
            sigmas,
            iterations=iterations,
            should_stop=should_stop,
        )
        solutions.append(solution)
        energies.append(float(solution.cost.sum()))
    curve, slope, _ = np.polyfit(CANDIDATES, energies, 2)
    if curve <= 0:
        return 0.0
    lowest = -slope / (2 * curve) + LOW_BIAS
    return float(np.clip(BELIEF * lowest, -LARGEST, LARGEST))
