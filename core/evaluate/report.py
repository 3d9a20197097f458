"""Run methods over test clips and put the means in a table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import numpy as np

from core.errors import HyperMocapError
from core.evaluate.measure import measure_detector, measure_motion
from core.evaluate.testset import TestClip
from core.records import CameraMotion

log = logging.getLogger(__name__)

Method = Callable[[TestClip], CameraMotion]
Watch = Callable[[TestClip, dict[str, CameraMotion]], None]
COLUMNS = ("mpjpe", "scale_mpjpe", "turn_mpjpe", "pa_mpjpe", "mpvpe", "accel", "angle_deg", "height_mm",
           "limb_ratio_pct", "keypoint_mm", "keypoint_pa_mm", "keypoint_accel", "flipped_pct", "longest_flip",
           "sideways_mm", "depth_wobble", "covered", "fps", "failed")  # fmt: skip
WORST = ("longest_flip",)
"""Columns that tell the largest value of all clips, not their mean."""


def evaluate(
    clips: Iterable[TestClip], methods: dict[str, Method], body, *, watch: Watch | None = None
) -> dict[str, dict[str, float]]:
    """Mean measures per method, the frames it gave weighing alike; "detector" is always there.

    A clip on which a method fails with an expected error is left out of its means and counted in `failed`. `watch`
    gets every clip with the motions that the methods made of it.
    """
    sums: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in ("detector", *methods)}
    failed = dict.fromkeys(sums, 0)
    for clip in clips:
        found, motions = {"detector": measure_detector(clip, body)}, {}
        for name, method in methods.items():
            began = time.perf_counter()
            try:
                motion = method(clip)
            except HyperMocapError as error:
                log.warning("%s failed on %s: %s", name, clip.name, error)
                failed[name] += 1
                continue
            seconds = time.perf_counter() - began
            motions[name] = motion
            found[name] = measure_motion(motion, clip, body) | {"fps": len(motion.frames) / seconds}
        for name, values in found.items():
            log.info("%s on %s: %s", name, clip.name, " ".join(f"{k} {v:.3g}" for k, v in values.items()))
            for key, value in values.items():
                frames = len(clip.track) * (1.0 if key == "covered" else values["covered"])
                sums[name].setdefault(key, []).append((value, frames))
        if watch is not None:
            watch(clip, motions)
    table = {}
    for name, columns in sums.items():
        table[name] = {key: (_worst if key in WORST else _mean)(pairs) for key, pairs in columns.items()}
        table[name]["failed"] = failed[name]
    return table


def _mean(pairs: list[tuple[float, float]]) -> float:
    values = np.array(pairs, dtype=np.float64)
    values = values[np.isfinite(values[:, 0]) & (values[:, 1] > 0)]
    return float(np.average(values[:, 0], weights=values[:, 1])) if len(values) else float("nan")


def _worst(pairs: list[tuple[float, float]]) -> float:
    return max((value for value, _ in pairs if np.isfinite(value)), default=float("nan"))


def format_table(
    table: dict[str, dict[str, float]], columns: tuple[str, ...] | None = COLUMNS, *, corner: str = "method"
) -> str:
    """Markdown table, one line per row of `table`; a dash where it has no such number. columns: None is all there
    are. corner: what the rows are."""
    columns = columns or tuple(dict.fromkeys(key for row in table.values() for key in row))
    used = [c for c in columns if any(c in row for row in table.values())]
    rows = [[corner, *used], ["---"] * (len(used) + 1)]
    for name, values in table.items():
        rows.append([name, *(_number(values.get(c)) for c in used)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    if value == int(value):
        return str(int(value))
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
