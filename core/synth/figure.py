"""How random people look: clothes, skin, hair and face as functions of the place on the resting body.

Every pixel knows where on the T-posed mean body it lies (metres, y up, facing +z, arms along x), so garments have
edges as sharp as the image. Loose garments push the skin's vertices outwards. A `Wardrobe` holds the drawn numbers of
B clips; the same pixel of the same clip has the same colour in every frame. Built for the shipped body's template.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from core.synth.raster import Fragments

SKIN, SHIRT, TROUSERS, SHOES, HAIR, SOCKS, EYE, IRIS, LIPS, BROW, GLOVES = range(11)
GARMENT_COUNT = 11
HOOD = 11
CLOTH = (*range(GARMENT_COUNT), SHIRT)
"""Garment -> the row of Wardrobe.cloth it is made of; a hood is of the shirt's."""
SKIN_TONES = ((255, 224, 196), (241, 194, 157), (224, 172, 126), (198, 134, 90), (141, 85, 54), (92, 58, 40))
HAIR_TONES = ((20, 16, 14), (44, 30, 22), (80, 52, 30), (120, 84, 50), (196, 160, 98), (140, 60, 30), (170, 168, 165))
HEM, SLEEVE, NECKLINE, WAIST, LEG, SHOE, SOCK, HAIRLINE, HAIR_LENGTH, GLOVE, BARE = range(11)
"""Columns of Wardrobe.cut: where garments end on the resting body, metres."""
NEVER = 9.0


