"""A batch of random takes: people, looks, cameras, lights, backgrounds and occluders; B takes of T frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.body import Body
from core.synth.cameras import CameraConfig, Cameras, project, sample_cameras
from core.synth.degrade import Lens, dim_lenses, draw_lenses
from core.synth.figure import Wardrobe, draw_wardrobe
from core.synth.garments import Patterns, build_patterns, trail_of
from core.synth.handheld import draw_roll, roll_cameras
from core.synth.outfits import draw_styles
from core.synth.places import draw_places
from core.synth.sampler import Motions, MotionSampler, to_camera
from core.synth.scene import Lights, draw_backgrounds, draw_lights

OCCLUDERS = 3


@dataclass(frozen=True)
class Variety:
    """What only training takes get, as shares of takes; none of it touches the draws of the rest."""

    skirts: float = 0.0
    """Skirts, dresses and coats."""
    wide: float = 0.0
    """Wide trousers; half as many wide sleeves."""
    hoods: float = 0.0
    hair: float = 0.0
    """That hangs."""
    rolling: float = 0.0
    """Cameras that roll (`handheld`)."""
    places: float = 0.0
    """Backgrounds in perspective (`places`), with a shadow under the person."""
    above: float = 0.0
    """Seen from far above (`CameraConfig.above`)."""
    dim: float = 0.0
    """In low light."""

    @property
    def has_garments(self) -> bool:
        return max(self.skirts, self.wide, self.hoods, self.hair) > 0


EVERYTHING = Variety(skirts=0.25, wide=0.25, hoods=0.06, hair=0.3, rolling=0.35, places=0.6, above=0.15, dim=0.12)


@dataclass(frozen=True)
class Conditions:
    """How hard the footage is, as shares of takes."""

    occluded: float
    accompanied: float
    """With a second person in the picture."""
    poor: float
    """Filmed and coded as badly as `degrade` can; the others cleanly."""
    busy: float
    """Before a wildly textured background; the others before a quiet one."""
    truncated: float
    """Whose person may leave the image."""
    variety: Variety = Variety()
    """Of takes of training subjects; those of others stay the ones that everything was measured on."""


CONDITIONS = {
    "everyday": Conditions(occluded=0.15, accompanied=0.08, poor=0.4, busy=0.4, truncated=0.08, variety=EVERYTHING),
    "hard": Conditions(occluded=0.3, accompanied=0.12, poor=1.0, busy=1.0, truncated=0.15, variety=EVERYTHING),
}
"""The detector's landmarks jitter by 57 to 136 mm per frame squared on real clips and by about 100 on "hard" takes;
"everyday" lies in the middle of the real ones."""


@dataclass(frozen=True)
class Person:
    rotmats: Tensor
    """[B, T, 24, 3, 3] local, the root's in the camera frame."""
    trans: Tensor
    """[B, T, 3] camera frame."""
    betas: Tensor
    """[B, S]."""
    wardrobe: Wardrobe
    trail: Tensor | None = None
    """[B, T, 3] how far hems lag behind, metres, world frame; None where everything follows the body."""


@dataclass(frozen=True)
class Takes:
    motions: Motions
    cameras: Cameras
    person: Person
    other: Person
    """A second person, drawn where has_other [B]."""
    has_other: Tensor
    keypoints: Tensor
    """[B, T, 25, 3] metres, camera frame."""
    points: Tensor
    """[B, T, 25, 2] px."""
    lights: Lights
    backgrounds: Tensor
    lens: Lens
    occluders: Tensor
    """[B, OCCLUDERS, 12]: centre x y px, half width, half height px, angle, is round, colour (3), stripe period px,
    contrast, opacity (0 = absent)."""
    patterns: Patterns | None = None
    """Of what hangs, where anything does."""
    shadow: Tensor | None = None
    """[B] how dark the floor is under the person, 0..1; None: nowhere."""

    def __len__(self) -> int:
        return len(self.points)


