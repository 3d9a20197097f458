"""Backgrounds in perspective: rooms, gyms and the outdoors around a person, as the first frame's camera sees them.

Every pixel's ray meets planes, boxes and ellipsoids; what stands about stands behind the person, since the background
is drawn behind everybody. World y up, floor at 0, metres; N scenes, P pixels. The result is what `scene` draws:
a texture stretched over the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from core.synth.cameras import Cameras
from core.synth.scene import TEXTURE, muted

SIDE = 224
"""Px in which a scene is drawn before it is brought to TEXTURE."""
CHUNK = 8
KINDS = (0.45, 0.35, 0.2)
"""Shares of rooms, the outdoors and gyms with mats."""
BOXES, OPENINGS = 8, 6
FAR = 1e4


@dataclass(frozen=True)
class _View:
    """Rays of a batch of scenes, turned so that walls run along x and z."""

    eye: Tensor
    """[N, 1, 3]."""
    ray: Tensor
    """[N, P, 3], not of unit length."""
    person: Tensor
    """[N, T, 3] the pelvis's path."""
    noise: Tensor
    """[N, 1, 64, 64] standard normal."""
    numbers: torch.Generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand((len(self.eye), *shape), generator=self.numbers, device=self.eye.device)
        return drawn * (high - low) + low

    def color(self, low: float, high: float) -> Tensor:
        """[N, 1, 3] mostly pale."""
        drawn = self.uniform(low, high, 3, 1)
        return muted(drawn, self.uniform(0, 1, 1, 1)).transpose(1, 2)

    def grain(self, u: Tensor, v: Tensor, metres: float) -> Tensor:
        """Smooth noise [N, P] over a surface, that repeats after 16 times so many metres."""
        at = torch.stack([u, v], -1) / (16 * metres)
        at = ((at - at.floor()) * 2 - 1)[:, None]
        return torch.nn.functional.grid_sample(self.noise, at, padding_mode="reflection", align_corners=False)[
            :, 0, 0
        ]


def draw_places(cameras: Cameras, pelvis: Tensor, generator: torch.Generator) -> Tensor:
    """Textures [B, 3, TEXTURE, TEXTURE] of places around people whose pelvis moves along [B, T, 3] (world)."""
    device = pelvis.device
    at = (torch.arange(SIDE, device=device) + 0.5) / SIDE
    v, u = torch.meshgrid(at, at, indexing="ij")
    image = torch.empty((len(pelvis), 3, SIDE, SIDE), device=device)
    shares = torch.tensor(KINDS, device=device)
    kind = torch.multinomial(shares, len(pelvis), replacement=True, generator=generator)
    for is_outdoors in (False, True):
        for rows in torch.nonzero((kind == 1) == is_outdoors).squeeze(1).split(CHUNK):
            view = _view(cameras[rows], pelvis[rows], torch.stack([u, v], -1).view(1, -1, 2), generator)
            color = _outdoors(view) if is_outdoors else _room(view, kind[rows] == 2)
            color = color * view.uniform(0.55, 1.15, 1, 1) * (1 + view.uniform(-0.06, 0.06, 1, 3))
            image[rows] = color.transpose(1, 2).reshape(len(rows), 3, SIDE, SIDE)
    image = image.clamp(0, 1)
    soft = torch.nn.functional.avg_pool2d(image, 7, 1, 3, count_include_pad=False)
    is_soft = torch.rand((len(image), 1, 1, 1), generator=generator, device=device) < 0.3
    image = torch.where(is_soft, soft, image)
    return torch.nn.functional.interpolate(image, size=(TEXTURE, TEXTURE), mode="bilinear", align_corners=False)


