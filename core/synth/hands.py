"""Arms put where mocap seldom has them: on the hips, crossed, together, at the face, behind the head or the back.

A gesture says where the wrist lies against the trunk, where the elbow points and where the palm looks, in the axes of
a joint; two bones reach it in closed form. x is outwards on either side, y up, z to the front. N bodies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from core.body import Body
from core.rotation import axis_angle_to_matrix, matrix_to_quaternion, quaternion_to_matrix, slerp
from core.skeleton import JOINT_NAMES
from core.synth.cameras import smooth_noise

ON_SKIN = 0.045
"""From the wrist joint to the skin it lies on, metres."""
BOTH = 0.65
"""Share of gestures made with both hands."""
TWIST = math.radians(100)
"""Farthest the forearm turns about itself; the wrist does a third of it."""


@dataclass(frozen=True)
class Gesture:
    weight: float
    joint: str
    """In whose axes; `left_hip` stands for the hip of either side."""
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    """Where the wrist lies from that joint, metres; along the axis `surface` beyond the skin instead."""
    elbow: tuple[float, float, float]
    palm: tuple[float, float, float]
    surface: str = ""
    """side, front or back of the trunk at that height."""


GESTURES = (
    Gesture(3, "pelvis", (0.0, 0.06, -0.04), (0.02, 0.15, 0.04), (1.0, -0.1, -0.5), (-1, -0.4, 0), "side"),
    Gesture(3, "spine3", (-0.14, -0.06, 0.01), (-0.04, 0.05, 0.06), (0.6, -0.9, 0.25), (0, 0, -1), "front"),
    Gesture(3, "spine3", (0.01, -0.28, 0.0), (0.06, 0.1, 0.25), (0.7, -0.8, -0.1), (-1, 0, -0.1), "front"),
    Gesture(2, "head", (0.05, -0.08, 0.11), (0.11, 0.03, 0.17), (0.4, -1.0, 0.3), (-0.5, 0, -1)),
    Gesture(1, "head", (0.04, 0.0, -0.15), (0.09, 0.08, -0.11), (1.0, 0.1, 0.3), (0, 0, 1)),
    Gesture(1, "pelvis", (0.0, 0.0, 0.0), (0.07, 0.12, 0.02), (1.0, -0.2, -0.6), (0, 0, -1), "back"),
    Gesture(1, "spine3", (-0.04, 0.0, 0.0), (0.06, 0.1, 0.02), (0.9, -0.6, 0.1), (0, 0, -1), "front"),
    Gesture(2, "left_hip", (-0.02, -0.36, 0.11), (0.04, -0.22, 0.13), (1.0, 0.1, -0.4), (0, 0, -1)),
)
"""On the hips, crossed, together, at the face, behind the head, behind the back, on the chest, on the thighs."""


def put_hands(
    rotmats: Tensor, betas: Tensor, body: Body, frame_s: float, generator: torch.Generator, *, share: float
) -> Tensor:
    """The motions [B, T, 24, 3, 3] of people betas [B, S] with gestures, all along or for a spell, in a share."""
    B, T = rotmats.shape[:2]
    device = rotmats.device
    drawn = torch.rand((B, 12), generator=generator, device=device)
    weights = torch.tensor([g.weight for g in GESTURES], device=device, dtype=torch.float32)
    kind = torch.multinomial(weights, B, replacement=True, generator=generator)
    jitter = torch.randn((B, 2, 3), generator=generator, device=device)
    restless = smooth_noise((B, T, 3), 0.93, generator, device) * 0.012
    rows = torch.nonzero(drawn[:, 0] < share).squeeze(1)
    if len(rows) == 0:
        return rotmats
    drawn, kind, jitter, restless = drawn[rows], kind[rows], jitter[rows], restless[rows]
    mine, shape = rotmats[rows], betas[rows]
    begins, ends = _spell(drawn[:, 1:5], T, frame_s)
    level = (begins * ends)[..., None, None]  # [N, T, 1, 1]
    both = drawn[:, 5] < BOTH
    first_left = drawn[:, 6] < 0.5
    for side, is_first in (("left", first_left), ("right", ~first_left)):
        # of crossed arms, one lies over the other
        over = torch.stack([drawn[:, 7] * 0, drawn[:, 7] * 0.05 - 0.02, drawn[:, 8] * 0.03 + 0.035], -1)
        over = torch.where(is_first[:, None], 0.0, over) * ((kind == 1) & both)[:, None]
        place = drawn[:, 9:12] + torch.where(is_first[:, None], 0.0, 0.15 * jitter[:, 1])
        wrist, elbow, palm = _targets(mine, shape, body, kind, place, over, side)
        wrist = wrist + restless
        elbow = elbow + 0.2 * jitter[:, None, 0]
        joints, turns = reach(mine, shape, body, wrist, elbow, palm, side)
        joints_now = mine[:, :, joints]
        happens = (level * (both | is_first)[:, None, None, None]).clamp(0, 1)
        a, b = matrix_to_quaternion(joints_now), matrix_to_quaternion(turns)
        blended = quaternion_to_matrix(slerp(a, b, happens[..., 0]))
        mine = mine.clone()
        mine[:, :, joints] = torch.where(happens[..., None] > 0, blended, joints_now)
    result = rotmats.clone()
    result[rows] = mine
    return result


def reach(
    rotmats: Tensor, betas: Tensor, body: Body, wrist: Tensor, elbow: Tensor, palm: Tensor, side: str
) -> tuple[list[int], Tensor]:
    """Local rotations that bring a wrist to a place, as far as the arm is long.

    rotmats [N, T, 24, 3, 3], betas [N, S]; wrist [N, T, 3] from the root's rest place, metres; elbow, palm [N, T, 3]
    directions. Returns the joints (shoulder, elbow, wrist) and their rotations [N, T, 3, 3, 3].
    """
    sign = 1.0 if side == "left" else -1.0
    names = [JOINT_NAMES.index(f"{side}_{n}") for n in ("collar", "shoulder", "elbow", "wrist")]
    rest = body.rest_joints(betas)
    joints, turns = body.forward_kinematics(rotmats, betas[:, None], torch.zeros_like(wrist))
    upper, fore = ((rest[:, names[i + 1]] - rest[:, names[i]]).norm(dim=-1)[:, None, None] for i in (1, 2))
    shoulder = joints[:, :, names[1]]
    way = wrist - shoulder
    far = way.norm(dim=-1, keepdim=True)
    way, far = (
        way / far.clamp_min(1e-4),
        far.clamp(min=1e-3).clamp((upper - fore).abs() + 0.06, 0.995 * (upper + fore)),
    )
    along = (upper**2 - fore**2 + far**2) / (2 * far)
    aside = torch.nn.functional.normalize(elbow - (elbow * way).sum(-1, keepdim=True) * way, dim=-1)
    bent = along * way + (upper**2 - along**2).clamp_min(0).sqrt() * aside
    u = torch.nn.functional.normalize(bent, dim=-1)
    f = torch.nn.functional.normalize(far * way - bent, dim=-1)
    # at rest the arm lies along sign * x and the elbow bends it towards z
    z = torch.nn.functional.normalize(f - (f * u).sum(-1, keepdim=True) * u, dim=-1)
    y = torch.linalg.cross(z, sign * u)
    of_upper = torch.stack([sign * u, y, z], -1)
    of_fore = torch.stack([sign * f, y, torch.linalg.cross(sign * f, y)], -1)
    look = palm - (palm * f).sum(-1, keepdim=True) * f
    twist = torch.atan2((torch.linalg.cross(-y, look) * f).sum(-1), (-y * look).sum(-1)).clamp(-TWIST, TWIST)
    axis = f[..., None, :] * twist[..., None, None] * torch.tensor([2 / 3, 1.0], device=f.device)[:, None]
    turned = axis_angle_to_matrix(axis) @ of_fore[..., None, :, :]  # [N, T, 2, 3, 3]: forearm, hand
    chain = torch.stack([turns[:, :, names[0]], of_upper, turned[..., 0, :, :], turned[..., 1, :, :]], -3)
    return names[1:], chain[..., :-1, :, :].transpose(-1, -2) @ chain[..., 1:, :, :]


def _targets(
    rotmats: Tensor, betas: Tensor, body: Body, kind: Tensor, drawn: Tensor, over: Tensor, side: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Wrist places, elbow and palm directions [N, T, 3] of gestures kind [N]; drawn [N, 3] places within them."""
    device, T = betas.device, rotmats.shape[1]
    outwards = torch.tensor([1.0 if side == "left" else -1.0, 1.0, 1.0], device=device)
    joints, turns = body.forward_kinematics(rotmats, betas[:, None], torch.zeros(len(betas), T, 3, device=device))
    origin = torch.tensor([JOINT_NAMES.index(g.joint.replace("left", side)) for g in GESTURES], device=device)[kind]
    rest = body.rest_joints(betas)
    n = torch.arange(len(betas), device=device)

    def table(name: str) -> Tensor:
        return torch.tensor([getattr(g, name) for g in GESTURES], device=device, dtype=torch.float32)[kind]

    low, high = table("low"), table("high")
    place = low + (high - low) * drawn + over
    height = rest[n, origin, 1] + place[:, 1]
    skin = _skin(body.rest_vertices(betas), height)  # side, front, back
    for i, (name, axis, way) in enumerate((("side", 0, 1.0), ("front", 2, 1.0), ("back", 2, -1.0))):
        wanted = torch.tensor([g.surface == name for g in GESTURES], device=device)[kind]
        beyond = skin[:, i] - way * rest[n, origin, axis] + ON_SKIN
        place[:, axis] = torch.where(wanted, way * (beyond + place[:, axis].abs()), place[:, axis])
    frame = turns[n, :, origin]  # [N, T, 3, 3]

    def in_world(vector: Tensor) -> Tensor:
        return (frame @ (vector * outwards)[:, None, :, None]).squeeze(-1)

    return joints[n, :, origin] + in_world(place), in_world(table("elbow")), in_world(table("palm"))


