"""A model of the detector's errors on keypoints and on its own 3D landmarks; batched torch on any device.

Lengths of 2D errors are shares of the crop's side (the crop follows the person, so a far person has the same error in
these units, and more of it in metres). An error is a sum of: a constant of the body part (where the detector puts
that point), a constant of the clip, a slow and a fast first-order process, all per joint; a common shift and scale of
the whole crop; spells in which a limb is lost (its noise multiplied, its confidence low), more likely where the limb
is behind the body or outside the image; spells in which a limb's, or the whole body's, left and right are exchanged,
likelier and longer where the face is turned away; and spells without any detection.
B clips, T frames, K = 25 keypoints.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from core.errors import InputError
from core.rotation import axis_angle_to_matrix
from core.skeleton import KEYPOINT_MIRROR, KEYPOINT_NAMES
from core.synth.cameras import filter_white, smooth_noise

PARAMETERS_FILE = Path(__file__).with_name("noise.json")
CROP_MARGIN = 1.25
SWELL_CORRELATION = 0.93
LARGEST_ERROR = 0.2
"""Errors beyond this share of the crop's side neither lower the confidence nor move the 3D landmarks further."""
LARGEST_GAIN_3D = 2.0
CANDIDATES = 4
"""Spells of one kind that a window can hold."""
LEFT_HIP, RIGHT_HIP = KEYPOINT_NAMES.index("left_hip"), KEYPOINT_NAMES.index("right_hip")
LEFT_SHOULDER, RIGHT_SHOULDER = KEYPOINT_NAMES.index("left_shoulder"), KEYPOINT_NAMES.index("right_shoulder")


def _limb(name: str) -> int:
    """0 head and trunk, 1 left arm, 2 right arm, 3 left leg, 4 right leg."""
    side = 1 if name.startswith("right") else 0
    if any(part in name for part in ("elbow", "wrist", "pinky", "index", "thumb")):
        return 1 + side
    return 3 + side if any(part in name for part in ("knee", "ankle", "heel", "toe")) else 0


LIMB_OF_KEYPOINT = tuple(_limb(name) for name in KEYPOINT_NAMES)
LIMB_COUNT = 5


@dataclass(frozen=True)
class NoiseParameters:
    """Numbers of the model; rates are per frame at 30 frames a second, durations in frames."""

    offset: tuple[tuple[float, float, float], ...]
    """[K][3] mean place of the detector's point in the body's axes (left, up, front of the hips and shoulders)
    relative to ours, shares of the crop's side."""
    clip: tuple[float, ...]
    """[K] standard deviation of the constant of a clip."""
    slow: tuple[float, ...]
    fast: tuple[float, ...]
    slow_correlation: float
    fast_correlation: float
    tail: tuple[float, ...]
    """[LIMB_COUNT] how much a limb's noise swells and shrinks in time: deviation of the logarithm of its factor."""
    hidden_gain: float
    """Factor on the noise of points that are hidden."""
    lost_gain: float
    """Factor on the noise of a lost limb."""
    lost_rate: float
    lost_rate_hidden: float
    lost_duration: float
    crop_shift: float
    crop_scale: float
    swap_rate: float
    """Whole-body exchange, seen from the front."""
    swap_rate_back: float
    swap_rate_side: float
    swap_duration: float
    limb_swap_rate: float
    """Exchange of both arms or both legs alone; side views have `limb_swap_side` times as many."""
    limb_swap_side: float
    limb_swap_duration: float
    gap_rate: float
    gap_duration: float
    confidence_seen: tuple[float, ...]
    """[K] mean logit of the visibility of a point without error."""
    confidence_hidden: tuple[float, ...]
    confidence_lost: float
    confidence_outside: float
    confidence_slope: float
    """How much the logit falls per error of one crop side."""
    confidence_spread: tuple[float, ...]
    """[K] deviation of the logit."""
    depth_scale: tuple[float, float]
    """Mean and deviation, over clips, of the factor on the 3D landmarks' depth."""
    size_scale: tuple[float, float]
    """Mean and deviation of the factor on the 3D landmarks, after the person is brought to the standard size."""
    turn_deg: tuple[float, float, float]
    """Deviation of the 3D landmarks' rotation error about x, y, z of the camera."""
    offset3d: tuple[tuple[float, float, float], ...]
    """[K][3] mean place of the detector's 3D point in the body's axes relative to ours, metres."""
    clip3d: tuple[tuple[float, float], ...]
    """[K][2] deviation over clips across the view and in depth, metres."""
    slow3d: tuple[tuple[float, float], ...]
    fast3d: tuple[tuple[float, float], ...]
    share2d: float
    """How much of the 2D error shows in the 3D landmarks as well."""

    @staticmethod
    def load(path: str | Path | None = None) -> NoiseParameters:
        """Read a parameter file; None reads the one beside this module."""
        path = Path(path or PARAMETERS_FILE)
        try:
            values = json.loads(path.read_text())
            return NoiseParameters(**{f.name: _frozen(values[f.name]) for f in fields(NoiseParameters)})
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is not a parameter file of the noise model: {error}") from error

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n")


