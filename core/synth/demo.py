"""The demonstration clip: the default body with a known motion of a held-out mocap subject, and its ground truth.

Truth file (`demo_truth.npz`, N frames, camera frame x right, y down, z forward, metres and pixels): joints_cam
[N,24,3], poses [N,72] axis-angle with the root's in the camera frame, trans [N,3], betas [16], keypoints [N,25,2] px,
keypoints_cam [N,25,3], camera [6] (fx fy cx cy width height), R_world_from_cam [N,3,3] and t_world_from_cam [N,3]
(world z up, floor at 0), fps, motion, subject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from core.body import Body
from core.errors import InputError, OutputError
from core.rotation import matrix_to_axis_angle, quaternion_to_matrix
from core.synth.cameras import focal_px, look_at, project
from core.synth.figure import Wardrobe, draw_wardrobe, loosen, paint, vertex_normals
from core.synth.motion import FPS, MotionBank
from core.synth.raster import rasterise
from core.synth.room import Room, cast_shadow, room_image
from core.synth.scene import Lights

Z_UP_FROM_Y_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True)
class DemoConfig:
    motion: str = "10_01"
    first: int = 75
    frames: int = 120
    turn_deg: float = 0.0
    """The motion is turned by this about the vertical."""
    width: int = 640
    height: int = 720
    focal_mm: float = 36.0
    eye: tuple[float, float, float] = (0.3, 1.4, 3.7)
    aim: tuple[float, float, float] = (0.05, 0.82, 0.0)
    betas: tuple[float, ...] = (0.4, -0.5, 0.3, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0)
    seed: int = 7
    supersample: int = 2


@dataclass(frozen=True)
class Take:
    """A motion on a body in front of a still camera."""

    rotmats: Tensor
    """[N, 24, 3, 3], the root's in the world (y up)."""
    trans: Tensor
    """[N, 3] SMPL translation in the world."""
    R: Tensor
    t: Tensor
    """[3, 3], [3]: x_cam = R x_world + t."""
    intrinsics: Tensor
    """[4]."""


def stage_take(bank: MotionBank, body: Body, config: DemoConfig) -> Take:
    """Put the configured piece of motion in front of the configured camera."""
    if config.motion not in bank.name:
        raise InputError(f"the motion bank has no clip {config.motion}")
    frames = bank.frames(bank.name.index(config.motion))
    part = slice(frames.start + config.first, min(frames.start + config.first + config.frames, frames.stop))
    rotmats = quaternion_to_matrix(torch.from_numpy(bank.quats[part]))
    pelvis = torch.from_numpy(bank.pelvis[part])
    a = np.radians(config.turn_deg)
    turn = torch.tensor([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]], dtype=torch.float32)
    middle = (pelvis.amax(0) + pelvis.amin(0)) / 2 * torch.tensor([1.0, 0.0, 1.0])
    pelvis = (pelvis - middle) @ turn.T
    rotmats = torch.cat([(turn @ rotmats[:, 0])[:, None], rotmats[:, 1:]], 1)
    betas = torch.tensor(config.betas)
    rest = body.rest_joints(betas)
    legs = (rest[1] - rest[4]).norm() + (rest[4] - rest[7]).norm()
    trans = pelvis * (legs / bank.leg_length) - rest[0]
    vertices, _ = body.skin(rotmats, betas.expand(len(trans), -1), trans)
    trans = trans - torch.tensor([0.0, 1.0, 0.0]) * torch.quantile(vertices[..., 1].amin(1), 0.2)
    eye, aim = torch.tensor(config.eye), torch.tensor(config.aim)
    R = look_at(eye, aim, torch.zeros(()))
    focal = float(focal_px(torch.tensor([config.focal_mm]), torch.tensor([[config.width, config.height]])))
    intrinsics = torch.tensor([focal, focal, config.width / 2, config.height / 2])
    return Take(rotmats, trans, R, -R @ eye, intrinsics)


def truth_of(take: Take, body: Body, config: DemoConfig, bank: MotionBank) -> dict[str, np.ndarray]:
    """What the truth file holds; see the module's docstring."""
    betas = torch.tensor(config.betas)
    rest = body.rest_joints(betas)[0]
    rotmats = torch.cat([(take.R @ take.rotmats[:, 0])[:, None], take.rotmats[:, 1:]], 1)
    trans = (take.trans + rest) @ take.R.T + take.t - rest
    many = betas.expand(len(trans), -1)
    joints, _ = body.forward_kinematics(rotmats, many, trans)
    keypoints = body.keypoints(rotmats, many, trans)
    points = project(keypoints[None], take.intrinsics[None])[0]
    N = len(trans)
    R_world = (Z_UP_FROM_Y_UP @ take.R.T).expand(N, 3, 3)
    t_world = (-(Z_UP_FROM_Y_UP @ take.R.T) @ take.t).expand(N, 3)
    index = bank.name.index(config.motion)
    size = torch.tensor([float(config.width), float(config.height)])
    arrays = {
        "joints_cam": joints,
        "poses": matrix_to_axis_angle(rotmats).reshape(N, 72),
        "trans": trans,
        "betas": betas,
        "keypoints": points,
        "keypoints_cam": keypoints,
        "camera": torch.cat([take.intrinsics, size]),
        "R_world_from_cam": R_world,
        "t_world_from_cam": t_world,
    }
    result = {name: value.numpy().astype(np.float32) for name, value in arrays.items()}
    return result | {
        "fps": np.float32(FPS),
        "motion": np.array(bank.name[index]),
        "subject": np.array(bank.subject[index]),
    }


