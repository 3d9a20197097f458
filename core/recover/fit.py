"""Method "fit": a person's motion from the detector's keypoints and landmarks alone, by optimisation.

0. where keypoints jump, left and right settled by continuity (readings.py)
1. first guess per frame in closed form (initial.py); left and right settled over time (sides.py)
2. one shape from frames spread over the clip (solve.solve_shape)
3. windows of a few seconds, each solved at once; a window sees some frames past those it hands on, and starts from
   two frames of the one before held fixed, so position and speed go on across the seam
Results are handed on window by window. core.recover.refine does step 3 from a given motion and stays near it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from core.records import Camera, CameraMotion, Track
from core.recover.anchor import Anchor
from core.recover.chain import Shaped, build_chain, pose_chain, shape_chain
from core.recover.evidence import Evidence, read_evidence
from core.recover.gravity import estimate_pitch, pitch_evidence
from core.recover.initial import drop_outliers, fill_gaps, guess_rotations, guess_translation
from core.recover.prior import PosePrior, load_prior
from core.recover.readings import settle_readings
from core.recover.sides import settle_sides
from core.recover.solve import graduated, solve_motion, solve_shape
from core.recover.terms import Sigmas

BLOCK = 256
"""Frames posed at a time."""
TIE = 2
"""Frames of the window before that a window starts from: smoothness spans three."""


@dataclass(frozen=True)
class FitOptions:
    window_s: float = 4.0
    """Seconds handed on at a time."""
    lookahead_s: float = 1.0
    """Seconds solved beyond them and thrown away."""
    window_frames: int = 160
    """Most frames handed on at a time, whatever the rate."""
    pitch_frames: int = 20
    shape_frames: int = 40
    shape_iterations: int = 12
    shape_weight: float = 1.0
    """How many independent frames the shape's frames count as, against the average body. The detector's errors are
    much the same in all of them: with 6, heights were off by 105 mm on rendered validation clips, now by 82."""
    coarse_iterations: int = 4
    """With outliers still pulling."""
    iterations: int = 8
    sigmas: Sigmas = field(default_factory=Sigmas)
    anchor_strength: float = 1.0
    """Of the pull towards a given motion (core.recover.refine)."""


Stop = Callable[[], bool]
Emit = Callable[[CameraMotion], None]
Report = Callable[[int, int], None]


def never() -> bool:
    """A `Stop` that does not."""
    return False


def ignore(*_) -> None:
    """An `Emit` or `Report` to nobody."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread meanwhile: many small products, which threads slow down tenfold where cores are shared."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


@one_thread()
def fit(
    track: Track,
    camera: Camera,
    body,
    *,
    device: str = "cpu",
    on_frames: Emit = ignore,
    should_stop: Stop = never,
    on_progress: Report = ignore,
    options: FitOptions = FitOptions(),
    known: CameraMotion | None = None,
) -> CameraMotion:
    """Recover one track. Stopped early it returns the frames that are done (possibly none).

    device is accepted for the sake of the other methods; the many small factorisations run fastest on the CPU.
    on_frames gets consecutive chunks that together make the result; on_progress (frames done, frames in all).
    known: the first frames of the result as an earlier, interrupted call handed them on; they are kept, and on_frames
    gets what follows.
    """
    track = settle_readings(track).track
    chain, prior, evidence = build_chain(body), load_prior(), read_evidence(track, camera)
    mean_shape = shape_chain(chain, torch.zeros(chain.shape_count, dtype=torch.float64))
    evidence = settle(evidence, guess_motion(evidence, mean_shape)[1], should_stop)
    rotmats, trans = guess_motion(evidence, mean_shape)
    evidence = replace(evidence, depth=trans[:, 2])
    chosen = choose_shape_frames(evidence, options.pitch_frames)
    if len(chosen):
        pitch = estimate_pitch(
            chain, evidence[chosen], rotmats[chosen], trans[chosen], prior, options.sigmas, should_stop
        )
        evidence = pitch_evidence(evidence, pitch)
        rotmats, trans = guess_motion(evidence, mean_shape)
        evidence = replace(evidence, depth=trans[:, 2])
    chosen = choose_shape_frames(evidence, options.shape_frames)
    done = 0 if known is None else len(known)
    if done:
        shaped = shape_chain(chain, torch.from_numpy(known.betas.astype(np.float64)))
    elif len(chosen):
        shaped, _ = solve_shape(
            chain,
            evidence[chosen],
            rotmats[chosen],
            trans[chosen],
            prior,
            graduated(options.sigmas, 1.5),
            iterations=options.shape_iterations,
            effective_frames=options.shape_weight,
            should_stop=should_stop,
        )
    else:
        shaped = mean_shape
    rotmats, trans = guess_motion(evidence, shaped, rotmats)
    if done:
        rotmats[:done] = torch.from_numpy(known.rotmats.astype(np.float64))
        trans[:done] = torch.from_numpy(known.trans.astype(np.float64))
    return solve_windows(
        track, evidence, shaped, rotmats, trans, prior, options, None, on_frames, should_stop, on_progress, done
    )


