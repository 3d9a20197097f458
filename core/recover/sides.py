"""Settle left and right over time: the detector exchanges them, for single frames or for dozens.

A detector that takes a front for a back exchanges all sides and turns depth inside out: mirrored in depth, its
landmarks fit again. One that confuses the legs of a person seen from the side exchanges their places in the picture.
Both show as a jump where the exchange begins and ends. Each frame is in one of four states (upper body exchanged or
not, legs exchanged or not); the most coherent sequence is found exactly by dynamic programming over pairs of
neighbouring states, so that crossing limbs keep their speed. Most frames are right, so that states other than "as
detected" cost a little. N frames, K keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.recover.evidence import Evidence, assemble_evidence
from core.skeleton import KEYPOINT_MIRROR, KEYPOINT_NAMES

STATES = ((False, False), (True, True), (True, False), (False, True))
"""(upper exchanged, legs exchanged)."""
LEGS = torch.tensor([name.split("_")[-1] in ("hip", "knee", "ankle", "heel", "toe") for name in KEYPOINT_NAMES])
PAIRED = torch.tensor([mirror != k for k, mirror in enumerate(KEYPOINT_MIRROR)])


@dataclass(frozen=True)
class SideCosts:
    state: tuple[float, ...] = (0.0, 0.4, 5.0, 3.0)
    """Cost per frame of each of STATES."""
    change: float = 12.0
    """Cost of going from one state to another."""
    jump_2d: float = 0.12
    """m: standard deviation of a keypoint's change of place in the picture's plane from one frame to the next, after
    its speed is taken off."""
    jump_3d: float = 0.12
    """m: the same for landmarks, whose speed is not taken off."""
    believed_speed: float = 0.15
    """m per frame that is taken off at most: a jump is no speed."""
    twist: float = 30.0
    """Cost of hips turned half round against the shoulders."""
    cap: float = 6.0
    """Most one keypoint may cost."""


def candidate_points(evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
    """What each state makes of the evidence: (rays [S, N, K, 2], points [S, N, K, 3], confidence [S, N, K])."""
    mirror = list(KEYPOINT_MIRROR)
    rays, points, confidence = [], [], []
    for upper, legs in STATES:
        exchanged = torch.where(LEGS, torch.tensor(legs), torch.tensor(upper)) & PAIRED  # [K]
        where = exchanged[None, :, None]
        swapped = evidence.points[:, mirror]
        if upper and legs:
            place = swapped * torch.tensor([1.0, 1.0, -1.0], dtype=swapped.dtype)
            place = torch.where(PAIRED[None, :, None], place, evidence.points * place.new_tensor([1.0, 1.0, -1.0]))
        else:
            place = torch.cat([swapped[..., :2], evidence.points[..., 2:]], -1)
            place = torch.where(where, place, evidence.points)
        rays.append(torch.where(where, evidence.rays[:, mirror], evidence.rays))
        confidence.append(torch.where(exchanged[None], evidence.confidence[:, mirror], evidence.confidence))
        points.append(place)
    return torch.stack(rays), torch.stack(points), torch.stack(confidence)


def settle_sides(evidence: Evidence, depth: Tensor, costs: SideCosts = SideCosts()) -> tuple[Evidence, Tensor]:
    """Evidence with sides exchanged where that makes the motion coherent, and the state of each frame [N] int.

    depth [N] m: rough distance of the person, to compare pixels with metres. Unusable frames keep state 0.
    """
    states = torch.zeros(len(evidence), dtype=torch.long)
    known = evidence.usable.nonzero().squeeze(1)
    if len(known) >= 3:
        states[known] = _best_sequence(evidence[known], depth[known], costs)
    if not states.any():
        return evidence, states
    rays, points, confidence = candidate_points(evidence)
    index = torch.arange(len(evidence))
    # an exchanged frame's landmarks were a mistake: believe them less
    belief = torch.where(states == 0, 1.0, 0.4).to(torch.float64)
    changed = assemble_evidence(
        evidence.times,
        rays[states, index],
        confidence[states, index],
        points[states, index],
        evidence.usable,
        evidence.upright,
    )
    return replace(changed, pair_confidence=changed.pair_confidence * belief[:, None]), states


def _best_sequence(evidence: Evidence, depth: Tensor, costs: SideCosts) -> Tensor:
    """Viterbi over pairs (state of t-1, state of t): [N] states of frames that are all usable."""
    N, S = len(evidence), len(STATES)
    rays, points, confidence = candidate_points(evidence)
    scale = depth.median()
    places = rays * scale  # [S, N, K, 2] m
    step = (evidence.times[1:] - evidence.times[:-1]).clamp_min(1e-3)
    slack = (step * 30).sqrt()  # a longer step may move farther
    # first-order cost of landmarks, [N-1, S, S]
    jump = points[None, :, 1:] - points[:, None, :-1]  # [from, to, N-1, K, 3]
    sure = torch.minimum(confidence[None, :, 1:], confidence[:, None, :-1])
    cost_3d = (jump.square().sum(-1) / (costs.jump_3d * slack[:, None]) ** 2).clamp_max(costs.cap)
    first = (cost_3d * sure).sum(-1).permute(2, 0, 1)
    unary = torch.tensor(costs.state, dtype=first.dtype) + costs.twist * _twists(points)  # [N, S]
    first = first + unary[1:, None]
    first = first + costs.change * (1 - torch.eye(S, dtype=first.dtype))
    # second-order cost of image places, [N-2, S, S, S]: against the speed of the step before
    ratio = (step[1:] / step[:-1]).clamp(0.3, 3.0)[:, None, None]
    speed = (places[None, :, 1:-1] - places[:, None, :-2]) * ratio  # [a, b, N-2, K, 2]
    speed = speed * (costs.believed_speed / speed.norm(dim=-1, keepdim=True).clamp_min(costs.believed_speed))
    error = places[None, None, :, 2:] - (places[None, :, None, 1:-1] + speed[:, :, None])  # [a, b, c, N-2, K, 2]
    sure = torch.minimum(confidence[None, None, :, 2:], confidence[None, :, None, 1:-1])
    cost_2d = (error.square().sum(-1) / (costs.jump_2d * slack[1:, None]) ** 2).clamp_max(costs.cap)
    second = (cost_2d * sure).sum(-1).permute(3, 0, 1, 2)
    total = unary[0][:, None] + first[0]  # [a, b]
    back = []
    for t in range(N - 2):
        options = total[:, :, None] + second[t] + first[t + 1][None]  # [a, b, c]
        total, best = options.min(0)
        back.append(best)
    flat = int(total.argmin())
    path = [flat % S, flat // S]  # state of N-1, then of N-2
    for best in reversed(back):
        path.append(int(best[path[-1], path[-2]]))
    return torch.tensor(path[::-1])


def _twists(points: Tensor) -> Tensor:
    """How far hips and shoulders face apart, 0 (alike) .. 1 (opposite): points [S, N, K, 3] -> [N, S]."""
    ends = [
        points[:, :, KEYPOINT_NAMES.index(f"left_{name}")] - points[:, :, KEYPOINT_NAMES.index(f"right_{name}")]
        for name in ("hip", "shoulder")
    ]
    hips, shoulders = (v / v.norm(dim=-1, keepdim=True).clamp_min(0.05) for v in ends)
    return ((1 - (hips * shoulders).sum(-1)) / 2).T
