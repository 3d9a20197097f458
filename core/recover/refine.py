"""Refine a motion to the picture: the fit's windows, started from the motion and held near it by an anchor.

Meant for a network's motion. What the fit takes from the detector's own landmarks and from habits of people, to make
up for the depth that a picture lacks, such a motion knows better: AFTER_NETWORK leaves those terms out.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from core.records import Camera, CameraMotion, Track
from core.recover.anchor import Anchor, bone_directions, keypoints_of
from core.recover.chain import build_chain, shape_chain
from core.recover.evidence import read_evidence
from core.recover.fit import Emit, FitOptions, Report, Stop, ignore, never, one_thread, solve_windows
from core.recover.prior import load_prior
from core.recover.sides import match_sides
from core.recover.terms import Sigmas
from core.rotation import axis_angle_to_matrix, matrix_to_axis_angle

CALM = 0.35
"""Share of the angular acceleration that the fit takes for ordinary: a network's motion is calm already."""
AFTER_NETWORK = FitOptions(
    sigmas=Sigmas(
        image=0.01,
        image_robust=0.12,
        direction=(1.5, 1.5, 0.15),
        balance=math.inf,
        prior=4.0,
        straight=math.inf,
        angular_acceleration={part: CALM * value for part, value in Sigmas().angular_acceleration.items()},
    ),
    coarse_iterations=0,
    iterations=4,
    anchor_strength=0.35,
)
"""Tuned on rendered validation clips: tight on picture and acceleration together is nearer to the truth, calmer
and nearer to the picture than looser on both. Outliers are disbelieved from the start, as the start is good. The
anchor is weak: what a network gets wrong stays wrong for many frames, each of which counts."""
DOUBT = 2
"""Power of the confidence: on renderings a keypoint of confidence 0.5 is off by twice as much as one of 1."""
FADE_S = 0.4
"""How long what the refinement changed at its last frame takes to fade out in the frames it did not reach."""


@one_thread()
def refine(
    track: Track,
    camera: Camera,
    body,
    motion: CameraMotion,
    *,
    on_frames: Emit = ignore,
    should_stop: Stop = never,
    on_progress: Report = ignore,
    options: FitOptions = AFTER_NETWORK,
    known: CameraMotion | None = None,
) -> CameraMotion:
    """Fit the same frames from `motion` (its shape is kept), staying near its rotations by options.anchor_strength.

    Stopped early it returns the frames that are done. known: the first frames of the result as an earlier,
    interrupted call handed them on; they are kept, and on_frames gets what follows. Raises ValueError where motion
    and track do not cover the same frames.
    """
    if not np.array_equal(motion.frames, track.frames):
        raise ValueError("refine: motion and track cover different frames")
    trans = torch.from_numpy(motion.trans.astype(np.float64))
    rotmats = torch.from_numpy(motion.rotmats.astype(np.float64))
    shaped = shape_chain(build_chain(body), torch.from_numpy(motion.betas.astype(np.float64)))
    points = keypoints_of(shaped, rotmats, trans)
    directions = bone_directions(points)
    evidence = match_sides(read_evidence(track, camera), points)
    evidence = replace(
        evidence,
        depth=trans[:, 2],
        confidence=evidence.confidence**DOUBT,
        directions=directions,
        pair_confidence=torch.ones_like(directions[..., 0]),
    )
    anchor = Anchor(rotmats.clone(), trans.clone(), options.anchor_strength)
    done = 0 if known is None else len(known)
    if done:
        rotmats[:done] = torch.from_numpy(known.rotmats.astype(np.float64))
        trans[:done] = torch.from_numpy(known.trans.astype(np.float64))
    return solve_windows(
        track,
        evidence,
        shaped,
        rotmats,
        trans,
        load_prior(),
        options,
        anchor,
        on_frames,
        should_stop,
        on_progress,
        done,
    )


def carry_on(refined: CameraMotion, motion: CameraMotion, times: np.ndarray) -> CameraMotion:
    """`refined`, which a stop cut short, carried on by the motion it came from; the seam fades out over FADE_S.

    times [N] s are those of `motion`.
    """
    done = len(refined)
    if done in (0, len(motion)):
        return refined if done else motion
    before, after, rest = (torch.from_numpy(a) for a in (motion.rotmats, refined.rotmats, motion.rotmats[done:]))
    change = matrix_to_axis_angle(before[done - 1].mT @ after[done - 1])  # [J, 3]
    share = np.clip(1 - (times[done:] - times[done - 1]) / FADE_S, 0, 1).astype(np.float32)
    turns = axis_angle_to_matrix(torch.from_numpy(share)[:, None, None] * change)
    shift = share[:, None] * (refined.trans[-1] - motion.trans[done - 1])
    return replace(
        motion,
        rotmats=np.concatenate([refined.rotmats, (rest @ turns).numpy()]),
        trans=np.concatenate([refined.trans, motion.trans[done:] + shift]),
    )
