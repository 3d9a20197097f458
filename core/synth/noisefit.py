"""Fit the noise model's parameters to the detector's errors on rendered clips, and summarise those errors.

Order: which sides are exchanged (a limb is taken as exchanged where the other side's truth explains it far better);
then, on frames that are not, where the detector puts each point in the body's axes; then a constant of each clip and
two first-order processes from the covariance of the rest at lags 0 and 2; then hidden points, lost limbs, gaps,
confidence; then the same for the 3D landmarks after taking out scale and rotation.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from core.rotation import matrix_to_axis_angle, nearest_rotation
from core.skeleton import KEYPOINT_COUNT, KEYPOINT_NAMES
from core.synth.detector_errors import LIMBS, Errors
from core.synth.noise import (
    LARGEST_ERROR,
    LIMB_COUNT,
    NoiseParameters,
)

LOST_ERROR = 0.15
"""A limb whose mean error exceeds this share of the crop's side is lost."""
CLIPPED = 0.2
SHORTEST_SWAP = 12.0
"""Frames. On films of people the detector keeps sides exchanged for dozens of frames while the face is hidden;
rendered clips show this less, so the mean duration is held above this."""
MEDIAN_OF_CHI_SQUARED = 0.455
"""Of one degree of freedom: turns a median of squares into a variance."""


def summarise(clips: list[Errors]) -> list[str]:
    """Lines of a table: per joint the median and 90 % error, then the shares of exchanged and missing frames."""
    present = torch.cat([c.present for c in clips])
    raw = torch.cat([c.raw for c in clips])[present]
    error = torch.cat([c.error for c in clips])[present].norm(dim=-1)
    confidence = torch.cat([c.confidence for c in clips])[present]
    lines = [f"{len(clips)} clips, {len(present)} frames; errors in percent of the crop's side (1.25 x the body's)"]
    lines.append("keypoint         median   90 %   99 %   sides mended: median   90 %   confidence")
    for k, name in enumerate(KEYPOINT_NAMES):
        r, e = (torch.quantile(v[:, k] * 100, torch.tensor([0.5, 0.9, 0.99])) for v in (raw, error))
        numbers = f"{r[0]:6.2f} {r[1]:6.2f} {r[2]:6.2f}                 {e[0]:6.2f} {e[1]:6.2f}"
        lines.append(f"{name:<15} {numbers}       {confidence[:, k].mean():.2f}")
    whole = torch.cat([c.whole for c in clips])
    pairs = torch.cat([c.pairs for c in clips])
    facing = torch.cat([c.axes[:, 2, 2] for c in clips])
    for label, where in (("facing", facing < -0.5), ("side", facing.abs() <= 0.5), ("back", facing > 0.5)):
        if int(where.sum()):
            lines.append(f"sides exchanged, {label:<6} view: {100 * whole[where].float().mean():5.1f} % of frames")
    lines.append(
        f"arms alone {100 * pairs[:, 0].float().mean():.1f} %, legs alone {100 * pairs[:, 1].float().mean():.1f} %"
    )
    lines.append(f"nobody seen {100 * (~present).float().mean():.1f} %")
    X, Y = torch.cat([c.landmarks3d for c in clips])[present], torch.cat([c.truth3d for c in clips])[present]
    lines.append(f"3D landmarks: mean error {1000 * (X - Y).norm(dim=-1).mean():.0f} mm with sides mended")
    return lines


def fit(clips: list[Errors], start: NoiseParameters) -> NoiseParameters:
    """Parameters that reproduce the errors; what the clips do not tell is kept from `start`."""
    result = _fit_exchange(clips, start)
    lost = [_lost(c) for c in clips]
    result = _fit_points(clips, lost, result)
    result = _fit_spells(clips, lost, result)
    result = _fit_confidence(clips, lost, result)
    return _fit_3d(clips, lost, result)


def _starts(state: Tensor) -> Tensor:
    """[T, ...] bool: true where a spell begins (not on the first frame)."""
    begin = torch.zeros_like(state)
    begin[1:] = state[1:] & ~state[:-1]
    return begin


def _rate_and_duration(states: list[Tensor]) -> tuple[float, float]:
    """Starts per free frame and mean length of spells in bool series [T, ...]."""
    starts = sum(int(_starts(s).sum()) for s in states)
    on = sum(int(s.sum()) for s in states)
    free = sum(int((~s).sum()) for s in states)
    whole = starts + sum(int(s[0].sum()) for s in states)
    return starts / max(free, 1), max(1.0, on / max(whole, 1))


