"""Settle left and right over time: a detector that takes a front for a back exchanges all sides.

It does so for single frames or for dozens, most when the face is hidden, and passes through frames in which both
readings are blended. Exchanging the sides back and turning depth inside out makes its landmarks fit again (under weak
perspective the two readings look the same). Which frames to exchange is decided for the clip as a whole: every frame
should agree with the ones up to `MEMORY` before it, in the picture and in depth; people go where they face; most
frames are right. Dynamic programming over the last MEMORY decisions finds the best sequence exactly. N frames, K
keypoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.recover.evidence import Evidence, assemble_evidence
from core.recover.terms import PAIRS
from core.skeleton import KEYPOINT_MIRROR, KEYPOINT_NAMES

MEMORY = 6
"""Frames back that a frame is compared with: blended frames between two readings last about three."""
ASK_EVERY = 200
"""Frames between questions whether to stop."""
PAIRED = torch.tensor([mirror != k for k, mirror in enumerate(KEYPOINT_MIRROR)])
SLOW = torch.tensor(
    [0.3 if name.split("_")[-1] in ("wrist", "pinky", "index", "thumb") else 1.0 for name in KEYPOINT_NAMES],
    dtype=torch.float64,
)
"""Hands say little of the sides: they move most."""
PAIR_MIRROR = [
    next(p for p, pair in enumerate(PAIRS) if set(pair) == {KEYPOINT_MIRROR[a], KEYPOINT_MIRROR[b]}) for a, b in PAIRS
]
"""Which pair each one is when sides are exchanged."""


@dataclass(frozen=True)
class SideCosts:
    exchanged: float = 0.4
    """Cost of an exchanged frame."""
    sideways: float = 5.0
    """More cost of it for a person seen squarely from the side: there front and back are no riddle."""
    jump_2d: float = 0.12
    """m: how far a keypoint moves in the picture's plane in 1/30 s."""
    jump_3d: float = 0.12
    """m: how far a landmark moves; both grow with the square root of the time between."""
    cap: float = 6.0
    """Most one keypoint may cost."""
    backwards: float = 0.6
    """Cost of a frame of walking backwards at `walking_speed` or more."""
    walking_speed: float = 0.8
    standing_speed: float = 0.3
    """m/s: from here on going says where one faces."""
    belief: float = 0.4
    """Weight of an exchanged frame's landmarks: they were a mistake."""


def exchange_sides(evidence: Evidence, exchanged: Tensor, belief: float = 1.0) -> Evidence:
    """Evidence with left and right exchanged and depth turned inside out in frames where `exchanged` [N] is True."""
    mirror, where = list(KEYPOINT_MIRROR), exchanged[:, None]
    depth_flip = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    return assemble_evidence(
        evidence.times,
        torch.where(where[..., None], evidence.rays[:, mirror], evidence.rays),
        torch.where(where, evidence.confidence[:, mirror], evidence.confidence),
        torch.where(where[..., None], evidence.points[:, mirror] * depth_flip, evidence.points),
        torch.where(where, belief * evidence.pair_confidence[:, PAIR_MIRROR], evidence.pair_confidence),
        evidence.usable,
        evidence.upright,
    )


def settle_sides(
    evidence: Evidence,
    trans: Tensor,
    costs: SideCosts = SideCosts(),
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Evidence, Tensor]:
    """Evidence with sides exchanged where that makes the motion coherent, and which frames those are [N] bool.

    trans [N, 3] m: rough place of the person, to compare pixels with metres and facing with going. Asked to stop it
    exchanges nothing.
    """
    exchanged = torch.zeros(len(evidence), dtype=torch.bool)
    known = evidence.usable.nonzero().squeeze(1)
    if len(known) >= 3:
        exchanged[known] = _best_sequence(evidence[known], trans[known], costs, should_stop)
    if not exchanged.any():
        return evidence, exchanged
    return exchange_sides(evidence, exchanged, costs.belief), exchanged


def match_sides(evidence: Evidence, points: Tensor) -> Evidence:
    """Evidence with sides exchanged in the frames where that brings it nearer the keypoints [N, K, 3] m of a motion.

    For the motion of a network, which has read more of left and right from the keypoints than a comparison of frames
    can.
    """
    seen = points[..., :2] / points[..., 2:].clamp_min(0.1)
    costs, mirror = SideCosts(), list(KEYPOINT_MIRROR)

    def disagreement(rays: Tensor, confidence: Tensor) -> Tensor:
        off = (rays - seen).square().sum(-1) * points[..., 2].square() / costs.jump_2d**2
        return (off.clamp_max(costs.cap) * confidence).sum(1)

    as_is = disagreement(evidence.rays, evidence.confidence)
    exchanged = disagreement(evidence.rays[:, mirror], evidence.confidence[:, mirror]) < as_is
    return exchange_sides(evidence, exchanged, costs.belief) if exchanged.any() else evidence