def _skin(vertices: Tensor, height: Tensor) -> Tensor:
    """How far [N, 3] the trunk of resting bodies [N, V, 3] reaches to the side, front and back near heights [N]."""
    x, y, z = vertices.unbind(-1)
    near = ((y - height[:, None].clamp(-0.02, 0.4)).abs() < 0.03) & (x.abs() < 0.2)
    reaches = [torch.where(near, v, -1.0).amax(1) for v in (x.abs(), z, -z)]
    return torch.stack(reaches, -1).clamp_min(0.05)


def _spell(drawn: Tensor, frames: int, frame_s: float) -> tuple[Tensor, Tensor]:
    """How far gestures are begun and not yet ended [N, T], 0..1; half of them last all along. drawn [N, 4]."""
    time = torch.arange(frames, device=drawn.device) * frame_s
    lasts = 0.3 + 0.5 * drawn[:, 1:2]
    at = (2 * drawn[:, 2:3] - 0.5).clamp(0, 1) * max(float(time[-1]), 0.1)
    begun = ((time - at) / lasts + 0.5).clamp(0, 1)
    begun = begun**2 * (3 - 2 * begun)
    one = torch.ones_like(begun)
    kind = drawn[:, :1]
    return torch.where(kind < 0.25, begun, one), torch.where((kind >= 0.25) & (kind < 0.5), 1 - begun, one)
