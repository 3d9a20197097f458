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
COLUMNS = ("mpjpe", "pa_mpjpe", "mpvpe", "accel", "angle_deg", "keypoint_mm", "keypoint_pa_mm", "keypoint_accel",
           "sideways_mm", "depth_wobble", "covered", "fps", "failed")  # fmt: skip


def evaluate(clips: Iterable[TestClip], methods: dict[str, Method], body) -> dict[str, dict[str, float]]:
    """Mean measures per method, frames weighing alike; "detector" is always there.

    A clip on which a method fails with an expected error is left out of its means and counted in `failed`.
    """
    sums: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in ("detector", *methods)}
    failed = dict.fromkeys(sums, 0)
    for clip in clips:
        found = {"detector": measure_detector(clip, body)}
        for name, method in methods.items():
            began = time.perf_counter()
            try:
                motion = method(clip)
            except HyperMocapError as error:
                log.warning("%s failed on %s: %s", name, clip.name, error)
                failed[name] += 1
                continue
            seconds = time.perf_counter() - began
            found[name] = measure_motion(motion, clip, body) | {"fps": len(motion.frames) / seconds}
        for name, values in found.items():
            log.info("%s on %s: %s", name, clip.name, " ".join(f"{k} {v:.3g}" for k, v in values.items()))
            for key, value in values.items():
                sums[name].setdefault(key, []).append((value, len(clip.track)))
    table = {}
    for name, columns in sums.items():
        table[name] = {key: _mean(pairs) for key, pairs in columns.items()}
        table[name]["failed"] = failed[name]
    return table


def _mean(pairs: list[tuple[float, float]]) -> float:
    values = np.array(pairs, dtype=np.float64)
    values = values[np.isfinite(values[:, 0])]
    return float(np.average(values[:, 0], weights=values[:, 1])) if len(values) else float("nan")


def format_table(table: dict[str, dict[str, float]], columns: tuple[str, ...] = COLUMNS) -> str:
    """Markdown table, one row per method; a dash where a method has no such number."""
    used = [c for c in columns if any(c in row for row in table.values())]
    rows = [["method", *used], ["---"] * (len(used) + 1)]
    for name, values in table.items():
        rows.append([name, *(_number(values.get(c)) for c in used)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