def _fit_exchange(clips: list[Errors], start: NoiseParameters) -> NoiseParameters:
    """Exchange begins at rate a + b max(facing away, 0) + c side_on^4, by non-negative least squares over frames."""
    _, duration = _rate_and_duration([c.whole for c in clips])
    away = torch.cat([c.axes[:, 2, 2].clamp_min(0) for c in clips]).numpy()
    side = torch.cat([c.axes[:, 2, 0].abs() ** 4 for c in clips]).numpy()
    whole = torch.cat([c.whole for c in clips]).numpy()
    design = np.stack([np.ones_like(away), away, side], 1)
    share, _ = nnls(design, whole.astype(np.float64))  # share of frames = rate x duration
    rate = share / max(duration, SHORTEST_SWAP)
    pair_rate, pair_duration = _rate_and_duration([c.pairs for c in clips])
    pair = torch.cat([c.pairs for c in clips]).any(-1).numpy()
    both, _ = nnls(design[:, [0, 2]], pair.astype(np.float64))
    return replace(
        start,
        swap_rate=float(max(rate[0], 1e-4)),
        swap_rate_back=float(rate[1]),
        swap_rate_side=float(rate[2]),
        swap_duration=float(max(duration, SHORTEST_SWAP)),
        limb_swap_rate=float(max(pair_rate, 1e-4)),
        limb_swap_side=float(np.clip(both[1] / max(both[0], 1e-4), 0, 20)),
        limb_swap_duration=float(pair_duration),
    )


def _lost(c: Errors) -> Tensor:
    """[T, LIMB_COUNT] bool."""
    size = c.error.norm(dim=-1)
    return torch.stack([size[:, LIMBS == i].mean(1) > LOST_ERROR for i in range(LIMB_COUNT)], -1)


def _fit_points(clips: list[Errors], lost: list[Tensor], p: NoiseParameters) -> NoiseParameters:
    """Place of the points, clip constants, slow and fast processes, gains of hidden and lost points."""
    good = [c.present[:, None] & ~l[:, LIMBS] & ~c.outside for c, l in zip(clips, lost)]
    offset = torch.zeros((KEYPOINT_COUNT, 3))
    for k in range(KEYPOINT_COUNT):
        rows = torch.cat([c.axes[g[:, k] & ~c.whole][:, :2].reshape(-1, 3) for c, g in zip(clips, good)])
        values = torch.cat([c.error[g[:, k] & ~c.whole][:, k].reshape(-1) for c, g in zip(clips, good)])
        offset[k] = _robust_solve(rows, values, 0.012)
    seen: list[Tensor] = []
    for c in clips:
        own = torch.einsum("tij,kj->tki", c.axes, offset)[..., :2]
        seen.append((c.error - own).clamp(-CLIPPED, CLIPPED))
    plain = [g & ~c.hidden for c, g in zip(clips, good)]
    clip, slow, fast = [], [], []
    for k in range(KEYPOINT_COUNT):
        a, b, d = _processes([(s[:, k], ok[:, k]) for s, ok in zip(seen, plain)], p)
        clip.append(a)
        slow.append(b)
        fast.append(d)

    tail = []
    for i in range(LIMB_COUNT):
        sizes = torch.cat([s.norm(dim=-1)[:, LIMBS == i][ok[:, LIMBS == i]] for s, ok in zip(seen, plain)])
        tail.append(_tail(sizes))

    def spread(masks: list[Tensor]) -> float:
        values = torch.cat([s.norm(dim=-1)[m] for s, m in zip(seen, masks)])
        return float(values.median()) if len(values) > 20 else math.nan

    usual = spread(plain)
    hidden = spread([g & c.hidden for c, g in zip(clips, good)]) / usual
    gone = spread([c.present[:, None] & l[:, LIMBS] for c, l in zip(clips, lost)]) / usual
    return replace(
        p,
        offset=_table(offset),
        clip=tuple(clip),
        slow=tuple(slow),
        fast=tuple(fast),
        tail=tuple(tail),
        crop_shift=0.002,
        crop_scale=0.005,
        hidden_gain=p.hidden_gain if math.isnan(hidden) else max(1.0, hidden),
        lost_gain=p.lost_gain if math.isnan(gone) else max(2.0, gone),
    )