@dataclass(frozen=True)
class Style:
    """Things with a silhouette of their own (`garments`); [B] each; lengths in metres, 0 where it is not worn."""

    leg_flare: Tensor
    leg_power: Tensor
    """How wide trousers are at the ankle beyond the leg; 1 widens from the hip on, more below the knee."""
    sleeve_flare: Tensor
    hood: Tensor
    """Room between head and hood."""
    skirt_top: Tensor
    skirt_hem: Tensor
    """Heights on the resting body, metres; where the hem is not below the top there is no skirt."""
    skirt_flare: Tensor
    skirt_gap: Tensor
    """Half the angle in front that a coat leaves open, radians."""
    skirt_cloth: Tensor
    """Garment whose cloth it is cut from."""
    skirt_width: Tensor
    """How far apart the legs may be at the hem before it rides up."""
    hair_length: Tensor
    hair_width: Tensor
    hair_depth: Tensor
    """Half axes of the hanging hair across."""
    folds: Tensor
    phase: Tensor
    """Number of folds around a skirt, and where they lie, radians."""

    def __getitem__(self, index: Tensor | slice) -> Style:
        return Style(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Wardrobe:
    cut: Tensor
    """[B, 11]."""
    looseness: Tensor
    """[B, GARMENT_COUNT] how far each garment stands off the skin, metres."""
    cloth: Tensor
    """[B, GARMENT_COUNT, 20]: two colours (6), two pattern wave vectors (6, radians a metre), phases (2), sharpness,
    weights of stripes, checks and blotches (3), gloss, wrinkle depth."""
    style: Style | None = None
    """None: everything follows the body."""

    def __getitem__(self, index: Tensor | slice) -> Wardrobe:
        style = None if self.style is None else self.style[index]
        return Wardrobe(self.cut[index], self.looseness[index], self.cloth[index], style)


def draw_wardrobe(count: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Wardrobe:
    """Draw the looks of `count` people."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=generator, device=device) * (high - low) + low

    def pick(options: list[tuple[float, float, float]]) -> Tensor:
        """Of options (weight, low, high) one each, and a number within it."""
        weights = torch.tensor([float(o[0]) for o in options], device=device)
        choice = torch.multinomial(weights, count, replacement=True, generator=generator)
        bounds = torch.tensor([o[1:] for o in options], device=device)[choice]
        return bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * uniform(0, 1)

    cut = torch.zeros((count, 11), device=device)
    cut[:, HEM] = pick([(7, -0.12, 0.06), (1, 0.1, 0.2), (2, -0.5, -0.2)])
    cut[:, SLEEVE] = pick([(1.5, 0.15, 0.18), (5, 0.27, 0.42), (1, 0.42, 0.55), (5, 0.6, 0.67)])
    cut[:, NECKLINE] = pick([(6, 0.44, 0.5), (1.5, 0.5, 0.54), (1, 0.36, 0.44)])
    cut[:, WAIST] = uniform(0.03, 0.13)
    cut[:, LEG] = pick([(7, -0.9, -0.78), (3, -0.45, -0.2), (1, -0.7, -0.5)])
    cut[:, SHOE] = pick([(7, -0.89, -0.84), (1.5, -0.8, -0.6), (1.5, -NEVER, -NEVER)])
    cut[:, SOCK] = pick([(3, -0.86, -0.76), (1, -0.7, -0.5), (4, -NEVER, -NEVER)])
    cut[:, HAIRLINE] = pick([(9, 0.66, 0.72), (1, NEVER, NEVER)])
    cut[:, HAIR_LENGTH] = pick([(5, 0.57, 0.62), (2, 0.48, 0.56), (2.5, 0.3, 0.46)])
    cut[:, GLOVE] = pick([(1, 0.6, 0.68), (14, NEVER, NEVER)])
    cut[:, BARE] = pick([(1, 1.0, 1.0), (18, 0.0, 0.0)])

    looseness = torch.zeros((count, GARMENT_COUNT), device=device)
    looseness[:, SHIRT] = pick([(3, 0.001, 0.008), (4, 0.008, 0.02), (1, 0.02, 0.035)])
    looseness[:, TROUSERS] = pick([(3, 0.0, 0.006), (4, 0.006, 0.018), (1, 0.018, 0.03)])
    looseness[:, SHOES] = uniform(0.004, 0.014)
    looseness[:, HAIR] = uniform(0.006, 0.03)

    cloth = torch.zeros((count, GARMENT_COUNT, 20), device=device)
    cloth[..., 0:3] = _cloth_colors(count, generator, device)
    cloth[..., 3:6] = _cloth_colors(count, generator, device)
    alike = (uniform(0, 1, GARMENT_COUNT, 1) < 0.5).float()
    cloth[..., 3:6] = alike * (cloth[..., 0:3] * uniform(0.7, 1.25, GARMENT_COUNT, 1)) + (1 - alike) * cloth[..., 3:6]
    waves = torch.randn((count, GARMENT_COUNT, 2, 3), generator=generator, device=device)
    upright = uniform(0, 1, GARMENT_COUNT, 1, 1) < 0.6
    axis = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.3]], device=device)
    waves = torch.where(upright, axis.expand_as(waves), torch.nn.functional.normalize(waves, dim=-1))
    length = torch.exp(uniform(math.log(0.015), math.log(0.25), GARMENT_COUNT, 1, 1))
    cloth[..., 6:12] = (waves * (2 * math.pi / length)).flatten(-2)
    cloth[..., 12:14] = uniform(0, 2 * math.pi, GARMENT_COUNT, 2)
    cloth[..., 14] = uniform(1, 12, GARMENT_COUNT)
    kind = torch.rand((count, GARMENT_COUNT, 4), generator=generator, device=device)
    kind = torch.nn.functional.one_hot((kind * torch.tensor([2.2, 1, 0.8, 1], device=device)).argmax(-1), 4)
    cloth[..., 15:18] = kind[..., 1:].float()
    cloth[..., 18] = uniform(0, 0.25, GARMENT_COUNT) ** 2 * 4
    cloth[..., 19] = uniform(0, 0.6, GARMENT_COUNT) ** 2

    skin = _mix(SKIN_TONES, uniform(0, 1), device) * uniform(0.9, 1.08, 1)
    hair = _mix(HAIR_TONES, uniform(0, 1), device) * uniform(0.8, 1.1, 1)
    white = torch.full((count, 3), 0.86, device=device)
    iris = skin.new_tensor([0.16, 0.12, 0.1]) + uniform(0, 0.25, 3) * torch.tensor([0.5, 0.8, 1.0], device=device)
    fixed = {SKIN: skin, HAIR: hair, EYE: white, IRIS: iris, BROW: hair * 0.8}
    fixed[LIPS] = skin * torch.tensor([0.86, 0.6, 0.58], device=device)
    for garment, color in fixed.items():
        cloth[:, garment, 0:3], cloth[:, garment, 3:6] = color, color * 0.97
        cloth[:, garment, 15:18] = torch.tensor([0.0, 0.0, 1.0], device=device)
        cloth[:, garment, 19] = 0.5 if garment == HAIR else 0.03
    cloth[:, HAIR, 3:6] = hair * 0.6
    cloth[:, (SKIN, HAIR), 18] = uniform(0.0, 0.25, 2)
    return Wardrobe(cut, looseness, cloth)


def garment_at(rest: Tensor, cut: Tensor, hood: Tensor | None = None) -> Tensor:
    """Which garment covers places rest [..., 3] of the resting body, for people cut [..., 11] (broadcasting).

    hood [...] says who wears one (more than 0); None: nobody."""
    x, y, z = rest.unbind(-1)
    ax = x.abs()
    c = [cut[..., i] for i in range(cut.shape[-1])]
    is_arm = (ax > 0.165) & (y > 0.3)
    is_head = (y > 0.5) & (ax < 0.1)
    result = torch.full(torch.broadcast_shapes(x.shape, c[0].shape), SKIN, dtype=torch.int64, device=rest.device)

    def put(where: Tensor, garment: int) -> None:
        result.masked_fill_(where.expand_as(result), garment)

    clothed = c[BARE] < 0.5
    put((y < c[SOCK]), SOCKS)
    put((y < c[WAIST]) & (y > c[LEG]) & (ax < 0.4), TROUSERS)
    neck = c[NECKLINE] + 0.35 * (0.03 - z).clamp(0, 0.1) + 0.2 * (ax - 0.05).clamp(0, 0.15)
    put(~is_arm & (y > c[HEM]) & (y < neck) & clothed, SHIRT)
    put(is_arm & (ax < c[SLEEVE]) & clothed, SHIRT)
    put(y < c[SHOE], SHOES)
    put(is_arm & (ax > c[GLOVE]), GLOVES)
    put(is_head & (((ax - 0.03) / 0.017) ** 2 + ((y - 0.6365) / 0.0065) ** 2 < 1) & (z > 0.11), EYE)
    put(is_head & (((ax - 0.03) / 0.007) ** 2 + ((y - 0.6365) / 0.0065) ** 2 < 1) & (z > 0.11), IRIS)
    put(is_head & ((ax / 0.026) ** 2 + ((y - 0.5645) / 0.0095) ** 2 < 1) & (z > 0.12), LIPS)
    put(is_head & (ax > 0.012) & (ax < 0.052) & ((y - 0.653 + 0.15 * (ax - 0.035).clamp_min(0)).abs() < 0.005)
        & (z > 0.1), BROW)  # fmt: skip
    ear = (ax > 0.071) & (y > 0.58) & (y < 0.662) & (z > 0.03)
    front = y > c[HAIRLINE] - 0.8 * (0.15 - z).clamp(0, 0.13)
    behind = (z < 0.035) & (y > c[HAIR_LENGTH]) & (ax < 0.11) & ((y > 0.52) | (z < 0.0))
    has_hair = c[HAIRLINE] < 1
    put(has_hair & ~ear & ((is_head & front) | behind), HAIR)
    if hood is not None:
        edge = 0.06 + 0.5 * (y - 0.66).clamp(0, 0.12)  # the face looks out in front of it
        over = (y > 0.5) & (ax < 0.12) & (z < edge) | (y > 0.44) & (ax < 0.12) & (z < 0.0)
        put((hood > 0) & over, HOOD)
    return result


def loosen(vertices: Tensor, normals: Tensor, rest: Tensor, wardrobe: Wardrobe, up: Tensor | None = None) -> Tensor:
    """Push vertices [B, V, 3] out along their normals where rest [V, 3] wears something loose.

    What is very wide sags against up [B, 3]."""
    style = wardrobe.style
    garment = garment_at(rest[None], wardrobe.cut[:, None], None if style is None else style.hood[:, None])
    looseness = wardrobe.looseness
    if style is not None:
        looseness = torch.cat([looseness, 0.012 + style.hood[:, None]], 1)
    amount = looseness.gather(1, garment)
    x, y, z = (rest * 1.0).unbind(-1)
    folds = (
        1 + 0.35 * torch.sin(31 * x + 17 * y + 3) * torch.sin(23 * y - 29 * z + 1) + 0.2 * torch.sin(47 * y + 38 * x)
    )
    if style is None:
        return vertices + normals * (amount * folds)[..., None]
    down_leg = ((-0.08 - y) / 0.78).clamp(0, 1) ** style.leg_power[:, None]
    down_sleeve = ((x.abs() - 0.2) / 0.45).clamp(0, 1)
    wide = torch.where(garment == TROUSERS, down_leg * style.leg_flare[:, None], 0.0)
    wide = wide + torch.where((garment == SHIRT) & (x.abs() > 0.165), down_sleeve * style.sleeve_flare[:, None], 0.0)
    pushed = vertices + normals * ((amount + wide) * folds)[..., None]
    if up is None:
        return pushed
    under = -(normals @ up[..., None]).squeeze(-1)
    return pushed - up[:, None] * (wide * under.clamp_min(-0.5) * 0.8)[..., None]


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Unit normals [B, V, 3], outwards for triangles counter-clockwise seen from outside."""
    a, b, c = (vertices[:, triangles[:, i]] for i in range(3))
    face = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for i in range(3):
        total.index_add_(1, triangles[:, i], face)
    return torch.nn.functional.normalize(total, dim=-1)


def paint(
    fragments: Fragments,
    rest: Tensor,
    normals: Tensor,
    wardrobe: Wardrobe,
    light: Tensor,
    hanging: Tensor | None = None,
) -> Tensor:
    """Colours [P, 3] (display values 0..1) of covered pixels.

    rest [V, 3], normals [B, V, 3] in the camera frame, light [B, 16]: see scene.draw_lights. The last E vertices
    are no skin but cloth of the garments hanging [B, E].
    """
    image = fragments.image_index()
    place = fragments.interpolate(rest)
    normal = fragments.interpolate(normals)
    hood = None if wardrobe.style is None else wardrobe.style.hood[image]
    garment = garment_at(place, wardrobe.cut[image], hood)
    if wardrobe.style is not None:
        garment = torch.tensor(CLOTH, device=garment.device)[garment]
    if hanging is not None:
        first = len(rest) - hanging.shape[1]
        vertex = fragments.corners[:, 0] % len(rest)
        at = torch.nonzero(vertex >= first).squeeze(1)
        garment[at] = hanging[image[at], vertex[at] - first]
    cloth = wardrobe.cloth.flatten(0, 1)[image * GARMENT_COUNT + garment]
    first = torch.sin((cloth[:, 6:9] * place).sum(-1) + cloth[:, 12])
    second = torch.sin((cloth[:, 9:12] * place).sum(-1) + cloth[:, 13])
    warped = place + 0.03 * torch.sin(place.roll(1, -1) * 41 + cloth[:, 12:13])
    blotch = torch.sin((cloth[:, 6:9] * warped).sum(-1)) * torch.sin((cloth[:, 9:12] * warped).sum(-1))
    wave = cloth[:, 15] * first + cloth[:, 16] * first * second + cloth[:, 17] * blotch
    plain = 1 - cloth[:, 15:18].sum(-1)
    share = torch.sigmoid(wave * cloth[:, 14]) * (1 - plain)
    color = cloth[:, 0:3] + (cloth[:, 3:6] - cloth[:, 0:3]) * share[:, None]
    ripple = torch.sin(place.roll(1, -1) * 63 + 9 * torch.sin(place * 14) + cloth[:, 13:14])
    normal = torch.nn.functional.normalize(normal + ripple * (0.5 * cloth[:, 19:20]), dim=-1)
    return shade(color, normal, cloth[:, 18], light[image])


def shade(color: Tensor, normal: Tensor, gloss: Tensor, light: Tensor) -> Tensor:
    """Two lamps and a sky over display colours [P, 3]; normal [P, 3], light [P, 16]."""
    key = (normal * light[:, 0:3]).sum(-1, keepdim=True)
    fill = (normal * light[:, 6:9]).sum(-1, keepdim=True).clamp_min(0)
    sky = 0.5 + 0.5 * (normal * light[:, 12:15]).sum(-1, keepdim=True)
    wrapped = ((key + light[:, 15:16]) / (1 + light[:, 15:16])).clamp_min(0)
    received = light[:, 3:6] * wrapped + light[:, 9:12] * (0.35 * fill + 0.3 + 0.7 * sky)
    towards = light[:, 0:3] - torch.tensor([0.0, 0.0, 1.0], device=light.device)
    half = torch.nn.functional.normalize(towards, dim=-1)
    shine = (normal * half).sum(-1, keepdim=True).clamp_min(0) ** 20 * gloss[:, None]
    return (color * received + shine * light[:, 3:6]).clamp(0, 1.5)


def _mix(tones: tuple[tuple[int, int, int], ...], share: Tensor, device) -> Tensor:
    """Colours [B, 3] along a row of tones."""
    table = torch.tensor(tones, device=device) / 255
    at = share * (len(tones) - 1)
    low = at.floor().long().clamp_max(len(tones) - 2)
    return torch.lerp(table[low], table[low + 1], (at - low)[:, None])


def _cloth_colors(count: int, generator: torch.Generator, device) -> Tensor:
    """[B, GARMENT_COUNT, 3]: often grey, dark or blue, sometimes loud."""
    value = torch.rand((count, GARMENT_COUNT, 1), generator=generator, device=device) ** 1.2
    tint = torch.rand((count, GARMENT_COUNT, 3), generator=generator, device=device)
    strength = torch.rand((count, GARMENT_COUNT, 1), generator=generator, device=device) ** 1.5
    color = value * (1 - strength + strength * tint * 1.6)
    return (0.04 + 0.9 * color).clamp(0, 1)
