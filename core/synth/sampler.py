"""Endless random keypoint sequences, made whole on the device: motion, body, camera, detector noise.

B clips of T frames, K = 25 keypoints, J = 24 joints. All motion is at 30 frames a second; time-warping changes how
fast a clip plays. Everything follows from one generator: the same seed on the same device gives the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.body import Body
from core.rotation import axis_angle_to_matrix, quaternion_to_matrix
from core.skeleton import JOINT_MIRROR, JOINT_NAMES, LENGTHS, PRINCIPAL_COUNT
from core.synth.cameras import CameraConfig, project, sample_cameras
from core.synth.handheld import draw_roll, roll_cameras
from core.synth.hands import put_hands
from core.synth.motion import MotionBank
from core.synth.noise import NoiseModel
from core.synth.proportions import draw_factors, stretch
from core.synth.unseen import sway, tuck, turn_over

UPPER_BODY = tuple(
    any(part in name for part in ("spine", "neck", "head", "collar", "shoulder", "elbow", "wrist", "hand"))
    for name in JOINT_NAMES
)
LIMBS = tuple(
    tuple(JOINT_NAMES.index(name) for name in names)
    for names in (
        ("neck", "head"),
        *((f"{s}_collar", f"{s}_shoulder", f"{s}_elbow", f"{s}_wrist", f"{s}_hand") for s in ("left", "right")),
        *((f"{s}_hip", f"{s}_knee", f"{s}_ankle", f"{s}_foot") for s in ("left", "right")),
    )
)


@dataclass(frozen=True)
class SamplerConfig:
    frames: int = 32
    speed: tuple[float, float] = (0.6, 1.5)
    """Log-uniform playing speed."""
    mirrored: float = 0.5
    mixed: float = 0.25
    """Share of clips whose upper body comes from another clip."""
    in_parts: float = 0.0
    """Share of clips whose head, arms and legs each come from one of three clips."""
    wobbled: float = 0.3
    """Share of clips whose joints all sway slowly about the recorded motion, for poses that nobody recorded."""
    wobble_deg: float = 8.0
    """Largest deviation of that sway about each axis; a clip has its own between 0 and this."""
    beta_deviation: float = 1.3
    tilt_deg: float = 4.0
    """Deviation of a constant tilt of the whole motion against gravity."""
    turned_over: float = 0.0
    """Share of clips in which the person turns over once, as in a somersault or a cartwheel, most of them tucked."""
    handed: float = 0.0
    """Share of clips with hands put on the body or before it (`hands`)."""
    frame_s: float = 1 / 30
    """Seconds from frame to frame."""
    length_power: float = 0.75
    """Clips are drawn with probability length ** power, so that long takes do not drown the rest."""
    rolling: float = 0.0
    """Share of keypoint sequences whose camera rolls (`handheld`)."""
    stretched: float = 0.0
    """Share of keypoint sequences seen with other proportions than the body's (`proportions`); truth stays."""
    cameras: CameraConfig = field(default_factory=CameraConfig)


@dataclass(frozen=True)
class Motions:
    """Motion of B people on their bodies in the world (y up, floor at 0)."""

    rotmats: Tensor
    """[B, T, 24, 3, 3] local rotations."""
    pelvis: Tensor
    """[B, T, 3] position of the pelvis joint, for this person's leg length."""
    betas: Tensor
    """[B, S]."""
    clip: Tensor
    """[B] int64 index of the clip in the bank."""
    other_clip: Tensor
    """[B] int64 clip of the upper body, -1 where it is the same."""
    start: Tensor
    speed: Tensor
    is_mirrored: Tensor
    """[B]: first source frame within the clip, source frames per frame, left and right exchanged."""