def _robust_solve(rows: Tensor, values: Tensor, scale: float) -> Tensor:
    """x [3] of least sum of Huber losses of rows [M, 3] x - values [M], drawn a little to zero, by reweighting."""
    weight = torch.ones_like(values)
    ridge = torch.eye(3) * 0.002 * len(rows)
    x = torch.zeros(3)
    for _ in range(8):
        weighted = rows * weight[:, None]
        x = torch.linalg.solve(weighted.T @ rows + ridge, weighted.T @ values)
        weight = scale / (rows @ x - values).abs().clamp_min(scale)
    return x


def _tail(sizes: Tensor) -> float:
    """Deviation of the log factor that gives lengths of 2D normal errors this ratio of 90 % quantile to median."""
    if len(sizes) < 100:
        return 0.3
    wanted = float(torch.quantile(sizes, 0.9) / torch.quantile(sizes, 0.5))
    generator = torch.Generator().manual_seed(0)
    rayleigh = torch.randn((20000, 2), generator=generator).norm(dim=-1)
    swell = torch.randn(20000, generator=generator)
    ratios = {}
    for sigma in torch.arange(0, 1.51, 0.05).tolist():
        drawn = rayleigh * torch.exp(sigma * swell)
        ratios[sigma] = float(torch.quantile(drawn, 0.9) / torch.quantile(drawn, 0.5))
    return min(ratios, key=lambda sigma: abs(ratios[sigma] - wanted))


def _processes(series: list[tuple[Tensor, Tensor]], p: NoiseParameters) -> tuple[float, float, float]:
    """Deviation of the clips' means and of the two processes, per axis, from (values [T, C], usable [T]) series."""
    means, zero, two = [], [], []
    for values, ok in series:
        if int(ok.sum()) < 12:
            continue
        mean = values[ok].mean(0)
        rest = values - mean
        means.append(mean)
        zero.append((rest[ok] ** 2).mean())
        both = ok[2:] & ok[:-2]
        if int(both.sum()):
            two.append((rest[2:][both] * rest[:-2][both]).mean())
    if len(means) < 2:
        return 0.01, 0.01, 0.005
    lag0, lag2 = float(torch.stack(zero).median()), float(torch.stack(two).median())
    s, f = p.slow_correlation**2, p.fast_correlation**2
    slow = min(max((lag2 - f * lag0) / (s - f), 0.0), lag0)
    spread = float(torch.stack(means).pow(2).median()) / MEDIAN_OF_CHI_SQUARED
    return math.sqrt(spread), math.sqrt(slow), math.sqrt(max(lag0 - slow, 1e-8))


def _fit_spells(clips: list[Errors], lost: list[Tensor], p: NoiseParameters) -> NoiseParameters:
    """How often limbs are lost with and without being hidden, how long, and gaps without anybody."""
    share = []
    for c in clips:
        unseen = (c.hidden | c.outside).float()
        share.append(torch.stack([unseen[:, LIMBS == i].mean(1) for i in range(LIMB_COUNT)], -1))
    _, duration = _rate_and_duration([l & c.present[:, None] for c, l in zip(clips, lost)])
    x = torch.cat(share).reshape(-1).numpy()
    y = torch.cat([l & c.present[:, None] for c, l in zip(clips, lost)]).reshape(-1).numpy()
    level, _ = nnls(np.stack([np.ones_like(x), x], 1), y.astype(np.float64))
    gap_rate, gap_duration = _rate_and_duration([~c.present for c in clips])
    return replace(
        p,
        lost_rate=float(max(level[0] / duration, 3e-4)),
        lost_rate_hidden=float(level[1] / duration),
        lost_duration=float(duration),
        gap_rate=float(max(gap_rate, 1e-4)),
        gap_duration=float(gap_duration),
    )