def draw_takes(
    motions: MotionSampler,
    count: int,
    frames: int,
    generator: torch.Generator,
    *,
    cameras: CameraConfig | None = None,
    conditions: Conditions = CONDITIONS["hard"],
) -> Takes:
    """Draw `count` takes of `frames` frames; `cameras` default to the conditions' share of truncated ones."""
    cameras = cameras or CameraConfig(truncated=conditions.truncated)
    variety = conditions.variety if motions.for_training else Variety()
    cameras = replace(cameras, above=max(cameras.above, variety.above))
    body, device = motions.body, motions.device
    own = torch.Generator(device)
    if variety != Variety():
        own.manual_seed(int(torch.randint(1 << 62, (1,), generator=generator, device=device)))
    m = motions.sample(count, generator, frames=frames)
    views = sample_cameras(m.pelvis, generator, cameras)
    if variety.rolling > 0:
        views = roll_cameras(views, draw_roll(views.size, frames, motions.config.frame_s, own, share=variety.rolling))
    person = _person(m, views, body, generator)
    beside = motions.sample(count, generator, frames=frames)
    shift = torch.randn((count, 1, 3), generator=generator, device=device) * torch.tensor(
        [0.9, 0.0, 0.9], device=device
    )
    near = torch.nn.functional.normalize(shift, dim=-1) * 0.55
    place = m.pelvis.mean(1, keepdim=True) - beside.pelvis.mean(1, keepdim=True)
    place = place * torch.tensor([1.0, 0.0, 1.0], device=device)
    beside = Motions(**{**vars(beside), "pelvis": beside.pelvis + place + shift + near})
    other = _person(beside, views, body, generator)
    has_other = torch.rand(count, generator=generator, device=device) < conditions.accompanied

    keypoints = body.keypoints(person.rotmats, person.betas[:, None], person.trans)
    points = project(keypoints, views.intrinsics)
    lights = draw_lights(count, generator, device)
    backgrounds, shadow = draw_backgrounds(count, generator, device, busy=conditions.busy), None
    if variety.places > 0:
        rows = torch.nonzero(torch.rand(count, generator=own, device=device) < variety.places).squeeze(1)
        shadow = torch.zeros(count, device=device)
        shadow[rows] = 0.6 * torch.rand(len(rows), generator=own, device=device)
        if len(rows):
            backgrounds[rows] = draw_places(views[rows], m.pelvis[rows], own)
    lens = draw_lenses(count, generator, device, poor=conditions.poor)
    if variety.dim > 0:
        lens = dim_lenses(lens, own, share=variety.dim, frame_s=motions.config.frame_s)
    patterns = None
    if variety.has_garments:
        patterns = build_patterns(body)
        person, other = (
            _dress(p, w, variety, motions.config.frame_s, own) for p, w in ((person, m), (other, beside))
        )
    return Takes(
        motions=m,
        cameras=views,
        person=person,
        other=other,
        has_other=has_other,
        keypoints=keypoints,
        points=points,
        lights=lights,
        backgrounds=backgrounds,
        lens=lens,
        occluders=_draw_occluders(points, conditions.occluded, generator),
        patterns=patterns,
        shadow=shadow,
    )


def _person(m: Motions, views: Cameras, body: Body, generator: torch.Generator) -> Person:
    rotmats, trans = to_camera(m, views.R, views.t, body)
    return Person(rotmats, trans, m.betas, draw_wardrobe(len(trans), generator, trans.device))


def _dress(person: Person, m: Motions, variety: Variety, frame_s: float, generator: torch.Generator) -> Person:
    """The same person with loose things on."""
    shares = {"skirts": variety.skirts, "wide": variety.wide, "hoods": variety.hoods, "hair": variety.hair}
    wardrobe = draw_styles(person.wardrobe, generator, **shares)
    return replace(person, wardrobe=wardrobe, trail=trail_of(m.pelvis, frame_s))


def _draw_occluders(points: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Boxes, bars and discs that hide a part of the person in some frames; they stand still in the image."""
    B, T, K, _ = points.shape
    device = points.device
    r = torch.rand((B, OCCLUDERS, 14), generator=generator, device=device)
    frame = (r[..., 0] * T).long().clamp_max(T - 1)
    joint = (r[..., 1] * K).long().clamp_max(K - 1)
    centre = points[torch.arange(B, device=device)[:, None], frame, joint]
    height = (points[..., 1].amax(2) - points[..., 1].amin(2)).mean(1)[:, None]
    is_bar = r[..., 2] < 0.35
    wide = height * torch.where(is_bar, 0.02 + 0.04 * r[..., 3], 0.04 + 0.12 * r[..., 3])
    tall = height * torch.where(is_bar, 0.5 + r[..., 4], 0.04 + 0.18 * r[..., 4])
    offset = (r[..., 5:7] - 0.5) * torch.stack([wide, tall], -1)
    angle = torch.where(r[..., 7] < 0.6, torch.zeros_like(wide), (r[..., 7] - 0.8) * 4)
    is_round = (r[..., 8] < 0.25) & ~is_bar
    any_here = torch.rand((B, 1), generator=generator, device=device) < share
    opacity = (any_here & (r[..., 9] < 0.5)).float()
    first = torch.arange(OCCLUDERS, device=device) == 0
    opacity = torch.where(first & any_here, torch.ones_like(opacity), opacity)
    color = r[..., 10:13] * 0.9
    period = height * (0.02 + 0.1 * r[..., 13])
    contrast = (r[..., 13] * 7) % 1 * 0.6
    columns = [wide, tall, angle, is_round.float()]
    return torch.cat(
        [centre + offset, torch.stack(columns, -1), color, torch.stack([period, contrast, opacity], -1)], -1
    )