@dataclass(frozen=True)
class Observation:
    keypoints: Tensor
    """[B, T, K, 3] px, px, confidence 0..1; 0 in gaps, where the last place is held."""
    landmarks3d: Tensor
    """[B, T, K, 3] metres, hip-centred, camera axes; held in gaps."""
    is_swapped: Tensor
    """[B, T, K] bool: the point was taken from the other side."""
    is_gap: Tensor
    """[B, T] bool."""


def crop_side(points: Tensor) -> Tensor:
    """Side in px [B, T] of the crop that the detector would use for points [B, T, K, 2]."""
    middle = (points[..., LEFT_HIP, :] + points[..., RIGHT_HIP, :]) / 2
    return (points - middle[..., None, :]).norm(dim=-1).amax(-1) * 2 * CROP_MARGIN


def body_axes(points_cam: Tensor) -> Tensor:
    """Axes [..., 3, 3] of the trunk of keypoints [..., K, 3]; columns: left, up, front, in the camera frame."""
    hips = (points_cam[..., LEFT_HIP, :] + points_cam[..., RIGHT_HIP, :]) / 2
    shoulders = (points_cam[..., LEFT_SHOULDER, :] + points_cam[..., RIGHT_SHOULDER, :]) / 2
    up = torch.nn.functional.normalize(shoulders - hips, dim=-1)
    across = points_cam[..., LEFT_HIP, :] - points_cam[..., RIGHT_HIP, :]
    across = across + points_cam[..., LEFT_SHOULDER, :] - points_cam[..., RIGHT_SHOULDER, :]
    front = torch.nn.functional.normalize(torch.linalg.cross(across, up), dim=-1)
    left = torch.linalg.cross(up, front)
    return torch.stack([left, up, front], -1)


def view_turn(centre: Tensor) -> Tensor:
    """Rotations [..., 3, 3] that bring the ray to centre [..., 3] onto the optical axis: the detector sees only the
    crop, so its 3D landmarks stand as if the camera looked straight at the person."""
    ray = torch.nn.functional.normalize(centre, dim=-1)
    axis = torch.stack([ray[..., 1], -ray[..., 0], torch.zeros_like(ray[..., 0])], -1)  # ray x z
    sine = axis.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, ray[..., 2:])
    return axis_angle_to_matrix(axis / sine.clamp_min(1e-9) * angle)