def _view(cameras: Cameras, pelvis: Tensor, places: Tensor, generator: torch.Generator) -> _View:
    """Rays through places [1, P, 2] (shares of the image) of the first frame; walls run anyhow."""
    n, device = len(pelvis), pelvis.device
    k, size = cameras.intrinsics[:, None], cameras.size[:, None].float()
    ray = torch.cat(
        [(places * size - k[..., 2:]) / k[..., :2], torch.ones_like(places[..., :1]).expand(n, -1, 1)], -1
    )
    R, t = cameras.R[:, 0], cameras.t[:, 0]
    yaw = torch.rand(n, generator=generator, device=device) * 2 * math.pi
    c, s, o = torch.cos(yaw), torch.sin(yaw), torch.zeros_like(yaw)
    turn = torch.stack([c, o, s, o, o + 1, o, -s, o, c], -1).view(n, 3, 3)
    to_world = turn @ R.transpose(-1, -2)
    eye = -(to_world @ t[..., None]).transpose(1, 2)
    noise = torch.randn((n, 1, 64, 64), generator=generator, device=device)
    return _View(eye, ray @ to_world.transpose(-1, -2), pelvis @ turn.transpose(-1, -2), noise, generator)


def _room(view: _View, is_gym: Tensor) -> Tensor:
    """[N, P, 3]: floor, walls with openings, ceiling, furniture."""
    eye, ray = view.eye, view.ray
    everything = torch.cat([eye, view.person], 1)
    wide = torch.where(is_gym, 2.5, 1.0)[:, None]
    low = everything.amin(1) - view.uniform(0.5, 3.5, 3) * wide
    high = everything.amax(1) + view.uniform(0.5, 3.5, 3) * wide
    top = (everything[..., 1].amax(1) + view.uniform(0.3, 1.2)).clamp_min(2.4) * torch.where(is_gym, 1.6, 1.0)
    low = torch.stack([low[:, 0], torch.zeros_like(top), low[:, 2]], -1)[:, None]
    high = torch.stack([high[:, 0], top, high[:, 2]], -1)[:, None]
    safe = torch.where(ray.abs() < 1e-6, 1e-6, ray)
    exits = (torch.where(ray > 0, high, low) - eye) / safe
    far, axis = exits.min(-1)
    place = eye + far[..., None] * ray
    x, y, z = place.unbind(-1)

    floor = _floor(view, x, z, is_gym)
    wall = view.color(0.3, 0.98) * (1 + 0.03 * view.grain(x + z, y, 0.2))[..., None]
    wainscot = (y < view.uniform(-2, 1.4, 1)) * 0.25
    wall = wall * (1 - wainscot[..., None]) * torch.where(axis == 0, 0.88, 1.0)[..., None]
    along = torch.where(axis == 0, z, x)
    number = torch.where(axis == 0, 0, 1) * 2 + (torch.where(axis == 0, ray[..., 0], ray[..., 2]) > 0)
    wall = _openings(view, wall, number, along, y, low, high)
    wall = torch.where((y < 0.1)[..., None], view.color(0.2, 0.95), wall)
    is_down = ray[..., 1] < 0
    level = torch.where(is_down[..., None], floor, view.color(0.6, 1.0).expand_as(floor))
    color = torch.where((axis == 1)[..., None], level, wall)
    edges = torch.minimum(place - low, high - place).sort(-1).values[..., 1]
    color = color * (1 - 0.35 * torch.exp(-edges.clamp_min(0) / 0.3))[..., None]

    inside = torch.cat([low, high], 1)
    return _boxes(view, color, far, inside, (0.25, 1.2), (0.4, 2.0), 4.0, windows=False)