def _best_sequence(evidence: Evidence, trans: Tensor, costs: SideCosts, should_stop: Callable[[], bool]) -> Tensor:
    """Viterbi over the last MEMORY decisions: [N] bool, for frames that are all usable."""
    N, states = len(evidence), 2**MEMORY
    other = exchange_sides(evidence, torch.ones(N, dtype=torch.bool))
    left = _to_the_left(evidence)
    squarely = ((left[:, 1].abs() - 0.85) / 0.15).clamp_min(0)
    unary = torch.stack([torch.zeros(N, dtype=torch.float64), costs.exchanged + costs.sideways * squarely], 1)
    unary = unary + _against_walking(evidence, trans, left, costs)
    scale = trans[:, 2].median()
    history = torch.arange(states)  # bit d - 1 is the decision d frames ago
    pairwise = torch.zeros(N, 2, states, dtype=torch.float64)  # cost of decision 0 / 1 after each history
    for back in range(1, min(MEMORY, N - 1) + 1):
        bit = (history >> (back - 1)) & 1
        same = _distance(evidence[back:], evidence[:-back], scale, costs) / back
        changed = _distance(evidence[back:], other[:-back], scale, costs) / back  # the same both ways round
        for decision in (0, 1):
            agrees = (bit == decision)[None]
            pairwise[back:, decision] += torch.where(agrees, same[:, None], changed[:, None])
    total = torch.where(history == 0, 0.0, torch.inf).to(torch.float64)
    total[1] = 0.0  # nothing is known before the first frame: either history of equal decisions
    total[states - 1] = 0.0
    came_from = []
    for t in range(N):
        if t % ASK_EVERY == 0 and should_stop():
            return torch.zeros(N, dtype=torch.bool)
        options = total[None] + pairwise[t] + unary[t][:, None]  # [decision, history]
        # histories h and h + states / 2 lead to the same next one
        folded = options.reshape(2, 2, states // 2)
        best, which = folded.min(1)  # [decision, low bits]
        total = best.T.reshape(-1)  # next history = (low bits << 1) | decision
        came_from.append(which.T.reshape(-1))
    state, decisions = int(total.argmin()), []
    for t in reversed(range(N)):
        decisions.append(state & 1)
        state = (state >> 1) | (int(came_from[t][state]) << (MEMORY - 1))
    return torch.tensor(decisions[::-1], dtype=torch.bool)


def _distance(after: Evidence, before: Evidence, scale: Tensor, costs: SideCosts) -> Tensor:
    """How badly two poses agree, [n], frame by frame; scale m turns rays into metres."""
    steps = ((after.times - before.times) * 30).clamp(1.0, 60.0)[:, None]
    sure = torch.minimum(after.confidence, before.confidence) * SLOW
    flat = (after.rays - before.rays).square().sum(-1) * scale**2
    deep = (after.points - before.points).square().sum(-1)
    cost = (flat / (costs.jump_2d**2 * steps)).clamp_max(costs.cap) + (deep / (costs.jump_3d**2 * steps)).clamp_max(
        costs.cap
    )
    return (cost * sure).sum(1)


def _to_the_left(evidence: Evidence) -> Tensor:
    """Unit vectors [N, 2] in (x, z) from the right to the left side of the trunk."""
    left = sum(
        evidence.points[:, KEYPOINT_NAMES.index(f"left_{name}")]
        - evidence.points[:, KEYPOINT_NAMES.index(f"right_{name}")]
        for name in ("hip", "shoulder")
    )[:, [0, 2]]
    return left / left.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def _against_walking(
    evidence: Evidence, trans: Tensor, left: Tensor, costs: SideCosts, half_width_s: float = 0.5
) -> Tensor:
    """Cost [N, 2] of facing away from where one goes, as detected and exchanged."""
    times = evidence.times
    low = torch.searchsorted(times, times - half_width_s).tolist()
    high = torch.searchsorted(times, times + half_width_s, right=True).tolist()
    ground = trans[:, [0, 2]]
    velocity = torch.zeros_like(ground)
    for t, (a, b) in enumerate(zip(low, high)):
        if b - a >= 5:
            centred = times[a:b] - times[a:b].mean()
            velocity[t] = (centred[:, None] * ground[a:b]).sum(0) / centred.square().sum()
    speed = velocity.norm(dim=-1).clamp_min(1e-6)
    forward = torch.stack([left[:, 1], -left[:, 0]], 1)  # left x up with up = -y
    weight = costs.backwards * ((speed - costs.standing_speed) / (costs.walking_speed - costs.standing_speed)).clamp(
        0.0, 1.0
    )
    options = []
    for flip in (1.0, -1.0):
        facing = forward * torch.tensor([1.0, flip], dtype=torch.float64)
        options.append(weight * (1 - (facing * velocity).sum(-1) / speed) / 2)
    return torch.stack(options, 1)
