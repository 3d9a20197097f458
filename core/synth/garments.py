"""What hangs on the body: skirts, dresses and coat tails, long hair, as meshes laid around it anew in every frame.

They are tubes of rings. Each ring of a skirt encloses the hips or both legs at its height (the support of their
vertices, seen along the legs), flares towards the hem, trails behind a moving person, and rides up where the legs are
farther apart than its cloth is wide. Hair falls from the back of the head along gravity, off the back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from core.body import Body
from core.skeleton import JOINT_NAMES
from core.synth.figure import HAIR, Style, vertex_normals

LEVELS = tuple(0.1 - 0.08 * i for i in range(13))
"""Heights on the resting body, metres, at which a skirt looks for what it has to enclose."""
SLAB = 40
"""Vertices that stand for the body at a level."""
RINGS, SIDES = 10, 24
HAIR_RINGS, HAIR_SIDES = 8, 12
NOWHERE = -1.0
"""Depth of the vertices of things that are not worn; the rasteriser leaves them out."""
TRAIL_S = 0.035
LONGEST_TRAIL = 0.16
"""How far a hem lags behind, in seconds of the person's motion, and at most, metres."""
HEAD_CHAIN = tuple(JOINT_NAMES.index(n) for n in ("pelvis", "spine1", "spine2", "spine3", "neck", "head"))


@dataclass(frozen=True)
class Patterns:
    """The meshes of everything that hangs, for one body: a skirt, then hair. E vertices."""

    rest: Tensor
    """[E, 3] places that the cloth's pattern is printed on."""
    outside: Tensor
    """[F, 3] triangles, counter-clockwise seen from outside; numbers from 0."""
    is_hair: Tensor
    """[E] bool."""
    slabs: Tensor
    """[LEVELS, SLAB] vertices of the body."""

    @property
    def triangles(self) -> Tensor:
        """[2F, 3] both faces of the cloth."""
        return torch.cat([self.outside, self.outside.flip(-1)])


def build_patterns(body: Body) -> Patterns:
    """Lay out the meshes for a body's template."""
    template, device = body.v_template, body.v_template.device
    below_arms = (template[:, 1] < 0.3) & (template[:, 0].abs() < 0.4)
    slabs = []
    for level in LEVELS:
        distance = torch.where(below_arms, (template[:, 1] - level).abs(), torch.inf)
        near = torch.nonzero(distance < 0.015).squeeze(1)
        near = near if len(near) >= SLAB else distance.topk(SLAB, largest=False).indices
        angle = torch.atan2(template[near, 2], template[near, 0])
        order = near[angle.argsort()]
        slabs.append(order[torch.linspace(0, len(order) - 1, SLAB, device=device).long()])
    skirt, hair = _tube(RINGS, SIDES, device), _tube(HAIR_RINGS, HAIR_SIDES, device)
    around, down = skirt[1]
    rest = torch.stack([0.2 * torch.sin(around), -0.8 * down, 0.2 * torch.cos(around)], -1)
    around, down = hair[1]
    strands = torch.stack([0.08 * torch.sin(around), 0.6 - 0.5 * down, -0.1 + 0.04 * torch.cos(around)], -1)
    n = len(rest)
    return Patterns(
        rest=torch.cat([rest, strands]).to(template.dtype),
        outside=torch.cat([skirt[0], hair[0] + n]),
        is_hair=torch.arange(n + len(strands), device=device) >= n,
        slabs=torch.stack(slabs),
    )


