"""Where the detector sees each keypoint, against the body's: `python -m core.make.keypoint_bias --bank FILE`.

Moving, dressed figures are rendered and read as training clips are (core.synth); the difference in the picture plane
is explained by one constant offset per keypoint in the rest axes of the bone it moves with, by robust least squares.
The result, in millimetres for the left side, is what core.make.keypoints.DETECTOR_HABITS was taken from (with the
anatomical places as the body's keypoints). Small numbers mean that the body's keypoints are the detector's.
"""

from __future__ import annotations

import argparse
import logging

import numpy as np
import torch

from core.body import Body, load_body
from core.perception.blazepose import BlazePoseLandmarks
from core.perception.checkpoint import load_networks
from core.perception.roi import Roi
from core.skeleton import JOINT_NAMES, KEYPOINT_MIRROR, KEYPOINT_NAMES
from core.synth.dataset import first_roi, read_crops, sampler_config
from core.synth.motion import MotionBank, read_bank
from core.synth.render import render_crops
from core.synth.sampler import MotionSampler
from core.synth.takes import Conditions, draw_takes

log = logging.getLogger(__name__)
TAKES = 48
FRAMES = 3
CLEAR = Conditions(occluded=0.0, accompanied=0.0, poor=1.0, busy=1.0, truncated=0.15)
FAR_OFF = 0.15
"""Metres; readings further off are swapped sides or lost limbs."""
ROBUST = 0.015
"""Metres at which a residual starts to count less."""
FLIP = np.array([-1.0, 1.0, 1.0])


@torch.inference_mode()
def measure_bias(
    body: Body, bank: MotionBank, detector: BlazePoseLandmarks, *, rounds: int = 6, seed: int = 5
) -> dict[str, tuple[np.ndarray, float, float]]:
    """For each left or middle keypoint: (offset [3] m, median error m before, after taking it out)."""
    sampler = MotionSampler(bank, body, split="train", config=sampler_config("train", FRAMES), device="cpu")
    owner = (body.keypoint_regressor @ body.weights).argmax(1)
    axes: list[list[np.ndarray]] = [[] for _ in KEYPOINT_NAMES]
    errors: list[list[np.ndarray]] = [[] for _ in KEYPOINT_NAMES]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(rounds):
        takes = draw_takes(sampler, TAKES, FRAMES, generator, conditions=CLEAR)
        roi = first_roi(takes, 0, generator)
        for frame in (0, 1):  # the second reading uses the first one's crop, as tracking does
            crops, hidden = render_crops(takes, frame, roi, body, generator, chunk=16)
            row, following, lost = read_crops(detector, crops, roi, takes, frame, None)
            roi = Roi(
                torch.where(lost[:, None], roi.center, following.center),
                torch.where(lost, roi.size, following.size),
                torch.where(lost, roi.angle, following.angle),
            )
        person = takes.person
        _, turns = body.forward_kinematics(person.rotmats[:, frame], person.betas, person.trans[:, frame])
        points = takes.keypoints[:, frame]
        depth = points[..., 2:]
        off = (row["keypoints"][..., :2] - takes.points[:, frame]) * depth / takes.cameras.intrinsics[:, None, :1]
        seen = (row["keypoints"][..., 2] > 0.5) & ~hidden & (off.norm(dim=-1) < FAR_OFF) & ~lost[:, None]
        # how a step along the bone's axes shows in the plane at the point's depth [B, K, 2, 3]
        show = torch.cat([torch.eye(2).expand(*depth.shape[:2], 2, 2), -(points[..., :2] / depth)[..., None]], -1)
        show = show @ turns[:, owner]
        for k in range(len(KEYPOINT_NAMES)):
            axes[k].append(show[seen[:, k], k].numpy())
            errors[k].append(off[seen[:, k], k].numpy())
    found = {}
    for k, name in enumerate(KEYPOINT_NAMES):
        if name.startswith("right_"):
            continue
        sides = [(k, 1.0)] if KEYPOINT_MIRROR[k] == k else [(k, 1.0), (KEYPOINT_MIRROR[k], FLIP)]
        A = np.concatenate([np.concatenate(axes[i]) * flip for i, flip in sides]).reshape(-1, 3)
        e = np.concatenate([np.concatenate(errors[i]) for i, _ in sides]).reshape(-1)
        offset = _robust_fit(A, e)
        found[name] = (offset, float(np.median(np.abs(e))), float(np.median(np.abs(e - A @ offset))))
        log.info(
            "%-14s with %-13s %s mm, median %.0f -> %.0f mm of %d",
            name, JOINT_NAMES[owner[k]], np.round(1000 * offset), *(1000 * m for m in found[name][1:]), len(e) // 2,
        )  # fmt: skip
    return found


def _robust_fit(A: np.ndarray, e: np.ndarray) -> np.ndarray:
    """x that makes A x near e, by least squares reweighted so that large residuals count less."""
    weight = np.ones(len(e))
    x = np.zeros(A.shape[1])
    for _ in range(20):
        x, *_ = np.linalg.lstsq(A * weight[:, None], e * weight, rcond=None)
        weight = 1 / np.sqrt(1 + ((e - A @ x) / ROBUST) ** 2)
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", required=True, help="motion bank (python -m core synth bank)")
    parser.add_argument("--body", help="body file; default: the shipped one")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    networks = load_networks()
    detector = next(n for n in networks if isinstance(n, BlazePoseLandmarks))
    measure_bias(load_body(arguments.body), read_bank(arguments.bank), detector, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