@dataclass(frozen=True)
class Batch:
    keypoints: Tensor
    """[B, T, K, 3] observed px, px, confidence."""
    landmarks3d: Tensor
    """[B, T, K, 3] observed, metres, hip-centred, camera axes."""
    true_keypoints: Tensor
    """[B, T, K, 3] metres, camera frame."""
    true_points: Tensor
    """[B, T, K, 2] px."""
    joints: Tensor
    """[B, T, 24, 3] metres, camera frame."""
    rotmats: Tensor
    """[B, T, 24, 3, 3] local, the root's in the camera frame."""
    trans: Tensor
    """[B, T, 3] SMPL translation in the camera frame."""
    betas: Tensor
    """[B, S]."""
    intrinsics: Tensor
    """[B, 4] fx fy cx cy px."""
    size: Tensor
    """[B, 2] image width, height px."""
    up: Tensor
    """[B, T, 3] against gravity, camera frame."""
    is_swapped: Tensor
    """[B, T, K] bool."""
    is_gap: Tensor
    """[B, T] bool."""


class MotionSampler:
    """Draws motion from a bank. `split` is one split or several."""

    def __init__(
        self,
        bank: MotionBank,
        body: Body,
        *,
        split: str | Iterable[str] = "train",
        config: SamplerConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config or SamplerConfig()
        self.for_training = split == "train"
        self.device = torch.device(device)
        self.body = body.to(self.device)
        clips = bank.clips(split)
        self.clip_number = torch.tensor(clips, device=self.device)
        self.start = torch.from_numpy(bank.clip_start[clips]).to(self.device)
        self.length = torch.from_numpy(bank.clip_len[clips]).to(self.device)
        self.quats = torch.from_numpy(bank.quats).to(self.device, torch.float32)
        self.pelvis = torch.from_numpy(bank.pelvis).to(self.device, torch.float32)
        self.weight = self.length.float() ** self.config.length_power
        self.mirror = torch.tensor(JOINT_MIRROR, device=self.device)
        self.upper = torch.tensor(UPPER_BODY, device=self.device)
        self.leg_length = bank.leg_length

    def _uniform(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=self.device)

    def sample(self, count: int, generator: torch.Generator, *, frames: int | None = None) -> Motions:
        """Draw `count` motions of `frames` frames (default: the configuration's)."""
        c, T, B = self.config, frames or self.config.frames, count
        low, high = math.log(c.speed[0]), math.log(c.speed[1])
        speed = torch.exp(low + (high - low) * self._uniform(generator, B))
        quats, pelvis, clip, start, speed = self._play(B, T, speed, generator)
        mirrored = self._uniform(generator, B) < c.mirrored
        quats, pelvis = self._mirror(quats, pelvis, mirrored)
        mixed = self._uniform(generator, B) < c.mixed
        other, _, other_clip, _, _ = self._play(B, T, speed, generator)
        other, _ = self._mirror(other, pelvis, self._uniform(generator, B) < c.mirrored)
        quats = torch.where((mixed[:, None] & self.upper)[:, None, :, None], other, quats)
        if c.in_parts > 0:
            quats = self._in_parts(quats, other, pelvis, speed, generator)
        rotmats = quaternion_to_matrix(quats)
        if c.wobbled > 0:
            rotmats = rotmats @ sway(B, T, generator, share=c.wobbled, largest_deg=c.wobble_deg)
        if c.turned_over > 0:
            turn = turn_over(B, T, generator, share=c.turned_over, frame_s=c.frame_s)
            rotmats = tuck(rotmats, turn, generator)
            rotmats = torch.cat([(rotmats[:, :, 0] @ turn.rotation)[:, :, None], rotmats[:, :, 1:]], 2)
        tilt = torch.randn((B, 3), generator=generator, device=self.device) * math.radians(c.tilt_deg)
        tilt[:, 1] = 2 * math.pi * self._uniform(generator, B)
        turn = axis_angle_to_matrix(tilt * torch.tensor([1.0, 0.0, 1.0], device=self.device))
        turn = axis_angle_to_matrix(tilt * torch.tensor([0.0, 1.0, 0.0], device=self.device)) @ turn
        rotmats = torch.cat([turn[:, None, None] @ rotmats[:, :, :1], rotmats[:, :, 1:]], 2)
        yaw = axis_angle_to_matrix(tilt * torch.tensor([0.0, 1.0, 0.0], device=self.device))
        centre = pelvis.mean(1, keepdim=True) * torch.tensor([1.0, 0.0, 1.0], device=self.device)
        pelvis = (pelvis - centre) @ yaw.transpose(-1, -2)
        betas = draw_shapes(B, generator, deviation=c.beta_deviation)
        pelvis = pelvis * (self.legs(betas) / self.leg_length)[:, None, None]
        if c.handed > 0:
            rotmats = put_hands(rotmats, betas, self.body, c.frame_s, generator, share=c.handed)
        source = torch.where(mixed, self.clip_number[other_clip], torch.full_like(other_clip, -1))
        return Motions(rotmats, pelvis, betas, self.clip_number[clip], source, start, speed, mirrored)

    def _in_parts(
        self, quats: Tensor, other: Tensor, pelvis: Tensor, speed: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Limbs from the clip itself, from `other` or from a third one, for poses that nobody recorded."""
        B, T = quats.shape[:2]
        third, *_ = self._play(B, T, speed, generator)
        third, _ = self._mirror(third, pelvis, self._uniform(generator, B) < self.config.mirrored)
        happens = self._uniform(generator, B) < self.config.in_parts
        source = (self._uniform(generator, B, len(LIMBS)) * 3).long()
        source = torch.where(happens[:, None], source, torch.zeros_like(source))
        for i, joints in enumerate(LIMBS):
            of_limb = torch.zeros(24, dtype=torch.bool, device=self.device)
            of_limb[list(joints)] = True
            for number, donor in ((1, other), (2, third)):
                taken = (source[:, i] == number)[:, None] & of_limb
                quats = torch.where(taken[:, None, :, None], donor, quats)
        return quats

    def legs(self, betas: Tensor) -> Tensor:
        """Thigh plus shin [B] of bodies with betas [B, S], metres."""
        joints = self.body.rest_joints(betas)
        hip, knee, ankle = (joints[:, JOINT_NAMES.index(n)] for n in ("left_hip", "left_knee", "left_ankle"))
        return (hip - knee).norm(dim=-1) + (knee - ankle).norm(dim=-1)

    def _play(self, B: int, T: int, speed: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Frames of random clips at fractional steps; a clip too short for its speed is played slower."""
        clip = torch.multinomial(self.weight, B, replacement=True, generator=generator)
        last = (self.length[clip] - 1).float()
        speed = torch.minimum(speed, last / max(T - 1, 1))
        start = self._uniform(generator, B) * (last - speed * (T - 1)).clamp_min(0)
        at = (start[:, None] + speed[:, None] * torch.arange(T, device=self.device)).minimum(last[:, None])
        before = at.floor().clamp_max((last - 1).clamp_min(0)[:, None])
        share = (at - before)[..., None]
        index = before.long() + self.start[clip][:, None]
        following = torch.minimum(index + 1, (self.start + self.length - 1)[clip][:, None])
        a, b = self.quats[index], self.quats[following]
        b = torch.where((a * b).sum(-1, keepdim=True) < 0, -b, b)
        quats = torch.nn.functional.normalize(a + (b - a) * share[..., None], dim=-1)
        pelvis = self.pelvis[index] * (1 - share) + self.pelvis[following] * share
        return quats, pelvis, clip, start, speed

    def _mirror(self, quats: Tensor, pelvis: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange left and right by reflecting x: (w, x, y, z) becomes (w, x, -y, -z) on the other joint."""
        signs = torch.tensor([1.0, 1.0, -1.0, -1.0], device=self.device)
        quats = torch.where(mirrored[:, None, None, None], quats[:, :, self.mirror] * signs, quats)
        flipped = pelvis * torch.tensor([-1.0, 1.0, 1.0], device=self.device)
        return quats, torch.where(mirrored[:, None, None], flipped, pelvis)


class KeypointSampler:
    """Motion, camera and detector noise together. Call `batch(count)` as often as wanted."""

    def __init__(
        self,
        bank: MotionBank,
        body: Body,
        noise: NoiseModel,
        *,
        split: str | Iterable[str] = "train",
        config: SamplerConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.noise, self.device = noise, noise.device
        self.motions = MotionSampler(bank, body, split=split, config=config, device=self.device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        zeros = torch.zeros((1, 10), device=self.device)
        self.standard_leg = float(self.motions.legs(zeros))

    @torch.no_grad()
    def batch(self, count: int, *, frames: int | None = None) -> Batch:
        """Return a batch of `count` sequences."""
        g, body = self.generator, self.motions.body
        m = self.motions.sample(count, g, frames=frames)
        cameras = sample_cameras(m.pelvis, g, self.motions.config.cameras)
        rolling, frame_s = self.motions.config.rolling, self.motions.config.frame_s
        if rolling > 0:
            cameras = roll_cameras(cameras, draw_roll(cameras.size, m.pelvis.shape[1], frame_s, g, share=rolling))
        rotmats, trans = to_camera(m, cameras.R, cameras.t, body)
        T = rotmats.shape[1]
        betas = m.betas[:, None].expand(count, T, -1)
        joints, _ = body.forward_kinematics(rotmats, betas, trans)
        keypoints = body.keypoints(rotmats, betas, trans)
        points = project(keypoints, cameras.intrinsics)
        standard = self.standard_leg / self.motions.legs(m.betas)
        shown, places = keypoints, points
        if self.motions.config.stretched > 0:
            shown = stretch(keypoints, draw_factors(count, g, share=self.motions.config.stretched))
            places = project(shown, cameras.intrinsics)
        seen = self.noise.observe(shown, places, cameras.size, g, standard_size=standard)
        return Batch(
            keypoints=seen.keypoints,
            landmarks3d=seen.landmarks3d,
            true_keypoints=keypoints,
            true_points=points,
            joints=joints,
            rotmats=rotmats,
            trans=trans,
            betas=m.betas,
            intrinsics=cameras.intrinsics,
            size=cameras.size,
            up=cameras.up(),
            is_swapped=seen.is_swapped,
            is_gap=seen.is_gap,
        )


def to_camera(motions: Motions, R: Tensor, t: Tensor, body: Body) -> tuple[Tensor, Tensor]:
    """World motion seen by cameras R [B, T, 3, 3], t [B, T, 3] -> local rotations with the root's in the camera
    frame [B, T, 24, 3, 3] and SMPL translations [B, T, 3] (the pelvis joint lands where it was)."""
    root = R @ motions.rotmats[:, :, 0]
    rotmats = torch.cat([root[:, :, None], motions.rotmats[:, :, 1:]], 2)
    pelvis = (R @ motions.pelvis[..., None]).squeeze(-1) + t
    return rotmats, pelvis - body.rest_joints(motions.betas)[:, None, 0]


def draw_shapes(count: int, generator: torch.Generator, *, deviation: float) -> Tensor:
    """Shapes [B, S], normal. Lengths come from a generator of their own that follows from the principal components:
    whatever else is drawn from `generator` does not depend on how many lengths there are."""
    principal = torch.randn((count, PRINCIPAL_COUNT), generator=generator, device=generator.device)
    own = torch.Generator(generator.device).manual_seed(int(principal.view(torch.int32).sum()) & 0x7FFFFFFF)
    lengths = torch.randn((count, len(LENGTHS)), generator=own, device=generator.device)
    return torch.cat([principal, lengths], 1) * deviation