def _tube(rings: int, sides: int, device: torch.device) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Triangles of a tube of rings of sides + 1 vertices (the seam is double), and angle and share of length."""
    number = torch.arange(rings * (sides + 1), device=device).view(rings, sides + 1)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = torch.cat([torch.stack([a, c, b], -1).view(-1, 3), torch.stack([b, c, d], -1).view(-1, 3)])
    share = torch.linspace(0, 1, rings, device=device)[:, None].expand(rings, sides + 1)
    angle = torch.linspace(-math.pi, math.pi, sides + 1, device=device).expand(rings, sides + 1)
    return triangles, (angle.reshape(-1), share.reshape(-1))


def hang(
    patterns: Patterns, vertices: Tensor, joints: Tensor, rotmats: Tensor, style: Style, up: Tensor, trail: Tensor
) -> tuple[Tensor, Tensor]:
    """Vertices [B, E, 3] and outward normals [B, E, 3] of what hangs on posed bodies, camera frame.

    vertices [B, V, 3], joints [B, 24, 3], rotmats [B, 24, 3, 3] local ones, up [B, 3] against gravity, trail [B, 3]
    how far hems lag behind, metres. What is not worn lies at depth NOWHERE.
    """
    pelvis, chest, head = _frames(rotmats)
    skirt = _skirt(vertices[:, patterns.slabs], pelvis, style, up, trail)
    hair = _hair(joints, chest, head, style, up, trail)
    placed = torch.cat([skirt.flatten(1, 2), hair.flatten(1, 2)], 1)
    normals = vertex_normals(placed, patterns.outside)
    worn = torch.where(patterns.is_hair, style.hair_length[:, None] > 0, (style.skirt_hem < style.skirt_top)[:, None])
    return torch.where(worn[..., None], placed, NOWHERE), normals


def trail_of(path: Tensor, seconds: float) -> Tensor:
    """How far hems lag behind people who move along path [B, T, 3] with so many seconds a frame; same shape."""
    step = torch.zeros_like(path)
    if path.shape[1] > 1:
        step[:, 1:] = path[:, 1:] - path[:, :-1]
        step[:, 0] = step[:, 1]
    lag = -step / seconds * TRAIL_S
    return lag / (1 + lag.norm(dim=-1, keepdim=True) / LONGEST_TRAIL)


def _frames(rotmats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Global rotations [B, 3, 3] of pelvis, upper chest and head."""
    turn, found = rotmats[:, 0], []
    for joint in HEAD_CHAIN[1:]:
        found.append(turn)
        turn = turn @ rotmats[:, joint]
    return found[0], found[3], turn


def _skirt(slabs: Tensor, pelvis: Tensor, style: Style, up: Tensor, trail: Tensor) -> Tensor:
    """[B, RINGS, SIDES + 1, 3] from the body's vertices at the levels [B, L, SLAB, 3]."""
    device = slabs.device
    middle = slabs.mean(2)
    along = torch.empty_like(middle)  # down the legs
    along[:, 1:-1] = middle[:, 2:] - middle[:, :-2]
    along[:, 0], along[:, -1] = along[:, 1], along[:, -2]
    along = torch.nn.functional.normalize(along, dim=-1)
    across = pelvis[:, None, :, 0].expand_as(along)
    across = torch.nn.functional.normalize(across - (across * along).sum(-1, keepdim=True) * along, dim=-1)
    front = torch.linalg.cross(along, across)

    gap = style.skirt_gap[:, None]
    angle = torch.linspace(-1, 1, SIDES + 1, device=device) * (math.pi - gap) + math.pi  # from the front around
    e = (
        torch.sin(angle)[:, None, :, None] * across[:, :, None]
        + torch.cos(angle)[:, None, :, None] * front[:, :, None]
    )
    reach = (e @ (slabs - middle[:, :, None]).transpose(-1, -2)).amax(-1)  # [B, L, SIDES + 1]
    widths = [reach[:, 0]]
    for level in range(1, reach.shape[1]):  # cloth hangs from the widest place above
        widths.append(torch.maximum(reach[:, level], 0.97 * widths[-1]))
    reach = torch.stack(widths, 1)

    spread = 2 * reach.amax(-1)
    allowed = style.skirt_width[:, None] + 0.1
    fits = (allowed / spread).clamp_max(1)
    rides = 1 - (1 - fits[:, 3:].amin(1)).clamp(0, 0.6)
    share = torch.linspace(0, 1, RINGS, device=device)
    y = style.skirt_top[:, None] + (style.skirt_hem - style.skirt_top)[:, None] * share * rides[:, None]
    at = ((LEVELS[0] - y) / (LEVELS[0] - LEVELS[1])).clamp(0, len(LEVELS) - 1.001)
    low = at.floor().long()
    part = (at - low)[..., None]

    def between(values: Tensor) -> Tensor:
        flat = values.flatten(2)
        index = low[..., None].expand(-1, -1, flat.shape[-1])
        found = torch.lerp(flat.gather(1, index), flat.gather(1, index + 1), part)
        return found.view(*found.shape[:2], *values.shape[2:])

    e, centre, reach = between(e), between(middle), between(reach)
    wave = torch.sin(angle * style.folds[:, None] + style.phase[:, None])[:, None]
    grown = share[None, :, None]
    upwards = (e * up[:, None, None]).sum(-1).clamp_min(0)  # cloth does not stand up from lying legs
    flare = style.skirt_flare[:, None, None] * grown**1.2 * (1 + 0.45 * wave) * (1 - 0.9 * upwards)
    place = centre[:, :, None] + e * (reach + 0.012 + flare)[..., None]
    sag = -up * (0.5 * style.skirt_flare)[:, None]
    return place + ((trail + 0.3 * sag)[:, None] * share[:, None] ** 2)[:, :, None]