def render_take(take: Take, body: Body, config: DemoConfig, *, only: list[int] | None = None):
    """Yield RGB frames uint8 [H, W, 3]; `only` picks frames."""
    s = config.supersample
    size = (config.width * s, config.height * s)
    intrinsics = take.intrinsics * s
    empty, is_floor = room_image(take.R, take.t, intrinsics, *size, Room())
    wardrobe, lights = demo_looks(config)
    towards = lights.key[0]
    light = lights.in_camera(take.R[None])
    betas = torch.tensor(config.betas)[None]
    grain = torch.Generator().manual_seed(config.seed)
    noise = torch.randn((4, config.height, config.width, 1), generator=grain) * 0.002
    for i in only if only is not None else range(len(take.trans)):
        vertices, _ = body.skin(take.rotmats[i : i + 1], betas, take.trans[i : i + 1])
        normals = vertex_normals(vertices, body.triangles)
        vertices = loosen(vertices, normals, body.v_template, wardrobe)
        small = (config.width, config.height)
        shadow = cast_shadow(vertices, body.triangles, towards, take.R, take.t, take.intrinsics, small)
        shadow = torch.nn.functional.interpolate(shadow[:, None], scale_factor=s, mode="bilinear")[0, 0]
        dark = Room().shadow * shadow * is_floor
        image = empty * (1 - dark)[..., None]
        seen = vertices @ take.R.T + take.t
        points = torch.cat([project(seen[:, None], intrinsics[None])[:, 0], seen[..., 2:]], -1)
        fragments = rasterise(points, body.triangles, size[1], size[0])
        colors = paint(fragments, body.v_template, normals @ take.R.T, wardrobe, light)
        image.view(-1, 3)[fragments.pixel] = colors
        small = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1)[None], s)[0].permute(1, 2, 0)
        yield ((small + noise[i % 4]).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def demo_looks(config: DemoConfig) -> tuple[Wardrobe, Lights]:
    """Plain clothes in friendly colours, a lamp above the camera's left shoulder."""
    generator = torch.Generator().manual_seed(config.seed)
    wardrobe = draw_wardrobe(1, generator)
    cut = torch.tensor([[-0.06, 0.36, 0.48, 0.09, -0.85, -0.87, -0.82, 0.69, 0.58, 9.0, 0.0]])
    cloth = wardrobe.cloth.clone()
    colors = {
        0: (0.86, 0.64, 0.52),
        1: (0.72, 0.2, 0.18),
        2: (0.18, 0.25, 0.42),
        3: (0.85, 0.85, 0.82),
        4: (0.2, 0.13, 0.09),
        5: (0.8, 0.8, 0.8),
        8: (0.22, 0.14, 0.1),
        7: (0.72, 0.42, 0.38),
    }
    for garment, color in colors.items():
        cloth[0, garment, 0:3] = torch.tensor(color)
        cloth[0, garment, 3:6] = torch.tensor(color) * 0.92
    stripes = torch.tensor([0.0, 90.0, 0.0, 40.0, 0.0, 0.0, 0.0, 0.0, 3.0, 1.0, 0.0, 0.0])
    cloth[0, 1, 6:18] = stripes
    cloth[0, 1, 3:6] = torch.tensor([0.82, 0.76, 0.68])
    cloth[0, 2, 15:18] = torch.tensor([0.0, 0.0, 1.0])
    cloth[0, :, 18], cloth[0, :, 19] = 0.06, 0.06
    looseness = torch.zeros_like(wardrobe.looseness)
    looseness[0, 1:5] = torch.tensor([0.008, 0.008, 0.008, 0.015])
    lamp = torch.nn.functional.normalize(torch.tensor([[-0.45, 1.0, 0.55]]), dim=-1)
    fill = torch.nn.functional.normalize(torch.tensor([[0.8, 0.3, 0.5]]), dim=-1)
    values = torch.tensor([[0.62, 0.6, 0.56, 0.5, 0.51, 0.54, 0.3]])
    return Wardrobe(cut, looseness, cloth), Lights(lamp, fill, values)


def write_demo(
    folder: str | Path,
    bank: MotionBank,
    body: Body,
    *,
    config: DemoConfig | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, Path]:
    """Write demo.mp4 and demo_truth.npz into a folder; return their paths."""
    config = config or DemoConfig()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    take = stage_take(bank, body, config)
    film, truth = folder / "demo.mp4", folder / "demo_truth.npz"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (config.width, config.height))
    if not writer.isOpened():
        raise OutputError(f"{film} cannot be written: no such folder, or OpenCV without an MPEG-4 writer")
    for done, frame in enumerate(render_take(take, body, config), 1):
        writer.write(frame[..., ::-1])
        if on_progress:
            on_progress(done, len(take.trans))
    writer.release()
    np.savez_compressed(truth, **truth_of(take, body, config, bank))
    return film, truth
