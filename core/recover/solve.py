"""Damped Gauss-Newton over all frames of a window at once, and over one shape for a set of frames.

Frames at the start of a window can be held fixed: they belong to the window before and tie this one to it through
the smoothness terms. N frames, J joints, D unknowns per frame; float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.recover import terms
from core.recover.anchor import Anchor, add_anchor
from core.recover.banded import solve_banded
from core.recover.chain import (
    ACTIVE,
    Chain,
    Shaped,
    differentiate_by_shape,
    differentiate_points,
    pose_chain,
    shape_chain,
)
from core.recover.evidence import Evidence
from core.recover.prior import PosePrior
from core.rotation import axis_angle_to_matrix

LARGEST_TURN = 0.6
"""rad a joint may turn in one step."""
FIRST_DAMPING = 1e-4
LEAST_DAMPING = 1e-8
"""Levenberg-Marquardt damping as a share of the diagonal. Depth and size trade off in a narrow valley, along which
more damping crawls."""
GAIN_STOP = 2e-3
"""Relative decrease of the energy below which iterations end."""


@dataclass
class Solution:
    rotmats: Tensor
    """[N, J, 3, 3] local, root in the camera frame."""
    trans: Tensor
    """[N, 3] m."""
    cost: Tensor
    """[N] energy by frame."""
    iterations: int = 0


def assemble(
    shaped: Shaped,
    evidence: Evidence,
    rotmats: Tensor,
    trans: Tensor,
    prior: PosePrior,
    sigmas: terms.Sigmas,
    *,
    smooth: bool = True,
    anchor: Anchor | None = None,
) -> terms.Equations:
    """All terms at one motion."""
    posed = pose_chain(shaped, rotmats, trans)
    jacobian = differentiate_points(shaped, posed, ACTIVE)
    equations = terms.empty_equations(len(trans))
    terms.add_image(equations, posed, jacobian, evidence, sigmas)
    if min(sigmas.direction) < math.inf:
        terms.add_directions(equations, posed, jacobian, evidence.directions, evidence.pair_confidence, sigmas)
    terms.add_balance(equations, posed, jacobian, evidence.upright, sigmas)
    vectors, slopes = terms.rotation_vectors(rotmats)
    strength = torch.full_like(evidence.times, sigmas.prior**-2)
    terms.add_prior(equations, vectors, slopes, prior, strength, sigmas)
    terms.add_limits(equations, vectors, slopes, sigmas)
    terms.add_straight(equations, vectors, slopes, sigmas)
    if smooth:
        terms.add_planting(equations, posed, jacobian, evidence, sigmas)
        terms.add_smoothness(equations, rotmats, trans, evidence.times, sigmas)
    if anchor is not None:
        add_anchor(equations, rotmats, trans, anchor)
    return equations


def step_of(equations: terms.Equations, damping: float, fixed: int) -> Tensor:
    """Solve for the step [N, D]; the first `fixed` frames do not move."""
    N, D = equations.gradient.shape
    diagonal, right = equations.diagonal.clone(), -equations.gradient.clone()
    entries = diagonal.diagonal(dim1=1, dim2=2)
    entries += damping * entries.clamp_min(1.0) + 1e-6
    next1, next2 = (_spread(blocks, D) for blocks in (equations.next1, equations.next2))
    next1 += equations.next1_dense
    if fixed:
        diagonal[:fixed], right[:fixed] = torch.eye(D, dtype=diagonal.dtype), 0
        next1[:fixed], next2[:fixed] = 0, 0
    return solve_banded(diagonal, next1, next2, right)


def _spread(blocks: Tensor, D: int) -> Tensor:
    """[N, B, 3, 3] -> block diagonal [N, D, D] with D = 3 B."""
    N, B = blocks.shape[:2]
    dense = blocks.new_zeros(N, B, 3, B, 3)
    ranks = torch.arange(B)
    dense[:, ranks, :, ranks] = blocks.transpose(0, 1)
    return dense.reshape(N, D, D)


def apply_step(rotmats: Tensor, trans: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """R <- R exp(d) for active joints, trans += the last three; turns are cut at LARGEST_TURN."""
    turn = step[:, :-3].unflatten(1, (-1, 3))
    angle = turn.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    turn = turn * (LARGEST_TURN / angle).clamp_max(1.0)
    moved = rotmats.clone()
    moved[:, list(ACTIVE)] = rotmats[:, list(ACTIVE)] @ axis_angle_to_matrix(turn)
    return moved, trans + step[:, -3:]


def solve_motion(
    shaped: Shaped,
    evidence: Evidence,
    rotmats: Tensor,
    trans: Tensor,
    prior: PosePrior,
    sigmas: terms.Sigmas,
    *,
    iterations: int,
    fixed: int = 0,
    anchor: Anchor | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Solution:
    """Minimise the energy from a first motion (Levenberg-Marquardt with one damping for the window)."""
    damping = FIRST_DAMPING
    equations = assemble(shaped, evidence, rotmats, trans, prior, sigmas, anchor=anchor)
    energy, done = float(equations.cost.sum()), 0
    for done in range(1, iterations + 1):  # noqa: B007
        if should_stop():
            break
        moved = apply_step(rotmats, trans, step_of(equations, damping, fixed))
        trial = assemble(shaped, evidence, *moved, prior, sigmas, anchor=anchor)
        new_energy = float(trial.cost.sum())
        if not new_energy < energy:
            damping *= 10
            if damping > 1e4:
                break
            continue
        gain = (energy - new_energy) / max(energy, 1e-12)
        (rotmats, trans), equations, energy = moved, trial, new_energy
        damping = max(damping / 10, LEAST_DAMPING)
        if gain < GAIN_STOP:
            break
    return Solution(rotmats, trans, equations.cost, done)


def solve_shape(
    chain: Chain,
    evidence: Evidence,
    rotmats: Tensor,
    trans: Tensor,
    prior: PosePrior,
    sigmas: terms.Sigmas,
    *,
    iterations: int,
    effective_frames: float = 6.0,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Shaped, Solution]:
    """One shape and a pose for each of N separate frames (no smoothness), betas with a N(0, 1) prior.

    The detector's errors repeat from frame to frame, so the N frames count as `effective_frames` against the prior on
    the shape. Each frame's pose is eliminated in closed form (Schur complement), which leaves an S x S system.
    """
    N, S = len(evidence), chain.shape_count
    share = min(1.0, effective_frames / N)
    betas = torch.zeros(S, dtype=torch.float64)
    damping = FIRST_DAMPING
    shaped = shape_chain(chain, betas)

    def evaluate(shaped: Shaped, rotmats: Tensor, trans: Tensor) -> tuple[terms.Equations, float]:
        equations = assemble(shaped, evidence, rotmats, trans, prior, sigmas, smooth=False)
        return equations, share * float(equations.cost.sum()) + float(shaped.betas.square().sum()) / 2

    equations, energy = evaluate(shaped, rotmats, trans)
    done = 0
    for done in range(1, iterations + 1):  # noqa: B007
        if should_stop():
            break
        posed = pose_chain(shaped, rotmats, trans)
        mixed, by_shape, gradient = terms.shape_blocks(
            posed,
            differentiate_points(shaped, posed, ACTIVE),
            differentiate_by_shape(chain, posed),
            evidence,
            sigmas,
        )  # [N, D, S], [S, S], [S]
        diagonal = equations.diagonal.clone()
        entries = diagonal.diagonal(dim1=1, dim2=2)
        entries += damping * entries.clamp_min(1.0) + 1e-6
        factor = torch.linalg.cholesky(diagonal)
        solved = torch.cholesky_solve(torch.cat([mixed, equations.gradient[..., None]], 2), factor)
        eye = torch.eye(S, dtype=torch.float64)
        H = share * (by_shape - (mixed.transpose(1, 2) @ solved[..., :-1]).sum(0)) + eye * (1 + damping)
        g = share * (gradient - (mixed.transpose(1, 2) @ solved[..., -1:]).sum(0)[:, 0]) + betas
        change = -torch.linalg.solve(H, g)
        step = -(solved[..., -1] + solved[..., :-1] @ change)
        trial_shape = shape_chain(chain, betas + change)
        moved = apply_step(rotmats, trans, step)
        trial, new_energy = evaluate(trial_shape, *moved)
        if not new_energy < energy:
            damping *= 10
            if damping > 1e4:
                break
            continue
        gain = (energy - new_energy) / max(energy, 1e-12)
        (rotmats, trans), equations, energy, shaped = moved, trial, new_energy, trial_shape
        betas = shaped.betas
        damping = max(damping / 10, LEAST_DAMPING)
        if gain < GAIN_STOP:
            break
    return shaped, Solution(rotmats, trans, equations.cost, done)


def graduated(sigmas: terms.Sigmas, factor: float) -> terms.Sigmas:
    """The same with robust thresholds widened: outliers keep pulling at first, so that a bad start can be left."""
    return replace(
        sigmas,
        image_robust=sigmas.image_robust * factor,
        direction_robust=sigmas.direction_robust * factor,
        planting_robust=sigmas.planting_robust * factor,
    )