class NoiseModel:
    """Draws observations of true keypoints. Deterministic for a generator's state on one device."""

    def __init__(self, parameters: NoiseParameters | None = None, *, device: torch.device | str = "cpu") -> None:
        self.parameters = p = parameters or NoiseParameters.load()
        self.device = torch.device(device)

        def tensor(values) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        self.offset, self.offset3d = tensor(p.offset), tensor(p.offset3d)
        self.clip, self.slow, self.fast = tensor(p.clip), tensor(p.slow), tensor(p.fast)
        spread = [torch.stack([t[:, 0], t[:, 0], t[:, 1]], -1) for t in map(tensor, (p.clip3d, p.slow3d, p.fast3d))]
        self.clip3d, self.slow3d, self.fast3d = spread
        self.offset3d = tensor(p.offset3d)
        self.tail, self.spread = tensor(p.tail), tensor(p.confidence_spread)
        self.seen, self.unseen = tensor(p.confidence_seen), tensor(p.confidence_hidden)
        self.limb = torch.tensor(LIMB_OF_KEYPOINT, device=self.device)
        self.mirror = torch.tensor(KEYPOINT_MIRROR, device=self.device)

    def observe(
        self,
        points_cam: Tensor,
        points: Tensor,
        size: Tensor,
        generator: torch.Generator,
        *,
        standard_size: Tensor | None = None,
    ) -> Observation:
        """Observe true keypoints.

        points_cam [B, T, K, 3] metres, points [B, T, K, 2] px, size [B, 2] image px, standard_size [B] the factor
        that brings the person to average size (None: 1).
        """
        p, B, T, K = self.parameters, *points.shape[:3]
        side = crop_side(points).clamp_min(1.0)
        axes = body_axes(points_cam)
        facing = axes[..., 2, 2]  # front axis along the view: -1 faces the camera, +1 turned away
        hidden = self._hidden(points_cam, axes)
        outside = ((points < 0) | (points > size[:, None, None])).any(-1)
        lost = self._lost(hidden | outside, generator)
        swapped, limb_swapped = self._swaps(facing, axes, generator)

        swell = self._process((B, T, LIMB_COUNT), SWELL_CORRELATION, generator)
        gain = torch.exp(swell * self.tail - self.tail**2)[..., self.limb]  # its square is 1 on average
        gain = torch.where(hidden | outside, gain * p.hidden_gain, gain)
        sticky = torch.where(lost, torch.full_like(gain, p.lost_gain), gain)
        nervous = torch.where(lost, gain * p.lost_gain**0.5, gain)
        shape = (B, T, K, 2)
        error = self._randn((B, 1, K, 2), generator) * self.clip[:, None]
        error = error + self._process(shape, p.slow_correlation, generator) * self.slow[:, None] * sticky[..., None]
        error = error + self._process(shape, p.fast_correlation, generator) * self.fast[:, None] * nervous[..., None]
        offset = torch.einsum("btij,kj->btki", axes, self.offset)[..., :2]
        middle = (points[..., LEFT_HIP, :] + points[..., RIGHT_HIP, :])[:, :, None] / 2
        common = smooth_noise((B, T, 3), 0.8, generator, self.device)
        error = error + common[:, :, None, :2] * p.crop_shift
        relative = (points - middle) / side[..., None, None]
        error = error + relative * common[:, :, None, 2:] * p.crop_scale
        seen = self._exchange(points + offset * side[..., None, None], swapped, limb_swapped)
        keypoints = seen + error * side[..., None, None]
        hidden_there = self._exchange(hidden[..., None], swapped, limb_swapped)[..., 0]
        confidence = self._confidence(hidden_there, lost, outside, error, generator)
        landmarks = self._landmarks3d(
            points_cam, axes, error, side, points, swapped, limb_swapped, gain, standard_size, generator
        )
        gap = self._spells((B, T), torch.full((B, T), p.gap_rate, device=self.device), p.gap_duration, generator)
        full, landmarks = hold_in_gaps(torch.cat([keypoints, confidence[..., None]], -1), landmarks, gap)
        exchanged = swapped[..., None] | limb_swapped
        return Observation(full, landmarks, exchanged, gap)

    def _randn(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator, device=self.device)

    def _process(self, shape: tuple[int, ...], correlation: float, generator: torch.Generator) -> Tensor:
        return filter_white(self._randn(shape, generator), torch.tensor([correlation], device=self.device))

    def _hidden(self, points_cam: Tensor, axes: Tensor) -> Tensor:
        """[B, T, K] bool: behind the trunk as the camera sees it (a flat ellipse between hips and shoulders)."""
        hips = (points_cam[..., LEFT_HIP, :] + points_cam[..., RIGHT_HIP, :]) / 2
        shoulders = (points_cam[..., LEFT_SHOULDER, :] + points_cam[..., RIGHT_SHOULDER, :]) / 2
        middle = (hips + shoulders) / 2
        ray = points_cam / points_cam[..., 2:].clamp_min(0.05)
        at_trunk = ray * middle[..., None, 2:]
        local = torch.einsum("btji,btkj->btki", axes, at_trunk - middle[..., None, :])
        half_height = ((shoulders - hips).norm(dim=-1) / 2)[..., None]
        inside = (local[..., 0] / 0.17) ** 2 + (local[..., 1] / half_height) ** 2 < 1
        behind = points_cam[..., 2] > middle[..., None, 2] + 0.08
        face = torch.zeros_like(behind)
        face[..., 0] = axes[..., 2, 2] > 0.3
        return (inside & behind & (self.limb > 0)) | face

    def _spells(self, shape: tuple[int, ...], rate: Tensor, duration: float, generator: torch.Generator) -> Tensor:
        """Bool [B, T, ...]: candidate spells of a window, each beginning at a frame with the rate given there."""
        T = shape[1]
        frame = torch.arange(T, device=self.device).view(1, T, *([1] * (len(shape) - 2)))
        result = torch.zeros(shape, dtype=torch.bool, device=self.device)
        for _ in range(CANDIDATES):
            one = (shape[0], 1, *shape[2:])
            spread = torch.randn(one, generator=generator, device=self.device)
            length = torch.exp(spread - 0.5) * duration + 1  # mean `duration`, with a long tail
            begin = torch.rand(one, generator=generator, device=self.device) * (T + length) - length
            at = begin.clamp(0, T - 1).long()
            expected = rate.expand(shape).gather(1, at) * (T + length) / CANDIDATES
            happens = torch.rand(one, generator=generator, device=self.device) < 1 - torch.exp(-expected)
            result |= happens & (frame >= begin) & (frame < begin + length)
        return result

    def _lost(self, hidden: Tensor, generator: torch.Generator) -> Tensor:
        p, (B, T, _) = self.parameters, hidden.shape
        share = torch.zeros((B, T, LIMB_COUNT), device=self.device)
        share.index_add_(2, self.limb, hidden.float())
        share = share / torch.bincount(self.limb, minlength=LIMB_COUNT)
        rate = p.lost_rate + share * p.lost_rate_hidden
        return self._spells((B, T, LIMB_COUNT), rate, p.lost_duration, generator)[..., self.limb]

    def _swaps(self, facing: Tensor, axes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Whole-body [B, T] and limb [B, T, K] exchanges of left and right."""
        p, (B, T) = self.parameters, facing.shape
        side_on = axes[..., 2, 0].abs()  # left axis along the view
        rate = p.swap_rate + p.swap_rate_back * facing.clamp_min(0) + p.swap_rate_side * side_on**4
        whole = self._spells((B, T), rate, p.swap_duration, generator)
        limb_rate = p.limb_swap_rate * (1 + p.limb_swap_side * side_on**4)
        pairs = self._spells((B, T, 2), limb_rate[..., None].expand(B, T, 2), p.limb_swap_duration, generator)
        none = torch.zeros_like(pairs[..., :1])
        by_limb = torch.cat([none, pairs[..., :1], pairs[..., :1], pairs[..., 1:], pairs[..., 1:]], -1)
        return whole, by_limb[..., self.limb] & ~whole[..., None]

    def _exchange(self, values: Tensor, whole: Tensor, limbs: Tensor) -> Tensor:
        """Take values [B, T, K, C] from the other side where exchanged."""
        return torch.where((whole[..., None] | limbs)[..., None], values[:, :, self.mirror], values)

    def _confidence(
        self, hidden: Tensor, lost: Tensor, outside: Tensor, error: Tensor, generator: torch.Generator
    ) -> Tensor:
        p = self.parameters
        logit = torch.where(hidden, self.unseen, self.seen)
        logit = torch.where(lost, torch.full_like(logit, p.confidence_lost), logit)
        logit = torch.where(outside, torch.full_like(logit, p.confidence_outside), logit)
        logit = logit - p.confidence_slope * error.norm(dim=-1).clamp_max(LARGEST_ERROR)
        return torch.sigmoid(logit + self._process(logit.shape, 0.9, generator) * self.spread)

    def _landmarks3d(
        self,
        points_cam: Tensor,
        axes: Tensor,
        error: Tensor,
        side: Tensor,
        points: Tensor,
        swapped: Tensor,
        limb_swapped: Tensor,
        gain: Tensor,
        standard_size: Tensor | None,
        generator: torch.Generator,
    ) -> Tensor:
        p, (B, T, K) = self.parameters, side.shape + (points.shape[2],)
        hips = (points_cam[..., LEFT_HIP, :] + points_cam[..., RIGHT_HIP, :]) / 2
        X = points_cam - hips[:, :, None] + torch.einsum("btij,kj->btki", axes, self.offset3d)
        X = self._exchange(X, swapped, limb_swapped) @ view_turn(hips).transpose(-1, -2)
        turn = torch.tensor(p.turn_deg, device=self.device) * torch.pi / 180
        angles = smooth_noise((B, T, 3), 0.95, generator, self.device) * turn
        X = X @ axis_angle_to_matrix(angles).transpose(-1, -2)
        scale = p.size_scale[0] + p.size_scale[1] * self._randn((B, 1, 1), generator)
        if standard_size is not None:
            scale = scale * standard_size[:, None, None]
        depth = (p.depth_scale[0] + p.depth_scale[1] * self._randn((B, 1, 1), generator)) * scale
        X = torch.cat([X[..., :2] * scale[..., None], X[..., 2:] * depth[..., None]], -1)
        shape = (B, T, K, 3)
        gain = gain.clamp_max(LARGEST_GAIN_3D)
        noise = self._randn((B, 1, K, 3), generator) * self.clip3d
        noise = noise + self._process(shape, p.slow_correlation, generator) * self.slow3d * gain[..., None]
        noise = noise + self._process(shape, p.fast_correlation, generator) * self.fast3d * gain[..., None]
        extent = (points_cam - hips[:, :, None]).norm(dim=-1).amax(-1) * 2 * CROP_MARGIN  # the crop's side in metres
        shared = error.clamp(-LARGEST_ERROR, LARGEST_ERROR) * (extent * p.share2d)[..., None, None]
        X = X + noise + torch.cat([shared, torch.zeros_like(shared[..., :1])], -1)
        middle = (X[..., LEFT_HIP, :] + X[..., RIGHT_HIP, :]) / 2
        return X - middle[:, :, None]


def hold_in_gaps(keypoints: Tensor, landmarks: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """Keypoints (confidence 0) and landmarks [B, T, K, 3] with the last ones held in gaps [B, T]."""
    take = _last_true(~gap)[:, :, None, None].expand_as(keypoints)
    full = keypoints.gather(1, take)
    full[..., 2] = torch.where(gap[..., None], torch.zeros_like(full[..., 2]), full[..., 2])
    return full, landmarks.gather(1, take)


def _last_true(mask: Tensor) -> Tensor:
    """Index [B, T] of the last true frame at or before each frame; the first true one before any."""
    T = mask.shape[1]
    frame = torch.arange(T, device=mask.device).expand_as(mask)
    last = torch.where(mask, frame, torch.full_like(frame, -1)).cummax(1).values
    first = mask.float().argmax(1, keepdim=True)
    return torch.where(last < 0, first, last)


def _frozen(value):
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