def _floor(view: _View, x: Tensor, z: Tensor, is_gym: Tensor) -> Tensor:
    """[N, P, 3]: carpet, tiles or planks; mats in two colours in gyms."""
    tile = torch.stack([view.uniform(0.1, 0.8), view.uniform(0.3, 1.5)], -1)
    tile = torch.where(is_gym[:, None], view.uniform(1.0, 2.0, 1).expand(-1, 2), tile)[:, None]
    cell = torch.stack([x, z], -1) / tile
    whole = cell.floor()
    tone = torch.sin(whole[..., 0] * 12.9898 + whole[..., 1] * 78.233) * 43758.5453
    tone = tone - tone.floor()
    first, second = view.color(0.1, 0.9), view.color(0.1, 0.9)
    bright = view.uniform(0.05, 0.95, 2, 3)  # mats are blue, red, green
    first = torch.where(is_gym[:, None, None], bright[:, :1], first)
    second = torch.where(is_gym[:, None, None], bright[:, 1:], first + (second - first) * 0.15)
    is_even = (whole.sum(-1) % 2 == 0)[..., None]
    seam = ((cell - whole - 0.5).abs().amax(-1) > 0.485)[..., None]
    tiled = torch.where(is_even, first, second) * (0.9 + 0.2 * tone * (1 - is_gym[:, None].float()))[..., None]
    tiled = torch.where(seam, tiled * 0.6, tiled)
    carpet = first * (1 + 0.12 * view.grain(x, z, 0.05) + 0.08 * view.grain(z, x, 0.4))[..., None]
    is_carpet = (view.uniform(0, 1) < 0.4) & ~is_gym
    return torch.where(is_carpet[:, None, None], carpet, tiled)