def _hair(joints: Tensor, chest: Tensor, head: Tensor, style: Style, up: Tensor, trail: Tensor) -> Tensor:
    """[B, HAIR_RINGS, HAIR_SIDES + 1, 3]: down the back of the head, then along gravity, off the back."""
    device = joints.device
    is_tail = (style.hair_width < 0.05).float()
    start = torch.stack([torch.zeros_like(is_tail), 0.075 + 0.03 * is_tail, -0.075 - 0.035 * is_tail], -1)
    place = joints[:, JOINT_NAMES.index("head")] + (head @ start[..., None]).squeeze(-1)
    fall = -head[..., 1] - 0.3 * is_tail[:, None] * head[..., 2]
    spine, back = joints[:, JOINT_NAMES.index("spine3")], -chest[..., 2]
    step = ((style.hair_length + 0.12) / (HAIR_RINGS - 1))[:, None]
    path = [place]
    for ring in range(1, HAIR_RINGS):
        share = ring / (HAIR_RINGS - 1)
        fall = torch.nn.functional.normalize(fall + 0.6 * (-up + 4 * share * trail), dim=-1)
        place = place + fall * step
        offset = place - spine
        is_beside = (offset * chest[..., 1]).sum(-1, keepdim=True) < 0.2
        depth = (offset * back).sum(-1, keepdim=True)
        room = 0.085 + style.hair_depth[:, None]
        place = torch.where(is_beside & (depth > -0.1), place + back * (room - depth).clamp_min(0), place)
        path.append(place)
    path = torch.stack(path, 1)
    along = torch.nn.functional.normalize(torch.diff(path, dim=1, append=2 * path[:, -1:] - path[:, -2:-1]), dim=-1)
    across = head[:, None, :, 0].expand_as(along)
    across = torch.nn.functional.normalize(across - (across * along).sum(-1, keepdim=True) * along, dim=-1)
    front = torch.linalg.cross(along, across)
    angle = torch.linspace(0, 2 * math.pi, HAIR_SIDES + 1, device=device)
    share = torch.linspace(0, 1, HAIR_RINGS, device=device)
    taper = (0.6 + 1.6 * share).clamp_max(1) * (1 - 0.75 * share**4)
    strand = 1 + 0.12 * torch.sin(5 * angle + 2 * share[:, None] * style.folds[:, None, None])
    size = taper[:, None] * strand
    ring = (torch.sin(angle) * size * style.hair_width[:, None, None])[..., None] * across[:, :, None]
    ring = ring + (torch.cos(angle) * size * style.hair_depth[:, None, None])[..., None] * front[:, :, None]
    return path[:, :, None] + ring


def cloth_of(patterns: Patterns, style: Style) -> Tensor:
    """[B, E] the garment whose cloth everything that hangs is made of."""
    return torch.where(patterns.is_hair, HAIR, style.skirt_cloth[:, None])
