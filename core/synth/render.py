"""Render the detector's crops of one frame of a batch of takes, straight from the meshes.

The crop's square folds into the projection: vertices are projected to the full image and then into the crop's raster,
`supersample` times as fine as the crop. Background and occluders are evaluated at the crop's own pixels. Outside the
full image the crop is black, as the tracker's crops are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.body import Body
from core.perception.blazepose import CROP_SIZE
from core.perception.roi import Roi, crop_to_image, image_to_crop
from core.skeleton import KEYPOINT_NAMES
from core.synth.cameras import project
from core.synth.degrade import degrade
from core.synth.figure import Wardrobe, loosen, paint, vertex_normals
from core.synth.garments import cloth_of, hang
from core.synth.raster import rasterise
from core.synth.scene import sample_background
from core.synth.takes import Person, Takes

HIDDEN_DEPTH = 0.13
"""Metres by which something must lie before a keypoint to hide it (keypoints lie inside the body)."""
FAR = 1e6
SHADOWED = [
    i for i, n in enumerate(KEYPOINT_NAMES) if n.endswith(("heel", "toe", "knee", "hip", "wrist")) or n == "nose"
]
"""Keypoints that darken the floor when they are near it."""


def render_crops(
    takes: Takes,
    frame: int,
    roi: Roi,
    body: Body,
    generator: torch.Generator,
    *,
    chunk: int = 64,
    supersample: int = 2,
) -> tuple[Tensor, Tensor]:
    """Render one frame of every take.

    roi [B] in full-image px. Returns crops [B, 3, 256, 256] RGB 0..1 and whether keypoints are hidden [B, 25] by the
    body, by somebody or by an occluder. `chunk` takes are drawn at once, the people with supersample^2 rays a pixel.
    """
    B = len(takes)
    crops, hidden = [], []
    pixels = crop_to_image(_crop_grid(takes.points.device).reshape(-1, 2), roi)
    pixels = pixels.reshape(B, CROP_SIZE, CROP_SIZE, 2)
    back = sample_background(takes.backgrounds, _steady(pixels, takes, frame), takes.cameras.size.float())
    if takes.shadow is not None:
        back = back * (1 - _shadow(takes, frame, pixels))
    for start in range(0, B, chunk):
        part = slice(start, min(start + chunk, B))
        index = torch.arange(part.start, part.stop, device=pixels.device)
        color, alpha, depth = _draw(takes, takes.person, index, frame, roi[part], body, CROP_SIZE * supersample)
        two = index[takes.has_other[part]]
        if len(two):
            rows = two - part.start
            color2, alpha2, depth2 = _draw(takes, takes.other, two, frame, roi[two], body, CROP_SIZE * supersample)
            nearer = depth2 < depth[rows]
            color[rows] = torch.where(nearer[..., None], color2, color[rows])
            alpha[rows] = torch.where(nearer, alpha2, alpha[rows])
            depth[rows] = torch.minimum(depth2, depth[rows])
        behind = (depth.flatten(1) < FAR).any(1)  # nothing drawn: nothing hidden
        hidden.append(_hidden(takes, part, frame, roi[part], depth) & behind[:, None])
        image = (color * alpha[..., None]).permute(0, 3, 1, 2)
        image = torch.nn.functional.avg_pool2d(image, supersample)
        cover = torch.nn.functional.avg_pool2d(alpha[:, None], supersample)
        crops.append(image + back[part] * (1 - cover))
    image = torch.cat(crops)
    image = _add_occluders(image, takes.occluders, pixels)
    last = max(frame - 1, 0)
    moved = (takes.points[:, frame] - takes.points[:, last]).mean(1) / roi.size[:, None] * CROP_SIZE
    image = degrade(image, takes.lens, roi.size, moved, generator)
    size = takes.cameras.size.to(pixels)
    inside = ((pixels >= 0) & (pixels < size[:, None, None])).all(-1)
    covered = _occluded(takes, frame)
    return image * inside[:, None], torch.cat(hidden) | covered


def _crop_grid(device: torch.device) -> Tensor:
    """[256, 256, 2] crop px of the pixel centres."""
    at = torch.arange(CROP_SIZE, device=device) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], -1)


def _draw(
    takes: Takes, person: Person, index: Tensor, frame: int, roi: Roi, body: Body, S: int
) -> tuple[Tensor, ...]:
    """Colour [b, S, S, 3], cover [b, S, S] and depth [b, S, S] (FAR where empty) of people in their crops."""
    vertices, joints = body.skin(person.rotmats[index, frame], person.betas[index], person.trans[index, frame])
    normals = vertex_normals(vertices, body.triangles)
    wardrobe: Wardrobe = person.wardrobe[index]
    rest, triangles, hanging = body.v_template, body.triangles, None
    R = takes.cameras.R[index, frame]
    up = R[..., :, 1]
    skin, vertices = vertices, loosen(vertices, normals, rest, wardrobe, up)
    if wardrobe.style is not None:
        patterns, trail = takes.patterns, (R @ person.trail[index, frame, :, None]).squeeze(-1)
        hung, hung_normals = hang(patterns, skin, joints, person.rotmats[index, frame], wardrobe.style, up, trail)
        triangles = torch.cat([triangles, patterns.triangles + len(rest)])
        rest = torch.cat([rest, patterns.rest])
        vertices, normals = torch.cat([vertices, hung], 1), torch.cat([normals, hung_normals], 1)
        hanging = cloth_of(patterns, wardrobe.style)
    flat = project(vertices[:, None], takes.cameras.intrinsics[index])[:, 0]
    points = torch.cat([image_to_crop(flat, roi, crop_size=S), vertices[..., 2:]], -1)
    fragments = rasterise(points, triangles, S, S)
    light = takes.lights.in_camera(takes.cameras.R[:, frame])[index]
    color = fragments.fill(paint(fragments, rest, normals, wardrobe, light, hanging))
    depth = fragments.fill(fragments.depth[:, None], FAR)[..., 0]
    return color, (depth < FAR).to(color.dtype), depth


def _steady(pixels: Tensor, takes: Takes, frame: int) -> Tensor:
    """Where the far background at pixels [B, H, W, 2] of this frame was in the first frame (camera rotation)."""
    k = takes.cameras.intrinsics[:, None, None]
    ray = torch.cat([(pixels - k[..., 2:]) / k[..., :2], torch.ones_like(pixels[..., :1])], -1)
    back = takes.cameras.R[:, 0] @ takes.cameras.R[:, frame].transpose(-1, -2)
    ray = torch.einsum("bij,bhwj->bhwi", back, ray)
    return ray[..., :2] / ray[..., 2:].clamp_min(0.1) * k[..., :2] + k[..., 2:]


def _shadow(takes: Takes, frame: int, pixels: Tensor) -> Tensor:
    """[B, 1, H, W] how dark the floor is around what of the person is near it, at pixels [B, H, W, 2]."""
    coarse = pixels[:, 2::4, 2::4]
    k, R, t = takes.cameras.intrinsics[:, None, None], takes.cameras.R[:, frame], takes.cameras.t[:, frame]
    ray = torch.cat([(coarse - k[..., 2:]) / k[..., :2], torch.ones_like(coarse[..., :1])], -1)
    ray = torch.einsum("bji,bhwj->bhwi", R, ray)
    eye = -torch.einsum("bji,bj->bi", R, t)
    near = torch.einsum("bji,bkj->bki", R, takes.keypoints[:, frame, SHADOWED] - t[:, None])
    far = -eye[:, None, None, 1] / ray[..., 1].clamp_max(-1e-3)
    place = eye[:, None, None, [0, 2]] + far[..., None] * ray[..., [0, 2]]
    height = near[..., 1].clamp_min(0)
    width = 0.07 + 0.3 * height
    light = (ray[..., 1] < -1e-3).to(ray) * takes.shadow[:, None, None]
    clear = torch.ones_like(far)
    for i in range(len(SHADOWED)):
        away = ((place - near[:, i, None, None, [0, 2]]) ** 2).sum(-1)
        dark = torch.exp(-away / (2 * width[:, i, None, None] ** 2)) * torch.exp(-height[:, i, None, None] / 0.35)
        clear = clear * (1 - light * dark)
    return torch.nn.functional.interpolate(1 - clear[:, None], scale_factor=4, mode="bilinear", align_corners=False)


def _hidden(takes: Takes, part: slice, frame: int, roi: Roi, depth: Tensor) -> Tensor:
    """[b, 25] bool: something is drawn well before the keypoint."""
    S = depth.shape[-1]
    at = image_to_crop(takes.points[part, frame], roi, crop_size=S).floor().long()
    inside = ((at >= 0) & (at < S)).all(-1)
    at = at.clamp(0, S - 1)
    seen = depth.flatten(1).gather(1, at[..., 1] * S + at[..., 0])
    return inside & (seen < takes.keypoints[part, frame, :, 2] - HIDDEN_DEPTH)


def _cover(occluders: Tensor, pixels: Tensor, i: int) -> tuple[Tensor, Tensor]:
    """Of occluder i [B, 12]: whether it covers pixels [B, ..., 2], and the place across it in px."""
    o = occluders[:, i].reshape(len(occluders), *([1] * (pixels.dim() - 2)), occluders.shape[-1])
    c, s = torch.cos(o[..., 4]), torch.sin(o[..., 4])
    dx, dy = pixels[..., 0] - o[..., 0], pixels[..., 1] - o[..., 1]
    u, v = dx * c + dy * s, dy * c - dx * s
    box = (u.abs() < o[..., 2]) & (v.abs() < o[..., 3])
    disc = (u / o[..., 2]) ** 2 + (v / o[..., 3]) ** 2 < 1
    return torch.where(o[..., 5] > 0.5, disc, box) & (o[..., 11] > 0), u + v


def _add_occluders(image: Tensor, occluders: Tensor, pixels: Tensor) -> Tensor:
    for i in range(occluders.shape[1]):
        there = torch.nonzero(occluders[:, i, 11] > 0).squeeze(1)
        inside, across = _cover(occluders[there], pixels[there], i)
        o = occluders[there, i, :, None, None]
        stripe = (torch.sin(across / o[:, 9].clamp_min(1e-3) * 2 * torch.pi) > 0)[:, None]
        color = o[:, 6:9] * (1 - o[:, 10:11] * stripe)
        image[there] = torch.where(inside[:, None], color, image[there])
    return image


def _occluded(takes: Takes, frame: int) -> Tensor:
    """[B, 25] bool: an occluder lies over the keypoint."""
    points = takes.points[:, frame]
    covered = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device)
    for i in range(takes.occluders.shape[1]):
        covered |= _cover(takes.occluders, points, i)[0]
    return covered
