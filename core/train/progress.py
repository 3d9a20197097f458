"""What training leaves behind for people: lines of text, a JSON-lines history and a plot of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np

log = logging.getLogger(__name__)

NOT_DRAWN = ("rate", "frames_per_s", "gradient")


class History:
    """Append-only history of one training run in `history.jsonl`."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict] = []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]

    def add(self, stage: str, kind: str, step: int, seconds: float, values: dict[str, float]) -> None:
        """kind: "loss" or "validation"."""
        row = {"stage": stage, "kind": kind, "step": step, "seconds": round(seconds, 1)}
        row.update({name: round(float(value), 6) for name, value in values.items()})
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        numbers = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        log.info("%s %s step %d %.0f s: %s", stage, kind, step, seconds, numbers)

    def series(self, stage: str, kind: str, name: str) -> np.ndarray:
        """[n, 2] of (seconds, value)."""
        rows = [r for r in self.rows if r["stage"] == stage and r["kind"] == kind and name in r]
        return np.array([[r["seconds"], r[name]] for r in rows], dtype=np.float64).reshape(-1, 2)

    def names(self, stage: str, kind: str) -> list[str]:
        found = {k for r in self.rows if r["stage"] == stage and r["kind"] == kind for k in r}
        return sorted(found - {"stage", "kind", "step", "seconds"})


def draw_history(history: History, path: str | Path) -> None:
    """Draw losses (left, logarithmic) and validation metrics (right) of every stage as one PNG."""
    panels = []
    stages = list(dict.fromkeys(r["stage"] for r in history.rows))
    for stage in stages:
        row = []
        for kind, is_log in (("loss", True), ("validation", False)):
            names = [n for n in history.names(stage, kind) if n not in NOT_DRAWN]
            curves = {n: history.series(stage, kind, n) for n in names}
            row.append(_panel(f"{stage} {kind}", curves, is_log=is_log))
        panels.append(np.concatenate(row, axis=1))
    if panels:
        cv2.imwrite(str(path), np.concatenate(panels, axis=0))


def _panel(
    title: str, curves: dict[str, np.ndarray], *, is_log: bool, width: int = 760, height: int = 520
) -> np.ndarray:
    image = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(image, title, (12, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    curves = {name: c[np.isfinite(c).all(1)] for name, c in curves.items() if len(c)}
    if is_log:
        curves = {name: np.stack((c[:, 0], np.log10(np.maximum(c[:, 1], 1e-9))), 1) for name, c in curves.items()}
    points = np.concatenate(list(curves.values())) if curves else np.zeros((0, 2))
    if not len(points):
        return image
    low, high = points.min(0), points.max(0)
    span = np.maximum(high - low, 1e-9)
    for i, (name, curve) in enumerate(sorted(curves.items())):
        hue = np.uint8([[[int(180 * i / len(curves)), 220, 180]]])
        colour = tuple(int(v) for v in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
        xy = (curve - low) / span * [width - 260, -(height - 90)] + [60, height - 40]
        cv2.polylines(image, [np.rint(xy).astype(np.int32)], False, colour, 2, cv2.LINE_AA)
        last = 10 ** curve[-1, 1] if is_log else curve[-1, 1]
        label = f"{name} {last:.4g}"
        cv2.putText(image, label, (width - 190, 50 + 18 * i), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    ticks = 10 ** low[1] if is_log else low[1], 10 ** high[1] if is_log else high[1]
    for value, y in zip(ticks, (height - 40, 50)):
        cv2.putText(image, f"{value:.3g}", (6, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (90, 90, 90), 1, cv2.LINE_AA)
    cv2.putText(image, f"{high[0]:.0f} s", (width - 250, height - 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (90, 90, 90), 1)
    return image
