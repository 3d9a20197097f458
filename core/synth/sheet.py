"""Pictures to look at: rendered crops with the detector's points, truth and mesh; histograms of its errors."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from core.body import Body
from core.perception.blazepose import CROP_SIZE, BlazePoseLandmarks
from core.perception.roi import Roi, image_to_crop
from core.skeleton import KEYPOINT_NAMES
from core.synth.cameras import project
from core.synth.dataset import first_roi, read_crops
from core.synth.detector_errors import Errors
from core.synth.render import render_crops
from core.synth.sampler import MotionSampler
from core.synth.takes import Conditions, Takes, draw_takes

LEFT, RIGHT, MIDDLE, TRUTH = (60, 60, 255), (255, 140, 30), (255, 255, 255), (0, 230, 0)


@torch.inference_mode()
def sample_sheet(
    motions: MotionSampler,
    detector: BlazePoseLandmarks,
    *,
    count: int,
    frames: int,
    every: int,
    seed: int,
    conditions: Conditions,
) -> np.ndarray:
    """BGR picture: a column per take, a row for every `every`-th frame: what the detector sees, with its points (left
    red, right blue), the true ones (green) and mesh vertices (thin green) drawn on a copy below."""
    generator = torch.Generator(motions.device).manual_seed(seed)
    takes = draw_takes(motions, count, frames, generator, conditions=conditions)
    roi = first_roi(takes, 0, generator)
    rows = []
    for t in range(frames):
        crops, _ = render_crops(takes, t, roi, motions.body, generator)
        found, next_roi, lost = read_crops(detector, crops, roi, takes, t, None)
        if t % every == 0:
            rows += _rows(takes, t, crops, roi, found, motions.body)
        fresh = first_roi(takes, min(t + 1, frames - 1), generator)
        roi = Roi(
            torch.where(lost[:, None], fresh.center, next_roi.center),
            torch.where(lost, fresh.size, next_roi.size),
            torch.where(lost, fresh.angle, next_roi.angle),
        )
    return np.concatenate(rows)


def _rows(takes: Takes, t: int, crops: torch.Tensor, roi: Roi, found: dict, body: Body) -> list[np.ndarray]:
    person, k = takes.person, takes.cameras.intrinsics
    vertices, _ = body.skin(person.rotmats[:, t], person.betas, person.trans[:, t])
    mesh = image_to_crop(project(vertices[:, None, ::7], k)[:, 0], roi).cpu().numpy()
    truth = image_to_crop(takes.points[:, t], roi).cpu().numpy()
    seen = image_to_crop(found["keypoints"][..., :2], roi).cpu().numpy()
    images = (crops.permute(0, 2, 3, 1).float().cpu().numpy()[..., ::-1] * 255).astype(np.uint8)
    upper, lower = [], []
    for i, image in enumerate(images):
        drawn = image.copy()
        for x, y in mesh[i]:
            if 0 <= x < CROP_SIZE and 0 <= y < CROP_SIZE:
                drawn[int(y), int(x)] = TRUTH
        plain = image.copy()
        for name, p, q in zip(KEYPOINT_NAMES, seen[i], truth[i]):
            color = LEFT if name.startswith("left") else RIGHT if name.startswith("right") else MIDDLE
            for target in (plain, drawn):
                cv2.line(target, *(tuple(int(v) for v in np.clip(e, -999, 999)) for e in (p, q)), (0, 255, 255), 1)
            cv2.circle(plain, tuple(int(v) for v in np.clip(p, -999, 999)), 2, color, -1, cv2.LINE_AA)
            cv2.circle(drawn, tuple(int(v) for v in np.clip(q, -999, 999)), 2, TRUTH, -1, cv2.LINE_AA)
        text = f"{float(found['presence'][i]):.2f} {float(found['keypoints'][i, :, 2].mean()):.2f}"
        cv2.putText(plain, text, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
        upper.append(plain)
        lower.append(drawn)
    return [np.concatenate(upper, 1), np.concatenate(lower, 1)]


def error_histograms(clips: list[Errors]) -> np.ndarray:
    """BGR picture: for every keypoint the histogram of its error (0 to 15 % of the crop's side), sides mended."""
    present = torch.cat([c.present for c in clips])
    error = torch.cat([c.error for c in clips])[present].norm(dim=-1).numpy() * 100
    raw = torch.cat([c.raw for c in clips])[present].numpy() * 100
    panels = []
    for k, name in enumerate(KEYPOINT_NAMES):
        panel = np.full((130, 250, 3), 255, np.uint8)
        for values, color in ((raw[:, k], (200, 200, 255)), (error[:, k], (120, 90, 60))):
            heights = np.histogram(values, bins=60, range=(0, 15))[0]
            top = max(1, np.histogram(error[:, k], bins=60, range=(0, 15))[0].max())
            for x, h in enumerate(heights):
                tall = int(min(h / top, 1) * 95)
                cv2.rectangle(panel, (5 + 4 * x, 120 - tall), (7 + 4 * x, 120), color, -1)
        text = f"{name} {np.median(error[:, k]):.1f} / {np.quantile(raw[:, k], 0.9):.1f} %"
        cv2.putText(panel, text, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        panels.append(panel)
    return np.concatenate([np.concatenate(panels[i : i + 5], 1) for i in range(0, 25, 5)])