def _fit_confidence(clips: list[Errors], lost: list[Tensor], p: NoiseParameters) -> NoiseParameters:
    """Slope of the logit of the visibility over the error within points; its mean per point and state; its spread."""
    logits, sizes, states = [], [], []
    for c, l in zip(clips, lost):
        state = torch.where(c.hidden, 1, 0)
        state = torch.where(l[:, LIMBS], 2, state)
        state = torch.where(c.outside, 3, state)
        logits.append(torch.logit(c.confidence.clamp(1e-3, 1 - 1e-3))[c.present])
        sizes.append(c.error.norm(dim=-1).clamp_max(LARGEST_ERROR)[c.present])
        states.append(state[c.present])
    logit, size, state = torch.cat(logits), torch.cat(sizes), torch.cat(states)
    plain = (state == 0).float()
    mean_x = (size * plain).sum(0) / plain.sum(0).clamp_min(1)
    mean_y = (logit * plain).sum(0) / plain.sum(0).clamp_min(1)
    x, y = (size - mean_x) * plain, (logit - mean_y) * plain
    slope = max(0.0, -float((x * y).sum() / (x * x).sum().clamp_min(1e-9)))
    level = logit + slope * size

    def mean(which: Tensor, fallback: float) -> float:
        return float(level[which].mean()) if int(which.sum()) > 30 else fallback

    usual = [
        mean((state == 0) & (torch.arange(KEYPOINT_COUNT) == k), p.confidence_seen[k]) for k in range(KEYPOINT_COUNT)
    ]
    unseen = [mean((state == 1) & (torch.arange(KEYPOINT_COUNT) == k), usual[k] - 1) for k in range(KEYPOINT_COUNT)]
    spread = [float(level[:, k][state[:, k] == 0].std()) for k in range(KEYPOINT_COUNT)]
    return replace(
        p,
        confidence_seen=tuple(usual),
        confidence_hidden=tuple(unseen),
        confidence_lost=mean(state == 2, p.confidence_lost),
        confidence_outside=mean(state == 3, p.confidence_outside),
        confidence_slope=slope,
        confidence_spread=tuple(v if math.isfinite(v) else 1.0 for v in spread),
    )


def _fit_3d(clips: list[Errors], lost: list[Tensor], p: NoiseParameters) -> NoiseParameters:
    """Size, depth, rotation and point noise of the 3D landmarks."""
    sizes, depths, turns, rest, usable, axes, parts2d = [], [], [], [], [], [], []
    for c, l in zip(clips, lost):
        ok = c.present & ~l.any(-1)
        if int(ok.sum()) < 12:
            continue
        X, Y = c.landmarks3d[ok], c.truth3d[ok]
        R = nearest_rotation(X.transpose(-1, -2) @ Y)  # X = R Y
        turned = Y @ R.transpose(-1, -2)
        flat = float((X[..., :2] * turned[..., :2]).sum() / (turned[..., :2] ** 2).sum())
        deep = float((X[..., 2] * turned[..., 2]).sum() / (turned[..., 2] ** 2).sum())
        sizes.append(flat / c.standard)
        depths.append(deep / flat)
        turns.append(torch.rad2deg(matrix_to_axis_angle(R)))
        rest.append(X - turned * torch.tensor([flat, flat, deep]))
        axes.append(R @ c.axes[ok])
        usable.append((~c.hidden & ~c.outside)[ok])
        parts2d.append(c.error[ok] * c.metres[ok][:, None, None])
    offset = torch.zeros((KEYPOINT_COUNT, 3))
    for k in range(KEYPOINT_COUNT):
        rows = torch.cat([a[u[:, k]].reshape(-1, 3) for a, u in zip(axes, usable)])
        values = torch.cat([r[u[:, k]][:, k].reshape(-1) for r, u in zip(rest, usable)])
        offset[k] = _robust_solve(rows, values, 0.03)
    rest = [r - torch.einsum("tij,kj->tki", a, offset) for r, a in zip(rest, axes)]
    x = torch.cat([part[u].reshape(-1) for part, u in zip(parts2d, usable)]).clamp(-0.15, 0.15)
    y = torch.cat([r[..., :2][u].reshape(-1) for r, u in zip(rest, usable)]).clamp(-0.15, 0.15)
    share = float((x * y).sum() / (x * x).sum().clamp_min(1e-9))
    share = min(max(share, 0.0), 1.0)
    rest = [torch.cat([r[..., :2] - share * q, r[..., 2:]], -1) for r, q in zip(rest, parts2d)]
    tables: list[list[tuple[float, float]]] = [[], [], []]
    for k in range(KEYPOINT_COUNT):
        wide = _processes([(r[:, k, :2].clamp(-0.2, 0.2), u[:, k]) for r, u in zip(rest, usable)], p)
        deep = _processes([(r[:, k, 2:].clamp(-0.3, 0.3), u[:, k]) for r, u in zip(rest, usable)], p)
        for table, pair in zip(tables, zip(wide, deep)):
            table.append(pair)
    turn = torch.cat(turns)
    return replace(
        p,
        size_scale=(float(np.median(sizes)), float(np.std(sizes))),
        depth_scale=(float(np.median(depths)), float(np.clip(np.std(depths), 0.02, 0.3))),
        turn_deg=tuple(float(v) for v in (turn.abs().median(0).values * 1.4826)),
        offset3d=_table(offset),
        clip3d=tuple(tables[0]),
        slow3d=tuple(tables[1]),
        fast3d=tuple(tables[2]),
        share2d=share,
    )


def _table(values: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in values)
