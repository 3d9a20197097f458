"""Rendered clips and films side by side: what can be said without truth, measured alike on both.

Films have no truth, so whether rendered clips stand for them shows only in what needs none: how far the motion is off
the detector's own keypoints, how it shakes, how often it turns over. Where a method's row differs little between the
two, its errors on rendered clips may be believed for films. README.md lists the columns.
"""

from __future__ import annotations

import numpy as np

from core.evaluate.footage import measure_footage, measure_landmarks
from core.evaluate.testset import TestClip
from core.records import CameraMotion

COLUMNS = ("people", "reprojection", "reprojection_90", "jitter", "jitter_24", "limb_variation_pct",
           "limb_asymmetry_pct", "flipped_pct", "covered")  # fmt: skip
RENDERED, FILMED = "rendered", "filmed"


class Domains:
    """Collects measures person by person (a rendered clip is one person); ask for `table` at the end."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[dict[str, float]]] = {}

    def add_clip(self, clip: TestClip, motions: dict[str, CameraMotion], body) -> None:
        """A rendered clip and what the methods made of it."""
        self._add("detector", RENDERED, measure_landmarks(clip.track, clip.camera))
        for name, motion in motions.items():
            if len(motion):
                self._add(name, RENDERED, measure_footage(motion, clip.track, clip.camera, body))

    def add_film(self, table: dict[str, dict[str, float]]) -> None:
        """One person of a film: rows as films.evaluate_film gives them."""
        for name, values in table.items():
            self._add(name, FILMED, values)

    def table(self) -> dict[str, dict[str, float]]:
        """ "METHOD, DOMAIN" -> column -> mean over the people, each weighing alike; methods together."""
        names = list(dict.fromkeys(name for name, _ in self._rows))
        result = {}
        for name in names:
            for domain in (RENDERED, FILMED):
                rows = self._rows.get((name, domain), [])
                if rows:
                    columns = {c: _mean([row.get(c, np.nan) for row in rows]) for c in COLUMNS if c != "people"}
                    result[f"{name}, {domain}"] = {"people": len(rows), **columns}
        return result

    def _add(self, name: str, domain: str, values: dict[str, float]) -> None:
        self._rows.setdefault((name, domain), []).append(values)


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