def settle(evidence: Evidence, trans: Tensor, should_stop: Stop = never) -> Evidence:
    """Evidence with the detector's exchanges of left and right undone; as it is where asked to stop."""
    return settle_sides(evidence, trans, should_stop=should_stop)[0]


def guess_motion(evidence: Evidence, shaped: Shaped, rotmats: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """First rotations [N, J, 3, 3] (kept where given) and translations [N, 3] of all frames, gaps filled."""
    if rotmats is None:  # in blocks: guessing and posing take far more memory than their results
        rotmats = torch.cat([guess_rotations(block, shaped) for block in evidence.points.split(BLOCK)])
        rotmats[:, 0] = drop_outliers(rotmats[:, 0], evidence.usable)
    blocks = rotmats.split(BLOCK)
    zeros = torch.zeros(BLOCK, 3, dtype=torch.float64)
    points = torch.cat([pose_chain(shaped, block, zeros[: len(block)]).points for block in blocks])
    trans = guess_translation(points, evidence.rays, evidence.confidence)
    rotmats, trans = fill_gaps(rotmats, trans, evidence.times, evidence.usable)
    return rotmats, steady_depth(trans, evidence)


def steady_depth(trans: Tensor, evidence: Evidence, half_width_s: float = 0.5) -> Tensor:
    """Replace depth by its running median along each ray: single frames say little of it."""
    times, depth = evidence.times, trans[:, 2]
    low = torch.searchsorted(times, times - half_width_s)
    high = torch.searchsorted(times, times + half_width_s, right=True)
    steady = torch.stack([depth[a:b].median() for a, b in zip(low.tolist(), high.tolist())])
    return trans * (steady / depth)[:, None]


def choose_shape_frames(evidence: Evidence, count: int) -> Tensor:
    """Indices of at most `count` usable frames spread in time, the surest of each stretch."""
    known = evidence.usable.nonzero().squeeze(1)
    if len(known) <= count:
        return known
    score = evidence.confidence[known].sum(1)
    bounds = torch.linspace(0, len(known), count + 1).round().long().tolist()
    return torch.stack([known[a + int(score[a:b].argmax())] for a, b in zip(bounds, bounds[1:])])


def window_bounds(times: np.ndarray, options: FitOptions) -> list[tuple[int, int, int]]:
    """Windows as (first frame handed on, end of those, end of frames solved)."""
    N, bounds, start = len(times), [], 0
    while start < N:
        end = int(np.searchsorted(times, times[start] + options.window_s))
        end = min(max(end, start + 1), start + options.window_frames, N)
        seen = int(np.searchsorted(times, times[end - 1] + options.lookahead_s, side="right"))
        seen = min(seen, end + options.window_frames // 2)
        if N - end < (end - start) // 4:  # no tiny last window
            end = seen = N
        bounds.append((start, end, max(seen, end)))
        start = end
    return bounds


def solve_windows(
    track: Track,
    evidence: Evidence,
    shaped: Shaped,
    rotmats: Tensor,
    trans: Tensor,
    prior: PosePrior,
    options: FitOptions,
    anchor: Anchor | None,
    on_frames: Emit,
    should_stop: Stop,
    on_progress: Report,
    done: int = 0,
) -> CameraMotion:
    """The windows after the first `done` frames, which are final already."""
    N = len(track)
    rotmats, trans = rotmats.clone(), trans.clone()
    for start, end, seen in window_bounds(track.times, options):
        if end <= done:
            continue
        if should_stop():
            break
        start = max(start, done)
        first = max(start - TIE, 0)
        span, fixed = slice(first, seen), start - first
        part = None if anchor is None else anchor[span]
        solution = None
        R, t = rotmats[span], trans[span]
        for sigmas, iterations in (
            (graduated(options.sigmas, 3.0), options.coarse_iterations),
            (options.sigmas, options.iterations),
        ):
            if not iterations:
                continue
            solution = solve_motion(
                shaped, evidence[span], R, t, prior, sigmas,
                iterations=iterations, fixed=fixed, anchor=part, should_stop=should_stop,
            )  # fmt: skip
            R, t = solution.rotmats, solution.trans
        if should_stop():
            break
        rotmats[span], trans[span] = R, t
        done = end
        on_frames(_to_record(track, shaped, rotmats, trans, slice(start, end)))
        on_progress(done, N)
    return _to_record(track, shaped, rotmats, trans, slice(0, done))


def _to_record(track: Track, shaped: Shaped, rotmats: Tensor, trans: Tensor, span: slice) -> CameraMotion:
    return CameraMotion(
        person=track.person,
        frames=track.frames[span],
        rotmats=rotmats[span].numpy().astype(np.float32),
        trans=trans[span].numpy().astype(np.float32),
        betas=shaped.betas.numpy().astype(np.float32),
        confidence=track.confidence[span],
    )