def _openings(
    view: _View, wall: Tensor, number: Tensor, along: Tensor, y: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Windows, doors and pictures on walls [N, P, 3]; number [N, P] says which wall."""
    for _ in range(OPENINGS):
        r = view.uniform(0, 1, 8)
        which = (r[:, 0] * 4).long()
        is_x = which < 2
        begin = torch.where(is_x, low[:, 0, 2], low[:, 0, 0])
        end = torch.where(is_x, high[:, 0, 2], high[:, 0, 0])
        kind = (r[:, 1] * 3).long()  # window, door, picture
        width = torch.where(kind == 1, 0.9, 0.4 + 1.4 * r[:, 2])
        bottom = torch.where(kind == 1, 0.0, 0.7 + 0.6 * r[:, 3])
        height = torch.where(kind == 1, 2.05, torch.where(kind == 0, 1.2, 0.3 + 0.7 * r[:, 4]))
        left = begin + (end - begin - width) * r[:, 5]
        across = (along - left[:, None]) / width[:, None]
        upwards = (y - bottom[:, None]) / height[:, None]
        here = (number == which[:, None]) & (across > 0) & (across < 1) & (upwards > 0) & (upwards < 1)
        rim = torch.minimum(torch.minimum(across, 1 - across), torch.minimum(upwards, 1 - upwards)) < 0.05
        rim |= (kind == 0)[:, None] & ((across - 0.5).abs() < 0.03)
        inner = torch.where((kind == 0)[:, None, None], view.uniform(0.75, 1.0, 1, 3), view.color(0.1, 0.8))
        inner = inner * (1 - 0.3 * upwards * (kind == 0)[:, None])[..., None]
        inner = torch.where(rim[..., None], view.color(0.1, 0.95), inner)
        wall = torch.where(here[..., None], inner, wall)
    return wall


def _outdoors(view: _View) -> Tensor:
    """[N, P, 3]: sky, hills, ground, houses and trees."""
    eye, ray = view.eye, view.ray
    flat = ray[..., [0, 2]].norm(dim=-1)
    rise = ray[..., 1] / flat.clamp_min(1e-4)
    azimuth = torch.atan2(ray[..., 0], ray[..., 2])
    zenith = torch.cat(
        [view.uniform(0.2, 0.6, 1, 1), view.uniform(0.4, 0.75, 1, 1), view.uniform(0.6, 0.98, 1, 1)], -1
    )
    haze = 0.75 + 0.2 * view.uniform(0, 1, 1, 1) + view.uniform(-0.06, 0.06, 1, 3)
    sky = haze + (zenith - haze) * (rise[..., None].clamp(0, 1)) ** 0.6
    cloud = torch.sigmoid(4 * view.grain(azimuth * 8, rise.clamp(-1, 3) * 16, 1.0) - view.uniform(-1, 6, 1))
    sky = sky + (0.93 - sky) * 0.7 * (cloud * (rise > 0))[..., None]
    ridge = view.uniform(-0.05, 0.22, 1) + 0.04 * torch.sin(3 * azimuth + view.uniform(0, 6, 1))
    ridge = ridge + 0.03 * view.grain(azimuth * 20, azimuth, 1.0)
    woods = torch.cat(
        [view.uniform(0.15, 0.4, 1, 1), view.uniform(0.25, 0.5, 1, 1), view.uniform(0.15, 0.5, 1, 1)], -1
    )
    woods = woods * (1 + 0.25 * view.grain(azimuth * 60, rise * 60, 1.0))[..., None]
    color = torch.where((rise < ridge)[..., None], woods, sky)

    far = torch.where(ray[..., 1] < -1e-3, -eye[..., 1] / ray[..., 1].clamp_max(-1e-3), FAR)
    place = eye + far[..., None] * ray
    x, z = place[..., 0], place[..., 2]
    grass = torch.cat(
        [view.uniform(0.2, 0.45, 1, 1), view.uniform(0.3, 0.55, 1, 1), view.uniform(0.1, 0.25, 1, 1)], -1
    )
    ground = torch.where((view.uniform(0, 1) < 0.5)[:, None, None], grass, view.color(0.25, 0.8))
    rough = 0.14 * view.grain(x, z, 0.08) + 0.14 * view.grain(z, x, 0.6)
    ground = ground * (1 + rough * view.uniform(0.2, 1.5, 1))[..., None]
    path = (x - view.uniform(-6, 6, 1)).abs() < view.uniform(-1.5, 1.5, 1)
    ground = torch.where(path[..., None], view.color(0.35, 0.8), ground)
    fade = (1 - torch.exp(-(far * ray.norm(dim=-1)) / 90))[..., None]
    color = torch.where((far < FAR)[..., None], ground + (haze - ground) * fade, color)
    color = _boxes(view, color, far, None, (1.5, 5.0), (2.5, 8.0), 35.0, windows=True)
    return _trees(view, color)


def _behind(view: _View, size: Tensor, spread: float) -> Tensor:
    """[N, 1, 2] places on the floor behind the person for things with half sizes [N, 1, 3]."""
    eye = view.eye[..., [0, 2]]
    towards = view.person[..., [0, 2]] - eye
    reach = towards.norm(dim=-1).amax(1)[:, None, None] + size[..., [0, 2]].norm(dim=-1, keepdim=True) + 0.4
    aim = torch.nn.functional.normalize(towards.mean(1, keepdim=True), dim=-1)
    off = view.uniform(-0.8, 0.8, 1, 1)
    side = torch.stack([aim[..., 1], -aim[..., 0]], -1)
    return eye + (reach + spread * view.uniform(0, 1, 1, 1) ** 1.5) * (aim + side * off)


def _boxes(
    view: _View,
    color: Tensor,
    far: Tensor,
    room: Tensor | None,
    wide: tuple,
    tall: tuple,
    spread: float,
    *,
    windows: bool,
) -> Tensor:
    """Boxes on the floor, over color [N, P, 3] at far [N, P] rays; within room [N, 2, 3], those that fit."""
    eye, ray = view.eye, view.ray
    safe = torch.where(ray.abs() < 1e-6, 1e-6, ray)
    nearest = far
    for _ in range(BOXES):
        r = view.uniform(0, 1, 1, 3)
        half = torch.stack([wide[0] + (wide[1] - wide[0]) * r[..., 0], r[..., 1], r[..., 2]], -1)
        half[..., 1] = (tall[0] + (tall[1] - tall[0]) * r[..., 1] ** 2) / 2
        half[..., 2] = wide[0] + (wide[1] - wide[0]) * r[..., 2]
        at = _behind(view, half, spread)
        middle = torch.stack([at[..., 0], half[..., 1], at[..., 1]], -1)
        fits = view.uniform(0, 1) < 0.75
        if room is not None:
            fits &= ((middle[:, 0] - half[:, 0] > room[:, 0] - 1e-3) & (middle[:, 0] + half[:, 0] < room[:, 1])).all(
                -1
            )
        one, two = (middle - half - eye) / safe, (middle + half - eye) / safe
        enter, axis = torch.minimum(one, two).max(-1)
        leave = torch.maximum(one, two).amin(-1)
        hit = (enter < leave) & (enter > 0) & (enter < nearest) & fits[:, None]
        place = eye + enter[..., None] * ray
        up = (place - middle + half) / 2
        base = (
            view.color(0.05, 0.9)
            * (1 + 0.06 * view.grain(place[..., 0] + place[..., 2], place[..., 1], 0.1))[..., None]
        )
        shade = torch.where(axis == 1, 1.1, torch.where(axis == 0, 0.75, 0.92))[..., None]
        body = base * shade * (0.75 + 0.25 * (up[..., 1:2] / 0.3).clamp(0, 1))
        cell = torch.where(axis[..., None] == 0, up[..., [2, 1]], up[..., [0, 1]]) / (0.8 if windows else 0.45)
        cell = cell - cell.floor() - 0.5
        pane = (cell.abs() < (0.28 if windows else 0.46)).all(-1) & (axis != 1)
        has_panes = view.uniform(0, 1, 1) < (0.8 if windows else 0.5)
        body = torch.where((pane & has_panes)[..., None], body * view.uniform(0.3, 1.2, 1, 1), body)
        color = torch.where(hit[..., None], body, color)
        nearest = torch.where(hit, enter, nearest)
    return color


def _trees(view: _View, color: Tensor) -> Tensor:
    """Crowns and trunks over color [N, P, 3]; the later ones stand before the earlier."""
    eye, ray = view.eye, view.ray
    for _ in range(5):
        half = torch.stack([view.uniform(0.8, 3.0, 1), view.uniform(1.0, 3.0, 1), view.uniform(0.8, 3.0, 1)], -1)
        at = _behind(view, half, 25.0)
        stem = view.uniform(0.3, 2.2, 1)
        middle = torch.stack([at[..., 0], stem + half[..., 1], at[..., 1]], -1)
        d, o = ray / half, (eye - middle) / half
        a, b, c = (d * d).sum(-1), (d * o).sum(-1), (o * o).sum(-1) - 1
        root = b * b - a * c
        enter = (-b - root.clamp_min(0).sqrt()) / a
        place = eye + enter[..., None] * ray
        ragged = root > 0.25 * a * view.grain(place[..., 0] + place[..., 2], place[..., 1], 0.25).clamp_min(0)
        there = (view.uniform(0, 1, 1) < 0.6) & (enter > 0)
        leaf = torch.cat(
            [view.uniform(0.1, 0.45, 1, 1), view.uniform(0.2, 0.5, 1, 1), view.uniform(0.05, 0.25, 1, 1)], -1
        )
        light = 0.7 + 0.35 * (place - middle)[..., 1] / half[..., 1]
        light = light + 0.3 * view.grain(place[..., 0], place[..., 1] + place[..., 2], 0.12)
        level = ray[..., [0, 2]]
        beside = (level * (at - eye[..., [0, 2]])).sum(-1) / (level**2).sum(-1).clamp_min(1e-6)
        foot = eye + beside[..., None] * ray
        trunk = ((foot[..., [0, 2]] - at).norm(dim=-1) < 0.05 * half[..., 0] + 0.08) & (beside > 0)
        trunk &= (foot[..., 1] > 0) & (foot[..., 1] < middle[..., 1])
        bark = view.uniform(0.1, 0.3, 1, 1).expand_as(leaf)
        color = torch.where((trunk & there)[..., None], bark, color)
        color = torch.where((ragged & (root > 0) & there)[..., None], leaf * light[..., None], color)
    return color
